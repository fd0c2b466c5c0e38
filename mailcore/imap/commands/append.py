"""APPEND, MULTIAPPEND and CATENATE: messages from the client into a mailbox.

RFC 9051 §6.3.12, RFC 3502, 4315, 4469, 6855, 7889. What REPLACE (RFC 8508) shares with them is here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, cast

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.imap import catenate
from mailcore.imap.capabilities import Enabled
from mailcore.imap.catenate import Slice
from mailcore.imap.errors import bad, no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.upload import Upload
from mailcore.mime import Derived
from mailcore.store import acl, mailboxes, quota
from mailcore.store.acl import Right
from mailcore.store.append import Appended, Incoming
from mailcore.store.flags import ALL_FLAGS, FLAGGED, SYSTEM_FLAGS
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import AppendArgs, AppendMessage, CatenateUrl, Command, ReplaceArgs
from mailcore.wire.imap.frames import Literal, StreamedLiteral
from mailcore.wire.imap.numset import NumSet

if TYPE_CHECKING:
    from mailcore.imap.session import Session

T = TypeVar("T")
Part = Literal | StreamedLiteral | Slice
_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages go. `mailbox_id` 0 = INBOX; `flags` are those that they may have there, keywords with FLAGGED."""

    account_id: int
    mailbox_id: int = 0
    flags: int = ALL_FLAGS


async def check(session: Session, tag: str, args: AppendArgs | ReplaceArgs, size: int) -> None:
    """Refuse a message that the client has announced and not yet sent. Raises Refused or MailError."""
    if session.identity is None:
        raise no("Log in first")
    replacing = isinstance(args, ReplaceArgs)
    _check_kind(session, args.message if isinstance(args, ReplaceArgs) else args.messages[-1])
    if replacing and (session.selected is None or session.selected.read_only):
        raise no("REPLACE needs a mailbox that is selected for writing", "READ-ONLY")
    async with db.read() as tx:
        found = await _mailbox(tx, session, args.mailbox)
        session.append_to = (tag, found)
        # What is replaced makes room: how much, the transaction knows.
        if not replacing and not (await quota.get(tx, found.account_id)).allows(size):
            raise MailError(Code.OVER_QUOTA, "the mailbox is full")


@command("APPEND", state=LOGGED_IN)
async def append(session: Session, command: Command) -> Done:
    """Store one message or several, all or none; answers after the commit, with the UIDs (APPENDUID)."""
    args = cast(AppendArgs, command.args)
    into = await target(session, command.tag, args.mailbox)
    async with incoming(session, into, args.messages) as items:
        results = await session.server.ingest.add(items, atomic=True)
    return Done("APPEND completed", _appenduid(args.mailbox, results))


async def target(session: Session, tag: str, name: str) -> Target:
    """The mailbox that a message goes to. Raises Refused (TRYCREATE), and NO_PERMISSION."""
    if name == mailboxes.INBOX:
        return Target(session.account_id)  # always there: nothing to look up
    if session.append_to is not None and session.append_to[0] == tag:
        return session.append_to[1]
    async with db.read() as tx:
        return await _mailbox(tx, session, name)


@asynccontextmanager
async def incoming(session: Session, into: Target, messages: Sequence[AppendMessage]) -> AsyncIterator[list[Incoming]]:
    """The messages ready to be stored, in memory for as long as the process's budget is held.

    Raises Refused and MailError for what is not stored: too big, empty, a URL of nothing, a flag that is none.
    """
    for message in messages:
        _check_kind(session, message)
    server = session.server
    sources = await _sources(session, messages)
    sizes = [sum(map(_size, parts)) for parts in sources]
    if max(sizes) > server.message_size:
        raise MailError(Code.TOO_BIG, f"messages are limited to {server.message_size} octets")
    if sum(sizes) > 2 * server.message_size:
        raise MailError(Code.TOO_BIG, "the messages of one APPEND are too big together")
    held = await server.uploads.acquire(sum(sizes))
    try:
        yield [await _incoming(session, into, message, parts) for message, parts in zip(messages, sources, strict=True)]
    finally:
        server.uploads.release(held)


def split_flags(flags: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """System flags as bits, and keywords. Raises Refused for system flags that a client cannot set."""
    bits = 0
    keywords = []
    for flag in flags:
        if not flag.startswith("\\"):
            keywords.append(flag)
        elif (bit := _BITS.get(flag.lower())) is not None:
            bits |= bit
        elif flag.lower() != "\\recent":
            raise no(f"There is no system flag {flag}", "CANNOT")
    return bits, tuple(keywords)


async def _mailbox(tx: db.Tx, session: Session, name: str) -> Target:
    try:
        place = (await acl.resolve(tx, session.account_id, name)).require(Right.INSERT)
        return Target(place.account_id, place.mailbox.id, place.flags)
    except MailError as error:
        if error.code is Code.NOT_FOUND:
            raise no("There is no such mailbox", "TRYCREATE") from None
        raise


def _check_kind(session: Session, message: AppendMessage) -> None:
    if message.utf8 and not session.enabled & Enabled.UTF8:
        raise bad("UTF8 needs ENABLE UTF8=ACCEPT before")


async def _sources(session: Session, messages: Sequence[AppendMessage]) -> list[list[Part]]:
    """The parts of each message, URLs looked up."""
    if not any(message.catenate for message in messages):
        return [list(cast(tuple[Part, ...], message.parts)) for message in messages]
    async with db.read() as tx:
        return [
            [
                await catenate.find(tx, session, part.url) if isinstance(part, CatenateUrl) else part
                for part in message.parts
            ]
            for message in messages
        ]


def _size(part: Part) -> int:
    return len(part.data) if isinstance(part, Literal) else part.size


async def _incoming(session: Session, into: Target, message: AppendMessage, parts: Sequence[Part]) -> Incoming:
    gathered: list[Literal | StreamedLiteral] = []
    for part in parts:
        if isinstance(part, Slice):
            async with db.read() as tx:
                gathered.append(Literal(await catenate.read(tx, part)))
        else:
            gathered.append(part)
    raw, derived = await _apart(session, sum(map(_size, parts)), _assemble, session.upload, gathered)
    if not raw:
        raise no("An empty message is not stored", "CANNOT")
    flags, keywords = split_flags(message.flags)
    if not into.flags & FLAGGED:
        keywords = ()
    when = _storable(message.internaldate)
    return Incoming(into.account_id, into.mailbox_id, raw, derived, flags & into.flags, keywords, when)


def _assemble(upload: Upload | None, parts: Sequence[Literal | StreamedLiteral]) -> tuple[bytes, Derived]:
    octets = [part.data if isinstance(part, Literal) else cast(Upload, upload).take(part.index) for part in parts]
    raw = octets[0] if len(octets) == 1 else b"".join(octets)
    return raw, mime.parse(raw)


async def _apart(session: Session, size: int, work: Callable[..., T], *args: object) -> T:
    """Do what takes longer for large messages in a thread."""
    if size <= session.server.limits.thread:
        return work(*args)
    return await asyncio.get_running_loop().run_in_executor(None, work, *args)


def _storable(when: datetime | None) -> datetime | None:
    """Dates before the epoch are no dates of arrival: they become it, so that every client can read them back."""
    return when if when is None else max(when, _EPOCH)


def _appenduid(name: str, results: Sequence[Appended | MailError]) -> bytes:
    stored = []
    for result in results:
        if isinstance(result, MailError):
            if result.code is Code.NOT_FOUND:
                raise no(f"The mailbox {name} is gone", "TRYCREATE")
            raise result
        stored.append(result)
    return response.appenduid_code(stored[0].uidvalidity, NumSet.of(item.uid for item in stored))
