"""Has senders told what was written down for them, a moment after it happened (`bounce.note`).

Each engine tells what its own deliveries left, and after each sweep whatever another one, or a dead one, has not told.
"""

from __future__ import annotations

import asyncio
import logging

from mailcore import db
from mailcore.conf import Conf
from mailcore.delivery import bounce
from mailcore.errors import Code, MailError
from mailcore.store import notices

log = logging.getLogger(__name__)


class Teller:
    """One per engine. `together`: seconds for which a notice waits for others of its message."""

    def __init__(self, conf: Conf, together: float) -> None:
        self._conf = conf
        self._together = together
        self._task: asyncio.Task[None] | None = None
        self._is_more = False
        self._telling = asyncio.Lock()

    def soon(self) -> None:
        """There is something to tell."""
        self._is_more = True
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def tell(self) -> None:
        """Tell what has waited long enough."""
        told = 1
        async with self._telling:
            while told:
                async with db.read() as tx:
                    ready = await notices.ready(tx, self._together)
                told = await self._tell(ready) if ready else 0

    async def close(self) -> None:
        """What is being told is told; the rest is left to the next sweep, of whomever."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._is_more:
                self._is_more = False  # what is noted from now on has to wait for the next round
                await asyncio.sleep(self._together)
                await self.tell()
        except MailError as error:
            log.warning("a sweep will tell senders: %s", error.private or error.text)
        finally:
            self._task = None

    async def _tell(self, ready: list[int]) -> int:
        """Returns of how many recipients; 0 as well when somebody else does it."""
        try:
            async with db.transaction() as tx:
                return await bounce.tell_noted(tx, self._conf, ready)
        except Exception as error:
            if isinstance(error, MailError) and error.code is Code.UNAVAILABLE:
                raise
            if len(ready) > 1:
                log.warning("%d reports could not be made together (%s), trying one by one", len(ready), error)
                return sum([await self._tell([number]) for number in ready]) or 1
            log.exception("the sender of queue number %d could not be told", ready[0])
            async with db.transaction() as tx:
                await notices.put_off(tx, ready)
            return 0
