"""Slow clients, floods of connections, and guessing: what takes our time, our places or our people's passwords."""

from __future__ import annotations

import asyncio
import base64
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from accounts.throttle import PAIR_LIMIT, SOURCE_LIMIT, Throttle, sign_ins
from mailcore import entrance
from mailcore.smtp import connection as lines
from tests.smtp.world import ANN, BOB, MESSAGE, PASSWORD, Client, Village, World, begin, gone, running
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]


@asynccontextmanager
async def dripping(client: Client, octet: bytes = b"x") -> AsyncIterator[None]:
    """One octet after the other, for ever."""

    async def drip() -> None:
        while True:
            client.say(octet)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()


STAGES = {
    "before EHLO": b"",
    "in a command": b"EHLO client.example\r\nMAIL FROM:<",
    "after EHLO": b"EHLO client.example\r\n",
    "after MAIL": b"EHLO client.example\r\nMAIL FROM:<>\r\n",
    "after RCPT": b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n",
    "in DATA": b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nSubject: x",
    "in BDAT": b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT 99\r\nSubject: x",
    "between chunks": b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT 3\r\nabc",
    "in AUTH": b"EHLO client.example\r\nAUTH LOGIN\r\n",
}


async def until_let_go(client: Client) -> None:
    heard = await client.hear()
    while heard and not heard.startswith("421"):
        heard = await client.hear()
    assert heard == "421 4.4.2 You took too long"


@pytest.mark.parametrize("stage", STAGES)
async def test_slow_loris_silent(village: Village, tmp_path: Path, stage: str) -> None:
    async with running(tmp_path, command_timeout=0.4, data_timeout=0.4) as world:
        async with world.client("submission" if stage == "in AUTH" else "mx", hello=False) as client:
            client.say(STAGES[stage])
            await until_let_go(client)
        await gone(world)
    # The same words from somebody who goes on.
    name = "submission" if stage == "in AUTH" else "mx"
    async with running(tmp_path) as world, world.client(name, hello=False) as client:
        client.say(STAGES[stage])
        await asyncio.sleep(0.05)
        client.say(b"\r\n.\r\n" + b"x" * 84 + b"\r\nQUIT\r\n")
        heard = "more"
        while heard and not heard.startswith("221"):
            heard = await client.hear()
        assert heard.startswith("221")


@pytest.mark.parametrize("stage", ["before EHLO", "in a command", "in DATA", "in BDAT", "in AUTH"])
async def test_slow_loris_dripping(village: Village, tmp_path: Path, stage: str) -> None:
    """An octet now and then wins no time for a command, and for a message not for ever."""
    limits = {"command_timeout": 0.6, "data_timeout": 0.6, "message_timeout": 1.2}
    async with running(tmp_path, **limits) as world:
        async with world.client("submission" if stage == "in AUTH" else "mx", hello=False) as client:
            client.say(STAGES[stage])
            async with dripping(client):
                await until_let_go(client)
        await gone(world)
        assert await world.mail(village.ann) == []


async def test_slow_loris_in_a_handshake(village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the TLS port and behind STARTTLS: who begins and says no more."""
    monkeypatch.setattr(entrance, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(lines, "HANDSHAKE_SECONDS", 0.3)
    async with running(tmp_path) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
        silent = Client(reader, writer)
        silent.say(b"\x16\x03\x01")
        assert await silent.closed()
        await silent.close()
        async with world.client() as client:
            await client.expect("STARTTLS", "220")
            client.say(b"\x16\x03\x01")
            assert await client.closed()
        await gone(world)
        async with world.client("submissions") as client:
            await client.login()


async def test_slow_clients_make_room_when_connections_are_scarce(village: Village, tmp_path: Path) -> None:
    """With most places taken, patience becomes short; who is quick does not notice."""

    def unhurried(world: World) -> bool:
        now = asyncio.get_running_loop().time()
        return all(session._deadline > now + 100 for session in world.server.sessions)

    async with running(tmp_path, connections=4, stressed_timeout=5.0) as world:
        async with world.client() as one, world.client() as two:
            await one.expect("NOOP", "250")
            assert unhurried(world), "there is room"
            async with world.client(hello=False) as three:
                for client in (one, two, three):
                    client.say(b"NOOP\r\n")
                for client in (one, two, three):
                    assert (await client.hear()).startswith("250")
                    assert (await client.hear()).startswith("421 4.4.2")
        await gone(world)
        async with world.client() as client:
            assert unhurried(world)
            assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_flood_of_connections_from_one_address(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, connections_per_source=2) as world:
        async with world.client(), world.client():
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["mx"])
                more = Client(reader, writer)
                assert (await more.hear()).startswith("421 4.7.0 Too many connections from your address")
                assert await more.closed()
                await more.close()
            async with world.client("submission"):
                pass
        await gone(world)
        async with world.client() as client:
            assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_flood_of_connections_in_all(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, connections=3) as world:
        async with world.client(), world.client(), world.client():
            reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["mx"])
            more = Client(reader, writer)
            assert (await more.hear()).startswith("421 4.7.0 Too many connections, try again later")
            await more.close()
        await gone(world)
        async with world.client() as client:
            assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_flood_of_connections_that_come_and_go(village: Village, tmp_path: Path) -> None:
    """Each is forgotten when it leaves, however it does."""
    async with running(tmp_path, connections_per_source=50) as world:
        for octets in (b"", b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\nx", b"\x16\x03\x01"):
            for name in ("mx", "submissions"):
                several = [await asyncio.open_connection("127.0.0.1", world.ports[name]) for _ in range(40)]
                for _, writer in several:
                    writer.write(octets)
                await asyncio.sleep(0.05)
                for _, writer in several:
                    writer.transport.abort()
                await gone(world)


async def test_handshakes_that_never_end_count_as_connections(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, connections_per_source=2) as world:
        silent = [await asyncio.open_connection("127.0.0.1", world.ports["submissions"]) for _ in range(2)]
        await eventually(lambda: len(world.server.handshakes) == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
        third = Client(reader, writer)
        assert await third.closed()
        for one in (third, *(Client(*each) for each in silent)):
            await one.close()
        await gone(world)
        async with world.client("submissions"), world.client("submissions"):
            assert sum(world.server._counts.values()) == 4
        await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
        await eventually(lambda: world.server.handshakes)
    assert not world.server.handshakes, "closing the server ends them"


async def test_a_handshake_for_which_no_descriptor_is_left_is_not_counted_for_ever(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with running(tmp_path, connections_per_source=2) as world:
        with monkeypatch.context() as scarce:
            scarce.setattr(entrance.os, "dup", none_left)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
                refused = Client(reader, writer)
                assert await refused.closed()
                await refused.close()
        await gone(world)
        async with world.client("submissions"), world.client("submissions"):
            pass


async def guess(world: World, address: str, password: str, name: str = "submissions") -> str:
    token = base64.b64encode(f"\0{address}\0{password}".encode()).decode()
    async with world.client(name) as client:
        return await client.ask(f"AUTH PLAIN {token}")


async def test_brute_force_over_many_connections_and_ports(village: Village, tmp_path: Path) -> None:
    """The count is of the address and the account, not of the connection; the right password is refused as well."""
    async with running(tmp_path) as world:
        assert (await guess(world, BOB, PASSWORD)).startswith("235")
        for name in ("submission", "submissions"):
            assert (await guess(world, ANN, f"wrong {name}", name)).startswith("535")
        for n in range(PAIR_LIMIT - 2):  # the others, without the wait that each has
            sign_ins.failed("127.0.0.1", ANN, b"guess %d" % n)
        for name in ("submission", "submissions"):
            assert (await guess(world, ANN, PASSWORD, name)).startswith("454 4.7.0")
        assert (await guess(world, BOB, PASSWORD)).startswith("235"), "nobody else is kept out"


async def test_brute_force_over_several_processes(village: Village, tmp_path: Path) -> None:
    """What another process has seen fail is told to this one, and counts."""
    other = Throttle()
    other.share = sign_ins.hear
    async with running(tmp_path) as world:
        for n in range(PAIR_LIMIT):
            assert (await guess(world, BOB, PASSWORD)).startswith("235")
            other.failed("127.0.0.1", ANN, b"guess %d" % n)
        assert (await guess(world, ANN, PASSWORD)).startswith("454 4.7.0")


async def test_password_spraying_over_many_accounts(village: Village, tmp_path: Path) -> None:
    """One password for each of many accounts: the source is counted too."""
    async with running(tmp_path) as world:
        assert (await guess(world, ANN, "wrong")).startswith("535")
        for n in range(SOURCE_LIMIT):
            sign_ins.failed("127.0.0.1", f"person{n}@example.org", b"guess %d" % n)
        assert (await guess(world, BOB, PASSWORD)).startswith("454 4.7.0")
        sign_ins.clear()
        assert (await guess(world, BOB, PASSWORD)).startswith("235")


async def test_brute_force_in_one_session_ends_it(village: Village, tmp_path: Path) -> None:
    """Refused logins cost the attacker his connection, too, even those that nothing was checked for."""
    for n in range(PAIR_LIMIT):
        sign_ins.failed("127.0.0.1", ANN, b"guess %d" % n)
    token = base64.b64encode(f"\0{ANN}\0wrong".encode()).decode()
    async with running(tmp_path, max_idle_commands=10) as world:
        async with world.client("submissions") as client:
            heard = [await client.ask(f"AUTH PLAIN {token}") for _ in range(9)]
            assert {reply[:3] for reply in heard} == {"454"}
            assert (await client.hear()).startswith("421 4.7.0")
            assert await client.closed()
        sign_ins.clear()
        async with world.client("submissions") as client:
            await client.login()


async def test_unknown_and_known_accounts_are_refused_alike(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        answers = {
            await guess(world, address, "wrong") for address in (ANN, "nobody@example.org", "x@elsewhere.example")
        }
        assert len(answers) == 1
        assert (await guess(world, ANN, PASSWORD)).startswith("235")


async def test_a_message_that_breaks_off_is_not_there(village: Village, tmp_path: Path) -> None:
    """A flood of beginnings leaves no messages, no files and no memory behind."""
    async with running(tmp_path) as world:
        for _ in range(5):
            async with world.client() as client:
                await begin(client)
                client.say(MESSAGE + b"x" * 600_000)
                await client.writer.drain()
        await gone(world)
        assert await world.mail(village.ann) == []
        await eventually(lambda: not list((tmp_path / "spool").iterdir()))
