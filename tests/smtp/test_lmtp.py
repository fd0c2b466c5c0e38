"""LMTP from a front end (RFC 2033): one reply for each recipient, and nobody else may speak it to us."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from django.db import connection

from accounts import people, policies
from accounts.models import Account
from mailcore import db, provision
from mailcore.store import trace
from tests import postfix
from tests.inbound.settling import settle
from tests.ports import free_ports
from tests.smtp.test_faults import process
from tests.smtp.test_programs import run
from tests.smtp.world import ANN, BOB, CHARLIE, Client, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = (
    b"From: Far <far@elsewhere.example>\r\nTo: ann@example.org\r\nSubject: hello\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@elsewhere.example>\r\n\r\nHello.\r\n"
)


def quota(address: str, octets: int) -> None:
    try:
        provision.set_quota(Account.objects.get(address=address), octets)
    finally:
        connection.close()


async def begin(client: Client, *recipients: str) -> None:
    await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
    for recipient in recipients:
        await client.expect(f"RCPT TO:<{recipient}>", "250")


async def test_each_recipient_has_a_reply_of_his_own(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("lmtp", hello=False) as client:
        await client.expect("MAIL FROM:<>", "503 5.5.1")
        await client.expect("EHLO front.example", "500 5.5.1")
        await client.expect("HELO front.example", "500 5.5.1")
        await client.expect("LHLO front.example", "250-mx.example.test")
        await begin(client, ANN, BOB)
        await client.expect("RCPT TO:<nobody@example.org>", "550 5.1.1")
        await client.expect("RCPT TO:<victim@elsewhere.example>", "550 5.7.1")
        await client.expect("RCPT TO:<charlie@example.net>", "250")
        await client.expect("DATA", "354")
        client.say(MESSAGE + b".\r\n")
        replies = [await client.hear() for _ in range(3)]
        assert all(reply.startswith("250 2.0.0") for reply in replies)
        await client.expect("NOOP", "250")
        for account in (village.ann, village.bob, village.charlie):
            (stored,) = await world.mail(account)
            assert body_of(stored) == MESSAGE
            assert b"with LMTP id" in stored
            assert b"\tfor <" not in stored


async def test_one_full_mailbox_does_not_keep_the_others_from_their_mail(village: Village, tmp_path: Path) -> None:
    """SMTP would have to refuse the message to all of them."""
    await asyncio.to_thread(quota, BOB, 1_000)
    async with running(tmp_path) as world:
        for how in ("DATA", "BDAT"):
            async with world.client("lmtp") as client:
                await begin(client, ANN, BOB, CHARLIE)
                large = MESSAGE + b"x" * 900 + b"\r\n"
                if how == "DATA":
                    await client.expect("DATA", "354")
                    client.say(large + b".\r\n")
                else:
                    client.say(b"BDAT 10\r\n" + large[:10])
                    assert (await client.hear()).startswith("250 2.0.0 10 octets")
                    client.say(b"BDAT %d LAST\r\n" % (len(large) - 10) + large[10:])
                assert [(await client.hear())[:9] for _ in range(3)] == ["250 2.0.0", "452 4.2.2", "250 2.0.0"]
                await client.expect("RSET", "250")
        assert [len(await world.mail(each)) for each in (village.ann, village.bob, village.charlie)] == [2, 0, 2]


async def test_one_who_takes_small_messages_only_does_not_keep_the_others_from_their_mail(
    village: Village, tmp_path: Path
) -> None:
    await settle(lambda: policies.change(people.get_account(BOB), ["max-message-size=1000"]))
    async with running(tmp_path) as world, world.client("lmtp") as client:
        await begin(client, ANN, BOB, CHARLIE)
        await client.expect("DATA", "354")
        client.say(MESSAGE + b"x" * 900 + b"\r\n.\r\n")
        assert [(await client.hear())[:9] for _ in range(3)] == ["250 2.0.0", "552 5.3.4", "250 2.0.0"]
        assert [len(await world.mail(each)) for each in (village.ann, village.bob, village.charlie)] == [1, 0, 1]
        await world.server.refusals.close()
        async with db.read() as tx:
            steps = [(each.step, each.recipient) for each in await trace.find(tx, ANN)]
        assert [each for each in steps if each[0] == "refused"] == [("refused", BOB)], "and only he refused it"


async def test_a_refused_message_is_refused_to_each(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("lmtp") as client:
        await begin(client, ANN, BOB)
        await client.expect("DATA", "354")
        client.say(b"Received: by x; date\r\n" * 51 + MESSAGE + b".\r\n")
        assert [(await client.hear())[:9] for _ in range(2)] == ["554 5.4.6"] * 2
        await begin(client, ANN, BOB)
        client.say(b"BDAT 3 LAST\r\na\nb")
        assert [(await client.hear())[:9] for _ in range(2)] == ["550 5.6.0"] * 2
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("DATA", "503 5.5.1")
        assert await world.mail(village.ann) == []


async def test_lmtp_is_for_front_ends_only(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, lmtp_from=(ipaddress.ip_network("192.0.2.0/24"),)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.ports["lmtp"])
        stranger = Client(reader, writer)
        assert (await stranger.hear()).startswith("554 5.7.1")
        assert await stranger.closed()
        await stranger.close()
        async with world.client("mx") as client:
            await client.expect("LHLO client.example", "500 5.5.1")


async def test_lmtp_over_tls(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("lmtp") as client:
        await client.start_tls()
        await client.expect("LHLO front.example", "250-")
        assert (await client.deliver(MESSAGE, parameters=" SMTPUTF8")).startswith("250")
        (stored,) = await world.mail(village.ann)
        assert b"with UTF8LMTPS id" in stored


async def test_the_mail_process_opens_the_port_when_it_is_told_to(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *ports, lmtp = free_ports(6)
    monkeypatch.setenv("MAILSTEAD_LMTP_PORT", str(lmtp))
    async with process(tmp_path, ports):
        reader, writer = await asyncio.open_connection("127.0.0.1", lmtp)
        client = Client(reader, writer)
        assert "LMTP Mailstead" in await client.hear()
        await client.expect("LHLO front.example", "250-")
        assert (await client.deliver(MESSAGE)).startswith("250")
        await client.close()


@pytest.mark.programs("swaks")
async def test_swaks_speaks_lmtp(village: Village, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
    async with running(tmp_path) as world:
        command = ("swaks", "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(world.ports["lmtp"]))
        code, said = await run(
            *command, "--from", "far@elsewhere.example", "--to", f"{ANN},{BOB}", "--data", f"@{letter}"
        )
        assert code == 0, said
        assert said.count("250 2.0.0 Ok: id ") == 2
        for account in (village.ann, village.bob):
            assert [body_of(each) for each in await world.mail(account)] == [MESSAGE + b"\r\n"]


@asynccontextmanager
async def front_end(lmtp: int) -> AsyncIterator[postfix.Postfix]:
    """A Postfix that hands all mail for our domains on by LMTP."""
    folder = Path(tempfile.mkdtemp(prefix="lmtp-"))
    folder.chmod(0o755)
    settings = {
        "relay_domains": "example.org example.net",
        "relay_transport": f"lmtp:inet:[127.0.0.1]:{lmtp}",
        "lmtp_tls_security_level": "encrypt",
    }
    running_one = await asyncio.to_thread(postfix.start, folder, free_ports(1)[0], "front.example", settings)
    try:
        yield running_one
    finally:
        await asyncio.to_thread(running_one.stop)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.programs("postfix", "swaks")
@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix starts as root only")
async def test_postfix_hands_mail_on_by_lmtp(village: Village, tmp_path: Path) -> None:
    """To several people, one of whom has no room: he stays in Postfix's queue, the others have their mail."""
    await asyncio.to_thread(quota, BOB, 1_000)
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGE.replace(b"\r\n", b"\n") + b"x" * 900 + b"\n")
    async with running(tmp_path) as world, front_end(world.ports["lmtp"]) as relay:
        for _ in range(600):
            code, said = await run(
                *("swaks", "--server", "127.0.0.1", "--port", str(relay.port), "--from", "far@elsewhere.example"),
                *("--to", f"{ANN},{BOB},{CHARLIE}", "--data", f"@{letter}"),
            )
            if code != 2:  # it does not listen yet
                break
            await asyncio.sleep(0.1)
        assert code == 0, said
        for _ in range(900):
            log = relay.log.read_text() if relay.log.exists() else ""
            if log.count("status=") >= 3:
                break
            await asyncio.sleep(0.1)
        fates = {
            to: f"to=<{to}>" in line and line for line in log.splitlines() for to in (ANN, BOB, CHARLIE) if to in line
        }
        assert "status=sent (250 2.0.0 Ok: id" in str(fates[ANN]), log
        assert "status=deferred" in str(fates[BOB]) and "452 4.2.2" in str(fates[BOB]), log
        assert "status=sent (250 2.0.0 Ok: id" in str(fates[CHARLIE]), log
        (stored,) = await world.mail(village.ann)
        assert stored.startswith(
            b"Return-Path: <far@elsewhere.example>\r\nReceived: from front.example ([127.0.0.1])\r\n"
        )
        assert b"with LMTPS id" in stored
        assert await world.mail(village.bob) == []
