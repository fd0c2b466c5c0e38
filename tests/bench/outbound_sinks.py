"""The world that outbound mail goes to: a name server and a thousand mail servers, in a process of their own.

    python -m tests.bench.outbound_sinks PORT HEALTHY SLOW DEAD GREY BULK GONE

All of 127.0.0.0/8 is loopback: each destination dN.KIND.test has an address of its own. `slow` servers answer each time
after 5 s; half of the `dead` ones refuse connections, the others never answer a SYN; `grey` ones refuse the first
attempt of each recipient (450). What waits besides goes to `bulk` ones, which are healthy, and to `gone` ones, whose
only server refuses connections. A line on stdin asks for a report, as one line of JSON on stdout.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from functools import partial
from typing import cast

import uvloop

from tests.delivery.nameserver import NameServer

SLOW_SECONDS = 5.0
NETS = {"healthy": 10, "slow": 20, "dead": 30, "grey": 40, "bulk": 50, "gone": 60}
BANNER = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"


def address(kind: str, number: int) -> str:
    return f"127.{NETS[kind]}.{number // 250}.{number % 250 + 1}"


def domain(kind: str, number: int) -> str:
    return f"d{number}.{kind}.test"


class World:
    """What arrived: times on the monotonic clock that all processes of this machine share."""

    def __init__(self) -> None:
        self.arrived: dict[str, list[float]] = {kind: [] for kind in NETS}
        self.seen: set[bytes] = set()
        self.octets = 0
        self.connections = 0

    def report(self) -> dict[str, object]:
        return {"arrived": self.arrived, "octets": self.octets, "connections": self.connections}


class Session(asyncio.Protocol):
    """As little of SMTP as a pipelining client needs."""

    def __init__(self, world: World, kind: str) -> None:
        self.world, self.kind = world, kind
        self.buffer = bytearray()
        self.in_data = False
        self.accepted = 0
        self.queue: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.world.connections += 1
        self.say(b"220 sink.test ESMTP\r\n")

    def say(self, octets: bytes) -> None:
        if self.kind == "slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self.say_now, octets)
        else:
            self.transport.write(octets)

    def say_now(self, octets: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(octets)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answers = b""
        while True:
            if self.in_data:
                end = self.buffer.find(b"\r\n.\r\n") + 2 if not self.buffer.startswith(b".\r\n") else 0
                if end == 1:
                    break
                self.world.octets += end
                del self.buffer[: end + 3]
                self.in_data = False
                self.world.arrived[self.kind] += [time.monotonic()] * self.accepted
                answers += b"250 2.0.0 taken\r\n"
                self.accepted = 0
                continue
            line, found, _ = self.buffer.partition(b"\r\n")
            if not found:
                break
            del self.buffer[: len(line) + 2]
            answers += self.answer(bytes(line))
        if answers:
            self.say(answers)

    def answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return BANNER
        if verb == b"RCPT":
            if self.kind == "grey" and line not in self.world.seen:
                self.world.seen.add(line)
                return b"450 4.2.0 greylisted, come back\r\n"
            self.accepted += 1
            return b"250 2.1.5 ok\r\n"
        if verb == b"DATA":
            if not self.accepted:
                return b"554 5.5.1 nobody\r\n"
            self.in_data = True
            return b"354 go\r\n"
        if verb in (b"MAIL", b"RSET"):
            self.accepted = 0
        if verb == b"QUIT":
            self.say(b"221 bye\r\n")
            asyncio.get_running_loop().call_soon(self.transport.close)
            return b""
        return b"250 2.0.0 ok\r\n"


def deaf(host: str, port: int) -> list[socket.socket]:
    """A listener whose backlog is full: a SYN to it is not answered."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(0)
    held = [listener]
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((host, port))
        held.append(client)
    return held


async def main() -> None:
    port, *counts = map(int, sys.argv[1:])
    world, names = World(), await NameServer().start()
    loop = asyncio.get_running_loop()
    kept: list[object] = []
    for kind, count in zip(NETS, counts, strict=True):
        for number in range(count):
            host = address(kind, number)
            names.host(domain(kind, number), (10, f"mx.{domain(kind, number)}", host))
            if kind == "gone":
                continue
            if kind != "dead":
                kept.append(await loop.create_server(partial(Session, world, kind), host, port, backlog=100))
            elif number % 2:
                kept += deaf(host, port)
    print(json.dumps({"dns": names.port}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(world.report()), flush=True)


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
