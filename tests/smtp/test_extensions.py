"""Each extension as a conversation, and each way of getting it wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tomllib
from pathlib import Path

import pytest
from django.db import connection

import mailcore as rfcs
from accounts import people
from tests.scram import ScramClient
from tests.smtp.world import ANN, PASSWORD, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"


# What EHLO announces, and the document that mailcore/rfcs.toml must list for it.
RFC_OF = {
    **{"PIPELINING": 2920, "SIZE": 1870, "8BITMIME": 6152, "SMTPUTF8": 6531, "ENHANCEDSTATUSCODES": 2034, "DSN": 3461},
    **{"CHUNKING": 3030, "BINARYMIME": 3030, "DELIVERBY": 2852, "MT-PRIORITY": 6710, "LIMITS": 9422, "AUTH": 4954},
    **{"STARTTLS": 3207, "REQUIRETLS": 8689, "FUTURERELEASE": 4865},
}
RFCS = Path(rfcs.__file__).parent / "rfcs.toml"


async def test_ehlo_offers_what_the_listener_has(village: Village, tmp_path: Path) -> None:
    common = (
        "PIPELINING|SIZE 52428800|8BITMIME|SMTPUTF8|ENHANCEDSTATUSCODES|CHUNKING|BINARYMIME|DSN|"
        "DELIVERBY 10|MT-PRIORITY|LIMITS RCPTMAX=1000 MAILMAX=10000"
    ).split("|")
    offers = {
        "mx": [*common, "STARTTLS"],
        "submission": [*common, "STARTTLS", "AUTH PLAIN LOGIN"],
        "submissions": [*common, "REQUIRETLS", "AUTH PLAIN LOGIN"],
        "lmtp": [*common, "STARTTLS"],
    }
    async with running(tmp_path) as world:
        for name, offered in offers.items():
            async with world.client(name, hello=False) as client:
                verb = "LHLO" if name == "lmtp" else "EHLO"
                lines = (await client.ask(f"{verb} [127.0.0.1]")).splitlines()
                said = [line[4:] for line in lines if "FUTURERELEASE" not in line]
                assert said == ["mx.example.test", *offered]
                assert len(said) == len(lines) - name.startswith("submission")
                keywords = {line[4:].partition(" ")[0] for line in lines[1:]}
                assert keywords <= RFC_OF.keys()
    listed = {entry.get("number"): entry["status"] for entry in tomllib.loads(RFCS.read_text("utf-8"))["rfc"]}
    assert all(listed[number] in ("complete", "partial") for number in RFC_OF.values())


async def test_commands_in_a_wrong_order_or_form(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client(hello=False) as client:
        await client.talk("""
            C: MAIL FROM:<>
            S: 503 5.5.1
            C: EHLO
            S: 501 5.5.4
            C: EHLO client.example
            S: 250-mx.example.test
            C: RCPT TO:<ann@example.org>
            S: 503 5.5.1
            C: DATA
            S: 503 5.5.1
            C: MAIL FROM:<>
            S: 250 2.1.0
            C: MAIL FROM:<>
            S: 503 5.5.1
            C: DATA
            S: 554 5.5.1 No valid recipients
            C: RCPT TO:<ann@example.org>
            S: 250 2.1.5
            C: DATA now
            S: 501 5.5.4
            C: EHLO client.example
            S: 250-mx.example.test
            C: RCPT TO:<ann@example.org>
            S: 503 5.5.1
            C: RSET
            S: 250 2.0.0
            C: RSET x
            S: 501 5.5.4
            C: NOOP whatever
            S: 250 2.0.0
            C: VRFY ann@example.org
            S: 252 2.1.5
            C: VRFY nobody@example.org
            S: 252 2.1.5
            C: EXPN sales
            S: 502 5.5.1
            C: HELP
            S: 214 2.0.0
            C: AUTH PLAIN AGFubgBwYXNz
            S: 502 5.5.1
            C: ETRN example.org
            S: 502 5.5.1
            C:
            S: 500 5.5.2
            C: QUIT now
            S: 501 5.5.4
            C: QUIT
            S: 221 2.0.0
        """)
        assert await client.closed()


async def test_pipelining_answers_a_group_of_commands_in_order(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        client.say(
            b"MAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<nobody@example.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n"
        )
        assert [(await client.hear())[:3] for _ in range(4)] == ["250", "550", "250", "354"]
        client.say(
            MESSAGE + b".\r\nMAIL FROM:<b@elsewhere.example>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\nQUIT\r\n"
        )
        assert [(await client.hear())[:3] for _ in range(5)] == ["250", "250", "550", "554", "221"]
        assert await client.closed()
        assert len(await world.mail(village.ann)) == 1


async def test_pipelining_byte_by_byte(village: Village, tmp_path: Path) -> None:
    conversation = b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT 11\r\nFrom: a\r\n\r\nBDAT 0 LAST\r\nNOOP\r\n"
    async with running(tmp_path) as world, world.client() as client:
        for at in range(len(conversation)):
            client.say(conversation[at : at + 1])
            await client.writer.drain()
            if at % 7 == 0:
                await asyncio.sleep(0)
        assert [(await client.hear())[:9] for _ in range(5)] == [
            "250 2.1.0",
            "250 2.1.5",
            "250 2.0.0",
            "250 2.0.0",
            "250 2.0.0",
        ]
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [b"From: a\r\n\r\n"]


async def test_bdat_in_pieces_with_dots_and_all(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        client.say(
            b"MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<ann@example.org>\r\nBDAT 12\r\nSubject: x\r\nBDAT 5\r\n\r\n.\r\n"
            b"BDAT 6 LAST\r\n..\xff\r\nNOOP\r\n"[:-6]
        )
        client.say(b"")
        assert [(await client.hear())[:3] for _ in range(4)] == ["250"] * 4
        client.say(b"x")
        assert (await client.hear()).startswith("250 2.0.0 Ok: id")
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [b"Subject: x\r\n\r\n.\r\n..\xff\r\nx"]


async def test_bdat_out_of_order_stays_in_sync(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for start, code in ((b"", "503"), (b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.org>\r\n", "554")):
            client.say(start + b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\n")
            if start:
                assert [(await client.hear())[:3] for _ in range(2)] == ["250", "550"]
            assert [(await client.hear())[:3] for _ in range(3)] == [code, code, "250"]
        await client.expect("RSET", "250")
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        client.say(b"BDAT 4\r\nab\r\nDATA\r\nRCPT TO:<bob@example.org>\r\nBDAT 0 LAST\r\n")
        assert [(await client.hear())[:3] for _ in range(4)] == ["250", "503", "503", "250"]
        assert await world.mail(village.bob) == []
        await client.expect("BDAT x", "501 5.5.4")
        assert await client.closed()


async def test_a_refused_chunk_spoils_the_message_until_rset(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\nBDAT 3\r\na\nbBDAT 2 LAST\r\n\r\nRSET\r\n")
        assert [(await client.hear())[:9] for _ in range(5)] == [
            "250 2.1.0",
            "250 2.1.5",
            "550 5.6.0",
            "503 5.5.1",
            "250 2.0.0",
        ]
        assert (await client.deliver(MESSAGE)).startswith("250")
        assert len(await world.mail(village.ann)) == 1


async def test_smtputf8_and_8bitmime_keep_every_octet(village: Village, tmp_path: Path) -> None:
    message = (
        "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße\r\n\r\nÄÖÜ €\r\n".encode()
        + bytes(range(128, 256))
        + b"\r\n"
    )
    async with running(tmp_path) as world, world.client() as client:
        reply = await client.deliver(message, sender="jörg@bücher.example", parameters=" SMTPUTF8 BODY=8BITMIME")
        (stored,) = await world.mail(village.ann)
        assert body_of(stored) == message
        assert stored.startswith("Return-Path: <jörg@xn--bcher-kva.example>\r\n".encode())
        assert b"with UTF8SMTP id" in stored
        assert (await world.steps("jörg@xn--bcher-kva.example")) == ["accepted", "stored"]
        assert reply.startswith("250 2.0.0")


async def test_an_internationalised_address_needs_smtputf8(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<jörg@elsewhere.example>", "550 5.6.7")
        await client.expect("MAIL FROM:<jorg@elsewhere.example>", "250")
        await client.expect("RCPT TO:<jörg@example.org>", "550 5.6.7")
        await client.expect("RCPT TO:<jorg@example.örg>", "550 5.6.7")
        await client.expect(b"RCPT TO:<a\xff@example.org>", "501 5.5.2")


async def test_parameters_that_are_not_offered(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect("MAIL FROM:<> CHECKPOINT=x", "555 5.5.4")
            await client.expect("MAIL FROM:<> REQUIRETLS", "555 5.5.4")
            await client.expect("MAIL FROM:<> BODY=BINARY", "501 5.5.4")
            await client.expect("MAIL FROM:<> SIZE=1 BODY=7BIT AUTH=<>", "250")
            await client.expect("RCPT TO:<ann@example.org> SIZE=1", "555 5.5.4")
        async with world.client(hello=False) as client:
            await client.expect("HELO client.example", "250")
            await client.expect("MAIL FROM:<> SIZE=1", "555 5.5.4")


async def test_starttls(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<>", "250")
        await client.start_tls()
        # What was said before TLS is forgotten, EHLO included.
        await client.expect("RCPT TO:<ann@example.org>", "503 5.5.1")
        await client.expect("MAIL FROM:<>", "503 5.5.1")
        assert "STARTTLS" not in await client.expect("EHLO client.example", "250-")
        await client.expect("STARTTLS", "503 5.5.1")
        large = MESSAGE + b"0123456789abcdef\r\n" * 100_000
        assert (await client.deliver(large)).startswith("250")
        (stored,) = await world.mail(village.ann)
        assert body_of(stored) == large
        assert b"\r\n\t(using TLSv1.3 with cipher TLS_" in stored
        assert b"with ESMTPS id" in stored
        await client.expect("QUIT", "221")


async def test_tls_that_is_none(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect("STARTTLS", "220")
            client.say(b"EHLO client.example\r\n" * 20)
            assert await client.closed()
        async with world.client() as client:
            assert (await client.deliver(MESSAGE)).startswith("250")


@pytest.mark.parametrize("port", ["submission", "submissions"])
async def test_auth_plain_and_login(village: Village, tmp_path: Path, port: str) -> None:
    token = base64.b64encode(f"\0ann@example.org\0{PASSWORD}".encode()).decode()
    user, word = (base64.b64encode(text.encode()).decode() for text in ("Ann@Example.org", PASSWORD))
    ways = [
        [f"C: AUTH PLAIN {token}"],
        ["C: auth plain", "S: 334 ", f"C: {token}"],
        ["C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", f"C: {user}", "S: 334 UGFzc3dvcmQ6", f"C: {word}"],
        [f"C: AUTH LOGIN {user}", "S: 334 UGFzc3dvcmQ6", f"C: {word}"],
    ]
    async with running(tmp_path) as world:
        for way in ways:
            async with world.client(port) as client:
                await client.expect("MAIL FROM:<ann@example.org>", "530 5.7.0")
                await client.talk("\n".join(way))
                assert await client.hear() == "235 2.7.0 You are logged in"
                assert "AUTH" not in await client.ask("EHLO again.example")
                await client.expect(f"AUTH PLAIN {token}", "503 5.5.1")
                await client.expect("MAIL FROM:<ann@example.org>", "250")


async def test_auth_that_fails(village: Village, tmp_path: Path) -> None:
    def plain(*fields: str) -> str:
        return base64.b64encode("\0".join(fields).encode()).decode()

    async with running(tmp_path) as world, world.client("submissions") as client:
        await client.talk(f"""
            C: AUTH
            S: 501 5.5.4
            C: AUTH GSSAPI
            S: 504 5.5.4
            C: AUTH PLAIN !!!
            S: 501 5.5.2
            C: AUTH PLAIN =
            S: 501 5.5.2
            C: AUTH PLAIN a b
            S: 501 5.5.4
            C: AUTH LOGIN
            S: 334
            C: *
            S: 501 5.7.0
            C: AUTH PLAIN {plain("", "ann@example.org", "wrong")}
            S: 535 5.7.8
            C: AUTH PLAIN {plain("", "nobody@example.org", PASSWORD)}
            S: 535 5.7.8
            C: AUTH PLAIN {plain("bob@example.org", "ann@example.org", PASSWORD)}
            S: 535 5.7.8
            C: MAIL FROM:<ann@example.org>
            S: 530 5.7.0
            C: AUTH PLAIN {plain("ann@example.org", "ann@example.org", PASSWORD)}
            S: 235 2.7.0
        """)


async def test_scram_with_an_app_password(village: Village, tmp_path: Path) -> None:
    def make() -> str:
        try:
            return people.add_app_password(people.get_account(ANN), "laptop")
        finally:
            connection.close()

    secret = await asyncio.to_thread(make)
    async with running(tmp_path, scram=True) as world, world.client("submissions") as client:
        assert "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" in await client.ask("EHLO again.example")
        certificate = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        bound = {"header": b"p=tls-server-end-point,,", "binding": hashlib.sha256(certificate).digest()}
        for password, binding, answer in (
            ("abcd-efgh-ijkl-mnop-qrst-uvwx-yz23", bound, "535 5.7.8"),
            (secret, {**bound, "binding": b"another"}, "501 5.5.2"),
            (secret, bound, "334 "),
        ):
            scram = ScramClient(ANN, password, **binding)
            said = await client.ask(b"AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(scram.first()))
            assert said.startswith("334 ")
            said = await client.ask(base64.b64encode(scram.final(base64.b64decode(said[4:]))))
            assert said.startswith(answer), said
        assert scram.accepts(base64.b64decode(said[4:]))
        assert await client.ask("") == "235 2.7.0 You are logged in"
        await client.expect(f"MAIL FROM:<{ANN}>", "250")


@pytest.mark.parametrize(("allowed", "offered"), [("never", False), ("loopback", True), ("always", True)])
async def test_login_in_plain_text(village: Village, tmp_path: Path, allowed: str, offered: bool) -> None:
    token = base64.b64encode(f"\0ann@example.org\0{PASSWORD}".encode()).decode()
    async with running(tmp_path, plaintext_auth=allowed) as world, world.client("submission") as client:
        assert ("AUTH PLAIN" in await client.ask("EHLO client.example")) is offered
        if not offered:
            await client.expect(f"AUTH PLAIN {token}", "538 5.7.11")
            await client.expect("MAIL FROM:<ann@example.org>", "530 5.7.0 Issue STARTTLS")
            await client.start_tls()
            await client.expect("EHLO client.example", "250-")
        await client.expect(f"AUTH PLAIN {token}", "235")
