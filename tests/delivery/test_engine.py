"""Mail leaves: signed, over one connection, in the words that the other server understands."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import dkim as dkimpy
import pytest

from mailcore import db
from mailcore.delivery import dkim
from mailcore.delivery.engine import Limits
from mailcore.store.queue import Recipient
from tests.delivery.sink import EXTENSIONS
from tests.delivery.world import ANN, BOB, HOSTNAME, RAW, World
from tests.waiting import eventually


@pytest.fixture
def far(here: World) -> World:
    """far.example and near.example have one mail host each, on the same address."""
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    here.names.host("near.example", (10, "mx.near.example", "127.0.0.1"))
    return here


async def test_a_message_arrives_signed_and_the_trace_tells_how(far: World) -> None:
    sink = await far.sink()
    name = await far.submit()
    await far.deliver()
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients, mail.helo) == (ANN, (BOB,), HOSTNAME)
    assert await far.states() == {BOB: "delivered"}
    signatures, _, rest = mail.data.partition(b"From: ")
    assert b"From: " + rest == RAW.replace(b"Bcc: secret@far.example\r\n", b""), "nothing else is changed"
    assert signatures.count(b"DKIM-Signature:") == 2
    async with db.read() as tx:
        for record in await dkim.dns_records(tx, "example.test"):
            far.names.add(record.name, record.type, str(record).split(f" IN {record.type} ")[1])

    def lookup(name: bytes, timeout: float = 5) -> bytes:
        return far.names.zone[name.decode().rstrip(".")]["TXT"][0].replace('" "', "").strip('"').encode()

    signed = dkimpy.DKIM(mail.data)
    assert [signed.verify(index, dnsfunc=lookup) for index in (0, 1)] == [True, True]
    steps = await far.steps(name)
    assert [step.step for step in steps] == ["queued", "delivered"]
    assert steps[1].recipient == BOB
    assert steps[1].detail == {
        "host": "mx.far.example [127.0.0.1]",
        "reply": "250 2.0.0 taken",
        "status": "2.0.0",
        "attempt": 1,
    }


async def test_mail_that_only_passes_through_leaves_as_it_came(far: World) -> None:
    sink = await far.sink()
    await far.submit(account=None, sender="stranger@other.example", prepend=b"Received: from other.example\r\n")
    await far.deliver()
    assert sink.mails[0].data == b"Received: from other.example\r\n" + RAW


async def test_nobody_gets_our_signature_by_writing_our_name_as_sender(far: World) -> None:
    sink = await far.sink()
    await far.submit(account=None, sender=ANN)
    await far.deliver()
    assert b"DKIM-Signature" not in sink.mails[0].data


async def test_many_messages_share_one_connection(far: World) -> None:
    sink = await far.sink()
    for _ in range(10):
        await far.submit()
    await far.deliver()
    assert len(sink.mails) == 10
    assert sink.connections == 1
    assert sink.log[-1] == "QUIT"


async def test_a_backlog_gets_more_connections_up_to_the_limit(far: World) -> None:
    sink = await far.sink(delay=0.002)
    for _ in range(150):
        await far.submit()
    await far.deliver()
    assert len(sink.mails) == 150
    assert 2 <= sink.most_open <= far.limits.per_destination


async def test_a_message_for_many_is_one_transaction_with_a_hundred_recipients_at_most(far: World) -> None:
    sink = await far.sink()
    everybody = [f"r{n:03}@far.example" for n in range(130)]
    await far.submit(*everybody)
    await far.deliver()
    assert sorted(address for mail in sink.mails for address in mail.recipients) == everybody
    assert all(len(mail.recipients) <= 100 for mail in sink.mails)
    assert set((await far.states()).values()) == {"delivered"}


async def test_each_recipient_has_its_own_fate(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bad@", "550 5.1.1 no such user"), ("RCPT", "later@", "450 4.2.0 come back"))
    await far.submit("good@far.example", "bad@far.example", "later@far.example")
    await far.deliver()
    assert [mail.recipients for mail in sink.mails] == [("good@far.example",)]
    rows = await far.rows()
    assert {address: row["state"] for address, row in rows.items()} == {
        "good@far.example": "delivered",
        "bad@far.example": "failed",
        "later@far.example": "queued",
    }
    assert rows["bad@far.example"]["last_reply"] == "550 5.1.1 no such user"
    assert rows["bad@far.example"]["last_code"] == 550
    assert 150 < rows["later@far.example"]["wait"] < 210


async def test_recipients_beyond_what_a_server_takes_at_once_follow_in_the_next_transaction(far: World) -> None:
    sink = await far.sink()
    taken: list[str] = []

    def script(verb: str, line: str) -> str | None:
        if verb in ("RSET", "MAIL", "CONTENT"):
            taken.clear()
        if verb == "RCPT":
            if len(taken) == 2:
                return "452 4.5.3 too many recipients"
            taken.append(line)
        return None

    sink.script = script
    await far.submit(*(f"r{n}@far.example" for n in range(5)))
    await far.deliver()
    assert [len(mail.recipients) for mail in sink.mails] == [2, 2, 1]
    assert sink.connections == 1
    assert set((await far.states()).values()) == {"delivered"}


async def test_a_server_without_pipelining_is_spoken_to_word_by_word(far: World) -> None:
    sink = await far.sink(extensions=())
    await far.submit()
    await far.submit("bob@far.example", "zoe@far.example")
    await far.deliver()
    assert len(sink.mails) == 2
    assert sink.mails[0].mail_line == f"MAIL FROM:<{ANN}>"


async def test_a_server_that_knows_only_helo_gets_its_mail(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("EHLO", "", "502 5.5.1 what?"))
    await far.submit()
    await far.deliver()
    assert sink.log[:2] == [f"EHLO {HOSTNAME}", f"HELO {HOSTNAME}"]
    assert len(sink.mails) == 1


async def test_wishes_for_receipts_are_passed_on_where_they_are_understood(far: World) -> None:
    sink = await far.sink()
    await far.submit(Recipient(BOB, "SUCCESS,FAILURE", "rfc822;bob+40far.example"), dsn_ret="HDRS", dsn_envid="QQ+2B1")
    await far.deliver()
    (mail,) = sink.mails
    assert mail.mail_line.endswith(" RET=HDRS ENVID=QQ+2B1")
    assert mail.rcpt_lines == (f"RCPT TO:<{BOB}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+40far.example",)
    assert await far.inbox() == [], "the other server sends the receipt"


async def test_internationalised_mail_goes_to_servers_that_take_it(far: World) -> None:
    sink = await far.sink()
    raw = "From: Ann <ann@example.test>\r\nTo: <zoë@far.example>\r\nSubject: Grüße\r\n\r\nHallo\r\n".encode()
    await far.submit("zoë@far.example", raw=raw, smtputf8=True, body="8BITMIME")
    await far.deliver()
    (mail,) = sink.mails
    assert "SMTPUTF8" in mail.mail_line and "BODY=8BITMIME" in mail.mail_line
    assert mail.recipients == ("zoë@far.example",)
    assert mail.data.endswith(raw)


async def test_internationalised_mail_comes_back_from_servers_that_do_not(far: World) -> None:
    sink = await far.sink(extensions=("PIPELINING", "8BITMIME"))
    await far.submit("zoë@far.example", "bob@far.example", smtputf8=True)
    await far.deliver()
    rows = await far.rows()
    assert rows["zoë@far.example"]["state"] == "failed"
    assert "SMTPUTF8" in rows["zoë@far.example"]["last_reply"]
    assert rows["bob@far.example"]["state"] == "delivered", "who can be reached without it is reached"
    assert [mail.recipients for mail in sink.mails] == [("bob@far.example",)]
    (notice,) = await far.inbox()
    assert b"Status: 5.6.7" in notice


async def test_a_message_beyond_the_servers_size_limit_is_not_even_offered(far: World) -> None:
    sink = await far.sink(extensions=("PIPELINING", "SIZE 1000"))
    await far.submit(raw=RAW + b"x" * 2000 + b"\r\n")
    await far.deliver()
    assert await far.states() == {BOB: "failed"}
    assert not any(line.startswith("MAIL") for line in sink.log)
    (notice,) = await far.inbox()
    assert b"Status: 5.3.4" in notice


async def test_line_ends_that_smtp_cannot_carry_are_repaired(far: World) -> None:
    sink = await far.sink()
    await far.submit(raw=b"From: ann@example.test\nSubject: x\n\none\rtwo\n.\nthree")
    await far.deliver()
    assert sink.mails[0].data.endswith(b"From: ann@example.test\r\nSubject: x\r\n\r\none\r\ntwo\r\n.\r\nthree\r\n")


async def test_a_message_to_two_domains_goes_to_both(far: World) -> None:
    sink = await far.sink()
    await far.submit(BOB, "carol@near.example")
    await far.deliver()
    assert sorted(mail.recipients for mail in sink.mails) == [(BOB,), ("carol@near.example",)]


async def test_mail_queued_while_a_destination_is_at_work_goes_along(far: World) -> None:
    far.limits = Limits(linger=5.0, together=0.0)
    sink = await far.sink(delay=0.01)
    engine = await far.start()
    await far.submit()
    engine.ring(["far.example"])
    await asyncio.sleep(0.05)
    await far.submit()
    engine.ring(["far.example"])
    await engine.idle()
    assert len(sink.mails) == 2
    assert sink.connections == 1


async def test_a_large_message_goes_through_whole(far: World) -> None:
    sink = await far.sink()
    raw = RAW + b"".join(b".%070d\r\n" % n for n in range(80_000))
    await far.submit(raw=raw)
    await far.deliver()
    assert sink.mails[0].data.endswith(raw[-5_000_000:])
    assert await far.states() == {BOB: "delivered"}


async def test_a_smarthost_takes_everything_over_one_connection(here: World) -> None:
    from mailcore.conf import Smarthost

    relay = await here.sink(extensions=(*EXTENSIONS, "AUTH PLAIN LOGIN"))
    relay.refuse(("AUTH", "", "235 2.7.0 welcome"))
    await here.start(smarthost=Smarthost("127.0.0.1", relay.port, "us", "secret"))
    await here.submit(BOB, "carol@near.example")
    await here.submit("dan@nowhere.example")
    await here.deliver()
    assert sorted(mail.recipients for mail in relay.mails) == [(BOB, "carol@near.example"), ("dan@nowhere.example",)]
    assert relay.connections == 1
    assert "AUTH PLAIN AHVzAHNlY3JldA==" in relay.log
    assert here.names.asked == [], "nobody needs an MX record"


async def test_a_smarthost_that_refuses_our_password_delays_mail_and_bounces_none(here: World) -> None:
    from mailcore.conf import Smarthost

    relay = await here.sink(extensions=("AUTH LOGIN",))
    relay.refuse(("AUTH", "", "535 5.7.8 who?"))
    await here.start(smarthost=Smarthost("127.0.0.1", relay.port, "us", "wrong"))
    await here.submit()
    await here.deliver()
    rows = await here.rows()
    assert rows[BOB]["state"] == "queued"
    assert rows[BOB]["last_reply"] == "535 5.7.8 who?"


async def test_mail_goes_on_while_results_are_written_but_not_far_ahead_of_them(far: World) -> None:
    sink = await far.sink()
    far.limits = replace(far.limits, ahead=2)
    for _ in range(6):
        await far.submit()
    engine = await far.start()
    async with db.transaction() as tx:
        await tx.execute("LOCK TABLE trace_event IN SHARE MODE")  # no result can be written
        await engine.sweep()
        await eventually(lambda: len(sink.mails) >= 3)
        await asyncio.sleep(0.05)  # time for a fourth, if there were one
        assert len(sink.mails) == 3
    await engine.idle()
    assert [row async for row in _states()] == [("delivered", False, 1)] * 6, "all is written when nothing is left"
    assert len(sink.mails) == 6


async def test_stopping_gives_back_what_was_not_begun(far: World) -> None:
    sink = await far.sink(delay=0.05)
    for _ in range(10):
        await far.submit()
    engine = await far.start()
    await engine.sweep()
    await eventually(lambda: sink.mails)
    await engine.stop()
    states = [row async for row in _states()]
    delivered = [state for state, _, _ in states if state == "delivered"]
    assert len(delivered) == len(sink.mails) < 10, "what was on the wire was finished and recorded"
    assert all(not leased and attempts == 0 for state, leased, attempts in states if state == "queued")
    far.engine = None
    await far.deliver()
    assert len(sink.mails) == 10


async def _states():  # type: ignore[no-untyped-def]
    async with db.read() as tx:
        for row in await tx.fetch("SELECT state, lease_until IS NOT NULL, attempts FROM outbound_recipient"):
            yield row
