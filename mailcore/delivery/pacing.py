"""How many connections at a time: to one next hop, and in all.

A `Window` is Postfix's concurrency scheduler for one next hop: it begins with a few connections, grows by one with each
delivery until the first trouble and slowly after it, and shrinks by one with each connection that fails and each reply
that says "too much". `Places` shares out the connections of the process: hops that were slow or out of reach the last
time have to make do with a part of them, so that however many there are, somebody quick finds a place at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

# Postfix: initial_destination_concurrency 5, default_destination_concurrency_limit 20.
START = 4
# Seconds per message above which a hop counts as slow.
SLOW = 1.5
# How much the latest message tells about a hop's speed.
_WEIGHT = 0.3
KEEP = 20_000


class Pace(Enum):
    """What is known of a hop when a connection is wanted."""

    QUICK = "quick"  # or not known yet
    SLOW = "slow"
    SUSPECT = "suspect"  # nobody answered the last time


class Window:
    """The connections to one next hop."""

    def __init__(self, limit: int, start: int = START) -> None:
        self.limit = limit
        self.size = float(min(start, limit))
        self.busy = 0
        self.connected = 0  # of those, how many have a session that works
        self.seconds: float | None = None  # of a message, lately
        self._troubled = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for a connection to end."""
        return bool(self._waiting)

    @property
    def is_slow(self) -> bool:
        return self.seconds is not None and self.seconds > SLOW

    @property
    def has_room(self) -> bool:
        return self.busy < int(self.size) and not self._waiting

    def succeeded(self, seconds: float) -> None:
        """A message was taken, or refused for reasons of its own, in so many seconds."""
        self.seconds = seconds if self.seconds is None else self.seconds + _WEIGHT * (seconds - self.seconds)
        self.size = min(float(self.limit), self.size + (1 / self.size if self._troubled else 1.0))
        self._let_in()

    def strained(self) -> None:
        """A connection failed, or the hop said that we are too much for it."""
        self._troubled = True
        self.size = max(1.0, min(self.size, float(self.busy or 1)) - 1)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, in the order of asking, and keep it."""
        if self.has_room:
            self.busy += 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self.busy -= 1
            self._let_in()

    async def _wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._waiting:
                self._waiting.remove(future)
            elif future.done() and not future.cancelled():
                self.busy -= 1  # the place had been given already
                self._let_in()
            raise

    def _let_in(self) -> None:
        while self._waiting and self.busy < int(self.size):
            future = self._waiting.popleft()
            if not future.done():
                self.busy += 1
                future.set_result(None)


class Windows:
    """The windows of an engine by next hop; those that nobody has used for long are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Window] = OrderedDict()

    def of(self, key: str, limit: int) -> Window:
        window = self._known.get(key)
        if window is None:
            window = self._known[key] = Window(limit)
            while len(self._known) > KEEP and not (first := next(iter(self._known.values()))).busy:
                if first.is_wanted:
                    break
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
            window.limit = limit
            window.size = min(window.size, float(limit))
        return window


class Places:
    """The connections of a process, `total` of them."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._all = asyncio.Semaphore(total)
        self._share = {
            Pace.SLOW: asyncio.Semaphore(max(1, total // 2)),
            Pace.SUSPECT: asyncio.Semaphore(max(1, total // 4)),
        }
        self.taken = 0

    @property
    def are_scarce(self) -> bool:
        """Too few are left for anybody to have more than he needs."""
        return self.taken * 4 >= self.total * 3

    @asynccontextmanager
    async def place(self, pace: Pace) -> AsyncIterator[None]:
        """Wait for a place and keep it. Who has to share waits for the share first, and takes none from others then."""
        share = self._share.get(pace)
        if share is None:
            async with self._held():
                yield
        else:
            async with share, self._held():
                yield

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        async with self._all:
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1
