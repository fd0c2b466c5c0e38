"""What a method call knows of the request it belongs to, and the table of methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from mailcore import db
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory
from mailcore.jmap import limits
from mailcore.jmap.auth import Caller
from mailcore.jmap.errors import MethodError
from mailcore.jmap.http import Gone, Receive, disconnected
from mailcore.store import changes
from mailcore.store.ingest import Ingest
from mailcore.turns import Overdue, Turns

T = TypeVar("T")
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
    turns: Turns = field(
        default_factory=lambda: Turns(
            searches=limits.MAX_SEARCHES,
            at_once=limits.MAX_SEARCHES_OF_ONE,
            seconds=limits.SEARCH_SECONDS,
            patience=limits.PATIENCE,
        )
    )
    """Who searches, and who waits for that."""


@dataclass(slots=True)
class Context:
    """One request under way. `also` takes responses of implicit calls, which follow the call's own."""

    caller: Caller
    services: Services
    created: dict[str, str] = field(default_factory=dict)
    also: list[tuple[str, Json]] = field(default_factory=list)
    receive: Receive | None = None
    """Says when the client has hung up, once its request is there."""
    _state: int | None = None

    @property
    def account_id(self) -> int:
        return self.caller.account_id

    async def state(self, tx: db.Tx) -> str:
        """The state to report with what is read now. It may be older than the data, never newer: nothing is missed."""
        if self._state is None:
            self._state = await changes.state(tx, self.account_id)
        return str(self._state)

    async def search(self, work: Awaitable[T]) -> T:
        """Run a search when its turn has come; it ends when its client hangs up. Raises serverUnavailable."""
        turns, client = self.services.turns, object()

        def hung_up(watch: asyncio.Task[None]) -> None:
            if not watch.cancelled():
                watch.exception()  # whatever it was, nobody listens any more
                turns.abandon(client)

        watch = None
        if self.receive is not None:
            watch = asyncio.create_task(disconnected(self.receive))
            watch.add_done_callback(hung_up)
        try:
            return await turns.search(self.account_id, client, work)
        except Overdue as error:
            raise MethodError("serverUnavailable", f"{error.text[:1].upper()}{error.text[1:]}.") from None
        except asyncio.CancelledError:
            if watch is not None and watch.done():
                cast("asyncio.Task[object]", asyncio.current_task()).uncancel()
                raise Gone from None
            raise
        finally:
            if watch is not None:
                watch.cancel()

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
