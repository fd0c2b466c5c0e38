"""Listeners, admission and shutdown; what all sessions of one process share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accounts.throttle import network
from mailcore import tls
from mailcore.conf import Conf
from mailcore.errors import ConfigError
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory
from mailcore.smtp.policy import MX, SUBMISSION, SUBMISSIONS, Policy
from mailcore.smtp.session import Session
from mailcore.store.ingest import Ingest
from mailcore.tls import Handshake

log = logging.getLogger(__name__)

# Messages beyond spool.MEMORY that are in memory at the same time, on their way into the database.
LARGE_AT_ONCE = 2
# Seconds for running commits at shutdown.
GRACE = 15.0


@dataclass(slots=True)
class Server:
    """The SMTP side of one process."""

    hostname: str
    message_size: int
    spool: Path
    plaintext_auth: str
    receiver: Receiver
    ssl_context: ssl.SSLContext | None = None
    directory: Directory = field(default_factory=Directory)
    bindings: Mapping[str, bytes] = field(default_factory=dict)
    """What a login can be bound to on our TLS connections."""
    scram: bool = False
    closing: bool = False
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    sessions: set[Session] = field(default_factory=set)
    handshakes: set[Handshake] = field(default_factory=set)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _listeners: list[asyncio.Server] = field(default_factory=list)

    async def listen(self, policy: Policy, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Open a listener and return its port (0 = any free one). Raises ConfigError when the port cannot be had."""
        loop = asyncio.get_running_loop()
        context = self.ssl_context

        def make() -> asyncio.Protocol:
            if not policy.tls or context is None:
                return Session(self, policy, loop)
            return Handshake(
                context, lambda: Session(self, policy, loop), self._admit_handshake(policy), self.handshakes
            )

        try:
            listener = await loop.create_server(make, host, port, backlog=1024, reuse_port=reuse_port or None)
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
            raise ConfigError(f"port {port} for SMTP ({policy.name}) on {host or 'all addresses'} {why}") from None
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def admit(self, session: Session) -> str | None:
        """Count a connection; returns why it is refused, None when it is not."""
        self.sessions.add(session)
        if self.closing:
            return "The server is shutting down"
        refusal = self._count(session.policy, session.source)
        session.admitted = refusal is None
        return refusal

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

    def _admit_handshake(self, policy: Policy) -> Callable[[str], Callable[[], None] | None]:
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
        for listener in self._listeners:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.wait_closed(), 1)


async def start(conf: Conf, ssl_context: ssl.SSLContext | None, *, ingest: Ingest, reuse_port: bool = False) -> Server:
    """Open the ports of `conf` (0 = not this one): MX, submission with STARTTLS, submission over TLS.

    Raises ConfigError when one of them cannot be had; then none is open.
    """
    server = Server(
        hostname=conf.hostname,
        message_size=conf.message_size,
        spool=conf.data / "spool",
        plaintext_auth=conf.plaintext_auth,
        receiver=Receiver(ingest, conf.hostname, checks_on="off" not in conf.checks),
        ssl_context=ssl_context,
        bindings=tls.bindings(conf) if ssl_context is not None else {},
        scram=conf.scram,
    )
    ports = [(MX, conf.smtp_port), (SUBMISSION, conf.submission_port)]
    if ssl_context is not None:
        ports.append((SUBMISSIONS, conf.submissions_port))
    try:
        for policy, port in ports:
            if port:
                await server.listen(policy, conf.bind, port, reuse_port=reuse_port)
    except ConfigError:
        await server.close()
        raise
    return server
