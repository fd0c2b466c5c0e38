"""Listeners, admission and shutdown; what all sessions of one process share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accounts.throttle import network
from mailcore.auth.senders import Senders
from mailcore.budget import Budget
from mailcore.conf import Conf, Network
from mailcore.entrance import Door, Entrance, Unnamed, is_within
from mailcore.errors import ConfigError
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory
from mailcore.smtp.policy import LMTP, MX, SUBMISSION, SUBMISSIONS, Policy
from mailcore.smtp.refusals import Book
from mailcore.smtp.session import Session
from mailcore.smtp.spool import Room
from mailcore.store.ingest import Ingest
from mailcore.tls import Certificates
from mailcore.wire.smtp.reply import reply

log = logging.getLogger(__name__)

# Octets of the messages beyond spool.MEMORY that are in memory at the same time, on their way into the database. While
# one is stored it is there about five times over: as it came, with its trace lines, as a parameter, in libpq's buffer,
# and what is derived of it.
LARGE_AT_ONCE = 64 * 1024 * 1024
LARGE_PATIENCE = 120.0
# Share of a listener's connections beyond which slow clients have to make room.
STRESS = 0.75
# Messages of one source in a minute for which strangers may ask for receipts (NOTIFY=SUCCESS): their sender may be
# forged, and each is a message to somebody.
RECEIPTS = 10
# Seconds for running commits at shutdown.
GRACE = 15.0


class Ration:
    """So many of something for each source in a minute."""

    __slots__ = ("_began", "_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._began = 0.0
        self._used: Counter[str] = Counter()

    def take(self, source: str) -> bool:
        """Whether there is one left."""
        now = time.monotonic()
        if now - self._began >= 60:
            self._began = now
            self._used.clear()
        key = network(source)
        self._used[key] += 1
        return self._used[key] <= self._limit


@dataclass(slots=True)
class Server:
    """The SMTP side of one process."""

    hostname: str
    message_size: int
    spool: Path
    plaintext_auth: str
    receiver: Receiver
    certificates: Certificates | None = None
    directory: Directory = field(default_factory=Directory)
    senders: Senders = field(default_factory=Senders)
    scram: bool = False
    closing: bool = False
    large: Budget = field(default_factory=lambda: Budget(LARGE_AT_ONCE, patience=LARGE_PATIENCE))
    sessions: set[Session] = field(default_factory=set)
    proxies: Sequence[Network] = ()
    """Balancers, whose PROXY header says who the client is."""
    front_ends: Sequence[Network] = ()
    """Whoever may speak LMTP to us."""
    receipts: Ration = field(default_factory=lambda: Ration(RECEIPTS))
    room: Room = field(default_factory=Room)
    handshakes: set[Entrance] = field(default_factory=set)
    refusals: Book = field(default_factory=Book)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _listeners: list[asyncio.Server] = field(default_factory=list)

    async def listen(self, policy: Policy, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Open a listener and return its port (0 = any free one). Raises ConfigError when the port cannot be had."""
        loop = asyncio.get_running_loop()
        door = Door(
            lambda source: Session(self, policy, loop, source),
            self._admit_early(policy),
            self.certificates if policy.tls else None,
            self.proxies,
            self.handshakes,
        )
        try:
            listener = await loop.create_server(door.protocol, host, port, backlog=1024, reuse_port=reuse_port or None)
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise ConfigError(f"port {port} for SMTP ({policy.name}) on {host or 'all addresses'} {why}") from None
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def admit(self, session: Session) -> bytes | None:
        """Count a connection; returns the reply that refuses it, None when it is welcome."""
        self.sessions.add(session)
        if self.closing:
            return reply(421, "4.3.2", "The server is shutting down")
        named = not isinstance(session.source, Unnamed)
        if session.policy.lmtp and not (named and is_within(session.source, self.front_ends)):
            return reply(554, "5.7.1", "This port is for our own front ends")
        refusal = self._count(session.policy, session.source)
        if refusal is not None:
            return reply(421, "4.7.0", refusal)
        session.admitted = True
        return None

    def patience(self, policy: Policy, seconds: float) -> float:
        """How long a client may keep us waiting: less when hardly any connection is left for others."""
        if self._counts[(policy.name, "")] < STRESS * policy.connections:
            return seconds
        return min(seconds, policy.stressed_timeout)

    def _count(self, policy: Policy, source: str) -> str | None:
        source = network(source)
        if self._counts[(policy.name, "")] >= policy.connections:
            return "Too many connections, try again later"
        if self._counts[(policy.name, source)] >= policy.connections_per_source:
            return "Too many connections from your address"
        self._counts[(policy.name, "")] += 1
        self._counts[(policy.name, source)] += 1
        return None

    def _uncount(self, policy: Policy, source: str) -> None:
        for key in ((policy.name, ""), (policy.name, network(source))):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def _admit_early(self, policy: Policy) -> Callable[[str], Callable[[], None] | None]:
        def admit(address: str) -> Callable[[], None] | None:
            if self.closing or self._count(policy, address) is not None:
                return None
            return lambda: self._uncount(policy, address)

        return admit

    def left(self, session: Session) -> None:
        """A session is over."""
        self.sessions.discard(session)
        if session.admitted:
            session.admitted = False
            self._uncount(session.policy, session.source)

    async def close(self, grace: float = GRACE) -> None:
        """Stop listening, let commits that run finish and be answered, say 421 to everybody else."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        tasks = [task for session in self.sessions if (task := session._handler_coroutine) is not None]
        for handshake in tuple(self.handshakes):
            handshake.abort()
        for session in tuple(self.sessions):
            session.wake()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.refusals.close()
        for listener in self._listeners:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.wait_closed(), 1)


async def start(conf: Conf, certificates: Certificates | None, *, ingest: Ingest, reuse_port: bool = False) -> Server:
    """Open the ports of `conf` (0 = not this one): MX, LMTP, submission with STARTTLS, submission over TLS.

    Raises ConfigError when one of them cannot be had; then none is open.
    """
    server = Server(
        hostname=conf.hostname,
        message_size=conf.message_size,
        spool=conf.data / "spool",
        plaintext_auth=conf.plaintext_auth,
        receiver=Receiver(ingest, conf.hostname, checks_on="off" not in conf.checks),
        certificates=certificates,
        scram=conf.scram,
        proxies=conf.proxy_from,
        front_ends=conf.lmtp_from,
    )
    ports = [(MX, conf.smtp_port), (SUBMISSION, conf.submission_port), (LMTP, conf.lmtp_port)]
    if certificates is not None:
        ports.append((SUBMISSIONS, conf.submissions_port))
    try:
        for policy, port in ports:
            if port:
                await server.listen(policy, conf.bind, port, reuse_port=reuse_port)
    except ConfigError:
        await server.close()
        raise
    return server
