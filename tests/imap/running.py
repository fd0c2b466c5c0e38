"""A real IMAP server on loopback, on an event loop in a thread of its own, over the test database."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

import uvloop

from mailcore import db, mime, tls, wake
from mailcore.conf import conf
from mailcore.imap import server as imap_server
from mailcore.imap.limits import Limits
from mailcore.store import changes
from mailcore.store.append import Appended, Incoming
from mailcore.store.ingest import Ingest

T = TypeVar("T")
HOST = "127.0.0.1"


async def _modseqs(account_ids: list[int]) -> dict[int, int]:
    async with db.read() as tx:
        return await changes.states(tx, account_ids)


class Running:
    """The server and a way to run coroutines beside it."""

    def __init__(self, limits: Limits | None = None, message_size: int = 2 * 1024 * 1024) -> None:
        self._limits = limits or Limits(shutdown=2.0)
        self._message_size = message_size
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="imap", daemon=True)
        self._thread.start()
        self.server: imap_server.Server = self.call(self._start())
        self.port, self.tls_port = self.server.ports

    async def _start(self) -> imap_server.Server:
        tls.ensure_certificate(conf)
        await db.open_pool(8)
        await wake.start(os.environ["REDIS_URL"], _modseqs)
        self.ingest = Ingest()
        return await imap_server.start(
            HOST,
            0,
            0,
            tls.Certificates(conf),
            ingest=self.ingest,
            limits=self._limits,
            message_size=self._message_size,
        )

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def deliver(self, account_id: int, raw: bytes, when: datetime | None = None, flags: int = 0) -> Appended:
        """Put a message into INBOX, as SMTP does."""
        item = Incoming(account_id, 0, raw, mime.parse(raw), flags, internal_date=when)
        (result,) = self.call(self.ingest.add([item]))
        assert isinstance(result, Appended)
        return result

    async def _stop(self) -> None:
        await self.server.close()
        await self.ingest.close()
        await wake.stop()
        await db.close_pool()

    def stop(self) -> None:
        """Close everything and end the thread."""
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
