"""The one place that hears of every refusal: it is logged, and what concerns a message becomes part of its history.

The history is written a moment later, many steps at a time, so that a flood of refusals costs neither the client's
session nor the database more than one small statement a moment; what floods is counted (`smtp.floods`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.inbound.envelope import Recipient
from mailcore.smtp.floods import Floods
from mailcore.store import trace
from mailcore.store.trace import Event
from mailcore.wire.smtp.path import split_path
from mailcore.wire.smtp.reply import CommandError
from mailcore.words import printable

if TYPE_CHECKING:
    from mailcore.smtp.session import Session

log = logging.getLogger(__name__)

# Seconds between a refusal and its place in the history, and between looks whether a number has to be written.
BREATH = 0.3
LOOK = 2.0
# Steps that are kept while the database is away; further ones are counted like a flood.
MAX_WAITING = 500
# Recipients of one refused message that have a step of their own.
MAX_RECIPIENTS = 20


class Book:
    """Refusals on their way into the history; belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: list[Event] = []
        self._floods = Floods()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def add(self, events: Sequence[Event]) -> None:
        """Write these soon, or count them."""
        now, at = time.monotonic(), datetime.now(UTC)
        for event in events:
            if self._floods.admit(event, now, at, room=len(self._waiting) < MAX_WAITING):
                self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Write what is left, now, numbers too."""
        self._closing.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._waiting += self._floods.due(time.monotonic(), all=True)
        if not await self._store() and self._waiting:
            log.warning("%d refusals are not in the history", len(self._waiting))

    async def _write(self) -> None:
        try:
            while (self._waiting or self._floods.counting) and not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), BREATH if self._waiting else LOOK)
                if len(self._waiting) < MAX_WAITING:
                    self._waiting += self._floods.due(time.monotonic())
                if not await self._store():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), LOOK)
        finally:
            self._task = None

    async def _store(self) -> bool:
        """Write what waits; False when the database is away: it goes on waiting."""
        events, self._waiting = self._waiting, []
        if not events:
            return True
        try:
            async with db.transaction() as tx:
                await trace.add(tx, events)
        except MailError as error:
            if error.code is Code.UNAVAILABLE:
                self._waiting = events + self._waiting
                return False
            log.warning("%d refusals are not in the history: %s", len(events), error.private or error.text)
        except asyncio.CancelledError:  # cut short: rather twice than not at all
            self._waiting = events + self._waiting
            raise
        except Exception:  # what cannot be written must not stand in the way of all that comes after
            log.exception("%d refusals are not in the history", len(events))
        return True


def note(
    session: Session,
    what: str,
    answer: bytes,
    private: str | None = None,
    *,
    argument: bytes = b"",
    recipients: Sequence[Recipient] = (),
    message_id: str | None = None,
) -> None:
    """A client was refused `what` (the connection, MAIL, RCPT, the message), and got this reply.

    `private` is what the client was not told, `argument` what it said after MAIL or RCPT, `recipients` whom a message
    would have gone to.
    """
    text = answer.decode("ascii").strip()
    current = session.transaction
    sender = current.sender.address if current is not None else _address(argument) if what == "MAIL" else ""
    log.info(
        "%s: %s refused%s: %s%s from=<%s> helo=%s: %s%s",
        session.policy.name,
        what,
        f" {current.trace_id}" if current is not None else "",
        session.source,
        " TLS" if session.tls else "",
        sender,
        session.helo or "-",
        text,
        f" ({private})" if private else "",
    )
    if what == "MAIL" or current is not None:
        addresses = [_address(argument)] if what == "RCPT" else [each.address for each in recipients[:MAX_RECIPIENTS]]
        _remember(session, "refused", sender, addresses or [None], message_id, at=what, reply=text, reason=private)


def broken_off(session: Session) -> None:
    """The connection ended in the middle of a message: nothing of it is here, and its sender has to try again."""
    current = session.transaction
    if current is None or not current.recipients:
        return
    log.info("%s: %s broke off in a message from=<%s>", session.policy.name, session.source, current.sender.address)
    addresses = [each.address for each in current.recipients[:MAX_RECIPIENTS]]
    _remember(session, "aborted", current.sender.address, addresses, None)


def _remember(
    session: Session, step: str, sender: str, recipients: Sequence[str | None], message_id: str | None, **more: object
) -> None:
    current = session.transaction
    name = current.trace_id if current is not None else trace.new_id()
    detail: dict[str, object] = {"from": session.source, "helo": session.helo, "protocol": session.protocol}
    if session.tls:
        detail["tls"] = str(session.tls)
    detail |= {key: value for key, value in more.items() if value}
    account_id = None
    if session.identity is not None:
        account_id = session.identity.account_id
        detail |= {"account": session.identity.address, "login": session.identity.how}
    session.server.refusals.add(
        [Event(name, step, account_id, None, sender, each, message_id, detail) for each in recipients]
    )


def _address(argument: bytes) -> str:
    """What stands between < and >, as far as it can be read."""
    try:
        return split_path("RCPT", b"TO:" + argument.partition(b":")[2])[0][:400]
    except CommandError:
        return printable(argument[:400].decode("utf-8", "replace"))
