"""GETMETADATA and SETMETADATA: small named values beside mailboxes and the account (RFC 5464).

Of the server as a whole there is /shared/admin, which nobody can change over IMAP; /private entries of the mailbox ""
are the person's own. /private/specialuse is no entry but what the mailbox is used for (RFC 6154 §5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl, mailboxes, metadata
from mailcore.store.acl import Place, Right
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command
from mailcore.wire.imap.metadata import GetMetadataArgs, SetMetadataArgs, metadata_line

SPECIAL_USE = "/private/specialuse"
Values = dict[str, bytes | None]


@command("GETMETADATA", state=LOGGED_IN)
async def getmetadata(session: Session, command: Command) -> Done:
    """Say the values of entries; of what is larger than MAXSIZE only that it is there."""
    args = cast(GetMetadataArgs, command.args)
    account_id = session.account_id
    async with db.read() as tx:
        owner_id, mailbox_id, name = account_id, metadata.SERVER, ""
        if args.mailbox:
            place = _usable(await acl.resolve(tx, account_id, args.mailbox))
            owner_id, mailbox_id, name = place.account_id, place.mailbox.id, place.name
        found = (await metadata.get(tx, owner_id, [mailbox_id], account_id)).get(mailbox_id, {})
    found |= special_use(place) if args.mailbox else _of_the_server(session)
    values = _chosen(found, args.entries, args.depth)
    sizes = [len(value) for value in values.values() if value is not None]
    code = None
    if args.maxsize is not None and max(sizes, default=0) > args.maxsize:
        code = response.code("METADATA", b"LONGENTRIES", b"%d" % max(sizes))
        values = {key: value for key, value in values.items() if value is None or len(value) <= args.maxsize}
    if values:
        session.send(metadata_line(name, values, utf8=session.utf8))
    return Done("GETMETADATA completed", code)


@command("SETMETADATA", state=LOGGED_IN)
async def setmetadata(session: Session, command: Command) -> Done:
    """Set or remove entries, all or none."""
    args = cast(SetMetadataArgs, command.args)
    account_id, values = session.account_id, dict(args.values)
    if not args.mailbox and any(key.startswith("/shared/") for key in args.values):
        raise no("What is shared by the whole server is not set by mail programs", "NOPERM")
    try:
        async with db.transaction() as tx:
            owner_id, mailbox_id = account_id, metadata.SERVER
            if args.mailbox:
                place = _usable(await acl.resolve(tx, account_id, args.mailbox))
                if any(key.startswith("/shared/") for key in args.values):
                    place.require(Right.WRITE)
                owner_id, mailbox_id = place.account_id, place.mailbox.id
                if SPECIAL_USE in values:
                    await _use_for(tx, place, values.pop(SPECIAL_USE))
            if values:
                await metadata.put(tx, owner_id, mailbox_id, account_id, values)
    except MailError as error:
        if error.code is Code.TOO_BIG:
            raise no(error.text, response.code("METADATA", b"MAXSIZE", b"%d" % metadata.MAX_VALUE)) from None
        if error.code is Code.TOO_MANY:
            raise no(error.text, response.code("METADATA", b"TOOMANY")) from None
        raise
    return Done("SETMETADATA completed")


async def lines(tx: db.Tx, session: Session, places: Sequence[Place], entries: Sequence[str]) -> Mapping[str, bytes]:
    """What LIST says with RETURN (METADATA ...), by name of the mailbox (RFC 9590)."""
    found: dict[str, bytes] = {}
    by_account: dict[int, list[Place]] = {}
    for place in places if entries else ():
        if place.rights & acl.USING:
            by_account.setdefault(place.account_id, []).append(place)
    nothing: Mapping[str, bytes] = {}
    for account_id, its in by_account.items():
        values = await metadata.get(tx, account_id, [one.mailbox.id for one in its], session.account_id, entries)
        for one in its:
            chosen = _chosen({**values.get(one.mailbox.id, nothing), **special_use(one)}, entries, 0)
            found[one.name] = metadata_line(one.name, chosen, utf8=session.utf8)
    return found


def _usable(place: Place) -> Place:
    """To see a mailbox is not enough (RFC 5464 §3.3)."""
    if not place.rights & acl.USING:
        raise MailError(Code.NO_PERMISSION, "you have no right to use this mailbox")
    return place


def special_use(place: Place) -> dict[str, bytes]:
    """The entry that says what a mailbox is used for, if it says anything: for its owner alone."""
    use = place.known.special_use
    return {} if use is None else {SPECIAL_USE: use.encode()}


async def _use_for(tx: db.Tx, place: Place, value: bytes | None) -> None:
    """Set what a mailbox is used for, as CREATE does (RFC 6154 §5.4). Raises Refused (USEATTR)."""
    if place.owner:
        raise no("Special uses of a mailbox of somebody else are not yours to say", "USEATTR")
    words = (value or b"").decode("utf-8", "replace").split()
    if words and place.mailbox.name == mailboxes.INBOX:
        raise no("INBOX is where mail comes in, and has no other use", "USEATTR")
    if len(words) > 1:
        raise no("A mailbox has one special use at most", "USEATTR")
    known = {use.lower(): use for use in mailboxes.SPECIAL_USES}
    use = known.get(words[0].lower(), words[0]) if words else None
    try:
        await mailboxes.set_special_use(tx, place.account_id, place.mailbox.id, use)
    except MailError as error:
        if error.code is Code.BAD_VALUE:
            raise no(error.text, "USEATTR") from None
        raise


def _of_the_server(session: Session) -> dict[str, bytes]:
    assert session.identity is not None
    return {"/shared/admin": f"mailto:postmaster@{session.identity.domain}".encode()}


def _chosen(found: Mapping[str, bytes], entries: Sequence[str], depth: int | None) -> Values:
    """The entries asked for, NIL when they have no value, and those below them as deep as wanted (RFC 5464 §4.2.2)."""
    chosen: Values = {}
    for key in entries:
        if depth == 0 or key in found:
            chosen[key] = found.get(key)
        if depth != 0:
            below = f"{key}/"
            for other, value in found.items():
                if other.startswith(below) and (depth is None or "/" not in other[len(below) :]):
                    chosen[other] = value
    return chosen
