"""The signing keys of sender domains, kept open for a minute."""

from __future__ import annotations

import asyncio
import logging
import time

from accounts.addresses import parse_address
from accounts.secrets import SealError
from mailcore import db
from mailcore.delivery import dkim
from mailcore.store.queue import Claimed

log = logging.getLogger(__name__)

KEEP_SECONDS = 60.0
SIZE = 2000


class Keyring:
    """One per engine."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, tuple[dkim.Key, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[dkim.Key, ...]]] = {}

    async def for_sender(self, claim: Claimed) -> tuple[dkim.Key, ...]:
        """The keys that sign a message: its sender's domain's, when one of our people submitted it; else none."""
        if claim.account_id is None or not claim.sender:
            return ()
        return await self.of_domain(parse_address(claim.sender).domain)

    async def of_domain(self, domain: str) -> tuple[dkim.Key, ...]:
        """The active keys of a domain."""
        known = self._known.get(domain)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        # Hundreds of connections may want them at the same moment: one of them asks.
        asking = self._asking.get(domain)
        if asking is None:
            asking = self._asking[domain] = asyncio.create_task(self._read(domain))
            asking.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(asking)

    async def _read(self, domain: str) -> tuple[dkim.Key, ...]:
        async with db.read() as tx:
            try:
                keys = await dkim.load_keys(tx, domain)
            except SealError as error:
                log.error("mail of %s leaves without a signature: %s", domain, error)
                keys = ()
        if len(self._known) >= SIZE:
            self._known.clear()
        self._known[domain] = (time.monotonic() + KEEP_SECONDS, keys)
        return keys
