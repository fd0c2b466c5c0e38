"""Octets in, replies out, time limits and the end of a connection, over aiosmtpd's protocol class.

What we replace of aiosmtpd, and why: its reader takes mail line by line (9 times slower than chunks), accepts lines
that end in a bare LF, and reads what follows a BDAT as commands; its timers are made anew for each command; on a lost
connection it cancels the command that runs, which may be a commit. Input therefore goes into our own ByteReader,
replies are gathered and sent when there is nothing left to read (RFC 2920 §3.2), and one timer serves the whole
connection."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from typing import TYPE_CHECKING, cast

from aiosmtpd.smtp import SMTP

from mailcore.entrance import address_of
from mailcore.smtp.policy import Policy
from mailcore.tls import HANDSHAKE_SECONDS, asked_name
from mailcore.wire.reader import BareNewline, ByteReader, LineTooLong
from mailcore.wire.smtp.command import LINE_AUTH, header_safe
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.server import Server

log = logging.getLogger(__name__)

# Octets read ahead of what the session has looked at; beyond this the socket waits.
HIGH_WATER = 64 * 1024
# The longest that our own work on a command may take before the client is let go.
WORK_LIMIT = 600.0
# Seconds for the last words to leave; whoever does not read them is cut off.
LINGER = 10.0


class Disconnected(Exception):
    """There is nobody left to talk to."""


class Dismissed(Exception):
    """What the client logged in with is no longer good."""


class ShuttingDown(Exception):
    """The server stops, and this client has no message under way that could still be taken."""


class Connection(SMTP):
    """One client: `read_line`, `read_some`, `respond` and `flush` for what is said, nothing about what it means."""

    def __init__(
        self, server: Server, policy: Policy, loop: asyncio.AbstractEventLoop, source: str | None = None
    ) -> None:
        # SMTP.__init__ looks through all methods of itself and of its handler, 130 µs and 5 kB for each connection, for
        # tables that our session does not use. This is what the methods that we inherit need of it.
        reader = asyncio.StreamReader(loop=loop, limit=LINE_AUTH)
        asyncio.StreamReaderProtocol.__init__(self, reader, self._cb_client_connected, loop)
        self.loop = loop
        self.hostname = server.hostname
        self.transport: asyncio.Transport | None = None
        self.session = self.envelope = None
        self._handle_hooks = {}
        self._original_transport = self._tls_protocol = None
        self._timeout_duration = policy.command_timeout
        self._timeout_handle: asyncio.TimerHandle | None = None
        self._handler_coroutine: asyncio.Task[None] | None = None
        self.server = server
        self.policy = policy
        self.input = ByteReader()
        self.errors = 0
        self.idle_commands = 0
        self.source = source or ""
        """The client's address, by a balancer's word or the socket's."""
        self.tls: str | None = None
        self._replies: list[bytes] = []
        self._more: asyncio.Future[None] | None = None
        self._held_up = False
        self._ended = False
        self._leaving = False
        self._dismissed = False
        self._deadline = 0.0

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.source = self.source or address_of(transport) or "0.0.0.0"
        self.note_tls(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.input.feed(data)
        if len(self.input) > HIGH_WATER and not self._held_up and self.transport is not None:
            self._held_up = True
            self.transport.pause_reading()
        self.wake()

    def eof_received(self) -> bool:
        # What the client has sent is still carried out and answered: it may only have closed its sending side.
        self._ended = True
        self.wake()
        return self.tls is None

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self.transport = None
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.wake()

    # --- reading

    async def read_line(self, limit: int = LINE_AUTH) -> bytes:
        """The next line without its CRLF. Raises CommandError for a line that is none, Disconnected, ShuttingDown."""
        while True:
            try:
                line = self.input.take_line(limit)
            except LineTooLong:
                self.input.discard_line()
                while self.input.discarding:
                    await self.more()
                raise CommandError(500, "5.5.2", "Line too long") from None
            except BareNewline:
                raise CommandError(500, "5.5.2", "Lines end in CRLF") from None
            if line is not None:
                return line
            await self.more()

    async def read_some(self, limit: int | None = None) -> bytes:
        """Whatever has arrived, at most `limit` octets; waits for the first."""
        while not len(self.input):
            await self.more()
        return self.input.clear() if limit is None else self.input.take_up_to(limit)

    async def more(self) -> None:
        """Send what is to be said and wait for the client. Raises Disconnected, Dismissed, ShuttingDown."""
        await self.flush()
        if self._ended:
            raise Disconnected
        if self.server.closing:
            raise ShuttingDown
        self.require_welcome()
        if self._held_up and self.transport is not None:
            self._held_up = False
            self.transport.resume_reading()
        self._more = self.loop.create_future()
        try:
            await self._more
        finally:
            self._more = None

    def dismiss(self) -> None:
        """End the session at its next wait or command."""
        self._dismissed = True
        self.wake()

    def require_welcome(self) -> None:
        """Raises Dismissed."""
        if self._dismissed:
            raise Dismissed

    def wake(self) -> None:
        """Something happened: `more` returns and looks what."""
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def spoke_too_soon(self) -> bool:
        """Whether the client sent something before it was greeted, be it still in the socket."""
        if len(self.input):
            return True
        sock = self.transport.get_extra_info("socket") if self.transport is not None and self.tls is None else None
        if sock is None:
            return False
        waiting = fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0))
        return cast(int, struct.unpack("i", waiting)[0]) > 0

    # --- writing

    def respond(self, octets: bytes) -> None:
        """Say something, before the next wait at the latest; 5xx replies are counted."""
        self._replies.append(octets)
        if octets[0] == 0x35:
            self.errors += 1
            if self.errors >= self.policy.max_errors:
                self.leave(reply(421, "4.7.0", "Too many errors"))

    def spend(self) -> None:
        """Count a command that brings no mail any nearer: nobody needs many of them."""
        self.idle_commands += 1
        if self.idle_commands >= self.policy.max_idle_commands:
            self.leave(reply(421, "4.7.0", "Too many commands without a message"))

    def progress(self) -> None:
        """A message was taken: what came before it is forgotten."""
        self.errors = self.idle_commands = 0

    def leave(self, octets: bytes = b"") -> None:
        """Say a last word; the connection is closed when the command that runs is done."""
        if octets:
            self._replies.append(octets)
        self._leaving = True

    @property
    def leaving(self) -> bool:
        """The last word has been said."""
        return self._leaving

    async def flush(self) -> None:
        """Send what has been said. Raises Disconnected."""
        if self._replies:
            if self.transport is None:
                raise Disconnected
            self.transport.write(b"".join(self._replies))
            self._replies.clear()
            try:
                await self._drain_helper()  # type: ignore[attr-defined]  # asyncio's flow control
            except ConnectionError:
                raise Disconnected from None

    def hang_up(self) -> None:
        """Send what has been said, if anybody listens, and close."""
        if self.transport is not None:
            if self._replies:
                self.transport.write(b"".join(self._replies))
                self._replies.clear()
            self.transport.close()
            # What a client never reads would keep the transport, and who waits for it in `flush`, for ever.
            self.loop.call_later(LINGER, self.transport.abort)

    # --- time

    def _reset_timeout(self, duration: float | None = None) -> None:  # aiosmtpd's connection_made calls it
        self.allow(duration or self._timeout_duration)

    def allow(self, seconds: float) -> None:
        """From now the client, or our own work, has so long; then the connection is closed."""
        self._deadline = self.loop.time() + seconds
        handle = self._timeout_handle
        if handle is None or handle.when() > self._deadline:
            if handle is not None:
                handle.cancel()
            self._timeout_handle = self.loop.call_at(self._deadline, self._timeout_cb)

    def _timeout_cb(self) -> None:
        self._timeout_handle = None
        if self._deadline > self.loop.time() + 0.01:
            self._timeout_handle = self.loop.call_at(self._deadline, self._timeout_cb)
            return
        log.info("%s: %s took too long", self.policy.name, self.source)
        self._ended = True
        self.leave(reply(421, "4.4.2", "You took too long"))
        self.hang_up()
        self.wake()

    # --- TLS

    def note_tls(self, transport: asyncio.BaseTransport) -> None:
        """Remember version and cipher of an encrypted transport, and whom the client asked for."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            name, _protocol, bits = tls.cipher()
            asked = asked_name(tls)
            self.tls = f"{tls.version()} with cipher {name} ({bits}/{bits} bits)"
            if asked:
                self.tls += f", SNI {header_safe(asked[:255])}"

    async def start_tls(self) -> None:
        """Turn the connection into an encrypted one. Raises Disconnected when that fails."""
        plain, certificates = self.transport, self.server.certificates
        if plain is None or certificates is None:
            raise Disconnected
        if self.input.clear():
            # It came while our 220 waited for a client that did not read: plain text, and never to be carried out.
            log.warning("%s: %s sent commands behind STARTTLS", self.policy.name, self.source)
            raise Disconnected
        self.allow(HANDSHAKE_SECONDS + 5)
        try:
            transport = await self.loop.start_tls(
                plain, self, certificates.context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError as error:  # TimeoutError and ssl.SSLError among them
            log.info("%s: TLS with %s failed: %s", self.policy.name, self.source, error)
            raise Disconnected from None
        if transport is None:
            raise Disconnected
        self.transport = transport
        self.note_tls(transport)
