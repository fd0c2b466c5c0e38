"""Where does a message end? Whoever answers otherwise than the server before him takes a forged one for real.

Each attack is also made without its trick, and then does what it should: mail arrives.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.smtp.world import EVIL, MESSAGE, Client, Village, World, begin, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]


async def smuggle(world: World, end: bytes) -> str:
    """A message with what some server takes for its end, and a second one behind that; the first reply."""
    async with world.client() as client:
        await begin(client)
        client.say(MESSAGE + b"text" + end + EVIL)
        reply = await client.hear()
        if not reply.startswith("250"):
            # Whatever the sender took for the end: nothing behind it is carried out.
            assert await client.closed()
        return reply


async def refused(world: World, village: Village, *ends: bytes) -> None:
    for end in ends:
        assert (await smuggle(world, end)).startswith("550 5.6.0"), end
    assert await world.mail(village.ann) == await world.mail(village.bob) == []
    # The same octets behind a real end are a second message, and one that begins as it says.
    assert (await smuggle(world, b"\r\n.\r\n")).startswith("250")
    for _ in range(6_000):
        if await world.mail(village.bob):
            break
        await asyncio.sleep(0.01)
    assert [body_of(each) for each in await world.mail(village.bob)] == [b"Subject: smuggled\r\n\r\nevil\r\n"]
    assert [body_of(each) for each in await world.mail(village.ann)] == [MESSAGE + b"text\r\n"]


async def test_cve_2023_51764_smuggling_lf_dot_crlf_postfix(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await refused(world, village, b"\n.\r\n", b"\n\n.\r\n", b"\r\n\n.\r\n")


async def test_cve_2023_51765_smuggling_lf_dot_lf_sendmail(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await refused(world, village, b"\n.\n", b"\r\n.\n", b"\n\n.\n")


async def test_cve_2023_51766_smuggling_crlf_dot_lf_exim(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await refused(world, village, b"\r\n.\n", b"\r\n.\n\r\n", b"\n.\n\r\n")


async def test_cve_2024_27305_smuggling_aiosmtpd(village: Village, tmp_path: Path) -> None:
    """The library that our session descends from took LF.CRLF for the end; its reader is not ours."""
    async with running(tmp_path) as world:
        await refused(world, village, b"\n.\r\n", b"\r.\r\n")


async def test_smuggling_by_a_lone_cr(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await refused(world, village, b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r\r\n.\r\r\n", b"\r\n\r.\r\n")


async def test_smuggling_by_dots_that_are_only_nearly_alone(village: Village, tmp_path: Path) -> None:
    """Stuffed dots, blanks and NUL beside them are text, and what follows is text too."""
    async with running(tmp_path) as world:
        for end, kept in (
            (b"\r\n..\r\n", b"\r\n.\r\n"),
            (b"\r\n. \r\n", b"\r\n \r\n"),
            (b"\r\n.\t\r\n", b"\r\n\t\r\n"),
        ):
            async with world.client() as client:
                await begin(client)
                client.say(MESSAGE + b"text" + end + EVIL[:-3] + b".\r\n")
                assert (await client.hear()).startswith("250")
                await client.expect("NOOP", "250")
            assert body_of((await world.mail(village.ann))[-1]) == MESSAGE + b"text" + kept + EVIL[:-3]
        async with world.client() as client:
            await begin(client)
            client.say(MESSAGE + b"text\r\n\0.\r\n" + EVIL)
            assert (await client.hear()).startswith("550 5.6.0 The message has a NUL octet")
        assert len(await world.mail(village.ann)) == 3
        assert await world.mail(village.bob) == []


async def test_cve_2017_16944_bdat_data_is_never_a_command_exim(village: Village, tmp_path: Path) -> None:
    """The octets of a chunk are counted, whatever they look like; a lone dot in them ends nothing."""
    async with running(tmp_path) as world, world.client() as client:
        chunk = MESSAGE + b".\r\n" + EVIL
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d\r\n" % len(chunk) + chunk)
        client.say(b"BDAT 0 LAST\r\nNOOP\r\n")
        assert [(await client.hear())[:3] for _ in range(5)] == ["250"] * 5
        assert [body_of(each) for each in await world.mail(village.ann)] == [chunk]
        assert await world.mail(village.bob) == []


async def test_smuggling_by_bdat(village: Village, tmp_path: Path) -> None:
    """What we pass on by DATA, or somebody else does, must not hold another server's end of a message."""
    async with running(tmp_path) as world, world.client() as client:
        for evil, code in ((MESSAGE + b"\n.\n" + EVIL, "550"), (MESSAGE + b"\r\n" + EVIL, "250")):
            client.say(
                b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT %d LAST\r\n" % len(evil) + evil + b"NOOP\r\n"
            )
            assert [(await client.hear())[:3] for _ in range(4)] == ["250", "250", code, "250"]
        assert len(await world.mail(village.ann)) == 1
        assert await world.mail(village.bob) == []


async def test_smuggling_in_the_header_of_binary_mail(village: Village, tmp_path: Path) -> None:
    """BODY=BINARYMIME frees the body from lines; a header with a bare LF would be two headers to somebody."""
    async with running(tmp_path) as world, world.client() as client:
        for header, code in ((b"Subject: x\nBcc: y\r\n", "554 5.6.0"), (b"Subject: x\r\n", "250 2.0.0")):
            octets = b"From: far@elsewhere.example\r\n" + header + b"\r\nbinary \n \r \0 \xff"
            client.say(b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<ann@example.org>\r\n")
            client.say(b"BDAT %d LAST\r\n" % len(octets) + octets)
            assert [(await client.hear())[:9] for _ in range(3)][-1] == code
        assert [body_of(each) for each in await world.mail(village.ann)] == [octets]


async def test_a_bare_newline_over_the_edge_of_packets(village: Village, tmp_path: Path) -> None:
    async def in_pieces(client: Client, *pieces: bytes) -> str:
        await begin(client)
        for piece in pieces:
            client.say(piece)
            await client.writer.drain()
            await asyncio.sleep(0.02)
        client.say(b".\r\n")
        return await client.hear()

    async with running(tmp_path) as world, world.client() as client:
        for pieces in ((b"a\r", b"b\r\n"), (b"a", b"\nb\r\n"), (b"a\r\n\r", b"x\r", b"\n")):
            assert (await in_pieces(client, *pieces)).startswith("550 5.6.0"), pieces
        # Nothing looked like an end, so the session is in sync.
        assert (await in_pieces(client, b"a\r", b"\nb\r", b"\n")).startswith("250")
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [b"a\r\nb\r\n"]


async def test_a_nul_octet_is_refused(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(MESSAGE + b"a\0b\r\n")).startswith("550 5.6.0")
        assert (await client.deliver(MESSAGE)).startswith("250")
        assert len(await world.mail(village.ann)) == 1
