"""A mail host that fails at random, at every stage and in every way, and knows what it has taken."""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

STAGES = ("CONNECT", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "TEXT", "CONTENT")
FAULTS = ("later", "never", "close", "stall", "garbage", "half", "421")
LATER, NEVER = "451 4.3.0 not now", "554 5.7.1 not today, not ever"
_KEY = re.compile(rb"^X-Key: (\S+)\r?$", re.M)


@dataclass(frozen=True, slots=True)
class Copy:
    """One that was taken; `is_known`: the client was told so, all of it; `epoch`: how often workers had been killed
    when its connection began."""

    is_known: bool
    epoch: int


class _Over(Exception):
    """This connection is."""


@dataclass
class FaultyHost:
    """`share` of the answers are no good ones. `stall`: seconds of silence, longer than any client waits."""

    dice: random.Random
    share: float
    stall: float
    tls: ssl.SSLContext | None = None
    epoch: int = 0
    connections: int = 0
    copies: dict[tuple[str, str], list[Copy]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, addresses: list[str]) -> int:
        """Listens at all of them, on one port, which it returns."""
        for _ in range(20):
            first = await asyncio.start_server(self._serve, addresses[0], 0)
            port = int(first.sockets[0].getsockname()[1])
            first.close()
            await first.wait_closed()
            with suppress(OSError):
                self._server = await asyncio.start_server(self._serve, addresses, port)
                return port
        raise OSError("no port is free at all addresses")

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, _Over, ssl.SSLError):
                await _Conversation(self, reader, writer).run()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def fault(self, stage: str) -> str | None:
        if self.dice.random() >= self.share:
            return None
        found = self.dice.choice(FAULTS)
        self.faults[stage, found] += 1
        return found


class _Conversation:
    def __init__(self, host: FaultyHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host, self.reader, self.writer = host, reader, writer
        self.epoch = host.epoch  # what a worker had sent before it was killed may be read after that
        self.is_encrypted = False
        self.recipients: list[str] = []

    async def run(self) -> None:
        if not await self.answer("CONNECT", "220 faulty.example ESMTP"):
            return
        while line := (await self.reader.readuntil(b"\r\n"))[:-2].decode():
            verb = line.split(" ")[0].upper()
            if verb in ("EHLO", "HELO"):
                offers = ["faulty.example", "PIPELINING", "SIZE 1000000", "8BITMIME"]
                if self.host.tls is not None and not self.is_encrypted and self.host.dice.random() < 0.5:
                    offers.append("STARTTLS")
                lines = [f"250-{each}\r\n" for each in offers[:-1]] + [f"250 {offers[-1]}"]
                await self.answer("EHLO", "".join(lines))
            elif verb == "STARTTLS":
                await self.encrypt()
            elif verb in ("MAIL", "RSET"):
                self.recipients = []
                if verb == "RSET":
                    await self.say("250 2.0.0 ok")
                elif not await self.answer("MAIL", "250 2.1.0 ok"):
                    self.recipients = ["-"]
            elif verb == "RCPT":
                if self.recipients == ["-"]:
                    await self.say("503 5.5.1 MAIL first")
                elif await self.answer("RCPT", "250 2.1.5 ok"):
                    self.recipients.append(line.partition("<")[2].partition(">")[0])
            elif verb == "DATA":
                await self.data()
            elif verb == "QUIT":
                await self.say("221 2.0.0 bye")
                return
            else:
                await self.say("502 5.5.2 what?")

    async def encrypt(self) -> None:
        assert self.host.tls is not None
        if not await self.answer("STARTTLS", "220 2.0.0 go ahead"):
            return
        if self.host.fault("STARTTLS"):
            await self.say("this is no TLS record")  # in the middle of the handshake
            raise _Over
        await self.writer.start_tls(self.host.tls)
        self.is_encrypted = True

    async def data(self) -> None:
        if not self.recipients or self.recipients == ["-"]:
            await self.say("554 5.5.1 nobody")
            return
        if not await self.answer("DATA", "354 go"):
            return
        if (fault := self.host.fault("TEXT")) is not None:
            await self.reader.readexactly(100)
            if fault in ("never", "later"):
                await self.say(NEVER if fault == "never" else LATER)
            elif fault == "stall":
                await asyncio.sleep(0.1)
            raise _Over
        text = await self.reader.readuntil(b"\r\n.\r\n")
        found = _KEY.search(text)
        assert found is not None
        key, recipients, self.recipients = found[1].decode(), self.recipients, []
        fault = self.host.fault("CONTENT")
        if fault in ("later", "never", "421"):
            await self.say({"later": LATER, "never": NEVER}.get(fault, "421 4.3.2 closing"))
            return
        # Whatever else goes wrong now, it may have been taken all the same.
        if fault is None or self.host.dice.random() < 0.5:
            for to in recipients:
                self.host.copies[key, to].append(Copy(fault is None, self.epoch))
        if fault == "stall":
            await asyncio.sleep(0.1)
        elif fault is None:
            await self.say("250 2.0.0 taken")
            return
        elif fault == "garbage":
            await self.say("taken, I think")
        elif fault == "half":
            await self.say("250-2.0.0 tak", end="")
        raise _Over

    async def answer(self, stage: str, good: str) -> bool:
        """The answer, or a fault; False when it was no."""
        fault = self.host.fault(stage)
        if fault is None:
            await self.say(good)
            return True
        if fault in ("later", "never"):
            await self.say(LATER if fault == "later" else NEVER)
            return False
        if fault == "421":
            await self.say("421 4.3.2 shutting down")
        elif fault == "stall":
            await asyncio.sleep(self.host.stall)
        elif fault == "garbage":
            await self.say(self.host.dice.choice(["hello", "99", "250_ok", "\x00\xff\x01", "250 " + "x" * 5000]))
        elif fault == "half":
            await self.say(good[: self.host.dice.randrange(1, 8)], end="")
        raise _Over

    async def say(self, text: str, end: str = "\r\n") -> None:
        self.writer.write((text + end).encode("latin-1"))
        await self.writer.drain()
