"""EXPUNGE: messages leave a mailbox; what left stays known for QRESYNC and, for a while, for undelete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.store import locks
from mailcore.store.flags import DELETED, SEEN
from mailcore.wake import Change


@dataclass(frozen=True, slots=True)
class Expunged:
    """UIDs that left, ascending, and the modseq of their leaving (0 if none did)."""

    uids: list[int]
    modseq: int


_REMOVE = """
    WITH gone AS (
        DELETE FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint {which}
            RETURNING *)
    INSERT INTO expunged (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
    SELECT account_id, mailbox_id, uid, message_id, %(modseq)s::bigint, flags, keywords, internal_date, size FROM gone
    RETURNING uid, flags, size"""

_SOME = "AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint AND uid = ANY(%(uids)s::bigint[])"
REMOVE_DELETED = sql(_REMOVE.format(which=f"AND flags & {DELETED} <> 0"))
REMOVE_SOME_DELETED = sql(_REMOVE.format(which=f"{_SOME} AND flags & {DELETED} <> 0"))
REMOVE_SOME = sql(_REMOVE.format(which=_SOME))


async def expunge(
    tx: Tx, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None, deleted_only: bool = True
) -> Expunged:
    """Remove messages: all with \\Deleted, those among `uids` (ascending), or just `uids` (RFC 9051 §6.4.3, RFC 4315).

    Raises NOT_FOUND (mailbox).
    """
    modseq = await locks.lock_account(tx, account_id) + 1
    await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    names = {"account": account_id, "mailbox": mailbox_id, "modseq": modseq}
    if uids is None:
        rows = await tx.fetch(REMOVE_DELETED, names)
    elif not uids:
        rows = []
    else:
        query = REMOVE_SOME_DELETED if deleted_only else REMOVE_SOME
        rows = await tx.fetch(query, {**names, "uids": list(uids), "lo": uids[0], "hi": uids[-1]})
    if not rows:
        return Expunged([], 0)
    await locks.next_modseq(tx, account_id)
    size = sum(row[2] for row in rows)
    await locks.count_mailbox(
        tx,
        account_id,
        mailbox_id,
        modseq,
        messages=-len(rows),
        unseen=-sum(1 for row in rows if not row[1] & SEEN),
        deleted=-sum(1 for row in rows if row[1] & DELETED),
        size=-size,
    )
    await locks.count_account(tx, account_id, -len(rows), -size)
    tx.changed(Change(account_id, mailbox_id, modseq, "gone"))
    return Expunged(sorted(row[0] for row in rows), modseq)
