"""When things break: clients vanish, the database is away, shutdown, SIGKILL. What was acknowledged is there."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.db import connection

from mailcore import db
from mailcore.conf import conf
from mailcore.smtp import connection as lines
from mailcore.smtp.spool import MEMORY
from tests.ports import free_ports
from tests.smtp.world import Client, Village, World, body_of, gone, running
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
ROOT = Path(__file__).resolve().parent.parent.parent


def cut(client: Client) -> None:
    """Drop the connection with a reset, as a crashed peer or a firewall does."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def test_a_connection_lost_in_mid_message_leaves_nothing(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        for how, size in itertools.product(("end", "reset"), (100, 3_000_000)):
            for begin in (b"DATA\r\n", b"BDAT %d LAST\r\n" % (size + 1)):
                async with world.client() as client:
                    await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
                    await client.expect("RCPT TO:<ann@example.org>", "250")
                    client.say(begin + b"x" * size)
                    await client.writer.drain()
                    await asyncio.sleep(0.05)
                    if how == "reset":
                        cut(client)
                await gone(world)
        assert await world.mail(village.ann) == []
        await eventually(lambda: not list((tmp_path / "spool").iterdir()))


async def test_a_client_that_closes_its_sending_side_gets_its_answers(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE)
        client.writer.write_eof()
        assert [(await client.hear())[:9] for _ in range(3)] == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        assert await client.closed()
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [MESSAGE]


async def test_a_large_message_does_not_stay_in_memory(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        size, line = 0, b"x" * 998 + b"\r\n"
        client.say(b"BDAT 20000000\r\n")
        (session,) = world.server.sessions
        while size < 20_000_000:
            client.say(line * 500)
            size += 500_000
            await client.writer.drain()
            spool = session.transaction.chunks if session.transaction else None
            if spool is not None:
                assert spool._pending <= MEMORY
            assert len(session.input) <= 1_000_000
        assert (await client.hear()).startswith("250")


@asynccontextmanager
async def database_away() -> AsyncIterator[None]:
    """Nobody can connect to the test database, and whoever is connected is thrown out."""
    name = psycopg.conninfo.conninfo_to_dict(db.dsn())["dbname"]
    admin = await psycopg.AsyncConnection.connect(
        psycopg.conninfo.make_conninfo(db.dsn(), dbname="postgres"), autocommit=True
    )
    async with admin:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
        finally:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.fixture
def django_away(village: Village) -> None:
    """Django holds no connection of this thread that could be broken; it makes a new one when it needs it."""
    connection.close()


async def test_the_database_is_away(village: Village, django_away: None, tmp_path: Path) -> None:
    async with running(tmp_path, pool_timeout=3.0) as world, world.client() as client, world.client() as other:
        assert (await client.deliver(MESSAGE)).startswith("250")
        await other.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await other.expect("RCPT TO:<ann@example.org>", "250")
        async with database_away():
            await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
            await client.expect("RCPT TO:<bob@example.org>", "451 4.3.0")
            await other.expect("DATA", "354")
            await other.expect(MESSAGE + b".", "451 4.3.0")
            await client.expect("RSET", "250")
        for _ in range(600):  # the pool tries again by itself
            await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
            if (await client.ask("RCPT TO:<bob@example.org>")).startswith("250"):
                break
            await client.expect("RSET", "250")
            await asyncio.sleep(0.1)
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250 2.0.0")
        assert (len(await world.mail(village.ann)), len(await world.mail(village.bob))) == (1, 1)


async def test_shutdown_answers_what_is_committing_and_takes_leave_of_the_others(
    village: Village, tmp_path: Path
) -> None:
    async with running(tmp_path) as world, world.client() as busy, world.client() as idle, world.client() as mid:
        await mid.expect("MAIL FROM:<>", "250")
        await mid.expect("RCPT TO:<ann@example.org>", "250")
        await mid.expect("DATA", "354")
        mid.say(b"Subject: not yet complete\r\n")
        busy.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE)
        while not any(session.transaction and session.transaction.recipients for session in world.server.sessions):
            await asyncio.sleep(0)
        closing = asyncio.create_task(world.server.close())
        heard = [await busy.hear() for _ in range(4)]
        assert [reply[:3] for reply in heard] == ["250", "250", "250", "421"]
        for client in (idle, mid):
            assert (await client.hear()).startswith("421 4.3.2")
            assert await client.closed()
        await closing
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [MESSAGE]
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", world.ports["mx"])


async def test_fifty_connections_at_once(village: Village, tmp_path: Path) -> None:
    async def one(world: World, number: int) -> None:
        name = ("mx", "submission", "submissions")[number % 3]
        async with world.client(name) as client:
            sender = "far@elsewhere.example"
            if name != "mx":
                sender = "ann@example.org"
                await client.login()
            for n in range(4):
                message = f"From: {sender}\r\nDate: x\r\nMessage-ID: <{number}.{n}@x>\r\n\r\n{number} {n}\r\n".encode()
                to = ("ann@example.org", "bob@example.org", "sales@example.org")[n % 3]
                assert (await client.deliver(message, to=to, sender=sender)).startswith("250")
            await client.expect("QUIT", "221")

    async with running(tmp_path) as world:
        await asyncio.gather(*(one(world, number) for number in range(50)))
        anns = sorted(body_of(stored) for stored in await world.mail(village.ann))
        bobs = sorted(body_of(stored) for stored in await world.mail(village.bob))
        assert len(anns) == 50 * 3
        assert len(bobs) == 50 * 2
        assert len(set(anns)) == len(anns)
        await gone(world)


# --- the process itself


def environment(data: Path, ports: list[int]) -> dict[str, str]:
    where = psycopg.conninfo.conninfo_to_dict(db.dsn())
    url = "postgresql://{user}:{password}@/{dbname}?host={host}&port={port}".format(
        **{key: quote(str(where.get(key, "")), safe="") for key in ("user", "password", "dbname", "host", "port")}
    )
    names = ("SMTP", "SUBMISSION", "SUBMISSIONS", "IMAP", "IMAPS")
    return {
        **os.environ,
        "DATABASE_URL": url,
        "MAILSTEAD_DATA": str(data),
        **{f"MAILSTEAD_{name}_PORT": str(port) for name, port in zip(names, ports, strict=True)},
    }


@asynccontextmanager
async def process(data: Path, ports: list[int], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`manage.py mailserver`, ready."""
    command = (sys.executable, "manage.py", "mailserver", *arguments)
    server = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(data, ports), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        line = await asyncio.wait_for(server.stdout.readline(), 60)
        assert line.startswith(b"READY smtp=%d " % ports[0])
        yield server
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def connect(port: int) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    assert (await client.hear()).startswith("220")
    await client.expect("EHLO client.example", "250")
    return client


async def test_sigkill_during_load_loses_nothing_acknowledged(village: Village, tmp_path: Path) -> None:
    ports = free_ports(5)
    acknowledged: list[str] = []

    async def load(number: int) -> None:
        client = await connect(ports[0])
        for n in range(10_000):
            name = f"{number}.{n}"
            message = (
                f"From: far@elsewhere.example\r\nSubject: {name}\r\n\r\n{name}\r\n".encode() + b"x" * (n % 50) * 500
            )
            client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d LAST\r\n" % len(message) + message)
            replies = [await client.hear() for _ in range(3)]
            if not replies[2].startswith("250"):
                return
            acknowledged.append(name)

    for most in (100, 200):
        async with process(tmp_path, ports) as server:
            senders = [asyncio.create_task(load(number)) for number in range(8)]
            await eventually(lambda: len(acknowledged) >= most)  # noqa: B023  # it is called at once
            server.kill()
            await asyncio.gather(*senders, return_exceptions=True)
    await db.open_pool(2)
    try:
        async with db.read() as tx:
            rows = await tx.fetch("SELECT base_subject, count(*) FROM message GROUP BY 1")
            sums = await tx.fetch(
                "SELECT messages, (SELECT count(*) FROM entry e WHERE e.account_id = a.account_id) FROM account_state a"
            )
    finally:
        await db.close_pool()
    stored = {str(name): int(count) for name, count in rows}
    assert set(acknowledged) <= set(stored)
    assert all(counted == entries for counted, entries in sums)
    # What was stored without being acknowledged was in flight: at most one message for each sender and kill.
    assert sum(stored.values()) <= len(acknowledged) + 16


async def test_sigterm_ends_the_process_cleanly(village: Village, tmp_path: Path) -> None:
    ports = free_ports(5)
    async with process(tmp_path, ports) as server:
        idle = await connect(ports[0])
        server.send_signal(signal.SIGTERM)
        assert (await idle.hear()).startswith("421 4.3.2")
        assert await asyncio.wait_for(server.wait(), 60) == 0


async def test_a_taken_port_is_one_clear_line(village: Village, tmp_path: Path) -> None:
    ports = free_ports(5)
    with socket.create_server(("127.0.0.1", ports[0])):
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "manage.py", "mailserver"),
            cwd=ROOT,
            env=environment(tmp_path, ports),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 1
    assert out == b""
    assert err.decode().splitlines() == [f"port {ports[0]} for SMTP (mx) on {conf.bind} is taken"]


async def test_two_processes_share_the_ports(village: Village, tmp_path: Path) -> None:
    ports = free_ports(5)
    async with process(tmp_path, ports, "--reuse-port"), process(tmp_path, ports, "--reuse-port"):
        for _ in range(8):
            client = await connect(ports[0])
            assert (await client.deliver(MESSAGE)).startswith("250")
            await client.expect("QUIT", "221")
            await client.close()
    await db.open_pool(2)
    try:
        assert len(await World.mail(village.ann)) == 8
    finally:
        await db.close_pool()


async def test_a_client_that_never_reads_is_cut_off(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINGER", 0.1)
    async with running(tmp_path, max_idle_commands=1 << 20) as world, world.client() as client:
        (session,) = world.server.sessions
        client.say(b"HELP\r\n" * 300_000)

        def cut_off() -> bool:
            if session._paused:
                session.allow(0.01)
            return not world.server.sessions

        await eventually(cut_off, pause=0.05)
        await gone(world)
