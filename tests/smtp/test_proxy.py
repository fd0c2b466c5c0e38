"""Behind a balancer: it must say whose connection it passes on, nobody else may, and what it says is believed."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from accounts.throttle import PAIR_LIMIT, sign_ins
from mailcore import entrance, tls
from mailcore.conf import conf
from mailcore.imap import server as imap
from mailcore.imap.limits import Limits
from mailcore.supervise import probes
from mailcore.wire.proxy import SIGNATURE
from tests.smtp.world import ANN, PASSWORD, Client, Village, World, gone, running, untrusting
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"),)
MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
FIRST = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 25\r\n"
SECOND = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 12) + bytes([203, 0, 113, 9, 198, 51, 100, 1, 0, 1, 0, 25])
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 0)


@asynccontextmanager
async def through(port: int, header: bytes, *, tls: bool = False) -> AsyncIterator[Client]:
    """A connection that begins with these octets, then TLS if there is to be any."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(header)
    try:
        if tls:
            await writer.start_tls(untrusting(), server_hostname="localhost", ssl_handshake_timeout=60)
        yield Client(reader, writer)
    finally:
        writer.close()


async def greeted(world: World, name: str, header: bytes) -> str:
    """The first octets of the source that the server believes in."""
    async with through(world.ports[name], header, tls=name == "submissions") as client:
        assert (await client.hear()).startswith("220")
        (session,) = world.server.sessions
        return session.source


@pytest.mark.parametrize("name", ["mx", "submission", "submissions", "lmtp"])
async def test_the_client_is_the_one_that_the_balancer_names(village: Village, tmp_path: Path, name: str) -> None:
    async with running(tmp_path, proxy_from=LOOPBACK, lmtp_from=(ipaddress.ip_network("203.0.113.0/24"),)) as world:
        for header in (FIRST, SECOND):
            assert await greeted(world, name, header) == "203.0.113.9"
            await gone(world)
        for header in () if name == "lmtp" else (LOCAL, b"PROXY UNKNOWN\r\n"):
            assert await greeted(world, name, header) == "127.0.0.1", "a balancer that looks whether we live"
            await gone(world)


async def test_received_and_trace_name_the_client(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, proxy_from=LOOPBACK) as world, through(world.ports["mx"], SECOND) as client:
        await client.hear()
        await client.expect("EHLO client.example", "250")
        assert (await client.deliver(MESSAGE)).startswith("250")
        (stored,) = await world.mail(village.ann)
        assert b"\r\nReceived: from client.example ([203.0.113.9])\r\n" in stored


async def test_a_header_in_pieces_and_commands_right_behind_it(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, proxy_from=LOOPBACK) as world:
        for header in (FIRST, SECOND):
            async with through(world.ports["mx"], b"") as client:
                for at in range(0, len(header), 5):
                    client.say(header[at : at + 5])
                    await client.writer.drain()
                    await asyncio.sleep(0.002)
                assert (await client.hear()).startswith("220")
                await client.expect("EHLO client.example", "250")
        async with through(world.ports["mx"], FIRST + b"EHLO too.early\r\n") as client:
            assert (await client.hear()).startswith("554 5.5.0 You spoke before the greeting")


async def test_a_balancer_without_a_header_is_refused(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, proxy_from=LOOPBACK) as world:
        for octets in (
            b"EHLO client.example\r\n",
            b"PROXY TCP4 nonsense nonsense 1 1\r\n",
            SIGNATURE + b"\x31" + bytes(9),
        ):
            for name in ("mx", "submissions"):
                async with through(world.ports[name], octets) as client:
                    assert await client.closed()
        await gone(world)
        assert await greeted(world, "mx", FIRST) == "203.0.113.9"


async def test_a_balancer_that_never_sends_its_header_is_let_go(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "HEADER_SECONDS", 0.2)
    async with running(tmp_path, proxy_from=LOOPBACK) as world, through(world.ports["mx"], FIRST[:20]) as client:
        assert await client.closed()
        await gone(world)


async def test_nobody_else_may_send_a_header(village: Village, tmp_path: Path) -> None:
    """Whoever could name an address of his choice would have every limit to himself."""
    for proxies in ((), ELSEWHERE):
        async with running(tmp_path, proxy_from=proxies) as world:
            async with world.client() as client:
                await client.expect(FIRST[:-2], "500 5.5.1")
                (session,) = world.server.sessions
                assert session.source == "127.0.0.1"
            async with world.client() as client:
                assert (await client.deliver(MESSAGE)).startswith("250")
            with pytest.raises((ssl.SSLError, ConnectionError, TimeoutError)):
                async with through(world.ports["submissions"], FIRST, tls=True):
                    pass
            async with world.client("submissions") as client:
                await client.login()


async def test_another_machines_loopback_is_not_ours(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer elsewhere whose own machine connects does not make it local: no plain-text login, no LMTP."""
    monkeypatch.setattr(entrance, "address_of", lambda transport: "192.0.2.1")
    theirs = b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n"
    async with running(tmp_path, proxy_from=ELSEWHERE) as world:
        assert await greeted(world, "mx", theirs) == "192.0.2.1"
        async with through(world.ports["lmtp"], theirs) as client:
            assert (await client.hear()).startswith("554 5.7.1")


async def test_limits_count_the_client_and_not_the_balancer(village: Village, tmp_path: Path) -> None:
    other = FIRST.replace(b"113.9", b"113.8")
    async with running(tmp_path, proxy_from=LOOPBACK, connections_per_source=1) as world:
        for name in ("mx", "submissions"):
            port, encrypted = world.ports[name], name == "submissions"
            async with through(port, FIRST, tls=encrypted) as one, through(port, other, tls=encrypted) as two:
                assert (await one.hear()).startswith("220")
                assert (await two.hear()).startswith("220")
                async with through(port, FIRST) as third:
                    if encrypted:
                        assert await third.closed()
                    else:
                        assert (await third.hear()).startswith("421 4.7.0 Too many connections from your address")
            await gone(world)


async def test_guessing_is_throttled_by_the_client_and_not_by_the_balancer(village: Village, tmp_path: Path) -> None:
    async def guess(world: World, header: bytes, password: str) -> str:
        token = base64.b64encode(f"\0{ANN}\0{password}".encode()).decode()
        async with through(world.ports["submissions"], header, tls=True) as client:
            await client.hear()
            await client.expect("EHLO client.example", "250")
            return await client.ask(f"AUTH PLAIN {token}")

    async with running(tmp_path, proxy_from=LOOPBACK) as world:
        assert (await guess(world, FIRST, "wrong")).startswith("535")
        for n in range(PAIR_LIMIT):  # the rest of them, without the waits
            sign_ins.failed("203.0.113.9", ANN, b"guess %d" % n)
        assert (await guess(world, FIRST, PASSWORD)).startswith("454")
        assert (await guess(world, FIRST.replace(b"113.9", b"113.8"), PASSWORD)).startswith("235")


async def test_imap_believes_the_balancer_too(village: Village, tmp_path: Path) -> None:
    tls.ensure_certificate(conf)
    async with running(tmp_path) as world:
        server = imap.Server(
            world.server.receiver.ingest,
            world.server.certificates,
            Limits(),
            "mx.example.test",
            1 << 20,
            LOOPBACK,
        )
        await server.listen("127.0.0.1", 0, 0)
        try:
            plain, encrypted = server.ports
            for port in (plain, encrypted):
                for header in (FIRST, SECOND):
                    async with through(port, header, tls=port == encrypted) as client:
                        assert (await client.hear()).startswith("* OK")
                        assert [one.remote for one in server.connections] == ["203.0.113.9"]
                        assert (await client.ask("a NOOP")).startswith("a OK")
                    await eventually(lambda: not server.connections)
            async with through(plain, b"a NOOP\r\n") as client:
                assert await client.closed()
        finally:
            await server.close()


async def test_whoever_looks_after_us_is_let_in_beside_a_balancer_on_this_machine(
    village: Village, tmp_path: Path
) -> None:
    """Otherwise `make up` would restart a mail process that is well, again and again."""
    for proxies in (LOOPBACK, ELSEWHERE, ()):
        async with running(tmp_path, proxy_from=proxies) as world:
            assert await asyncio.to_thread(probes.greets, "127.0.0.1", world.ports["mx"], b"220", proxies)
            assert await asyncio.to_thread(probes.speaks, "127.0.0.1", world.ports["submission"], proxies)
