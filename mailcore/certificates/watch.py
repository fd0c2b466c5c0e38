"""How a mail process hears of new certificates: it asks every few seconds, whoever made them and on whatever host."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from mailcore import db
from mailcore.certificates import material, renewal
from mailcore.conf import Conf
from mailcore.errors import MailError
from mailcore.store import certificates
from mailcore.tls import Certificates, Pair

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
PIECE = 200


class Watch:
    """Keeps what a process serves like the files and the database."""

    def __init__(self, conf: Conf, served: Certificates) -> None:
        self._conf = conf
        self._served = served
        self._mark: object = None
        self._versions: dict[str, int] = {}
        self._pairs: dict[str, tuple[datetime, Pair]] = {}

    async def begin(self) -> None:
        """Take what there is, and say that this host wants a certificate. Raises MailError."""
        if renewal.wants_host(self._conf):
            await renewal.want(self._conf.hostname.lower())
        await self.look()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                if self._served.look_at_files():
                    log.info("the certificate's files have changed: new connections get the new one")
                await self.look()
            except MailError as error:  # the database is away: what there is stays in use
                log.debug("certificates: %s", error.private or error.text)
            except Exception:  # nothing may end this
                log.exception("looking for new certificates failed")

    async def look(self) -> None:
        """Take what has changed in the database. Raises MailError."""
        async with db.read() as tx:
            mark = await certificates.mark(tx)
            if mark == self._mark:
                return
            versions = await certificates.versions(tx)
            changed = sorted(name for name, version in versions.items() if self._versions.get(name) != version)
            pairs = {name: pair for name, pair in self._pairs.items() if name in versions}
            for at in range(0, len(changed), PIECE):
                for stored in await certificates.get(tx, changed[at : at + PIECE]):
                    if stored.chain is not None:
                        pairs[stored.name] = (stored.not_after or datetime.now(UTC), material.pair(stored))
        # Where two are for the same name, the one that lasts longer counts.
        self._served.take(pair for _, pair in sorted(pairs.values(), key=lambda each: each[0]))
        if self._mark is not None:
            log.info("new connections get the new certificates: %s", ", ".join(changed[:10]) or "some were removed")
        self._mark, self._versions, self._pairs = mark, versions, pairs
