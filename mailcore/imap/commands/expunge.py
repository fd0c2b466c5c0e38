"""EXPUNGE and UID EXPUNGE: remove messages marked as deleted (RFC 9051 §6.4.3, RFC 4315, RFC 7162 §3.2.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from mailcore import db
from mailcore.imap import updates
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import expunge as store_expunge
from mailcore.store.acl import Right
from mailcore.wire.imap.commands import Command, NumbersArgs


@command("EXPUNGE", state=SELECTED)
async def expunge(session: Session, command: Command) -> Done:
    """Remove every message marked as deleted."""
    return await _expunge(session, None)


@command("UID EXPUNGE", state=SELECTED)
async def uid_expunge(session: Session, command: Command) -> Done:
    """Remove those of the named messages that are marked as deleted."""
    args = cast(NumbersArgs, command.args)
    view = session.view
    uids = view.pick(view.slices(args.numbers, uid=True))
    return await _expunge(session, uids)


async def _expunge(session: Session, uids: Sequence[int] | None) -> Done:
    view = session.view
    if view.read_only:
        raise no("The mailbox is open for reading only", "READ-ONLY")
    if not view.rights & Right.EXPUNGE:
        raise no("You have no right to expunge in this mailbox", "NOPERM")
    async with db.transaction() as tx:
        done = await store_expunge.expunge(tx, view.account_id, view.mailbox_id, uids)
        view.note_own(done.modseq)
    view.expunged(done.uids)
    return Done(
        "EXPUNGE completed", await updates.removed(session, done.modseq if session.enabled & Enabled.CONDSTORE else 0)
    )
