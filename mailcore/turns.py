"""Work that may keep the database busy takes turns, so that nobody's searches keep others from logging in or reading.

An account has a few turns at a time, and all searches of a process together have half of its pool's connections:
whoever comes later waits in line. A search also has a limit of time. Decision 0013.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar, cast

from mailcore.errors import Code, MailError

T = TypeVar("T")
Key = tuple[int, bool]
Client = Hashable


class Overdue(MailError):
    """A search took too long, or its turn did not come in time."""


class Turns:
    """Who of this process works on something costly, and who waits for it."""

    def __init__(self, *, searches: int, at_once: int, seconds: float, patience: float | None = None) -> None:
        """`searches` at a time in all and `at_once` of an account, each for so many `seconds` when its turn has come;
        it waits `patience` seconds for that (None: as long as its client does)."""
        self._at_once, self._seconds, self._patience = at_once, seconds, patience
        self._all = asyncio.Semaphore(searches)
        self._searching: dict[Client, asyncio.Task[object]] = {}
        self._of: dict[Key, tuple[asyncio.Semaphore, int]] = {}

    async def search(self, account_id: int, client: Client, work: Awaitable[T]) -> T:
        """Run a search when its turn has come. Raises Overdue, CancelledError when its client has left."""
        self._searching[client] = cast("asyncio.Task[object]", asyncio.current_task())
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._patience):
                        await held.enter_async_context(self._turn((account_id, True)))
                        await held.enter_async_context(self._all)
                except TimeoutError:
                    raise Overdue(Code.UNAVAILABLE, "too many searches at once: try again in a moment") from None
                try:
                    async with asyncio.timeout(self._seconds):
                        return await work
                except TimeoutError:
                    raise Overdue(Code.TOO_MANY, "this search takes too long: ask for less at a time") from None
        finally:
            self._searching.pop(client, None)
            _close(work)

    async def change(self, account_id: int, work: Awaitable[T]) -> T:
        """Run what changes much of an account when its turn has come."""
        try:
            async with self._turn((account_id, False)):
                return await work
        finally:
            _close(work)

    def abandon(self, client: Client) -> None:
        """The client has left: nobody wants to know what its search finds."""
        if (task := self._searching.pop(client, None)) is not None:
            task.cancel()

    @asynccontextmanager
    async def _turn(self, key: Key) -> AsyncIterator[None]:
        semaphore, users = self._of.get(key) or (asyncio.Semaphore(self._at_once), 0)
        self._of[key] = semaphore, users + 1
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._of.pop(key)
            if users > 1:
                self._of[key] = semaphore, users - 1


def _close(work: Awaitable[object]) -> None:
    if asyncio.iscoroutine(work):
        work.close()  # its turn may never have come
