"""What a message may ask for beside being delivered: binary, TLS all the way, receipts, addresses of other scripts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from django.db import connection

from accounts import people
from mailcore import db, provision
from tests.smtp.world import ANN, MESSAGE, PASSWORD, Client, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MINE = MESSAGE.replace(b"far@elsewhere.example", ANN.encode())
BINARY = (
    b"From: far@elsewhere.example\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: binary\r\n\r\n" + bytes(range(256)) * 40 + b"\r\n.\r\n\n.\n\r.\r"
)


async def queue_rows(*columns: str) -> list[tuple[object, ...]]:
    async with db.read() as tx:
        return await tx.fetch(f"SELECT {', '.join(columns)} FROM outbound ORDER BY id")


async def chunks(client: Client, octets: bytes, size: int) -> str:
    """The message in pieces; the reply to the last of them."""
    for at in range(0, len(octets), size):
        piece = octets[at : at + size]
        client.say(b"BDAT %d%b\r\n" % (len(piece), b" LAST" if at + size >= len(octets) else b"") + piece)
    heard = ""
    for _ in range(0, len(octets), size):
        heard = await client.hear()
        assert heard.startswith("250"), heard
    return heard


@pytest.mark.parametrize("size", [1 << 20, 1_000, 7])
async def test_binary_mail_is_stored_octet_for_octet(village: Village, tmp_path: Path, size: int) -> None:
    async with running(tmp_path) as world, world.client() as client:
        octets = BINARY if size > 7 else BINARY[:300]
        await client.expect("MAIL FROM:<far@elsewhere.example> BODY=BINARYMIME", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        await chunks(client, octets, size)
        await client.expect("NOOP", "250")
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [octets]


async def test_binary_mail_needs_bdat(village: Village, tmp_path: Path) -> None:
    """RFC 3030 §3: DATA would have to look for line ends in it."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<> BODY=binarymime", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        await client.expect("DATA", "503 5.5.1 BODY=BINARYMIME needs BDAT")
        assert (await chunks(client, BINARY, 1 << 20)).startswith("250")


async def test_the_queue_knows_what_the_next_server_must_take(village: Village, tmp_path: Path) -> None:
    """Declared as binary is one thing; what needs no chunks can go to anybody."""
    text = MINE + b"caf\xc3\xa9\r\n"
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for octets in (BINARY.replace(b"far@elsewhere.example", ANN.encode()), text, MINE):
            await client.expect(f"MAIL FROM:<{ANN}> BODY=BINARYMIME", "250")
            await client.expect("RCPT TO:<far@elsewhere.example>", "250")
            await chunks(client, octets, 1 << 20)
        assert await queue_rows("body") == [("BINARYMIME",), ("8BITMIME",), ("7BIT",)]


async def test_requiretls_is_for_tls_and_stays_with_the_message(village: Village, tmp_path: Path) -> None:
    """RFC 8689 §4.2.1: announced inside TLS only, kept for the way on; a forward of mail from outside keeps it too."""
    optional = MINE.replace(b"Subject", b"TLS-Required: No\r\nSubject")
    async with running(tmp_path) as world:
        async with world.client("submissions") as client:
            assert "250-REQUIRETLS" in await client.ask("EHLO client.example")
            await client.login()
            for message, parameters in ((MINE, " REQUIRETLS"), (MINE, ""), (optional, ""), (optional, " REQUIRETLS")):
                reply = await client.deliver(message, "far@elsewhere.example", ANN, parameters)
                assert reply.startswith("250")
        async with world.client() as client:
            await client.start_tls()
            assert "REQUIRETLS" in await client.ask("EHLO client.example")
            assert (await client.deliver(MESSAGE, "away@example.org", parameters=" REQUIRETLS")).startswith("250")
            assert (await client.deliver(MESSAGE, parameters=" REQUIRETLS")).startswith("250")
            assert len(await world.mail(village.ann)) == 1
        assert await queue_rows("requiretls") == [(True,), (None,), (False,), (True,), (True,)]


async def test_requiretls_in_plain_text_is_no_parameter(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        assert "REQUIRETLS" not in await client.ask("EHLO client.example")
        await client.expect("MAIL FROM:<> REQUIRETLS", "555 5.5.4")
        await client.expect("MAIL FROM:<>", "250")


async def test_a_stranger_gets_the_receipt_that_he_asks_for(village: Village, tmp_path: Path) -> None:
    """NOTIFY=SUCCESS on port 25: the message goes by way of the queue, which writes the report."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example> RET=HDRS ENVID=QQ314", "250")
        await client.expect("RCPT TO:<ann@example.org> NOTIFY=SUCCESS ORCPT=rfc822;Ann@example.org", "250")
        await client.expect("RCPT TO:<bob@example.org> NOTIFY=NEVER", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert [(sender, to) for sender, to, _ in await world.queued()] == [("far@elsewhere.example", ANN)]
        assert await queue_rows("dsn_ret", "dsn_envid", "account_id") == [("HDRS", "QQ314", None)]
        assert len(await world.mail(village.bob)) == 1
        # A bounce is never answered, whatever it asks for.
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<ann@example.org> NOTIFY=SUCCESS,FAILURE", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1


async def test_internationalised_addresses_and_domains_end_to_end(village: Village, tmp_path: Path) -> None:
    """A domain of ours in another script, by either of its names; a local part composed or decomposed; and back out."""

    def found() -> int:
        try:
            people.add_domain("bücher.example")
            return int(provision.add_account("jörg@bücher.example", password=PASSWORD).pk)
        finally:
            connection.close()

    jorg = await asyncio.to_thread(found)
    message = "From: Jörg <jörg@bücher.example>\r\nTo: 用户@例子.example\r\nSubject: Grüße\r\n\r\nÄ\r\n".encode()
    ways = (
        "jörg@bücher.example",
        "jörg@xn--bcher-kva.example",
        "JÖRG@BÜCHER.example",
        "jo\u0308rg@bu\u0308cher.example",
        "jörg+tag@bücher.example",
    )
    async with running(tmp_path) as world:
        async with world.client() as client:
            for to in ways:
                assert (await client.deliver(message, to, "用户@例子.example", " SMTPUTF8")).startswith("250"), to
            stored = await world.mail(jorg)
            assert [body_of(each) for each in stored] == [message] * len(ways)
            assert stored[0].startswith("Return-Path: <用户@xn--fsqu00a.example>\r\nReceived: ".encode())
            assert b" with UTF8SMTP id " in stored[0]
            assert "\tfor <jörg@xn--bcher-kva.example>".encode() in stored[0]
            await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
            await client.expect("RCPT TO:<jörg@bücher.example>", "550 5.6.7")
            await client.expect("RCPT TO:<postmaster@xn--bcher-kva.example>", "250")
        async with world.client("submissions") as client:
            await client.login("jörg@bücher.example")
            await client.expect("MAIL FROM:<jörg@bücher.example> SMTPUTF8 BODY=8BITMIME", "250")
            await client.expect("RCPT TO:<用户@例子.example> ORCPT=utf-8;用户@例子.example NOTIFY=FAILURE", "250")
            await client.expect("DATA", "354")
            await client.expect(message + b".", "250")
        ((sender, to, octets),) = await world.queued()
        assert (sender, to) == ("jörg@xn--bcher-kva.example", "用户@xn--fsqu00a.example")
        assert octets.endswith(b"\r\n".join(message.split(b"\r\n")[-5:]))
        assert await queue_rows("smtputf8", "body") == [(True, "8BITMIME")]
        async with db.read() as tx:
            assert await tx.fetch("SELECT orcpt FROM outbound_recipient") == [("utf-8;用户@例子.example",)]


RECEIVED = re.compile(
    rb"Return-Path: <far@elsewhere\.example>\r\n"
    rb"Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n"
    rb"\t\(using TLSv1\.3 with cipher TLS_[A-Z0-9_]+ \((?:128/128|256/256) bits\), SNI localhost\)\r\n"
    rb"\t\(No client certificate requested\)\r\n"
    rb"\tby mx\.example\.test with ESMTPS id [0-9a-z]{15}\r\n"
    rb"\tfor <ann@example\.org>;\r\n"
    rb"\t[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)


async def test_received_tells_the_facts_of_tls(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.start_tls()
        await client.expect("EHLO client.example", "250-")
        assert (await client.deliver(MESSAGE)).startswith("250")
        (stored,) = await world.mail(village.ann)
        match = RECEIVED.match(stored)
        assert match, stored[:600]
        assert stored[match.end() :] == MESSAGE


PROTOCOLS = [
    ("mx", "HELO", False, "", "SMTP"),
    ("mx", "EHLO", False, "", "ESMTP"),
    ("mx", "EHLO", True, "", "ESMTPS"),
    ("mx", "EHLO", True, " SMTPUTF8", "UTF8SMTPS"),
    ("submission", "EHLO", False, "", "ESMTPA"),
    ("submission", "EHLO", True, " SMTPUTF8", "UTF8SMTPSA"),
    ("lmtp", "LHLO", False, "", "LMTP"),
    ("lmtp", "LHLO", True, "", "LMTPS"),
]


async def test_received_names_the_protocol(village: Village, tmp_path: Path) -> None:
    """RFC 3848 and RFC 6531 §4.3."""
    async with running(tmp_path) as world:
        for name, verb, tls, parameters, word in PROTOCOLS:
            async with world.client(name, hello=tls) as client:
                if tls:
                    await client.start_tls()
                await client.expect(f"{verb} client.example", "250")
                sender = ANN if name == "submission" else "far@elsewhere.example"
                if name == "submission":
                    await client.login()
                message = MINE if name == "submission" else MESSAGE
                assert (await client.deliver(message, "bob@example.org", sender, parameters)).startswith("250")
            assert f" with {word} id ".encode() in (await world.mail(village.bob))[-1]
