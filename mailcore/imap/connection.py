"""One connection: bytes in, bytes out, TLS, compression, flow control; everything said over it is in `session`.

A connection keeps no reader, no timers and no buffers of its own while it is idle: the transport's objects are all that
a quiet client costs beside its session.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from mailcore.entrance import address_of
from mailcore.imap.compression import Compression, slices
from mailcore.imap.session import Session
from mailcore.tls import HANDSHAKE_SECONDS, Certificates
from mailcore.wire.imap import response
from mailcore.wire.imap.frames import Event, Framer
from mailcore.wire.imap.limits import BEFORE_LOGIN

if TYPE_CHECKING:
    from mailcore.imap.server import Server


class Connection(asyncio.Protocol):
    """One client's connection: a framer for its input, flow control for our output, and its session's task."""

    __slots__ = (
        "_drained",
        "_dripped",
        "_flushing",
        "_loop",
        "_out",
        "_peeked",
        "_reading_paused",
        "_spoke",
        "_waiter",
        "closed",
        "compression",
        "deadline",
        "framer",
        "reading",
        "remote",
        "server",
        "stranger",
        "task",
        "tls",
        "transport",
        "why",
    )

    def __init__(self, server: Server, tls: bool, source: str | None = None) -> None:
        self.server = server
        self.tls = tls
        self.framer = Framer(BEFORE_LOGIN)
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.remote = source or ""
        self.stranger = False
        self.closed = False
        self.compression: Compression | None = None
        """Once the client has asked for it."""
        self.why: str | None = None
        """Words for a BYE."""
        self.reading = False
        """The command that runs is of no use to anybody else."""
        self.deadline = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._dripped = 0
        self._spoke = False
        self._peeked: tuple[Event, ...] = ()
        self._out: list[bytes | memoryview] = []
        self._flushing = False

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.server.limits.output)
        self.remote = self.remote or address_of(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):  # a dead peer behind a NAT is found by the kernel
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        refusal = self.server.admit(self.remote)
        if refusal is not None:
            self.transport.write(response.status_line(None, "BYE", refusal, "LIMIT"))
            self.transport.close()
            self.closed = True
            return
        self.server.connections.add(self)
        self.server.meet_stranger(self.remote)
        self.stranger = True
        self.deadline = self._loop.time() + self.server.limits.login
        self.task = self._loop.create_task(Session(self).run())

    def data_received(self, data: bytes) -> None:
        if self.why is not None:
            return  # it is not carried out any more
        if self.stranger:
            if self.framer.buffered + len(data) > self.server.limits.input and not self.framer.discarding:
                self.dismiss("Too much was sent before the login")
                return
        elif self._drained is None:
            self._stay(len(data))
        if self.compression is None:
            self.framer.feed(data)
            unread = self.framer.buffered
        else:
            unread = self.compression.feed(data)
        if self._waiter is not None:
            self.wake()
        elif unread > self.server.limits.input and not self._reading_paused:
            self._reading_paused = True
            cast(asyncio.Transport, self.transport).pause_reading()

    def _stay(self, octets: int) -> None:
        """The client is there. While a command is on its way, single octets win no time: only every `pace` of them."""
        if not self.framer.idle:
            self._dripped += octets
            if self._dripped < self.server.limits.pace:
                return
        self._dripped = 0
        self.deadline = self._loop.time() + self.server.limits.idle

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.server.connections.discard(self)
        self.server.compressed.discard(self)
        self.known()
        self.server.turns.abandon(self)
        if self.task is not None and not self.task.done():
            self.server.leaving.add(self.task)
            self.task.add_done_callback(self.server.leaving.discard)
            if self.reading:
                self.task.cancel()
        self.wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()
        stalled = self._loop.time() + self.server.limits.stalled
        self.deadline = min(self.deadline, stalled) if self.stranger else stalled

    def resume_writing(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
            if not self.stranger and self.why is None:
                self.deadline = self._loop.time() + self.server.limits.idle

    # -- for the session

    def known(self) -> None:
        """The client has logged in (or left): it no longer counts as a stranger."""
        if self.stranger:
            self.stranger = False
            self.server.forget_stranger(self.remote)
            self.deadline = self._loop.time() + self.server.limits.idle

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave when the session next waits for something."""
        self._out.append(data)
        self._spoke = True
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def writelines(self, data: list[bytes]) -> None:
        """Hand many pieces to the transport at once, without joining them, after what is queued."""
        self._spoke = True
        if self.compression is not None:
            self._out += data  # until `drain`, which takes its time
            return
        self.flush()
        if not self.closed and self.transport is not None:
            self.transport.writelines(data)

    def flush(self) -> None:
        """Hand what is queued to the transport."""
        self._flushing = False
        out, self._out = self._out, []
        if self.compression is not None:
            out = [self.compression.deflate(out)]
        if out and not self.closed and self.transport is not None:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    async def _deflate_queued(self) -> None:
        """Compress much in slices: others have their turn, and nothing is produced that the client does not read."""
        queued, self._out = self._out, []
        for part in slices(queued):
            if self._drained is not None:
                await self._drained
            if self.closed:
                return
            self._out += part
            self.flush()
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Wait until the client has read enough of our answers. Raises ConnectionResetError when it has left."""
        if self.compression is not None and self._out:
            await self._deflate_queued()
        self.flush()
        if self._drained is not None:
            await self._drained
        elif self._spoke and not self.stranger and self.why is None:
            # Our answers may have taken long; taking in what a client drips has not.
            self.deadline = self._loop.time() + self.server.limits.idle
        self._spoke = False
        if self.closed:
            raise ConnectionResetError("the client has left")

    async def next_event(self) -> Event | None:
        """What the client sent next; None when it has left or shall leave."""
        if self.why is not None:
            return None  # what it sent before it was told to leave is not carried out
        event = self._peeked[0] if self._peeked else None
        self._peeked = self._peeked[1:]
        while event is None:
            event = self.framer.next_event()
            if event is None and not await self.wait():
                return None
        return event

    def peek(self, ahead: int = 0) -> Event | None:
        """The next event if it is here already, or one after it; `next_event` will return it.

        Ask for one after it only when all before it are commands that change nothing of how the next one is read.
        """
        while len(self._peeked) <= ahead:
            if self.framer.idle:
                self._inflate()
            event = self.framer.next_event()
            if event is None:
                return None
            self._peeked += (event,)
        return self._peeked[ahead]

    def skip(self, count: int) -> None:
        """The next events, which have been peeked at, are dealt with."""
        self._peeked = self._peeked[count:]

    async def wait(self) -> bool:
        """Wait for more input or a `wake`; False when the session is to end."""
        if self.closed or self.why or self.server.closing:
            return False
        if self.compression is not None and self.compression.more:
            await asyncio.sleep(0)  # whoever packs a thousand commands into a few octets takes turns like all others
        else:
            if self._reading_paused:
                self._reading_paused = False
                cast(asyncio.Transport, self.transport).resume_reading()
            self.flush()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._inflate()
        return not (self.closed or self.why or self.server.closing)

    def _inflate(self) -> None:
        """Give the framer some of what has come compressed; a little at a time, so that a bomb has no room."""
        if self.compression is not None and self.compression.more:
            try:
                self.framer.feed(self.compression.take())
            except zlib.error:
                self.dismiss("The compressed data cannot be read")

    @property
    def goodbye(self) -> str:
        """Why `wait` said that the session is to end."""
        if self.server.closing:
            return "The server is shutting down, come back soon"
        return self.why or "Goodbye"

    def wake(self) -> None:
        """Let a waiting session look around."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def start_tls(self, answer: bytes) -> None:
        """Send `answer`, forget what else the client sent in clear, and start TLS. Raises ConnectionError, OSError."""
        transport = cast(asyncio.Transport, self.transport)
        self._peeked = ()
        # Nothing may be read between the answer and the handshake as if it were a command.
        transport.pause_reading()
        self.framer.clear()
        self.flush()
        transport.write(answer)
        self.transport = cast(
            asyncio.Transport,
            await self._loop.start_tls(
                transport,
                self,
                cast(Certificates, self.server.certificates).context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ),
        )
        self.transport.set_write_buffer_limits(high=self.server.limits.output)
        self._reading_paused = False
        self.tls = True

    def start_compression(self, answer: bytes) -> None:
        """Send `answer`; all that follows is deflated, both ways."""
        self.write(answer)
        self.flush()
        self.compression = Compression()
        self.compression.feed(self.framer.take_rest())
        self.server.compressed.add(self)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._drained is not None or self.why is not None:
            self.abort()
            return
        self.dismiss("You did not log in in time" if self.stranger else "You have been idle for too long")

    def dismiss(self, why: str) -> None:
        """Say BYE and close, after the command that runs."""
        if self.why is not None:
            return
        self.why = why
        self.deadline = self._loop.time() + self.server.limits.shutdown
        if self._waiter is None:
            # A command is running, or a literal is late: give it the grace period, then cut.
            return
        self.wake()

    def close(self) -> None:
        """Send what is queued and close."""
        self.flush()
        if self.transport is not None and not self.closed:
            self.transport.close()
            # A client that does not read the rest must not keep the transport for ever.
            self.deadline = self._loop.time() + self.server.limits.shutdown
            self.why = self.why or "closing"

    def abort(self) -> None:
        """Drop the connection."""
        if self.transport is not None:
            self.transport.abort()
