"""APPEND and MULTIAPPEND: messages from the client into a mailbox (RFC 9051 §6.3.12, RFC 3502, 4315, 6855, 7889)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, cast

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import bad, no
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.upload import Upload
from mailcore.mime import Derived
from mailcore.store import mailboxes, quota
from mailcore.store.append import Appended, Incoming
from mailcore.store.flags import SYSTEM_FLAGS
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import AppendArgs, AppendMessage, Command
from mailcore.wire.imap.frames import Literal
from mailcore.wire.imap.numset import NumSet

if TYPE_CHECKING:
    from mailcore.imap.session import Session

T = TypeVar("T")
_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def check(session: Session, tag: str, args: AppendArgs, size: int) -> None:
    """Refuse a message that the client has announced and not yet sent. Raises Refused or MailError."""
    if session.identity is None:
        raise no("Log in first")
    _check_kind(session, args.messages[-1])
    async with db.read() as tx:
        session.append_to = (tag, await _target(tx, session, args.mailbox))
        if not (await quota.get(tx, session.account_id)).allows(size):
            raise MailError(Code.OVER_QUOTA, "the mailbox is full")


@command("APPEND", state=LOGGED_IN)
async def append(session: Session, command: Command) -> Done:
    """Store one message or several, all or none; answers after the commit, with the UIDs (APPENDUID)."""
    args = cast(AppendArgs, command.args)
    for message in args.messages:
        _check_kind(session, message)
    checked_tag, mailbox_id = session.append_to
    if args.mailbox == mailboxes.INBOX:
        mailbox_id = 0  # always there: nothing to look up
    elif checked_tag != command.tag:
        async with db.read() as tx:
            mailbox_id = await _target(tx, session, args.mailbox)
    server = session.server
    total = sum(_size(message) for message in args.messages)
    if total > 2 * server.message_size:
        raise MailError(Code.TOO_BIG, "the messages of one APPEND are too big together")
    held = await server.uploads.acquire(total)
    try:
        items = [await _incoming(session, mailbox_id, message) for message in args.messages]
        results = await server.ingest.add(items, atomic=True)
    finally:
        server.uploads.release(held)
    return Done("APPEND completed", _appenduid(args.mailbox, results))


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


async def _target(tx: db.Tx, session: Session, name: str) -> int:
    try:
        return (await mailboxes.by_name(tx, session.account_id, name)).id
    except MailError as error:
        if error.code is Code.NOT_FOUND:
            raise no("There is no such mailbox", "TRYCREATE") from None
        raise


def _check_kind(session: Session, message: AppendMessage) -> None:
    if message.catenate:
        raise no("CATENATE is not offered here", "CANNOT")
    if message.utf8 and not session.enabled & Enabled.UTF8:
        raise bad("UTF8 needs ENABLE UTF8=ACCEPT before")


def _size(message: AppendMessage) -> int:
    part = message.parts[0]
    return len(part.data) if isinstance(part, Literal) else part.size  # type: ignore[union-attr]  # no URL: _check_kind


async def _incoming(session: Session, mailbox_id: int, message: AppendMessage) -> Incoming:
    part = message.parts[0]
    if isinstance(part, Literal):
        raw, derived = part.data, await _apart(session, len(part.data), mime.parse, part.data)
    else:
        assert session.upload is not None
        raw, derived = await _apart(session, part.size, _take, session.upload, part.index)  # type: ignore[union-attr]  # no URL
    if not raw:
        raise no("An empty message is not stored", "CANNOT")
    flags, keywords = split_flags(message.flags)
    return Incoming(session.account_id, mailbox_id, raw, derived, flags, keywords, _storable(message.internaldate))


def _take(upload: Upload, index: int) -> tuple[bytes, Derived]:
    raw = upload.take(index)
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
