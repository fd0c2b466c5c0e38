"""What a method call knows of the request it belongs to, and the table of methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailcore import db
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory
from mailcore.jmap.auth import Caller
from mailcore.store import changes
from mailcore.store.ingest import Ingest

Json = dict[str, Any]

LARGE_AT_ONCE = 3

CORE = "urn:ietf:params:jmap:core"
MAIL = "urn:ietf:params:jmap:mail"
SUBMISSION = "urn:ietf:params:jmap:submission"


@dataclass(frozen=True, slots=True)
class Services:
    """What the process lends to all requests."""

    ingest: Ingest
    receiver: Receiver
    directory: Directory
    hostname: str
    message_size: int
    spool: Path
    """Where uploads lie while they come in."""
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    """Held by whoever has a whole large thing in memory."""


@dataclass(slots=True)
class Context:
    """One request under way. `also` takes responses of implicit calls, which follow the call's own."""

    caller: Caller
    services: Services
    created: dict[str, str] = field(default_factory=dict)
    also: list[tuple[str, Json]] = field(default_factory=list)
    _state: int | None = None

    @property
    def account_id(self) -> int:
        return self.caller.account_id

    async def state(self, tx: db.Tx) -> str:
        """The state to report with what is read now. It may be older than the data, never newer: nothing is missed."""
        if self._state is None:
            self._state = await changes.state(tx, self.account_id)
        return str(self._state)

    def wrote(self) -> None:
        """The account was changed: states read before are old."""
        self._state = None

    def resolve(self, given: str) -> str:
        """An id, or the id of what `#creation-id` became in this request (RFC 8620 §5.3)."""
        if given.startswith("#"):
            return self.created.get(given[1:], given)
        return given


Method = Callable[[Context, Json], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A method: the capability it needs, the arguments it knows."""

    capability: str
    arguments: frozenset[str]
    run: Method


METHODS: dict[str, Entry] = {}


def method(name: str, capability: str, *arguments: str) -> Callable[[Method], Method]:
    """Enter a method into the table; all take accountId besides."""

    def enter(run: Method) -> Method:
        METHODS[name] = Entry(capability, frozenset(arguments), run)
        return run

    return enter
