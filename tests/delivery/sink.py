"""A mail server that does exactly what a test tells it to, and remembers what it was given."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

DROP = "DROP"  # close the connection instead of answering
HANG = "HANG"  # never answer

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")

Script = Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Mail:
    """One transaction that the sink accepted; `data` without dot-stuffing."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    mail_line: str
    rcpt_lines: tuple[str, ...]
    tls: str | None
    connection: int
    helo: str


@dataclass
class Sink:
    """`script(verb, line)` may return another reply, DROP or HANG, for CONNECT, EHLO …, DATA, CONTENT (the data's end).

    `drop_in_data` closes in the middle of the message, after that many octets.
    """

    script: Script | None = None
    extensions: tuple[str, ...] = EXTENSIONS
    tls: ssl.SSLContext | None = None
    name: str = "sink.example"
    drop_in_data: int | None = None
    delay: float = 0.0
    mails: list[Mail] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    peers: list[str] = field(default_factory=list)
    address: str = "127.0.0.1"
    port: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> Sink:
        self._server = await asyncio.start_server(self._serve, address, port, limit=2**22)
        self.address, self.port = self._server.sockets[0].getsockname()[:2]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def refuse(self, *rules: tuple[str, str, str]) -> None:
        """Answer `reply` to lines of `verb` that contain `text`; the first rule that fits counts."""

        def script(verb: str, line: str) -> str | None:
            return next((reply for v, text, reply in rules if v == verb and text in line), None)

        self.script = script

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.append(writer.get_extra_info("peername")[0])
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, _Closed, ssl.SSLError):
            await _Talk(self, reader, writer, self.connections).run()
        self.open_now -= 1
        self._writers.discard(writer)
        writer.transport.abort()


class _Closed(Exception):
    pass


class _Talk:
    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.sink, self.reader, self.writer, self.number = sink, reader, writer, number
        self.helo = ""
        self.tls: str | None = None
        self.reset()

    def reset(self) -> None:
        self.mail_line = ""
        self.rcpt_lines: list[str] = []

    async def say(self, verb: str, line: str, reply: str) -> str:
        """Send the script's reply or this one; returns what was sent."""
        if self.sink.delay:
            await asyncio.sleep(self.sink.delay)
        if self.sink.script is not None:
            reply = self.sink.script(verb, line) or reply
        if reply == DROP:
            raise _Closed
        if reply == HANG:
            await asyncio.sleep(3600)
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()
        return reply

    async def run(self) -> None:
        sink = self.sink
        if not (await self.say("CONNECT", "", f"220 {sink.name} ESMTP")).startswith("2"):
            raise _Closed
        while True:
            raw = await self.reader.readuntil(b"\r\n")
            line = raw[:-2].decode()
            verb = line.split(" ")[0].upper()
            sink.log.append(line)
            if verb == "EHLO":
                self.helo = line[5:]
                offers = list(sink.extensions)
                if sink.tls is not None and self.tls is None:
                    offers.append("STARTTLS")
                lines = [sink.name, *offers]
                more = "".join(f"250-{each}\r\n" for each in lines[:-1])
                await self.say(verb, line, f"{more}250 {lines[-1]}")
            elif verb == "HELO":
                self.helo = line[5:]
                await self.say(verb, line, f"250 {sink.name}")
            elif verb == "STARTTLS":
                if (await self.say(verb, line, "220 go ahead")).startswith("220") and sink.tls is not None:
                    await self.writer.start_tls(sink.tls)
                    self.tls = self.writer.get_extra_info("ssl_object").version()
            elif verb == "MAIL":
                if (await self.say(verb, line, "250 2.1.0 ok")).startswith("2"):
                    self.mail_line = line
            elif verb == "RCPT":
                reply = "250 2.1.5 ok" if self.mail_line else "503 5.5.1 MAIL first"
                if (await self.say(verb, line, reply)).startswith("2"):
                    self.rcpt_lines.append(line)
            elif verb == "DATA":
                await self.data(line)
            elif verb == "BDAT":
                await self.chunk(line)
            elif verb == "RSET":
                self.reset()
                await self.say(verb, line, "250 2.0.0 ok")
            elif verb == "QUIT":
                await self.say(verb, line, "221 2.0.0 bye")
                raise _Closed
            else:
                await self.say(verb, line, "502 5.5.2 what?")

    async def data(self, line: str) -> None:
        sink = self.sink
        if not (await self.say("DATA", line, "354 go" if self.rcpt_lines else "554 5.5.1 nobody")).startswith("354"):
            return
        if sink.drop_in_data is not None:
            await self.reader.readexactly(sink.drop_in_data)
            raise _Closed
        octets = bytearray()
        while True:
            row = await self.reader.readuntil(b"\r\n")
            if row == b".\r\n":
                break
            octets += row[1:] if row.startswith(b".") else row
        await self.end(bytes(octets))

    async def chunk(self, line: str) -> None:
        """One chunk with LAST, the whole message."""
        _, length, last = line.split(" ")
        assert last == "LAST" and self.rcpt_lines
        await self.end(await self.reader.readexactly(int(length)))

    async def end(self, octets: bytes) -> None:
        sink = self.sink
        mail = Mail(
            _path(self.mail_line),
            tuple(_path(each) for each in self.rcpt_lines),
            octets,
            self.mail_line,
            tuple(self.rcpt_lines),
            self.tls,
            self.number,
            self.helo,
        )
        self.reset()
        reply = "250 2.0.0 taken"
        if sink.script is not None:
            reply = sink.script("CONTENT", mail.sender) or reply
        if reply.startswith("2") or reply == "TAKE AND DROP":
            sink.mails.append(mail)
            sink.arrived.set()
        if reply in (DROP, "TAKE AND DROP"):
            raise _Closed
        if reply == HANG:
            await asyncio.sleep(3600)
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()


def _path(line: str) -> str:
    match = re.search(r"<([^>]*)>", line)
    return match[1] if match else ""
