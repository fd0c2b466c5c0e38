"""COPY, MOVE and their UID forms (RFC 9051 §6.4.7, §6.4.8, RFC 6851)."""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap import messagelimit, updates
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl, transfer
from mailcore.store.acl import Right
from mailcore.store.flags import ALL_FLAGS
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, CopyArgs


@command("COPY", "UID COPY", state=SELECTED, uses_seqs=True)
async def copy(session: Session, command: Command) -> Done:
    """Copy messages, all or none, to the end of another mailbox."""
    done = await _transfer(session, command, moving=False)
    return Done("COPY completed", _copyuid(done)) if done.source_uids else Done("No message was there to copy")


@command("MOVE", "UID MOVE", state=SELECTED, uses_seqs=True)
async def move(session: Session, command: Command) -> Done:
    """Move messages, all or none; COPYUID comes before the EXPUNGEs (RFC 6851 §4.3)."""
    if session.view.read_only:
        raise no("The mailbox is open for reading only", "READ-ONLY")
    if Right.DELETE | Right.EXPUNGE not in session.view.rights:
        raise no("You have no right to take messages out of this mailbox", "NOPERM")
    done = await _transfer(session, command, moving=True)
    if not done.source_uids:
        return Done("No message was there to move")
    session.send(response.status_line(None, "OK", "Moved", _copyuid(done)))
    session.view.expunged(done.source_uids)
    return Done(
        "MOVE completed", await updates.removed(session, done.modseq if session.enabled & Enabled.QRESYNC else 0)
    )


async def _transfer(session: Session, command: Command, *, moving: bool) -> transfer.Transferred:
    args = cast(CopyArgs, command.args)
    view = session.view
    slices = view.slices(args.numbers, uid=command.uid)
    messagelimit.check(session, slices)
    uids = view.pick(slices)
    async with db.transaction() as tx:
        try:
            target = (await acl.resolve(tx, session.account_id, args.mailbox)).require(Right.INSERT)
        except MailError as error:
            if error.code is Code.NOT_FOUND:
                raise no("There is no such mailbox", "TRYCREATE") from None
            raise
        here = (view.account_id, view.mailbox_id)
        there = (target.account_id, target.mailbox.id)
        if here[0] == there[0] and target.flags == ALL_FLAGS:
            verb = transfer.move if moving else transfer.copy
            done = await verb(tx, *here, uids, there[1])
        else:
            done = await transfer.across(tx, here, uids, there, keep=target.flags, moving=moving)
        if moving and here != there:
            view.note_own(done.modseq)
    if not command.uid and len(done.source_uids) < len(uids):
        # What is left of them was transferred; the client learns of the others with the next EXPUNGE.
        view.dirty = True
    return done


def _copyuid(done: transfer.Transferred) -> bytes:
    return response.copyuid_code(done.uidvalidity, done.source_uids, done.target_uids)
