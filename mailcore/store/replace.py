"""REPLACE: a message takes the place of another (RFC 8508)."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.db import Tx
from mailcore.errors import Code, MailError
from mailcore.store import locks
from mailcore.store.append import Appended, Incoming, append
from mailcore.store.expunge import expunge


@dataclass(frozen=True, slots=True)
class Replaced:
    """Where the new message went, and the modseq of the old one's leaving."""

    stored: Appended
    modseq: int


async def replace(tx: Tx, item: Incoming, account_id: int, mailbox_id: int, uid: int) -> Replaced:
    """Remove a message, whatever its flags, and store another, which may need the room that the old one had.

    Raises STATE_MISMATCH when the old one is gone already, NOT_FOUND (mailbox), OVER_QUOTA, BAD_VALUE; the caller's
    transaction is to be rolled back then.
    """
    for account in sorted({account_id, item.account_id}):
        await locks.lock_account(tx, account)
    removed = await expunge(tx, account_id, mailbox_id, [uid], deleted_only=False)
    if not removed.uids:
        raise MailError(Code.STATE_MISMATCH, "the message has been expunged already")
    (stored,) = await append(tx, [item])
    if isinstance(stored, MailError):
        raise stored
    return Replaced(stored, removed.modseq)
