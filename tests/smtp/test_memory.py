"""What large mail costs the mail process in memory: little while it comes in, a bounded amount while it commits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mailcore import db
from mailcore.smtp.server import LARGE_AT_ONCE
from tests.ports import free_ports
from tests.smtp.test_faults import connect, process
from tests.smtp.world import Client, Village, World, body_of

pytestmark = [pytest.mark.django_db(transaction=True)]

MB = 1 << 20
LINE = b"0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVW 0123456789\r\n"
HEAD = b"From: far@elsewhere.example\r\nSubject: large\r\n\r\n"
SIZE = 49 * MB
SESSIONS = 5


def memory(pid: int, what: str = "RssAnon") -> int:
    """Octets of a process's memory that are its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1]) * 1024


async def settled(pid: int) -> int:
    """The memory of a process once it has stopped changing."""
    before = memory(pid)
    for _ in range(40):
        await asyncio.sleep(0.1)
        now = memory(pid)
        if abs(now - before) < 64 * 1024:
            return now
        before = now
    return before


async def begin(client: Client, how: str) -> None:
    await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
    await client.expect("RCPT TO:<ann@example.org>", "250")
    if how == "DATA":
        await client.expect("DATA", "354")
        client.say(HEAD)
    else:
        client.say(b"BDAT %d LAST\r\n" % (len(HEAD) + SIZE) + HEAD)


async def send(client: Client, octets: int) -> None:
    block = LINE * (MB // 4 // len(LINE))
    whole, rest = divmod(octets, len(block))
    for _ in range(whole):
        client.say(block)
        await client.writer.drain()
    client.say(block[:rest])
    await client.writer.drain()


@pytest.mark.parametrize("how", ["DATA", "BDAT"])
async def test_fifty_megabytes_take_less_than_one_of_memory(village: Village, tmp_path: Path, how: str) -> None:
    """Five clients send 49 MB each, all but the last octets: what the process has grown by, for each of them."""
    ports = free_ports(5)
    async with process(tmp_path, ports) as server:
        clients = [await connect(ports[0]) for _ in range(SESSIONS)]
        first = await connect(ports[0])  # what the first large message of all leaves behind is not theirs
        await begin(first, how)
        await send(first, 4 * MB)
        first.writer.transport.abort()
        for client in clients:
            assert (await client.deliver(HEAD + LINE)).startswith("250")
        before = await settled(server.pid)
        for client in clients:
            await begin(client, how)
        await asyncio.gather(*(send(client, SIZE - 1000) for client in clients))
        grown = (await settled(server.pid) - before) / SESSIONS
        print(f"{how}: {grown / 1024:.0f} kB for each of {SESSIONS} sessions with {SIZE / MB:.0f} MB received")
        assert grown < MB
        for client in clients:
            client.writer.transport.abort()


async def test_large_messages_commit_a_few_at_a_time(village: Village, tmp_path: Path) -> None:
    """A message is in memory several times over while it is stored; how many are is bounded, and nothing of them stays.

    Without a bound, these 10 messages of 10 MB take 460 MB.
    """
    ports = free_ports(5)
    async with process(tmp_path, ports) as server:
        clients = [await connect(ports[0]) for _ in range(10)]
        before = await settled(server.pid)
        size = 10 * MB // len(LINE) * len(LINE)
        for client in clients:
            await begin(client, "DATA")
        await asyncio.gather(*(send(client, size) for client in clients))
        peak = 0
        for client in clients:
            client.say(b".\r\n")
        answers = asyncio.gather(*(client.hear() for client in clients))
        while not answers.done():
            peak = max(peak, memory(server.pid) - before)
            await asyncio.sleep(0.002)
        assert all(reply.startswith("250") for reply in await answers)
        print(f"{len(clients)} messages of 10 MB at once: {peak / MB:.0f} MB at most")
        assert peak < 6 * LARGE_AT_ONCE
        left = await settled(server.pid) - before
        print(f"afterwards: {left / MB:.1f} MB")
        assert left < 40 * MB
        for client in clients:
            client.writer.transport.abort()
    await db.open_pool(2)
    try:
        assert [len(body_of(stored)) for stored in await World.mail(village.ann)] == [size + len(HEAD)] * 10
    finally:
        await db.close_pool()
