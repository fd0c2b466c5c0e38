"""Questions that arrive while one is being answered share the next statement: no timer, never an old answer unless
the asker can live with one.

Alone a question costs one small query; a thousand clients that come back after a restart cost a few large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_BATCH = 500
MAX_KEPT = 10_000


class Desk(Generic[K, V]):
    """Asks `read` for the keys that have gathered, one call at a time; belongs to one event loop.

    `keep`: seconds for which what was found (never that nothing was) is told again without asking.
    """

    def __init__(
        self,
        read: Callable[[list[K]], Awaitable[Mapping[K, V]]],
        max_batch: int = MAX_BATCH,
        keep: float = 0.0,
    ) -> None:
        self._read = read
        self._max_batch = max_batch
        self._keep = keep
        self._kept: dict[K, V] = {}
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def ask(self, key: K) -> V | None:
        """What `read`, called after this, says about the key; None when it says nothing. Raises what it raises."""
        if (known := self._kept.get(key)) is not None:
            return known
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
                    if self._keep:
                        self._remember(found)
        finally:
            self._task = None

    def _remember(self, found: Mapping[K, V]) -> None:
        if not self._kept:
            # All at once, at the age of the oldest: no answer is older than it may be, and nothing has to be sorted.
            asyncio.get_running_loop().call_later(self._keep, self._kept.clear)
        if len(self._kept) < MAX_KEPT:
            self._kept.update(found)
