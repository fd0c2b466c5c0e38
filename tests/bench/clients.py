"""Load: an SMTP sender that keeps many connections busy, and an IMAP client that reads as fast as it can."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence

import uvloop


def no_verification() -> ssl.SSLContext:
    """The measured servers have self-signed certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Smtp:
    """One pipelining SMTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.chunking = False

    @classmethod
    async def connect(cls, port: int) -> Smtp:
        client = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 16))
        await client._reply()
        client._writer.write(b"EHLO bench.example\r\n")
        client.chunking = b"CHUNKING" in (await client._reply()).upper()
        return client

    async def _reply(self, wanted: bytes = b"2") -> bytes:
        lines = b""
        while True:
            line = await self._reader.readline()
            lines += line
            if not line or line[3:4] != b"-":
                break
        if not line.startswith(wanted):
            raise RuntimeError(f"the server answered {lines!r}")
        return lines

    async def login(self, user: str, password: str) -> None:
        """AUTH PLAIN."""
        self._writer.write(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n")
        await self._reply()

    async def send(self, recipient: str, raw: bytes, sender: str = "sender@bench.example") -> float:
        """Send one message; seconds from MAIL to the reply that accepts it."""
        start = time.perf_counter()
        envelope = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\n" % (sender.encode(), recipient.encode())
        if self.chunking:
            self._writer.write(envelope + b"BDAT %d LAST\r\n" % len(raw) + raw)
            await self._reply()
            await self._reply()
        else:
            self._writer.write(envelope + b"DATA\r\n")
            await self._reply()
            await self._reply()
            await self._reply(b"354")
            self._writer.write((b"\r\n" + raw).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
        await self._writer.drain()
        await self._reply()
        return time.perf_counter() - start

    def close(self) -> None:
        self._writer.close()


def send_all(port: int, mail: Sequence[tuple[str, bytes]], connections: int) -> list[float]:
    """Send (recipient, message) pairs over so many connections at once; the latencies in seconds."""
    waiting, latencies = deque(mail), []

    async def work() -> None:
        client = await Smtp.connect(port)
        while waiting:
            latencies.append(await client.send(*waiting.popleft()))
        client.close()

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(connections)))

    uvloop.run(run())
    return latencies


class Imap:
    """A blocking IMAP client that throws away what it reads, but for the end of each answer."""

    def __init__(self, port: int, user: str, password: str, *, tls: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self._socket = no_verification().wrap_socket(self._socket)
        self._count = 0
        self._line()
        self.run(f'LOGIN "{user}" "{password}"')

    def _line(self) -> bytes:
        found = b""
        while not found.endswith(b"\r\n"):
            found += self._some()
        return found

    def _some(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError("the server closed the connection")
        return data

    def run(self, command: str, literal: bytes | None = None) -> bytes:
        """Run a command and return the last 64 kB of its answer; raises RuntimeError unless it ends in OK."""
        self._count += 1
        tag = b"Zq%06dV" % self._count
        line = tag + b" " + command.encode()
        if literal is None:
            self._socket.sendall(line + b"\r\n")
        else:
            self._socket.sendall(line + b" {%d}\r\n" % len(literal))
            answer = self._line()
            if not answer.startswith(b"+"):
                raise RuntimeError(f"{command}: {answer!r}")
            self._socket.sendall(literal + b"\r\n")
        tail, ending = b"", re.compile(rb"(?:^|\r\n)" + tag + rb" (\w+)[^\r\n]*\r\n\Z")
        while True:
            tail = (tail + self._some())[-65536:]
            if tail.endswith(b"\r\n") and (match := ending.search(tail, max(0, len(tail) - 2000))):
                if match[1] != b"OK":
                    raise RuntimeError(f"{command}: {tail[-200:]!r}")
                return tail

    def append(self, mailbox: str, messages: Sequence[bytes]) -> None:
        """Store several messages with one command (MULTIAPPEND, LITERAL+)."""
        self._count += 1
        tag = b"Zq%06dV" % self._count
        parts = [b" {%d+}\r\n%b" % (len(raw), raw) for raw in messages]
        self._socket.sendall(b"%b APPEND %b%b\r\n" % (tag, mailbox.encode(), b"".join(parts)))
        answer = self._line()
        if not answer.startswith(tag + b" OK"):
            raise RuntimeError(f"APPEND of {len(messages)}: {answer!r}")

    def messages(self, mailbox: str = "INBOX") -> int:
        match = re.search(rb"MESSAGES (\d+)", self.run(f"STATUS {mailbox} (MESSAGES)"))
        return int(match[1]) if match else 0

    def start_idle(self) -> None:
        self._socket.sendall(b"idle IDLE\r\n")
        while not self._line().startswith(b"+"):
            pass

    def wait_exists(self) -> None:
        """Wait until the idling server says that something is there."""
        seen = b""
        while b"EXISTS" not in seen:
            seen += self._some()

    def close(self) -> None:
        self._socket.close()
