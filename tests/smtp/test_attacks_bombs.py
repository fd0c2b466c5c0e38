"""Bombs: more of everything than anybody needs. Each costs us little, and its sender an error or the session.

In each test the same thing in a sensible measure passes.
"""

from __future__ import annotations

import base64
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.smtp.world import ANN, MESSAGE, Village, begin, body_of, gone, running

pytestmark = [pytest.mark.django_db(transaction=True)]


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
    async with running(tmp_path, max_idle_commands=1 << 20) as world, world.client() as client:
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


async def test_a_million_recipients(village: Village, tmp_path: Path) -> None:
    """Beyond the limit they are refused one by one, and soon all together."""
    async with running(tmp_path, max_recipients=50) as world:
        async with world.client() as client:
            await client.expect("MAIL FROM:<>", "250")
            client.say(b"RCPT TO:<ann@example.org>\r\n" * 1_000)
            heard = [(await client.hear())[:9] for _ in range(201)]
            assert heard == ["250 2.1.5"] * 50 + ["452 4.5.3"] * 150 + ["421 4.5.3"]
            assert await client.closed()
        async with world.client() as client:
            await client.expect("MAIL FROM:<>", "250")
            client.say(b"RCPT TO:<ann@example.org>\r\n" * 60 + b"DATA\r\n")
            assert [(await client.hear())[:3] for _ in range(61)] == ["250"] * 50 + ["452"] * 10 + ["354"]
            client.say(MESSAGE + b".\r\n")
            assert (await client.hear()).startswith("250")
            assert len(await world.mail(village.ann)) == 1


IDLE = (b"NOOP", b"RSET", b"HELP", b"VRFY ann", b"EHLO x", b"HELO x", b"MAIL FROM:<>\r\nRSET")


@pytest.mark.parametrize("command", IDLE, ids=lambda command: command.split()[0].decode() + str(len(command)))
async def test_a_flood_of_commands_that_bring_no_mail(village: Village, tmp_path: Path, command: bytes) -> None:
    async with running(tmp_path) as world:
        async with world.client() as client:
            client.say((command + b"\r\n") * 300)
            heard = ""
            for _ in range(250):
                heard = await client.hear()
                if heard.startswith("421"):
                    break
            assert heard == "421 4.7.0 Too many commands without a message"
            assert await client.closed()
        # As many of them with mail in between are no flood.
        async with world.client() as client:
            for _ in range(3):
                for each in (command + b"\r\nNOOP").split(b"\r\n") * 24:
                    assert (await client.ask(each))[:3] in ("250", "214", "252")
                assert (await client.deliver(MESSAGE)).startswith("250")


async def test_empty_commands_without_end(village: Village, tmp_path: Path) -> None:
    """And what else is no command: thirty of them are enough."""
    async with running(tmp_path) as world:
        for octets in (b"\r\n", b"\0\r\n", b" \r\n", b"\xff\xfe\r\n", b"XYZZY\r\n", b"\n"):
            async with world.client() as client:
                client.say(octets * 1_000_000)
                heard = []
                with suppress(ConnectionError):  # it leaves with most of them unread
                    while reply := await client.hear():
                        heard.append(reply[:3])
                assert len(heard) <= 31 and set(heard) <= {"500", "421"}
                await gone(world)
            async with world.client() as client:
                client.say(octets * 30)
                assert [(await client.hear())[:3] for _ in range(31)] == ["500"] * 30 + ["421"]
        async with world.client() as client:
            client.say(b"\r\n" * 20)
            assert [(await client.hear())[:3] for _ in range(20)] == ["500"] * 20
            assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_huge_parameter(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, max_errors=1_000) as world, world.client() as client:
        for parameter in ("ENVID=" + "x" * 101, "SIZE=" + "9" * 21, "AUTH=" + "x" * 501, " ".join(["SIZE=1"] * 9)):
            await client.expect(f"MAIL FROM:<> {parameter}", "501 5.5.4")
        for parameter in ("ENVID=" + "x" * 3_000, "X" * 2_500, "A=B " * 600):
            await client.expect(f"MAIL FROM:<> {parameter}", "500 5.5.2 Line too long")
        await client.expect(f"MAIL FROM:<{'a' * 65}@elsewhere.example>", "501 5.1.7")
        await client.expect(f"MAIL FROM:<a@{'b' * 250}.example>", "501 5.1.7")
        await client.expect("MAIL FROM:<a@b.example> ENVID=" + "x" * 100 + " SIZE=" + "9" * 7, "250")
        await client.expect("RCPT TO:<ann@example.org> ORCPT=rfc822;" + "x" * 500, "501 5.5.4")
        await client.expect("RCPT TO:<ann@example.org> ORCPT=rfc822;" + "x" * 490, "250")


async def test_cve_2018_6789_cve_2023_42115_a_huge_or_broken_auth_blob(village: Village, tmp_path: Path) -> None:
    """Exim wrote beyond its buffers here: too long, of odd length, without end; and then the true one."""
    huge = base64.b64encode(b"\0" + b"x" * 9_000).decode()
    async with running(tmp_path, max_errors=1_000) as world, world.client("submissions") as client:
        await client.expect(f"AUTH PLAIN {huge}", "501 5.5.2")
        await client.expect(f"AUTH PLAIN {huge * 2}", "500 5.5.2 Line too long")
        for blob in ("AAA", "AAAAA", "A===", "=AAA", "AA=A", "\xe4", "A" * 4_095):
            await client.expect(f"AUTH PLAIN {blob}", "501 5.5.2")
        for blob in ("AAAAA", "A===", "A" * 12_001):
            await client.expect("AUTH LOGIN", "334 ")
            await client.expect(blob, "501 5.5.2")
        await client.expect("AUTH LOGIN", "334 ")
        await client.expect(huge, "334 ")
        await client.expect(huge, "501 5.5.2")
        await client.expect("AUTH LOGIN", "334 ")
        await client.expect("x" * 100_000, "500 5.5.2 Line too long")
        await client.login()


async def test_bdat_zero_without_end(village: Village, tmp_path: Path) -> None:
    """Empty pieces, and pieces of one octet: each would cost a command, and fifty million make a message."""
    async with running(tmp_path) as world:
        for piece in (b"BDAT 0\r\n", b"BDAT 1\r\nx"):
            async with world.client() as client:
                client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n" + piece * 2_000)
                assert [(await client.hear())[:3] for _ in range(1_003)] == ["250"] * 1_002 + ["421"]
                assert await client.closed()
        async with world.client() as client:
            client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n" + b"BDAT 0\r\n" * 500 + b"BDAT 0 LAST\r\n")
            assert [(await client.hear())[:3] for _ in range(503)] == ["250"] * 503
        assert [body_of(each) for each in await world.mail(village.ann)] == [b""]


async def test_many_messages_in_one_session(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, max_messages=3) as world:
        async with world.client() as client:
            assert "LIMITS RCPTMAX=1000 MAILMAX=3" in await client.ask("EHLO client.example")
            for _ in range(3):
                assert (await client.deliver(MESSAGE)).startswith("250")
            await client.expect("MAIL FROM:<>", "421 4.7.0 Too many messages")
            assert await client.closed()
        async with world.client() as client:
            assert (await client.deliver(MESSAGE)).startswith("250")


MIME = {
    "nested multiparts": b"".join(
        b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(20_000)
    ),
    "nested messages": b"Content-Type: message/rfc822\r\n\r\n" * 30_000,
    "parts": b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n' + b"--x\r\n\r\n" * 200_000,
    "header fields": b"X: y\r\n" * 150_000,
    "one header field": b"X: y\r\n" + b" z\r\n" * 200_000,
    "addresses": b"To: " + b"a@b.example,\r\n " * 50_000 + b"a@b.example\r\n",
    "comments": b"From: " + b"(" * 500_000 + b"\r\n",
    "encoded words": b"Subject: " + b"=?utf-8?q?=C3=A4?=\r\n " * 45_000 + b"\r\n",
    "references": b"References: " + b"<a@b>\r\n " * 100_000 + b"\r\n",
    "parameters": b"Content-Type: text/plain; " + b"a*0*=x;\r\n " * 80_000 + b"\r\n",
}


@pytest.mark.parametrize("name", MIME)
async def test_a_mime_bomb_is_stored_as_it_came(village: Village, tmp_path: Path, name: str) -> None:
    """Depth, parts, fields and words without end: opaque beyond our limits, quick, and octet for octet there."""
    bomb = b"Message-ID: <1@x>\r\n" + MIME[name]
    async with running(tmp_path) as world, world.client() as client:
        began = time.process_time()
        assert (await client.deliver(bomb + b"\r\nend\r\n")).startswith("250")
        took = time.process_time() - began
        assert [body_of(each) for each in await world.mail(village.ann)] == [bomb + b"\r\nend\r\n"]
        assert took < 10, "seconds of CPU"


async def test_a_flood_of_receipts(village: Village, tmp_path: Path) -> None:
    """NOTIFY=SUCCESS from strangers: each would be a message to whoever they call the sender."""
    async with running(tmp_path) as world, world.client() as client:
        for n in range(12):
            await client.expect("MAIL FROM:<victim@elsewhere.example>", "250")
            reply = "250 2.1.5" if n < 10 else "450 4.7.1"
            await client.expect("RCPT TO:<ann@example.org> NOTIFY=SUCCESS", reply)
            await client.expect("RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE", reply)
            await client.expect("RCPT TO:<ann@example.org> NOTIFY=FAILURE", "250")
            await client.expect("RSET", "250")
