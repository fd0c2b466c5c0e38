"""Which host gets the mail: MX records, addresses, and what is never connected to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore import db
from mailcore.delivery.guard import may_reach
from mailcore.store.queue import Recipient
from tests.delivery.world import BOB, HOSTNAME, LOOPBACK, World


async def test_the_most_preferred_host_is_asked_first(here: World) -> None:
    first, second = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    here.names.host("far.example", (20, "b.far.example", "127.0.0.2"), (10, "a.far.example", "127.0.0.1"))
    for _ in range(3):
        await here.submit()
    await here.deliver()
    assert (len(first.mails), len(second.mails)) == (3, 0)


async def test_equal_hosts_share_the_work(here: World) -> None:
    sinks = [await here.sink(f"127.0.0.{n}") for n in (1, 2)]
    here.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (10, "b.far.example", "127.0.0.2"))
    for _ in range(20):
        await here.submit()
        await here.deliver()
    assert all(sink.mails for sink in sinks)


async def test_when_a_host_is_down_the_next_one_gets_the_mail(here: World) -> None:
    backup = await here.sink("127.0.0.2")
    here.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (20, "b.far.example", "127.0.0.2"))
    name = await here.submit()
    await here.deliver()
    assert len(backup.mails) == 1
    steps = await here.steps(name)
    assert [step.step for step in steps] == ["queued", "attempt", "delivered"]
    assert steps[1].detail["host"] == "a.far.example [127.0.0.1]"
    assert "refused" in steps[1].detail["reply"]


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("CONNECT", "554 5.3.2 go away"),
        ("CONNECT", "DROP"),
        ("EHLO", "421 4.3.2 shutting down"),
        ("MAIL", "451 4.3.0 not now"),
        ("RCPT", "450 4.2.0 greylisted"),
        ("DATA", "451 4.3.0 not now"),
        ("CONTENT", "452 4.3.1 disk full"),
        ("MAIL", "DROP"),
        ("RCPT", "DROP"),
        ("DATA", "DROP"),
    ],
)
async def test_what_one_host_does_not_take_now_is_offered_to_the_next(here: World, verb: str, reply: str) -> None:
    first, second = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    first.refuse((verb, "", reply))
    here.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (20, "b.far.example", "127.0.0.2"))
    await here.submit()
    await here.deliver()
    assert (len(first.mails), len(second.mails)) == (0, 1)
    assert await here.states() == {BOB: "delivered"}


async def test_what_one_host_refuses_for_good_is_not_shopped_around(here: World) -> None:
    first, second = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    first.refuse(("RCPT", "", "550 5.7.1 spam"))
    here.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (20, "b.far.example", "127.0.0.2"))
    await here.submit()
    await here.deliver()
    assert second.connections == 0
    assert await here.states() == {BOB: "failed"}


async def test_a_domain_without_mx_records_is_its_own_mail_host(here: World) -> None:
    sink = await here.sink()
    here.names.add("far.example", "A", "127.0.0.1")
    await here.submit()
    await here.deliver()
    assert len(sink.mails) == 1


async def test_aliases_in_the_dns_are_followed(here: World) -> None:
    sink = await here.sink()
    here.names.add("far.example", "CNAME", "real.example.")
    here.names.host("real.example", (10, "mx.real.example", ""))
    here.names.add("mx.real.example", "CNAME", "host.real.example.")
    here.names.add("host.real.example", "A", "127.0.0.1")
    await here.submit()
    await here.deliver()
    assert sink.mails[0].recipients == (BOB,), "the address stays as it was written"


async def test_an_address_literal_needs_no_dns(here: World) -> None:
    sink = await here.sink()
    await here.submit("bob@[127.0.0.1]")
    await here.deliver()
    assert len(sink.mails) == 1
    assert here.names.asked == []


@pytest.mark.parametrize(
    ("records", "state", "words", "status"),
    [
        ({}, "failed", "there is no domain", b"5.1.2"),
        ({"far.example": {"MX": ["0 ."]}}, "failed", "accepts no mail", b"5.1.10"),
        ({"far.example": {"TXT": ["hello"]}}, "failed", "has an address", b"5.4.4"),
        ({"far.example": {"MX": ["10 gone.example."]}}, "failed", "has an address", b"5.4.4"),
        ({"far.example": {"MX": [f"10 {HOSTNAME}."]}}, "failed", "loops back", b"5.4.6"),
        ({"far.example": {"MX": ["10 m.example."]}, "m.example": {"A": ["10.0.0.1"]}}, "failed", "public", b"5.4.4"),
        ({"far.example": {"MX": ["10 m.example."]}, "m.example": {"A": ["192.168.1.1"]}}, "failed", "public", b"5.4.4"),
        ({"far.example": {"MX": ["10 m.example."]}, "m.example": {"AAAA": ["::1"]}}, "failed", "public", b"5.4.4"),
    ],
)
async def test_where_no_mail_can_go_it_comes_back_at_once_and_says_why(
    here: World, records: dict[str, dict[str, list[str]]], state: str, words: str, status: bytes
) -> None:
    here.names.zone = records
    await here.submit()
    await here.deliver()
    rows = await here.rows()
    assert rows[BOB]["state"] == state
    assert words in rows[BOB]["last_reply"]
    (notice,) = await here.inbox()
    assert b"Status: " + status in notice


async def test_private_addresses_are_not_connected_to_unless_they_are_allowed(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    await here.start(out_allow=())
    await here.submit()
    await here.submit("bob@[127.0.0.1]")
    await here.deliver()
    assert sink.connections == 0
    assert set((await here.states()).values()) == {"failed"}


async def test_a_public_host_beside_a_private_one_is_still_asked(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "a.far.example", "10.1.2.3"), (20, "b.far.example", "127.0.0.1"))
    await here.submit()
    await here.deliver()
    assert len(sink.mails) == 1


async def test_when_the_dns_fails_the_mail_waits(here: World) -> None:
    here.names.failing.add("far.example")
    await here.submit()
    await here.deliver()
    row = (await here.rows())[BOB]
    assert row["state"] == "queued"
    assert "SERVFAIL" in row["last_reply"]
    assert await here.inbox() == []


async def test_we_do_not_send_to_hosts_that_are_no_better_than_ourselves(here: World) -> None:
    better, worse = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    here.names.add("far.example", "MX", "10 a.example.", f"20 {HOSTNAME}.", "30 c.example.")
    here.names.add("a.example", "A", "127.0.0.1")
    here.names.add("c.example", "A", "127.0.0.2")
    better.refuse(("CONNECT", "", "421 4.3.2 busy"))
    await here.submit()
    await here.deliver()
    assert worse.connections == 0
    assert await here.states() == {BOB: "queued"}


async def test_a_server_that_greets_with_our_own_name_is_ourselves(here: World) -> None:
    sink = await here.sink(name=HOSTNAME)
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    await here.submit()
    await here.deliver()
    assert sink.mails == []
    row = (await here.rows())[BOB]
    assert (row["state"], "loops back" in row["last_reply"]) == ("failed", True)


async def test_a_dead_host_is_waited_for_once_and_not_by_every_message(here: World) -> None:
    await here.sink("127.0.0.9")  # gives the port; nothing listens on 127.0.0.1
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    for n in range(5):
        await here.submit(f"r{n}@far.example")
    await here.deliver()
    rows = (await here.rows()).values()
    assert sorted(row["attempts"] for row in rows) == [0, 0, 0, 0, 1], "the others wait, and nobody has claimed them"
    assert [row["last_reply"] for row in rows if row["attempts"]] == ["connection refused (connecting)"]
    await here.deliver()
    assert sum(row["attempts"] for row in (await here.rows()).values()) == 1
    sink = await here.sink("127.0.0.1")
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_recipient SET next_attempt_at = now()")
    assert here.engine is not None
    here.engine.ring(["far.example"], force=True)
    await here.engine.idle()
    assert len(sink.mails) == 5, "an administrator's retry does not wait for that memory to fade"


async def test_mail_for_an_address_that_has_come_home_is_delivered_here(here: World) -> None:
    name = await here.submit(Recipient("Ann+tag@example.test"), sender="far@other.example", account=None)
    await here.deliver()
    (mail,) = await here.inbox()
    assert mail.startswith(b"Return-Path: <far@other.example>\r\nFrom: Ann")
    assert await here.states() == {"Ann+tag@example.test": "delivered"}
    assert [step.step for step in await here.steps(name)] == ["queued", "stored", "expanded", "delivered"]
    assert here.names.asked == []


async def test_mail_for_an_address_that_is_not_here_any_more_comes_back(here: World) -> None:
    await here.submit("gone@example.test")
    await here.deliver()
    (notice,) = await here.inbox()
    assert b"Status: 5.1.1" in notice


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.0.1"),
        "224.0.0.1",
        *("240.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:c0a8:101::"),
    ],
)
def test_addresses_inside_are_out_of_reach(address: str) -> None:
    assert not may_reach(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside_are_in_reach(address: str) -> None:
    assert may_reach(address, ())


def test_an_allowed_network_is_in_reach_however_its_address_is_written() -> None:
    assert may_reach("127.3.2.1", LOOPBACK)
    assert may_reach("::ffff:127.3.2.1", LOOPBACK)
    assert not may_reach("10.0.0.1", LOOPBACK)


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_cannot_hide_in_an_ipv6_one(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert may_reach(wrapped, ()) == may_reach(str(address), ())
