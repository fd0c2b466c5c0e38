"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 §6.3.4 to §6.3.8, RFC 6154 for special uses)."""

from __future__ import annotations

from typing import cast

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl, mailboxes
from mailcore.store.acl import Right
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, CreateArgs, MailboxArgs, RenameArgs
from mailcore.wire.imap.mailbox_name import MailboxNameError, check_new_name, parents


@command("CREATE", state=LOGGED_IN)
async def create(session: Session, command: Command) -> Done:
    """Make a mailbox and the levels above it; with USE, say what it is for."""
    args = cast(CreateArgs, command.args)
    _check(args.mailbox)
    if len(args.special_use) > 1:
        raise no("A mailbox has one special use at most", "USEATTR")
    use = args.special_use[0] if args.special_use else None
    session.own_names(args.mailbox, *parents(args.mailbox))
    try:
        async with db.transaction() as tx:
            account_id, name = await acl.resolve_new(tx, session.account_id, args.mailbox)
            if use is not None and account_id != session.account_id:
                raise no("Special uses in a mailbox of somebody else are not yours to say", "USEATTR")
            mailbox = await mailboxes.create(tx, account_id, name, use)
    except MailError as error:
        if use is not None and error.code is Code.BAD_VALUE:
            raise no(error.text, "USEATTR") from None
        raise
    mailbox_id = response.object_id(session.object_id("F", account_id, mailbox.id))
    return Done("CREATE completed", response.code("MAILBOXID", mailbox_id))


@command("DELETE", state=LOGGED_IN)
async def delete(session: Session, command: Command) -> Done:
    """Remove a mailbox with its messages; other sessions that have it selected are told BYE."""
    args = cast(MailboxArgs, command.args)
    view = session.selected
    session.own_names(args.mailbox)
    async with db.transaction() as tx:
        place = (await acl.resolve(tx, session.account_id, args.mailbox)).require(Right.DELETE_MAILBOX)
        await mailboxes.delete(tx, place.account_id, place.mailbox.name)
    if view is not None and (view.account_id, view.mailbox_id) == (place.account_id, place.mailbox.id):
        session.deselect()
        session.send(response.status_line(None, "OK", "The selected mailbox is deleted", "CLOSED"))
    return Done("DELETE completed")


@command("RENAME", state=LOGGED_IN)
async def rename(session: Session, command: Command) -> Done:
    """Rename a mailbox and those below it; of INBOX, move its messages to a new mailbox."""
    args = cast(RenameArgs, command.args)
    _check(args.target)
    session.own_names(args.source, args.target, *parents(args.target))
    async with db.transaction() as tx:
        place = (await acl.resolve(tx, session.account_id, args.source)).require(Right.DELETE_MAILBOX)
        account_id, name = await acl.resolve_new(tx, session.account_id, args.target)
        if account_id != place.account_id:
            raise no("A mailbox stays with its owner: make one there and move the messages", "CANNOT")
        await mailboxes.rename(tx, account_id, place.mailbox.name, name)
    return Done("RENAME completed")


@command("SUBSCRIBE", state=LOGGED_IN)
async def subscribe(session: Session, command: Command) -> Done:
    """Add a name to those that the person wants to see; it need not exist."""
    args = cast(MailboxArgs, command.args)
    session.own_names(args.mailbox)
    async with db.transaction() as tx:
        await mailboxes.subscribe(tx, session.account_id, args.mailbox)
    return Done("SUBSCRIBE completed")


@command("UNSUBSCRIBE", state=LOGGED_IN)
async def unsubscribe(session: Session, command: Command) -> Done:
    """Take a name from those that the person wants to see."""
    args = cast(MailboxArgs, command.args)
    session.own_names(args.mailbox)
    async with db.transaction() as tx:
        await mailboxes.unsubscribe(tx, session.account_id, args.mailbox)
    return Done("UNSUBSCRIBE completed")


def _check(name: str) -> None:
    """What IMAP cannot express or keeps for itself, beyond the store's own rules."""
    try:
        check_new_name(name)
    except MailboxNameError as error:
        raise no(str(error), "CANNOT") from None
