"""What others have tried on mail servers; each test is named after its attack."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from mailcore import tls
from tests.smtp.world import ANN, Client, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
EVIL = b"MAIL FROM:<ceo@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n"


async def begin(client: Client) -> None:
    await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
    await client.expect("RCPT TO:<ann@example.org>", "250")
    await client.expect("DATA", "354")


OTHER_ENDS = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\n\n.\n")


async def test_smtp_smuggling_cve_2023_51764(village: Village, tmp_path: Path) -> None:
    """A lone dot between other line ends does not end a message, and the message is not taken either."""
    async with running(tmp_path) as world:
        for end in OTHER_ENDS:
            async with world.client() as client:
                await begin(client)
                client.say(MESSAGE + b"text" + end + EVIL + b".\r\n")
                assert (await client.hear()).startswith("550 5.6.0"), end
                assert await client.closed()
        assert await world.mail(village.ann) == await world.mail(village.bob) == []


async def test_a_bare_newline_over_the_edge_of_packets(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for chunks in ((b"a\r", b"b\r\n"), (b"a", b"\nb\r\n"), (b"a\r\n\r", b"x\r", b"\n")):
            await begin(client)
            for chunk in chunks:
                client.say(chunk)
                await client.writer.drain()
                await asyncio.sleep(0.02)
            client.say(b".\r\n")
            assert (await client.hear()).startswith("550 5.6.0"), chunks
        # Nothing looked like an end, so the session is in sync.
        assert (await client.deliver(MESSAGE)).startswith("250")
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [MESSAGE]


async def test_a_nul_octet_is_refused(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(MESSAGE + b"a\0b\r\n")).startswith("550 5.6.0")
        assert (await client.deliver(MESSAGE)).startswith("250")
        assert len(await world.mail(village.ann)) == 1


async def test_smuggling_by_bdat(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        evil = MESSAGE + b"\n.\n" + EVIL
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d LAST\r\n" % len(evil) + evil + b"NOOP\r\n")
        assert [(await client.hear())[:3] for _ in range(4)] == ["250", "250", "550", "250"]
        assert await world.mail(village.ann) == await world.mail(village.bob) == []


async def test_starttls_command_injection_cve_2011_0411(village: Village, tmp_path: Path) -> None:
    """What is sent in plain text behind STARTTLS is never carried out inside TLS."""
    async with running(tmp_path) as world, world.client() as client:
        client.say(b"STARTTLS\r\nMAIL FROM:<evil@elsewhere.example>\r\nRCPT TO:<ann@example.org>\r\n")
        assert (await client.hear()).startswith("554 5.5.0")
        assert await client.closed()


async def test_starttls_response_injection_cve_2021_33515(village: Village, tmp_path: Path) -> None:
    """Plain text that arrives after our 220 is not taken for a command either: the handshake fails."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("STARTTLS", "220")
        client.say(b"NOOP\r\n")
        assert await client.closed()


async def test_talking_before_the_greeting(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        # The loop does not run between connect and send, so that the octets are there before the greeting.
        with socket.create_connection(("127.0.0.1", world.ports["mx"])) as early:
            early.sendall(b"EHLO client.example\r\n")
            early.setblocking(False)
            loop = asyncio.get_running_loop()
            heard = b""
            while data := await asyncio.wait_for(loop.sock_recv(early, 1000), 5):
                heard += data
        assert heard.startswith(b"554 5.5.0")
        assert heard.count(b"\r\n") == 1


async def test_a_browser_is_sent_away(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client(hello=False) as client:
        client.say(b"POST / HTTP/1.1\r\nHost: mail.example\r\n\r\nEHLO x\r\nMAIL FROM:<>\r\n")
        assert (await client.hear()).startswith("554 5.5.0")
        assert await client.closed()


RELAY_PROBES = (
    "victim@elsewhere.example",
    "victim%elsewhere.example@example.org",
    "victim%elsewhere.example@[127.0.0.1]",
    "elsewhere.example!victim@example.org",
    "@example.org:victim@elsewhere.example",
    "@example.org,@example.net:victim@elsewhere.example",
    '"victim@elsewhere.example"@example.org',
    '"victim@elsewhere.example"',
    "victim@elsewhere.example@example.org",
    "victim@elsewhere.example%example.org",
    "victim%elsewhere.example",
    "victim@example.org.elsewhere.example",
    "victim@EXAMPLE.ORG.",
    "victim@sub.example.org",
    "<victim@elsewhere.example>",
    "victim@elsewhere.example ,ann@example.org",
    "victim@localhost",
    "victim@mx.example.test",
    "victim@[IPv6:::1]",
    "victim@2130706433",
)


async def test_relay_probes(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, max_errors=1000) as world, world.client() as client:
        for recipient in RELAY_PROBES:
            for sender in ("", "spammer@elsewhere.example", "ann@example.org", "postmaster@mx.example.test"):
                await client.expect(f"MAIL FROM:<{sender}>", "250")
                assert (await client.ask(f"RCPT TO:<{recipient}>"))[:3] in ("550", "501"), recipient
                await client.expect("DATA", "554 5.5.1")
                await client.expect("RSET", "250")
        assert await world.queued() == []


async def test_header_injection_through_the_envelope(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client(hello=False) as client:
        await client.expect(b"EHLO evil\r(by mx.example.test)", "500 5.5.2")
        await client.expect("EHLO evil;(by<mx.example.test>", "250")
        await client.expect(b'MAIL FROM:<"a\rb"@elsewhere.example>', "500 5.5.2")
        await client.expect(b"MAIL FROM:<a\0b@elsewhere.example>", "500 5.5.2")
        await client.expect('MAIL FROM:<"a b; x"@elsewhere.example>', "250")
        await client.expect('RCPT TO:<"ann"@example.org>', "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        (stored,) = await world.mail(village.ann)
        assert b"\r\nReceived: from evil??by?mx.example.test? ([127.0.0.1])\r\n" in stored
        assert body_of(stored) == MESSAGE


async def test_an_oversized_line_costs_an_error_and_nothing_else(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for line in (b"x" * 20_000, b"NOOP " + b"x" * 600, b"MAIL FROM:<" + b"a" * 3_000 + b"@b.example>"):
            await client.expect(line, "500 5.5.2 Line too long")
            await client.expect("NOOP", "250")


async def test_an_endless_line_does_not_fill_memory(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        (session,) = world.server.sessions
        for _ in range(40):
            client.say(b"x" * 500_000)
            await client.writer.drain()
            assert len(session.input) <= 1_000_000
        await client.expect(b"", "500 5.5.2")
        await client.expect("NOOP", "250")


async def test_commands_that_never_stop_wait_in_the_socket(village: Village, tmp_path: Path) -> None:
    """A flood of commands is answered as it is read; what is read ahead is bounded."""
    async with running(tmp_path) as world, world.client() as client:
        (session,) = world.server.sessions
        client.say(b"NOOP\r\n" * 60_000)
        for _ in range(100):
            assert (await client.hear()).startswith("250")
            assert len(session.input) <= 1_000_000


async def test_a_message_without_end_is_cut_off(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, message_size=100_000) as world, world.client() as client:
        await begin(client)
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                client.say(b"more\r\n" * 10_000)
                await client.writer.drain()
        assert await world.mail(village.ann) == []


@pytest.mark.parametrize("port", ["mx", "submissions"])
async def test_a_header_without_measure_is_refused(village: Village, tmp_path: Path, port: str) -> None:
    """Everybody who reads a header reads all of it, so it has a limit far below that of the message."""
    own = b"From: ann@example.org\r\n"
    huge = own + b"X-Filler: %b\r\n" % (b"x" * 900) * 1_200
    async with running(tmp_path) as world, world.client(port) as client:
        sender = "far@elsewhere.example"
        if port != "mx":
            sender = ANN
            await client.login()
        for message in (huge + b"\r\nbody\r\n", huge):
            assert (await client.deliver(message, sender=sender)) == "552 5.3.4 The message's header is too big"
        assert (await client.deliver(own + b"\r\n" + huge, sender=sender)).startswith("250")
        assert len(await world.mail(village.ann)) == 1


async def test_an_absurd_bdat_is_cut_off(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("BDAT 99999999999999", "503 5.5.1")
        assert await client.closed()
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        await client.expect("BDAT 99999999999999", "552 5.3.4")
        assert await client.closed()


async def test_guessing_recipients_ends_the_session(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, max_errors=5) as world, world.client() as client:
        await client.expect("MAIL FROM:<>", "250")
        for n in range(5):
            await client.expect(f"RCPT TO:<guess{n}@example.org>", "550 5.1.1")
        assert (await client.hear()).startswith("421 4.7.0 Too many errors")
        assert await client.closed()


async def drip(client: Client) -> None:
    while True:
        client.say(b"x")
        await asyncio.sleep(0.05)


async def test_a_slow_client_is_let_go(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, command_timeout=0.3, data_timeout=0.3, message_timeout=0.6) as world:
        async with world.client() as client:
            for octet in b"NOO":
                client.say(bytes([octet]))
                await asyncio.sleep(0.12)
            assert (await client.hear()).startswith("421 4.4.2")
            assert await client.closed()
        async with world.client() as client:
            await begin(client)
            assert (await client.hear()).startswith("421 4.4.2")
            assert await client.closed()
        async with world.client() as client:
            await begin(client)
            dripping = asyncio.create_task(drip(client))
            assert (await client.hear()).startswith("421 4.4.2")
            dripping.cancel()
        assert await world.mail(village.ann) == []


async def test_handshakes_that_never_end_count_as_connections(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, connections_per_source=2) as world:
        silent = [await asyncio.open_connection("127.0.0.1", world.ports["submissions"]) for _ in range(2)]
        while len(world.server.handshakes) < 2:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
        third = Client(reader, writer)
        assert await third.closed()
        for one in (third, *(Client(*each) for each in silent)):
            await one.close()
        while world.server.handshakes:
            await asyncio.sleep(0.01)
        async with world.client("submissions"), world.client("submissions"):
            assert sum(world.server._counts.values()) == 4
        await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
        while not world.server.handshakes:
            await asyncio.sleep(0.01)
    assert not world.server.handshakes, "closing the server ends them"


async def test_a_handshake_for_which_no_descriptor_is_left_is_not_counted_for_ever(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with running(tmp_path, connections_per_source=2) as world:
        with monkeypatch.context() as scarce:
            scarce.setattr(tls.os, "dup", none_left)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["submissions"])
                refused = Client(reader, writer)
                assert await asyncio.wait_for(refused.closed(), 5)
                await refused.close()
        async with world.client("submissions"), world.client("submissions"):
            pass


async def test_too_many_connections(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, connections_per_source=2) as world:
        async with world.client(), world.client():
            reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["mx"])
            third = Client(reader, writer)
            assert (await third.hear()).startswith("421 4.7.0")
            assert await third.closed()
            await third.close()
            async with world.client("submission"):
                pass
        await asyncio.sleep(0.05)
        async with world.client():
            pass
        assert not world.server.sessions or len(world.server.sessions) <= 1
