"""Addresses that are refused again and again get no more mail, and their senders hear why."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError

from mailcore import db
from mailcore.delivery.classify import category, is_nobody, is_strain
from mailcore.delivery.outcome import Stage, of_reply, parse_reply
from mailcore.store import suppression
from tests.delivery.world import BOB, World, command


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (
            "550 5.1.1 <bob@far.example>: Recipient address rejected: User unknown in virtual mailbox table",
            "bad-mailbox",
        ),
        ("550-5.1.1 The email account that you tried to reach does not exist. Please try", "bad-mailbox"),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", "bad-mailbox"),
        ("550 No such user here", "bad-mailbox"),
        ("550 5.2.1 The email account that you tried to reach is disabled", "inactive"),
        ("552 5.2.2 The recipient's inbox is out of storage space", "quota"),
        ("452 4.2.2 Mailbox full", "quota"),
        ("550 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen.spamhaus.org", "policy"),
        ("550 5.1.1 Your server's reputation is too poor", "policy"),
        ("554 5.7.1 <bob@far.example>: Relay access denied", "policy"),
        ("550 5.7.26 Unauthenticated email from example.test is not accepted due to DMARC policy", "auth"),
        ("554 5.7.1 Message rejected as spam by Content Filtering", "content"),
        ("421 4.7.0 [192.0.2.1 15] Our system has detected an unusual rate of unsolicited mail", "rate"),
        ("421 4.3.2 too many connections from your host", "rate"),
        ("451 4.7.1 Greylisting in action, please come back later", "greylist"),
        ("552 5.3.4 Message size exceeds fixed limit", "too-big"),
        ("550 5.4.14 Hop count exceeded - possible mail loop", "loop"),
        ("451 4.3.0 Temporary lookup failure", "temporary"),
        ("550 what", "other"),
    ],
)
def test_refusals_are_classified(reply: str, wanted: str) -> None:
    outcome = of_reply(Stage.RCPT, parse_reply([reply.replace("550-", "550 ").encode()]))
    assert category(outcome) == wanted
    assert is_nobody(outcome) == (wanted in ("bad-mailbox", "inactive"))
    assert is_strain(outcome) == (wanted == "rate")


async def test_after_three_hard_refusals_nobody_is_asked_any_more(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bob@", "550 5.1.1 no such user"))
    for _ in range(suppression.STRIKES):
        await far.submit(BOB, "carol@far.example")
        await far.deliver()
        await far.later(suppression.APART)
    asked = sum("bob@" in line for line in sink.log)
    assert asked == suppression.STRIKES
    name = await far.submit("Bob@far.example", "carol@far.example")
    await far.deliver()
    assert sum("ob@" in line for line in sink.log) == asked
    assert len([mail for mail in sink.mails if mail.recipients == ("carol@far.example",)]) == 4
    notice = (await far.inbox())[-1]
    assert (
        b"Status: 5.1.1" in notice and b"550 5.1.1 no such user" in notice and b"writes to bob@far.example no" in notice
    )
    assert [step.step for step in await far.steps(name)].count("failed") == 1


@pytest.mark.parametrize(
    "reply", ["550 5.7.1 blocked by policy", "552 5.2.2 over quota", "450 4.2.0 later", "554 5.7.1 looks like spam"]
)
async def test_blocks_quotas_and_delays_suppress_nobody(far: World, reply: str) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bob@", reply))
    for _ in range(suppression.STRIKES + 1):
        await far.submit()
        await far.deliver()
    assert sum("bob@" in line for line in sink.log) == suppression.STRIKES + 1
    async with db.read() as tx:
        assert await suppression.entries(tx, strikes=True) == []


async def test_a_delivery_that_works_wipes_the_strikes_out(far: World) -> None:
    sink = await far.sink()
    for _ in range(suppression.STRIKES - 1):
        sink.refuse(("RCPT", "bob@", "550 5.1.1 no such user"))
        await far.submit()
        await far.deliver()
        await far.later(suppression.APART)
    async with db.read() as tx:
        (entry,) = await suppression.entries(tx, strikes=True)
    assert (entry.failures, entry.active, entry.category) == (2, False, "bad-mailbox")
    sink.script = None
    await far.submit()
    await far.deliver()
    async with db.read() as tx:
        assert await suppression.entries(tx, strikes=True) == []


async def test_refusals_within_an_hour_are_one_strike(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bob@", "550 5.1.1 no such user"))
    counted = []
    for _ in range(5):
        await far.submit()
        await far.deliver()
        async with db.read() as tx:
            (entry,) = await suppression.entries(tx, strikes=True)
        counted.append((entry.failures, entry.active))
        await far.later(suppression.APART * 0.6)
    assert counted == [(1, False), (1, False), (2, False), (2, False), (3, True)]


async def test_strikes_long_ago_do_not_count_and_suppression_ends(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "bob@", "550 5.1.1 no such user"))
    for _ in range(suppression.STRIKES - 1):
        await far.submit()
        await far.deliver()
    async with db.transaction() as tx:
        await tx.execute("UPDATE suppression SET last_at = now() - interval '40 days'")
    await far.submit()
    await far.deliver()
    async with db.transaction() as tx:
        (entry,) = await suppression.entries(tx, strikes=True)
        assert (entry.failures, entry.active) == (1, False)
        await tx.execute("UPDATE suppression SET active = true, until = now() - interval '1 second'")
        assert await suppression.find(tx, [BOB]) == {}


@pytest.mark.django_db
def test_an_administrator_sees_adds_and_removes() -> None:
    assert command("suppression", "list") == "Nothing is suppressed.\n"
    command("suppression", "add", "Bob@Far.Example", "near.example", "--reason", "they asked us to stop", "--days", "7")
    command("suppression", "add", "zoe@far.example", "--complaint")
    listed = {each["address"]: each for each in json.loads(command("suppression", "list", "--json"))}
    assert set(listed) == {"bob@far.example", "near.example", "zoe@far.example"}
    assert (listed["zoe@far.example"]["source"], listed["zoe@far.example"]["until"]) == ("complaint", None)
    assert [e["address"] for e in json.loads(command("suppression", "list", "bob@far.example", "--json"))] == [
        "bob@far.example"
    ]
    with db.django_transaction() as tx:
        found = db.run_sync(suppression.find(tx, ["anybody@near.example", "BOB@far.example", "other@far.example"]))
    assert set(found) == {"anybody@near.example", "bob@far.example"}
    assert command("suppression", "remove", "bob@far.example") == "Removed: bob@far.example.\n"
    with pytest.raises(CommandError, match="on the list"):
        command("suppression", "remove", "bob@far.example")
    with pytest.raises(CommandError):
        command("suppression", "add", "not an address@")
