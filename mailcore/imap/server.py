"""Listeners, admission and limits of time; what the sessions of one process share.

One sweep looks after the deadlines of all connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import cast

from accounts.throttle import network
from mailcore.budget import Budget
from mailcore.conf import Network, conf
from mailcore.entrance import Door, Entrance
from mailcore.errors import Code, MailError
from mailcore.imap import commands
from mailcore.imap.capabilities import jmap_url
from mailcore.imap.compression import Compression
from mailcore.imap.connection import Connection
from mailcore.imap.limits import Limits
from mailcore.imap.orders import Orders
from mailcore.imap.progress import Progress
from mailcore.imap.selected import RecentMarks, UidLists
from mailcore.imap.tails import Tails
from mailcore.store.ingest import Ingest
from mailcore.tls import Certificates
from mailcore.turns import Turns
from mailcore.wire.imap.limits import after_login

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
commands.load()


class Server:
    """The IMAP listeners of one process and what their sessions share."""

    def __init__(
        self,
        ingest: Ingest,
        certificates: Certificates | None,
        limits: Limits,
        hostname: str,
        message_size: int,
        proxies: Sequence[Network] = (),
    ) -> None:
        self.ingest = ingest
        self.certificates = certificates
        self.limits = limits
        self.hostname = hostname
        self.message_size = message_size
        self.proxies = proxies
        self.frames_after_login = after_login(message_size)
        self.connections: set[Connection] = set()
        self.compressed: set[Connection] = set()
        self.leaving: set[asyncio.Task[None]] = set()
        """Sessions whose client has left, and whose command still runs."""
        self.strangers: Counter[str] = Counter()
        self.handshakes: set[Entrance] = set()
        self.sessions: Counter[int] = Counter()
        self.jmap_url = jmap_url(conf)
        self.progress = Progress(limits.progress)
        self.turns = Turns(searches=limits.searches, at_once=limits.at_once, seconds=limits.search)
        self.recent = RecentMarks()
        self.uid_lists = UidLists()
        self.uploads = Budget(limits.uploads)
        self.tails = Tails(limits.tails, limits.tails_kept)
        self.orders = Orders(limits.orders, limits.tails_kept)
        self.started = datetime.now(UTC)
        self.closing = False
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int | None, tls_port: int | None, *, reuse_port: bool = False) -> None:
        """Open the listeners; None = not this one, 0 = any free port."""
        loop = asyncio.get_running_loop()
        listeners: list[tuple[int, Certificates | None]] = []
        if port is not None:
            listeners.append((port, None))
        if tls_port is not None and self.certificates is not None:
            listeners.append((tls_port, self.certificates))
        for number, certificates in listeners:
            make = partial(Connection, self, certificates is not None)
            door = Door(make, self._admit_early, certificates, self.proxies, self.handshakes)
            self._listeners.append(
                await loop.create_server(door.protocol, host, number, backlog=1024, reuse_port=reuse_port or None)
            )
        self._sweeper = loop.create_task(self._sweep())

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports in use, in the order plain, TLS."""
        return tuple(sock.getsockname()[1] for listener in self._listeners for sock in listener.sockets)

    async def close(self) -> None:
        """Stop listening, let running commands finish, say BYE to everyone and close."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        tasks += self.leaving
        for handshake in tuple(self.handshakes):
            handshake.abort()
        for connection in tuple(self.connections):
            connection.wake()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.limits.shutdown)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in tuple(self.connections):
            connection.abort()
        for listener in self._listeners:
            await listener.wait_closed()

    def admit(self, address: str) -> str | None:
        """Why a new connection is refused, None if it is not."""
        if self.closing:
            return "The server is shutting down"
        if len(self.connections) + len(self.handshakes) >= self.limits.connections:
            return "Too many connections to this server, try again later"
        if self.strangers[network(address)] >= self.limits.per_address:
            return "Too many connections from your address that have not logged in"
        return None

    def _admit_early(self, address: str) -> Callable[[], None] | None:
        if self.admit(address) is not None:
            return None
        self.meet_stranger(address)
        return lambda: self.forget_stranger(address)

    def meet_stranger(self, address: str) -> None:
        """A client of this address has come and not logged in yet."""
        self.strangers[network(address)] += 1

    def forget_stranger(self, address: str) -> None:
        """A client of this address has logged in, or left."""
        source = network(address)
        self.strangers[source] -= 1
        if not self.strangers[source]:
            del self.strangers[source]

    def enter(self, account_id: int) -> None:
        """Count a session of an account. Raises MailError(TOO_MANY)."""
        if self.sessions[account_id] >= self.limits.per_account:
            raise MailError(Code.TOO_MANY, "too many sessions of this account at once")
        self.sessions[account_id] += 1

    def leave(self, account_id: int) -> None:
        """A session of an account has ended."""
        self.sessions[account_id] -= 1
        if not self.sessions[account_id]:
            del self.sessions[account_id]

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in [one for one in self.connections if one.deadline < now]:
                connection.expire()
            self.progress.tell(now)
            for connection in self.compressed:
                cast(Compression, connection.compression).rest()
            self.tails.expire(now)
            self.orders.expire(now)


async def start(
    host: str,
    port: int | None,
    tls_port: int | None,
    certificates: Certificates | None,
    *,
    ingest: Ingest,
    limits: Limits | None = None,
    hostname: str | None = None,
    message_size: int | None = None,
    reuse_port: bool = False,
    proxies: Sequence[Network] = (),
) -> Server:
    """Listen for IMAP on `port` (STARTTLS) and `tls_port` (TLS); None = not there, 0 = any free one.

    `proxies`: balancers, whose PROXY header says who the client is. The pool of `db` must be open and `wake` running.
    `close()` of the result says BYE and closes everything.
    """
    server = Server(
        ingest, certificates, limits or Limits(), hostname or conf.hostname, message_size or conf.message_size, proxies
    )
    await server.listen(host, port, tls_port, reuse_port=reuse_port)
    return server
