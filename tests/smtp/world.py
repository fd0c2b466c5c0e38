"""A real server on loopback over the run's Postgres, and a client that says exactly what a test tells it to say."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mailcore import db, tls
from mailcore.conf import conf
from mailcore.smtp import server as smtp
from mailcore.smtp.policy import LMTP, MX, SUBMISSION, SUBMISSIONS, Policy
from mailcore.store import fetch, trace
from mailcore.store.ingest import Ingest
from tests.waiting import eventually

PASSWORD = "correct horse battery"
ANN, BOB, CHARLIE = "ann@example.org", "bob@example.org", "charlie@example.net"


@dataclass
class Village:
    """Who lives here: Ann and Bob of example.org, Charlie of example.net; the first is the administrator."""

    ann: int
    bob: int
    charlie: int


class Client:
    """Says octets and hears replies; every wait ends after a minute."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        # A reset is an end: what was said before it is still heard, however late we come to read it.
        reader.set_exception = lambda _error: reader.feed_eof()  # type: ignore[method-assign]

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def hear(self) -> str:
        """One reply, all its lines; "" when the server has closed."""
        lines = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 60)).decode()
            if not line:
                return "\n".join(lines)
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    async def ask(self, line: str | bytes) -> str:
        self.say((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.hear()

    async def expect(self, line: str | bytes, reply: str) -> str:
        """Say a line; the reply must begin so."""
        heard = await self.ask(line)
        assert heard.startswith(reply), f"{line!r} was answered {heard!r}, not {reply!r}"
        return heard

    async def talk(self, transcript: str) -> None:
        """Play a transcript: `C: ` lines are said, `S: ` lines are how the replies must begin."""
        for number, line in enumerate(transcript.strip().splitlines(), 1):
            who, _, text = (line.strip() + " ").partition(": ")
            text = text.rstrip(" ")
            if who == "C":
                self.say(text.encode() + b"\r\n")
            elif who == "S":
                heard = await self.hear()
                assert heard.startswith(text), f"line {number}: {heard!r} instead of {text!r}"
            elif line.strip():
                raise AssertionError(f"line {number} is neither C: nor S:")

    async def closed(self) -> bool:
        """Whether the server has closed the connection (and said nothing more)."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 60) == b""
        except ConnectionError:
            return True

    async def start_tls(self) -> None:
        await self.expect("STARTTLS", "220 2.0.0")
        await self.writer.start_tls(untrusting(), server_hostname="localhost")

    async def login(self, address: str = ANN, password: str = PASSWORD) -> str:
        import base64

        token = base64.b64encode(f"\0{address}\0{password}".encode()).decode()
        return await self.expect(f"AUTH PLAIN {token}", "235 2.7.0")

    async def deliver(
        self, message: bytes, to: str = ANN, sender: str = "far@elsewhere.example", parameters: str = ""
    ) -> str:
        """A whole transaction by DATA; returns the last reply."""
        await self.expect(f"MAIL FROM:<{sender}>{parameters}", "250")
        await self.expect(f"RCPT TO:<{to}>", "250")
        await self.expect("DATA", "354")
        self.say(message + b".\r\n")
        return await self.hear()

    async def close(self) -> None:
        self.writer.close()
        with suppress(Exception):
            await self.writer.wait_closed()


def untrusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass
class World:
    """A running server and what can be seen of its store."""

    server: smtp.Server
    ports: dict[str, int]

    @asynccontextmanager
    async def client(self, name: str = "mx", *, hello: bool = True) -> AsyncIterator[Client]:
        context = untrusting() if name == "submissions" else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[name], ssl=context, limit=1 << 20)
        client = Client(reader, writer)
        try:
            word, verb = ("LMTP", "LHLO") if name == "lmtp" else ("ESMTP", "EHLO")
            assert (await client.hear()).startswith(f"220 mx.example.test {word}")
            if hello:
                await client.expect(f"{verb} client.example", "250-mx.example.test")
            yield client
        finally:
            await client.close()

    @staticmethod
    async def mail(account_id: int) -> list[bytes]:
        """The messages in an account's INBOX."""
        async with db.read() as tx:
            rows = await fetch.rows(tx, account_id, 1, 1, 1 << 31, ("message_id",))
            stored = await fetch.raws(tx, account_id, [row[0] for row in rows])
            return [stored[row[0]] for row in rows]

    @staticmethod
    async def queued() -> list[tuple[str, str, bytes]]:
        """(sender, recipient, octets as they will be sent) of the outbound queue."""
        async with db.read() as tx:
            return [
                (sender, address, bytes(prepend) + bytes(data))
                for sender, address, prepend, data in await tx.fetch(
                    "SELECT o.sender, r.address, o.prepend, b.data FROM outbound o JOIN blob b ON b.hash = o.blob "
                    "JOIN outbound_recipient r ON r.outbound_id = o.id ORDER BY r.id"
                )
            ]

    @staticmethod
    async def steps(text: str) -> list[str]:
        async with db.read() as tx:
            return [event.step for event in await trace.find(tx, text)]


@asynccontextmanager
async def running(data: Path, *, pool_timeout: float = 15.0, **settings: object) -> AsyncIterator[World]:
    """A server with its own ports; settings of conf or of the listeners' policies can be changed."""
    ours = replace(conf, data=data, **{k: v for k, v in settings.items() if k in conf.__dataclass_fields__})  # type: ignore[arg-type]
    limits = {k: v for k, v in settings.items() if k in MX.__dataclass_fields__}
    tls.ensure_certificate(ours)
    await db.open_pool(8, timeout=pool_timeout)
    try:
        ingest = Ingest()
        server = await smtp.start(
            replace(ours, smtp_port=0, submission_port=0, submissions_port=0), tls.Certificates(ours), ingest=ingest
        )
        policies: list[Policy] = [replace(policy, **limits) for policy in (MX, SUBMISSION, SUBMISSIONS, LMTP)]  # type: ignore[arg-type]
        ports = {policy.name: await server.listen(policy, "127.0.0.1", 0) for policy in policies}
        try:
            yield World(server, ports)
        finally:
            await server.close()
            await ingest.close()
    finally:
        await db.close_pool()


def body_of(stored: bytes) -> bytes:
    """What was sent, of a stored message: without the Return-Path and Received lines that we put before it."""
    match = re.match(rb"Return-Path: <[^\r\n]*>\r\nReceived: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)+", stored)
    assert match, stored[:300]
    return stored[match.end() :]


MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
# What an attacker wants us to carry out as commands of somebody else's.
EVIL = b"MAIL FROM:<ceo@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"


async def begin(client: Client, *, parameters: str = "") -> None:
    """MAIL, RCPT to Ann and DATA; the message comes next."""
    await client.expect(f"MAIL FROM:<far@elsewhere.example>{parameters}", "250")
    await client.expect("RCPT TO:<ann@example.org>", "250")
    await client.expect("DATA", "354")


async def gone(world: World) -> None:
    """Wait until the server has noticed that its clients are gone, and holds nothing of them."""
    server = world.server
    await eventually(lambda: not (server.sessions or server.handshakes or server._counts or server.room.used))
