"""GETACL, SETACL, DELETEACL, LISTRIGHTS, MYRIGHTS: who may do what in a mailbox (RFC 4314).

Identifiers are addresses of accounts of the owner's domain, and "anyone", which means all of them. There are no
negative rights. Every command that meets a mailbox asks store.acl what the session may do there.
"""

from __future__ import annotations

from typing import Literal, cast

from mailcore import db
from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl
from mailcore.store.acl import Place, Right
from mailcore.wire.imap.acl import RightsArgs, SetAclArgs, acl_line, listrights_line, myrights_line
from mailcore.wire.imap.commands import Command, MailboxArgs


@command("GETACL", state=LOGGED_IN)
async def getacl(session: Session, command: Command) -> Done:
    """Say who has which rights; only who administers the mailbox may know."""
    args = cast(MailboxArgs, command.args)
    async with db.read() as tx:
        place = await _administered(tx, session, args.mailbox)
        found = await acl.entries(tx, place)
    entries = [(who, acl.spell(rights)) for who, rights in found]
    session.send(acl_line(place.name, entries, utf8=session.utf8))
    return Done("GETACL completed")


@command("SETACL", state=LOGGED_IN)
async def setacl(session: Session, command: Command) -> Done:
    """Set, add or take rights of an identifier."""
    args = cast(SetAclArgs, command.args)
    how = cast(Literal["=", "+", "-"], args.how)
    await _change(session, args.mailbox, args.identifier, how, acl.parse(args.rights))
    return Done("SETACL completed")


@command("DELETEACL", state=LOGGED_IN)
async def deleteacl(session: Session, command: Command) -> Done:
    """Take all rights of an identifier."""
    args = cast(RightsArgs, command.args)
    await _change(session, args.mailbox, args.identifier, "=", acl.NONE)
    return Done("DELETEACL completed")


@command("LISTRIGHTS", state=LOGGED_IN)
async def listrights(session: Session, command: Command) -> Done:
    """Say which rights can be granted to an identifier: to the owner none, he has them all."""
    args = cast(RightsArgs, command.args)
    async with db.read() as tx:
        place = await _administered(tx, session, args.mailbox)
        grantee = await _find(tx, place, args.identifier)
    if grantee == place.account_id:
        required, optional = acl.spell(acl.EVERY), ""
    else:
        required, optional = "", acl.spell(acl.EVERY)
    session.send(listrights_line(place.name, args.identifier, required, optional, utf8=session.utf8))
    return Done("LISTRIGHTS completed")


@command("MYRIGHTS", state=LOGGED_IN)
async def myrights(session: Session, command: Command) -> Done:
    """Say what the client may do in a mailbox."""
    args = cast(MailboxArgs, command.args)
    async with db.read() as tx:
        place = await acl.resolve(tx, session.account_id, args.mailbox)
    session.send(line(session, place))
    return Done("MYRIGHTS completed")


def line(session: Session, place: Place) -> bytes:
    """* MYRIGHTS name rights."""
    return myrights_line(place.name, acl.spell(place.rights), utf8=session.utf8)


async def _administered(tx: db.Tx, session: Session, name: str) -> Place:
    return (await acl.resolve(tx, session.account_id, name)).require(Right.ADMINISTER)


async def _find(tx: db.Tx, place: Place, identifier: str) -> int:
    if identifier.startswith("-"):
        raise no("There are no negative rights here", "CANNOT")
    return await acl.find(tx, place, identifier)


async def _change(session: Session, name: str, identifier: str, how: Literal["=", "+", "-"], rights: Right) -> None:
    async with db.transaction() as tx:
        place = await _administered(tx, session, name)
        await _find(tx, place, identifier)
        await acl.change(tx, place, identifier, how, rights)
