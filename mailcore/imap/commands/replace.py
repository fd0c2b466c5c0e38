"""REPLACE and UID REPLACE: a message takes the place of another in one step (RFC 8508)."""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap import updates
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands import append
from mailcore.imap.errors import bad, no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import replace as store_replace
from mailcore.store.acl import Right
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, ReplaceArgs
from mailcore.wire.imap.numset import NumSet


@command("REPLACE", "UID REPLACE", state=SELECTED, uses_seqs=True)
async def replace(session: Session, command: Command) -> Done:
    """Store the new message and remove the old one, both or neither. APPENDUID comes before the EXPUNGE."""
    args = cast(ReplaceArgs, command.args)
    view = session.view
    if view.read_only:
        raise no("The mailbox is open for reading only", "READ-ONLY")
    if Right.DELETE | Right.EXPUNGE not in view.rights:
        raise no("You have no right to take messages out of this mailbox", "NOPERM")
    uid = _target(session, args.number, uid=command.uid)
    into = await append.target(session, command.tag, args.mailbox)
    async with append.incoming(session, into, (args.message,)) as (item,):
        try:
            async with db.transaction() as tx:
                done = await store_replace.replace(tx, item, view.account_id, view.mailbox_id, uid)
        except MailError as error:
            if error.code is Code.NOT_FOUND:
                raise no(f"The mailbox {args.mailbox} is gone", "TRYCREATE") from None
            if error.code is Code.STATE_MISMATCH:
                view.dirty = True
            raise
    stored = done.stored
    code = response.appenduid_code(stored.uidvalidity, NumSet.of((stored.uid,)))
    session.send(response.status_line(None, "OK", "The replacement is stored", code))
    view.expunged([uid])
    view.dirty = view.dirty or (into.account_id, stored.mailbox_id) == (view.account_id, view.mailbox_id)
    return Done(
        "REPLACE completed", await updates.removed(session, done.modseq if session.enabled & Enabled.QRESYNC else 0)
    )


def _target(session: Session, number: int, *, uid: bool) -> int:
    """The UID of the message to be replaced; number 0 is `*`."""
    uids = session.view.uids
    if number == 0 and uids:
        return uids[-1]
    if uid:
        if not session.view.seq(number):
            raise no("There is no such message", "NONEXISTENT")
        return number
    if not 1 <= number <= len(uids):
        raise bad(f"There is no message {number or '*'}: the mailbox has {len(uids)}")
    return uids[number - 1]
