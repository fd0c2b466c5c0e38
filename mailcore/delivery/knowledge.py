"""What all workers know of the world outside, kept in Postgres: routing rules, and who could not be reached lately.

Each engine reads what is new of it every other second and writes down what it finds out. Between two readings it may
try in vain what another one has just found dead; a claim looks at the pauses themselves and is never wrong about one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

from mailcore import db
from mailcore.conf import Conf
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.plan import Plans
from mailcore.errors import MailError
from mailcore.store import destinations, routes
from mailcore.store.routes import Rule

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0
# Names that are remembered to have failed; the oldest is taken for a quick one again.
MAX_SUSPECTS = 50_000


class Knowledge:
    """One per engine."""

    def __init__(self, conf: Conf, memory: HostMemory) -> None:
        self._conf = conf
        self._memory = memory
        self._rules: Sequence[Rule] = ()
        self._plans = Plans(conf)
        self._suspects: OrderedDict[str, float] = OrderedDict()  # until when they are, by the monotonic clock
        self._read_until: datetime | None = None
        self._is_fresh = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def plans(self) -> Plans:
        """The rules as they are now."""
        return self._plans

    def is_suspect(self, name: str) -> bool:
        """Nobody answered there the last time."""
        return self._suspects.get(name, 0.0) > time.monotonic()

    async def ready(self) -> None:
        """Wait until it was read once: no mail may leave by another way than the rules say."""
        await self._is_fresh.wait()

    async def unreachable(self, name: str, reason: str) -> None:
        """Nobody answers at a destination: everybody leaves it alone for a while."""
        async with db.transaction() as tx:
            await destinations.pause(tx, name, reason)
            await self._tell_hosts(tx)
        self._suspect(name, 0.0)

    async def recovered(self, name: str) -> None:
        """Somebody answered."""
        self._suspects.pop(name, None)
        async with db.transaction() as tx:
            await destinations.resume(tx, [name])

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
                self._is_fresh.set()
            except MailError as error:
                log.warning("rules and pauses could not be read: %s", error.private or error.text)
            except Exception:
                log.exception("rules and pauses could not be read")
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the rules and what is new of pauses, and write down which hosts failed and which came back."""
        async with db.transaction() as tx:
            await self._tell_hosts(tx)
            rules = await routes.rules(tx)
            pauses, self._read_until = await destinations.changes(tx, self._read_until)
        for each in pauses:
            if each.host:
                self._memory.heard(each.host, each.left, each.failures, each.reason)
            elif each.failures:
                self._suspect(each.name, each.left)
            else:
                self._suspects.pop(each.name, None)
        if rules != self._rules:
            self._plans = Plans(self._conf, rules)
            self._rules = rules

    def _suspect(self, name: str, left: float) -> None:
        self._suspects[name] = time.monotonic() + left + destinations.FORGET
        self._suspects.move_to_end(name)
        if len(self._suspects) > MAX_SUSPECTS:
            self._suspects.popitem(last=False)

    async def _tell_hosts(self, tx: db.Tx) -> None:
        down, up = self._memory.news()
        for place, reason in sorted(down.items()):
            await destinations.pause(tx, destinations.HOST + place, reason, HostMemory.FIRST, HostMemory.LAST)
        if up:
            await destinations.resume(tx, [destinations.HOST + place for place in up])
