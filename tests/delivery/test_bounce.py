"""What the sender is told, and who is told nothing."""

from __future__ import annotations

import asyncio
import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest
from django.db import connection

from accounts import people
from mailcore import db
from mailcore.delivery import backoff
from mailcore.store import quota
from mailcore.store.queue import Recipient
from tests.delivery.world import ANN, BOB, RAW, World

REFUSED = ("RCPT", "", "550 5.1.1 <bob@far.example>: no such user here")


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


class Notice:
    """A delivery status notification, taken apart."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.message = email.message_from_bytes(raw, policy=email.policy.SMTP)
        assert isinstance(self.message, EmailMessage)
        assert self.message.get_content_type() == "multipart/report"
        assert self.message["Auto-Submitted"] == "auto-replied"
        assert self.message["Return-Path"] == "<>"
        self.text, self.status, self.original = self.message.iter_parts()
        self.kind = self.message.get_param("report-type")
        blocks: list[Any] = self.status.get_payload()
        self.fields, *self.recipients = [dict(block.items()) for block in blocks]

    @property
    def words(self) -> str:
        return str(self.text.get_content())


async def notices(far: World) -> list[Notice]:
    return [Notice(raw) for raw in await far.inbox()]


async def test_a_refusal_comes_back_with_the_servers_words_and_the_message(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    name = await far.submit(Recipient(BOB, None, "rfc822;robert+40far.example"), dsn_envid="env+2B1")
    await far.deliver()
    assert await far.states() == {BOB: "failed"}
    (notice,) = await notices(far)
    assert notice.message["To"] == ANN
    assert notice.message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.example.test>"
    assert notice.message["Subject"] == "Not delivered: hello"
    assert notice.message["In-Reply-To"] == "<one@example.test>", "a client shows it with the message"
    assert notice.kind == "delivery-status"
    assert notice.fields["Reporting-MTA"] == "dns; mx.example.test"
    assert notice.fields["Original-Envelope-Id"] == "env+1"
    (fate,) = notice.recipients
    assert fate["Final-Recipient"] == f"rfc822; {BOB}"
    assert fate["Original-Recipient"] == "rfc822; robert@far.example"
    assert (fate["Action"], fate["Status"]) == ("failed", "5.1.1")
    assert fate["Remote-MTA"] == "dns; mx.far.example"
    assert fate["Diagnostic-Code"] == "smtp; 550 5.1.1 <bob@far.example>: no such user here"
    assert "check the spelling" in notice.words and "no such user here" in notice.words
    assert notice.original.get_content_type() == "message/rfc822"
    assert RAW in notice.raw, "the message as it was written"
    steps = await far.steps(name)
    assert [step.step for step in steps] == ["queued", "failed", "dsn"]
    follow = await far.steps(steps[-1].detail["id"])
    assert [step.step for step in follow] == ["stored", "dsn"]


async def test_one_notice_tells_of_all_who_were_refused_together(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "good", "250 ok"), REFUSED)
    await far.submit("a@far.example", "good@far.example", "b@far.example")
    await far.deliver()
    (notice,) = await notices(far)
    assert [fate["Final-Recipient"] for fate in notice.recipients] == ["rfc822; a@far.example", "rfc822; b@far.example"]


@pytest.mark.parametrize(
    "message",
    [
        {"sender": "", "account": None},
        {"sender": "stranger@other.example", "account": None},
        {"sender": ANN, "account": None},
    ],
    ids=["a bounce", "a stranger", "a stranger under Ann's name"],
)
async def test_bounces_and_strangers_get_no_notice(far: World, message: dict[str, Any]) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    name = await far.submit(**message)
    await far.deliver()
    assert await far.inbox() == []
    assert await far.states() == {BOB: "failed"}, "and nothing was queued"
    assert (await far.steps(name))[-1].detail["untold"]


@pytest.mark.parametrize(("notify", "told"), [("NEVER", 0), ("SUCCESS", 0), ("DELAY", 0), ("FAILURE", 1), (None, 1)])
async def test_the_sender_is_told_what_he_wanted_to_know(far: World, notify: str | None, told: int) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await far.submit(Recipient(BOB, notify))
    await far.deliver()
    assert len(await far.inbox()) == told


async def test_mail_that_waits_is_told_of_once_and_comes_back_after_five_days(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "450 4.2.0 greylisted"))
    await far.submit()
    ages = []
    for _ in range(100):
        await far.deliver()
        row = (await far.rows())[BOB]
        if row["state"] != "queued":
            break
        ages.append(row["wait"])
        assert row["delay_notified"] == (sum(ages[:-1]) >= backoff.DELAY_NOTICE_AFTER)
        await far.later(row["wait"] + 1)
    assert (await far.states())[BOB] == "failed"
    assert 4.9 * 86400 < sum(ages) < 5.1 * 86400
    assert 30 < len(ages) < 50
    delayed, failed = await notices(far)
    assert (delayed.recipients[0]["Action"], delayed.recipients[0]["Status"]) == ("delayed", "4.2.0")
    assert "Will-Retry-Until" in delayed.recipients[0]
    assert "need not do anything" in delayed.words
    assert (failed.recipients[0]["Action"], failed.recipients[0]["Status"]) == ("failed", "4.2.0")
    assert "greylisted" in failed.words


async def test_unreachable_for_five_days_is_expired_and_says_so(far: World) -> None:
    await far.sink("127.0.0.9")  # gives the port; nothing listens where the MX record points
    await far.submit()
    await far.later(5 * 86400 + 60)
    await far.deliver()
    (notice,) = await notices(far)
    assert notice.recipients[0]["Status"] == "4.4.7"
    assert notice.recipients[0]["Diagnostic-Code"].startswith("x-mailstead; connection refused")


async def test_a_receipt_is_written_for_servers_that_send_none(far: World) -> None:
    await far.sink(extensions=("PIPELINING",))
    await far.submit(Recipient(BOB, "SUCCESS"))
    await far.deliver()
    (notice,) = await notices(far)
    assert (notice.recipients[0]["Action"], notice.recipients[0]["Status"]) == ("relayed", "2.0.0")


async def test_a_receipt_is_written_for_mail_that_is_delivered_here(far: World) -> None:
    await far.submit(Recipient(ANN, "SUCCESS"))
    await far.deliver()
    _, notice = await far.inbox()
    assert b"Action: delivered" in notice


async def test_only_the_header_comes_back_when_the_sender_wants_that_or_the_message_is_long(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await far.submit(dsn_ret="HDRS")
    await far.submit(raw=RAW + b"x" * 70_000 + b"\r\n")
    await far.submit(raw=RAW + b"x" * 70_000 + b"\r\n", dsn_ret="FULL")
    await far.deliver()
    short, long, full = sorted(await notices(far), key=lambda notice: len(notice.raw))
    for notice in (short, long):
        assert notice.original.get_content_type() == "text/rfc822-headers"
        assert "Only its header" in notice.words
        assert len(notice.raw) < 5000
    assert full.original.get_content_type() == "message/rfc822"


async def test_a_sender_whose_address_leads_elsewhere_is_told_there(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bob@", "550 5.1.1 no"))
    await _alias("away@example.test", "ann@near.example")
    far.names.host("near.example", (10, "mx.near.example", "127.0.0.1"))
    await far.submit(sender="away@example.test")
    await far.deliver()
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients) == ("", ("ann@near.example",))
    assert "NOTIFY=NEVER" in mail.rcpt_lines[0]
    assert b"report-type=delivery-status" in mail.data


async def _alias(address: str, *targets: str) -> None:
    def add() -> None:
        people.add_alias(address, list(targets))
        connection.close()  # the thread's own

    await asyncio.to_thread(add)


async def test_a_notice_that_finds_the_mailbox_full_waits_for_room(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    async with db.transaction() as tx:
        await quota.set_limit(tx, far.account, 10)
    await far.submit()
    await far.deliver()
    assert await far.inbox() == []
    assert await far.states() == {BOB: "failed", ANN: "queued"}
    async with db.transaction() as tx:
        await quota.set_limit(tx, far.account, None)
    await far.later(600)
    await far.deliver()
    assert await far.states() == {BOB: "failed", ANN: "delivered"}
    assert len(await notices(far)) == 1


async def test_a_hostile_server_cannot_write_header_fields_into_the_notice(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "550-5.7.1 no\r\n550-Bcc: x@y.example\r\n550 5.7.1 \x00\x07\u2028Zürich " + "long " * 300))
    await far.submit()
    await far.deliver()
    (notice,) = await notices(far)
    assert notice.message["Bcc"] is None
    assert max(len(line) for line in notice.raw.split(b"\r\n")) < 998
    assert set(notice.recipients[0]) == {
        *("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date")
    }
    assert "Zürich" in notice.words


async def test_notices_about_internationalised_mail_are_internationalised(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "550 5.1.1 unbekannt"))
    raw = "From: Ann <ann@example.test>\r\nTo: <zoë@far.example>\r\nSubject: Grüße\r\n\r\nHallo\r\n".encode()
    await far.submit("zoë@far.example", raw=raw, smtputf8=True, body="8BITMIME")
    await far.deliver()
    (raw_notice,) = await far.inbox()
    assert b"report-type=global-delivery-status" in raw_notice
    assert b"Content-Type: message/global-delivery-status\r\n" in raw_notice
    assert "Final-Recipient: utf-8; zoë@far.example\r\n".encode() in raw_notice
    assert b"Content-Type: message/global\r\n" in raw_notice
    assert raw in raw_notice
    header = raw_notice.partition(b"\r\n\r\n")[0]
    assert header.isascii(), "the notice itself can be delivered anywhere"


async def test_a_notice_is_not_lost_when_the_message_is(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await far.submit()
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM blob")
    await far.deliver()
    assert (await far.states())[BOB] == "queued", "nothing to send, and nothing to be sure of"
    await far.later(6 * 86400)
    await far.deliver()
    (notice,) = await notices(far)
    assert notice.recipients[0]["Action"] == "failed"


async def test_a_sender_who_has_left_is_told_nothing_and_the_trace_says_so(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    name = await far.submit(sender="gone@example.test")
    await far.deliver()
    assert await far.states() == {BOB: "failed"}
    assert (await far.steps(name))[-1].detail["lost"] == "the sender's mailbox is gone"


async def test_mail_goes_on_however_long_it_takes_to_tell_senders(far: World) -> None:
    sink = await far.sink()
    engine = await far.start()
    await far.submit()
    async with db.transaction() as blocking:
        await blocking.execute("LOCK TABLE outbound_notice IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(20):
            await engine.sweep()
            await engine.idle()
        assert len(sink.mails) == 1
    assert await far.states() == {BOB: "delivered"}
