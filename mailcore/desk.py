"""Questions that arrive while one is being answered share the next statement: no timer, no cache, never an old answer.

Alone a question costs one small query; a thousand clients that come back after a restart cost a few large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_BATCH = 500


class Desk(Generic[K, V]):
    """Asks `read` for the keys that have gathered, one call at a time; belongs to one event loop."""

    def __init__(self, read: Callable[[list[K]], Awaitable[Mapping[K, V]]], max_batch: int = MAX_BATCH) -> None:
        self._read = read
        self._max_batch = max_batch
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def ask(self, key: K) -> V | None:
        """What `read`, called after this, says about the key; None when it says nothing. Raises what it raises."""
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._work())
        return await asyncio.shield(answer)  # others may wait for it too

    async def _work(self) -> None:
        try:
            while self._waiting:
                keys = list(self._waiting)[: self._max_batch]
                answers = [self._waiting.pop(key) for key in keys]
                try:
                    found = await self._read(keys)
                except Exception as error:
                    for answer in answers:
                        answer.set_exception(error)
                        answer.exception()  # seen, even when everybody has hung up
                else:
                    for key, answer in zip(keys, answers, strict=True):
                        answer.set_result(found.get(key))
        finally:
            self._task = None
