"""Mail from people's programs: who may send as whom, what is completed, and where it goes."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from django.db import connection

from accounts import people
from accounts.models import Account
from mailcore import db, provision
from mailcore.store import suppression
from tests.smtp.world import ANN, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = (
    b"From: Ann <ann@example.org>\r\nTo: far@elsewhere.example\r\nSubject: hello\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <2@example.org>\r\n\r\nHello.\r\n"
)


async def test_local_recipients_get_it_at_once_and_others_are_queued(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submissions") as client:
        await client.login()
        await client.expect("MAIL FROM:<ann@example.org>", "250")
        for address in ("bob@example.org", "Far@Elsewhere.example", "other@elsewhere.example", "away@example.org"):
            await client.expect(f"RCPT TO:<{address}>", "250")
        await client.expect("RCPT TO:<nobody@example.org>", "550 5.1.1")
        await client.expect("DATA", "354")
        trace_id = (await client.expect(MESSAGE + b".", "250 2.0.0 Ok: id")).rpartition(" ")[2]
        (stored,) = await world.mail(village.bob)
        assert body_of(stored) == MESSAGE
        assert b"with ESMTPSA id" in stored
        queued = await world.queued()
        assert [(sender, address) for sender, address, _ in queued] == [
            ("ann@example.org", "Far@elsewhere.example"),
            ("ann@example.org", "other@elsewhere.example"),
            ("ann@example.org", "far@elsewhere.example"),
        ]
        assert queued[0][2].startswith(b"Received: from client.example")
        assert queued[0][2].endswith(b"\r\n" + MESSAGE)
        assert await world.steps(trace_id) == ["accepted", "expanded", "stored", "queued", "queued", "queued"]
        assert await world.mail(village.ann) == []


async def test_who_writes_to_a_suppressed_address_hears_of_it_at_once(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submissions") as client:
        async with db.transaction() as tx:
            why, reason = "bad-mailbox", "550 5.1.1 no such user"
            address = "far@elsewhere.example"
            await suppression.add(tx, address, source="bounce", category=why, reason=reason, until=None)
        await client.login()
        await client.expect("MAIL FROM:<ann@example.org>", "250")
        said = await client.expect("RCPT TO:<Far@elsewhere.example>", "550 5.1.1")
        assert "no such user" in said
        await client.expect("RCPT TO:<other@elsewhere.example>", "250")


SENDERS = [
    ("ann@example.org", "250"),
    ("Ann+shop@EXAMPLE.org", "250"),
    ("sales@example.org", "250"),
    ("", "250"),
    ("bob@example.org", "550 5.7.1"),
    ("nobody@example.org", "550 5.7.1"),
    ("ann@elsewhere.example", "550 5.7.1"),
    ("postmaster@example.org", "550 5.7.1"),
    ("ann@[127.0.0.1]", "550 5.7.1"),
]


async def test_the_envelope_sender_must_be_ones_own(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for sender, reply in SENDERS:
            await client.expect(f"MAIL FROM:<{sender}>", reply)
            await client.expect("RSET", "250")


AUTHORS = [
    (b"From: Ann <ann@example.org>", "250"),
    (b"From: ann+x@EXAMPLE.ORG (Ann)", "250"),
    (b"From: Ann <ann@example.org>, sales@example.org", "250"),
    (b"FROM : =?utf-8?q?=41nn?= <ann@example.org>", "250"),
    (b"From: Bob <bob@example.org>", "550 5.7.1"),
    (b"From: ann@example.org, bob@example.org", "550 5.7.1"),
    (b'From: "ann@example.org" <bob@example.org>', "550 5.7.1"),
    (b"From: ann@example.org <bob@example.org>", "550 5.7.1"),
    (b"From: (ann@example.org)\r\n bob@example.org", "550 5.7.1"),
    (b"From: Team: bob@example.org;", "550 5.7.1"),
    (b"From: ann", "550 5.7.1"),
    (b"From: undisclosed:;", "554 5.6.0"),
    (b"From:", "554 5.6.0"),
    (b"Subject: no author", "554 5.6.0"),
    (b"From: ann@example.org\r\nFrom: bob@example.org", "554 5.6.0"),
    (b"From: ann@example.org\r\nfrom : ann@example.org", "554 5.6.0"),
]


async def test_the_author_must_be_oneself(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for header, reply in AUTHORS:
            message = header + b"\r\n\r\nHello.\r\n"
            assert (await client.deliver(message, to="bob@example.org", sender=ANN)).startswith(reply), header
        assert len(await world.mail(village.bob)) == sum(reply == "250" for _, reply in AUTHORS)


async def test_what_is_missing_is_added_and_bcc_goes(village: Village, tmp_path: Path) -> None:
    sent = (
        b"Return-path: <bob@example.org>\r\nFrom: ann@example.org\r\n"
        b"Bcc: secret@elsewhere.example,\r\n other@elsewhere.example\r\nbcc : x\r\n"
        b"Subject: bcc: hi\r\n\r\nBcc: stays\r\n"
    )
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        trace_id = (await client.deliver(sent, to="bob@example.org", sender=ANN)).rpartition(" ")[2]
        (stored,) = await world.mail(village.bob)
        head, _, body = body_of(stored).partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0].startswith(f"Message-ID: <{trace_id}.".encode())
        assert lines[0].endswith(b"@example.org>")
        assert lines[1].startswith(b"Date: ")
        assert lines[2:] == [b"From: ann@example.org", b"Subject: bcc: hi"]
        assert body == b"Bcc: stays\r\n"


async def test_a_message_that_is_complete_is_not_touched(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.deliver(MESSAGE, to="bob@example.org", sender=ANN)
        (stored,) = await world.mail(village.bob)
        assert body_of(stored) == MESSAGE


async def test_dsn_parameters_reach_the_queue(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.talk("""
            C: MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ314159 SMTPUTF8
            S: 250
            C: RCPT TO:<far@elsewhere.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Far@elsewhere.example
            S: 250
            C: RCPT TO:<other@elsewhere.example> NOTIFY=NEVER
            S: 250
            C: DATA
            S: 354
        """)
        await client.expect(MESSAGE + b".", "250")
        async with db.read() as tx:
            assert await tx.fetch("SELECT dsn_ret, dsn_envid, smtputf8, body FROM outbound") == [
                ("HDRS", "QQ314159", True, "7BIT")
            ]
            assert await tx.fetch("SELECT notify, orcpt FROM outbound_recipient ORDER BY id") == [
                ("SUCCESS,FAILURE", "rfc822;Far@elsewhere.example"),
                ("NEVER", None),
            ]


async def test_a_receipt_that_is_asked_for_comes_by_way_of_the_queue(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect("MAIL FROM:<ann@example.org>", "250")
        await client.expect("RCPT TO:<bob@example.org> NOTIFY=SUCCESS", "250")
        await client.expect("RCPT TO:<charlie@example.net> NOTIFY=FAILURE,DELAY", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert [address for _, address, _ in await world.queued()] == ["bob@example.org"]
        assert await world.mail(village.bob) == []
        assert len(await world.mail(village.charlie)) == 1


async def test_an_account_that_is_disabled_sends_nothing_more(village: Village, tmp_path: Path) -> None:
    def disable() -> None:  # as nobody is told of who would end the session at once
        Account.objects.filter(address=ANN).update(is_active=False)
        connection.close()

    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<bob@example.org>", "250")
        await asyncio.to_thread(disable)
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "550 5.7.1")
        await client.expect("MAIL FROM:<ann@example.org>", "550 5.7.1")
        assert await world.mail(village.bob) == []


async def test_a_full_mailbox_is_told_at_once(village: Village, tmp_path: Path) -> None:
    def fill() -> None:
        provision.set_quota(Account.objects.get(address="bob@example.org"), 100)
        connection.close()

    await asyncio.to_thread(fill)
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect("MAIL FROM:<ann@example.org> SIZE=500", "250")
        await client.expect("RCPT TO:<bob@example.org>", "552 5.2.2")
        await client.expect("RSET", "250")
        await client.expect("MAIL FROM:<ann@example.org>", "250")
        await client.expect("RCPT TO:<bob@example.org>", "250")
        await client.expect("RCPT TO:<far@elsewhere.example>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "552 5.2.2")
        assert await world.queued() == []


async def test_strangers_get_nothing_on_the_submission_port(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        client.say(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n")
        assert [(await client.hear())[:9] for _ in range(5)] == [
            "530 5.7.0",
            "530 5.7.0",
            "530 5.7.0",
            "503 5.5.1",
            "250 2.0.0",
        ]


async def test_a_session_ends_with_the_password_it_came_in_by(village: Village, tmp_path: Path) -> None:
    def change() -> None:
        people.set_password(people.get_account(ANN), "another horse")
        connection.close()

    def app_password(scopes: list[str]) -> str:
        try:
            return people.add_app_password(people.get_account(ANN), "", scopes)
        finally:
            connection.close()

    secret = await asyncio.to_thread(app_password, ["smtp"])
    reading = await asyncio.to_thread(app_password, ["imap", "jmap"])
    async with (
        running(tmp_path) as world,
        world.client("submission") as idle,
        world.client("submissions") as busy,
        world.client("submissions") as printer,
    ):
        await idle.login()
        await busy.login()
        await printer.login(password=secret)
        await busy.expect("MAIL FROM:<ann@example.org>", "250")
        await busy.expect("RCPT TO:<bob@example.org>", "250")
        await busy.expect("DATA", "354")
        busy.say(MESSAGE)
        await asyncio.to_thread(change)
        for client in (idle, busy):
            assert await client.hear() == "421 4.7.0 Your password or account has changed: log in again"
            assert await client.closed()
        assert await world.mail(village.bob) == []
        assert (await printer.deliver(MESSAGE, "bob@example.org", ANN)).startswith("250")
        async with world.client("submissions") as reader:
            token = base64.b64encode(f"\0{ANN}\0{reading}".encode()).decode()
            await reader.expect(f"AUTH PLAIN {token}", "525 5.7.13 This app password is not for this protocol")
