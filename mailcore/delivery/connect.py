"""One connection to a mail server: octets out under back-pressure, replies in within limits, TLS when asked for.

Knows nothing of what the replies mean. Every wait has a limit, every length too.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from mailcore.delivery.outcome import Dropped, Reply, ReplyError, parse_reply
from mailcore.wire.reader import BareLF, ByteReader, LineTooLong

# RFC 5321 §4.5.3.1.5 has 512; servers that quote a policy page are longer, and those that never end are cut off.
MAX_LINE = 4096
MAX_LINES = 200
MAX_PENDING = MAX_LINE * 16
CHUNK = 64 * 1024
_DER = 2  # _ssl.ENCODING_DER


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait; the values are Postfix's, which lie near RFC 5321 §4.5.3.2."""

    connect: float = 30
    greeting: float = 300
    hello: float = 300
    tls: float = 60
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    write: float = 180  # for each chunk of the data
    content: float = 600
    quit: float = 5
    total: float = 1800  # one transaction, besides what its length takes


class Connection(asyncio.Protocol):
    """The protocol object itself; made by `connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = ByteReader()
        self._lines: list[bytes] = []
        self._lost: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._leaving = False
        self._is_tls = False

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of asyncio's classes

    def data_received(self, data: bytes) -> None:
        if self._leaving and self._transport is not None:
            self._transport.close()
            return
        self._reader.feed(data)
        if len(self._reader) > MAX_PENDING and self._transport is not None:
            self._lost = ReplyError("more replies than were asked for")
            self._transport.abort()
        self._wake()

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost is None and isinstance(exc, OSError):
            self._read_rest()
        self._lost = self._lost or exc or Dropped()
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _read_rest(self) -> None:
        """What the server said before it cut a connection that we were writing to: a failed write ends all reading."""
        handle = self._transport.get_extra_info("socket") if self._transport is not None and not self._is_tls else None
        if handle is not None and handle.fileno() >= 0:
            with suppress(OSError):
                self._reader.feed(os.read(handle.fileno(), MAX_PENDING))

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- ours

    @property
    def is_open(self) -> bool:
        """Nothing is known against it; a reply of the server that nobody waits for (421) counts against it."""
        return self._lost is None and self._transport is not None and not len(self._reader)

    def write(self, data: bytes) -> None:
        """Send octets; raises what the connection died of."""
        if self._lost is not None:
            raise self._lost
        assert self._transport is not None
        self._transport.write(data)

    async def write_all(self, data: bytes, timeout: float) -> None:
        """Send octets of any length without keeping them twice; raises TimeoutError when the server stops reading."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            await asyncio.sleep(0)  # a server that refuses in the middle of it and hangs up is heard first
            self.write(view[start : start + CHUNK])  # type: ignore[arg-type]  # transports take any buffer
            if self._writable is not None:
                async with asyncio.timeout(timeout):
                    await self._writable
        if self._lost is not None:
            raise self._lost

    async def reply(self, timeout: float) -> Reply:
        """The next reply. Raises TimeoutError, ReplyError, or what the connection died of (Dropped = it was closed)."""
        return parse_reply(await self.lines(timeout))

    async def lines(self, timeout: float) -> list[bytes]:
        """The lines of the next reply, without CRLF; raises as `reply` does."""
        if (lines := self._take()) is not None:
            return lines
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout, self._expire)  # a fifth of what asyncio.timeout costs
        try:
            while True:
                if self._lost is not None:
                    raise self._lost
                self._waiter = loop.create_future()
                await self._waiter
                if (lines := self._take()) is not None:
                    return lines
        finally:
            timer.cancel()
            self._waiter = None

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def _take(self) -> list[bytes] | None:
        while True:
            try:
                line = self._reader.take_line(MAX_LINE, BareLF.ACCEPT)
            except LineTooLong:
                raise ReplyError("a reply without end") from None
            if line is None:
                return None
            self._lines.append(line)
            if len(self._lines) > MAX_LINES:
                raise ReplyError("a reply without end")
            if line[3:4] != b"-":
                lines, self._lines = self._lines, []
                return lines

    def last_words(self) -> Reply | None:
        """A whole reply that came, unread so far, before the connection died or fell silent."""
        try:
            lines = self._take()
            return None if lines is None else parse_reply(lines)
        except ReplyError:
            return None

    def certificates(self) -> list[bytes]:
        """The certificates (DER) that the server showed, its own first; nothing is said of whether they are good."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        if hasattr(tls, "get_unverified_chain"):  # Python 3.13
            return list(tls.get_unverified_chain() or ())
        return [each.public_bytes(_DER) for each in tls._sslobj.get_unverified_chain() or ()]

    async def start_tls(self, context: ssl.SSLContext, name: str, timeout: float) -> str:
        """Begin TLS; returns its version and cipher. Raises ssl.SSLError and the like.

        Octets that came with the answer to STARTTLS were sent by whoever sits in between: they end the connection.
        """
        assert self._transport is not None
        if len(self._reader):
            raise ReplyError("octets after the answer to STARTTLS")
        async with asyncio.timeout(timeout):
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_hostname=name, ssl_handshake_timeout=timeout
            )
        if transport is None:
            raise Dropped
        self._transport, self._is_tls = transport, True
        tls = transport.get_extra_info("ssl_object")
        return f"{tls.version()} {tls.cipher()[0]}"

    def abort(self) -> None:
        """Cut the connection at once: what was not sent is not sent, half a message stays half a message."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self, timeout: float) -> None:
        """Say goodbye and close when it is answered, or after `timeout` seconds; returns at once."""
        if self._transport is None or self._lost is not None:
            return
        self._leaving = True
        self._transport.write(b"QUIT\r\n")
        asyncio.get_running_loop().call_later(timeout, self.abort)


async def connect(address: str, port: int, timeout: float, source: str | None = None) -> Connection:
    """Connect to an IP address, never a name: it is the address that was checked. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        _, connection = await loop.create_connection(
            Connection, address, port, local_addr=(source, 0) if source else None
        )
    return connection


@lru_cache(maxsize=4)
def tls_context(verify: bool = False) -> ssl.SSLContext:
    """TLS for mail between servers: opportunistic, hence no certificate is demanded unless `verify`."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
