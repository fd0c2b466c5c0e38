"""The claims that an engine has in hand: prolonged while the process lives, given back when they are not used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from mailcore import db
from mailcore.errors import MailError
from mailcore.store import queue
from mailcore.store.queue import Claimed

log = logging.getLogger(__name__)


class Leases:
    """One per engine. `seconds`: how long a lease lasts; every `heartbeat` seconds all of them are prolonged."""

    def __init__(self, seconds: float, heartbeat: float) -> None:
        self._seconds, self._heartbeat = seconds, heartbeat
        self._held: dict[int, Claimed] = {}
        self._heart = asyncio.create_task(self._beat())

    def take(self, claims: Sequence[Claimed]) -> None:
        """These are ours now."""
        self._held.update((claim.recipient_id, claim) for claim in claims)

    def done(self, claims: Sequence[Claimed]) -> None:
        """These need no lease any more."""
        for claim in claims:
            self._held.pop(claim.recipient_id, None)

    async def give_back(self, claims: Sequence[Claimed], wait: float | None = None) -> None:
        """These were not used: somebody else may have them at once, or in `wait` seconds."""
        if not claims:
            return
        self.done(claims)
        try:
            async with db.transaction() as tx:
                await queue.give_back(tx, [(claim.recipient_id, claim.fence) for claim in claims], wait)
        except MailError as error:
            log.warning("%d claims lapse by themselves: %s", len(claims), error.private or error.text)

    async def close(self) -> None:
        self._heart.cancel()
        await asyncio.gather(self._heart, return_exceptions=True)

    async def _beat(self) -> None:
        """Prolong the leases of everything in hand, for as long as this process lives."""
        while True:
            await asyncio.sleep(self._heartbeat)
            held = list(self._held.values())
            if not held:
                continue
            leases = [(claim.recipient_id, claim.fence) for claim in held]
            try:
                async with db.transaction() as tx:
                    kept = await queue.renew(tx, leases, self._seconds)
            except MailError as error:
                log.warning("leases could not be prolonged: %s", error.private or error.text)
                continue
            except Exception:
                log.exception("leases could not be prolonged")  # the next beat may; without any, all is delivered twice
                continue
            lost = [c for c in held if c.recipient_id not in kept and self._held.get(c.recipient_id) is c]
            if lost:
                log.warning("%d leases were lost to others", len(lost))
