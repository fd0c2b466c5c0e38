"""Whatever breaks, and wherever: mail is delivered, still queued, or back with its sender; never lost, never twice for
nothing."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
from django.db import connection

from mailcore import db
from mailcore.delivery.engine import Engine, Limits
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.store import queue
from tests.delivery.sink import DROP, HANG, Sink
from tests.delivery.world import BOB, QUICK, ROOT, World, environment
from tests.waiting import eventually


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


async def heals(far: World, sink: Sink) -> None:
    """The server works again, and time passes: the mail must arrive now."""
    sink.script, sink.drop_in_data = None, None
    far.timeouts = QUICK
    await far.later(3600)
    await far.start()  # forgets which hosts were out of reach
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}


@pytest.mark.parametrize("extensions", [("PIPELINING", "SIZE"), ()], ids=["pipelining", "word by word"])
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
@pytest.mark.parametrize("fault", [DROP, HANG])
async def test_a_server_that_falls_silent_or_away_delays_the_mail_and_loses_nothing(
    far: World, extensions: tuple[str, ...], verb: str, fault: str
) -> None:
    if fault == HANG:
        far.timeouts = replace(QUICK, greeting=0.2, hello=0.2, mail=0.2, rcpt=0.2, data=0.2, content=0.2)
    sink = await far.sink(extensions=extensions)
    sink.refuse((verb, "", fault))
    await far.submit()
    await far.deliver()
    row = (await far.rows())[BOB]
    assert (row["state"], row["attempts"], row["unreported"]) == ("queued", 1, 0)
    assert ("closed" if fault == DROP else "in time") in row["last_reply"]
    assert sink.mails == []
    await heals(far, sink)
    assert len(sink.mails) == 1
    assert await far.inbox() == []


async def test_a_connection_that_breaks_in_the_middle_of_the_message_leaves_no_half_of_it(far: World) -> None:
    sink = await far.sink(drop_in_data=50_000)
    await far.submit(raw=b"From: ann@example.test\r\n\r\n" + b"x" * 70 + b"\r\n" + b"line of text\r\n" * 100_000)
    await far.deliver()
    assert (await far.states(), sink.mails) == ({BOB: "queued"}, [])
    await heals(far, sink)
    assert len(sink.mails) == 1


async def test_when_the_answer_to_the_data_is_lost_the_mail_is_repeated_later_and_not_given_to_another_host(
    far: World,
) -> None:
    first, second = await far.sink("127.0.0.1"), await far.sink("127.0.0.2")
    far.names.zone.clear()
    far.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (20, "b.far.example", "127.0.0.2"))
    first.refuse(("CONTENT", "", "TAKE AND DROP"))
    await far.submit()
    await far.deliver()
    assert second.connections == 0
    await heals(far, first)
    assert len(first.mails) == 2, "RFC 1047: nobody can tell, and losing it would be worse"


@pytest.mark.parametrize("junk", ["hello", "25", "999 what", "250-a\r\n251 b", "250 " + "x" * 10_000, "250\x00"])
async def test_a_server_that_does_not_speak_smtp_delays_the_mail(far: World, junk: str) -> None:
    sink = await far.sink()
    sink.refuse(("MAIL", "", junk))
    await far.submit()
    await far.deliver()
    if junk != "250\x00":  # octets beyond ASCII are only words
        assert await far.states() == {BOB: "queued"}
        await heals(far, sink)


@pytest.mark.parametrize(("verb", "reply"), [("DATA", "250 ok"), ("CONTENT", "354 more"), ("MAIL", "354 go")])
async def test_an_answer_that_fits_somewhere_else_is_no_success(far: World, verb: str, reply: str) -> None:
    sink = await far.sink()
    sink.refuse((verb, "", reply))
    await far.submit()
    await far.deliver()
    assert await far.states() == {BOB: "queued"}
    assert sink.mails == []


async def test_a_server_that_wants_text_for_nobody_gets_none(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "550 5.1.1 unknown"), ("DATA", "", "354 go"))
    await far.submit()
    await far.submit("x@far.example")
    await far.deliver()
    assert [mail.data for mail in sink.mails] == [b"", b""]
    assert set((await far.states()).values()) == {"failed"}


async def test_an_idle_connection_that_was_closed_says_nothing_about_the_next_message(far: World) -> None:
    far.limits = Limits(linger=2.0)
    sink = await far.sink()
    engine = await far.start()
    await far.submit()
    await engine.sweep()
    await asyncio.wait_for(sink.arrived.wait(), 60)

    async def delivered() -> bool:
        return (await far.states())[BOB] == "delivered"

    await eventually(delivered)

    def script(verb: str, line: str) -> str | None:
        return "421 4.4.2 idle for too long" if verb == "MAIL" and sink.connections == 1 else None

    sink.script = script
    name = await far.submit("zoe@far.example")
    engine.ring(["far.example"])
    await engine.idle()
    assert (len(sink.mails), sink.connections) == (2, 2)
    assert [step.step for step in await far.steps(name)] == ["queued", "delivered"]


async def test_a_result_that_comes_too_late_changes_nothing(far: World) -> None:
    name = await far.submit()
    async with db.transaction() as tx:
        (early,) = await queue.claim(tx)
    await far.later(1000)
    async with db.transaction() as tx:
        (late,) = await queue.claim(tx)
    refused = Outcome(Verdict.FAILED, Stage.RCPT, "5.1.1", "550 5.1.1 unknown", 550, remote=True)
    taken = Outcome(Verdict.DELIVERED, Stage.CONTENT, "2.0.0", "250 ok", 250, remote=True)
    async with db.transaction() as tx:
        assert await settle(tx, [Settled(early, refused)]) == set()
    assert [step.step for step in await far.steps(name)] == ["queued"]
    assert await far.inbox() == [], "no notice of what did not happen"
    async with db.transaction() as tx:
        assert await settle(tx, [Settled(late, taken, "mx")]) == {late.recipient_id}
    assert await far.states() == {BOB: "delivered"}


async def test_a_slow_server_does_not_cost_the_lease(far: World) -> None:
    far.limits = Limits(linger=0.05, lease=120.0, heartbeat=0.2)
    sink = await far.sink()
    sink.refuse(("DATA", "", HANG))
    far.timeouts = replace(QUICK, data=600.0, total=600.0)  # longer than the lease
    await far.submit()
    engine = await far.start()
    other = Engine(far.conf, far.limits, far.timeouts)

    async def lease() -> datetime | None:
        found: datetime | None = (await far.rows())[BOB]["lease"]
        return found

    try:
        await engine.sweep()
        await eventually(lease)
        first = await lease()
        assert first is not None
        for beats in (1, 2):

            async def is_prolonged(seconds: float = beats * 0.2) -> bool:
                return (await lease() or first) >= first + timedelta(seconds=seconds)

            await eventually(is_prolonged)
            assert await other.sweep() == 0, "somebody is at it"
        assert engine.at_work
        await sink.stop()
        await engine.idle()
        row = (await far.rows())[BOB]
        assert (row["attempts"], row["state"]) == (1, "queued")
    finally:
        await other.stop()


@pytest.fixture
def django_pid(ann: int) -> int:
    """The server process behind Django's own connection, which has nothing to do with the engine."""
    return int(connection.connection.info.backend_pid)


async def test_a_database_that_goes_away_in_mid_delivery_gets_the_result_when_it_is_back(
    far: World, django_pid: int
) -> None:
    sink = await far.sink()

    def script(verb: str, line: str) -> str | None:
        if verb == "CONTENT":
            with psycopg.connect(db.dsn(), autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
                    (django_pid,),
                )
        return None

    sink.script = script
    await far.submit()
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}
    assert len(sink.mails) == 1


WORKER = """
import asyncio, ipaddress, sys
import django
django.setup()
from dataclasses import replace
from mailcore import db
from mailcore.conf import conf
from mailcore.delivery.engine import Engine

async def main():
    await db.open_pool(2)
    engine = Engine(conf)
    await engine.sweep()
    print("working", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_when_a_worker_is_killed_in_mid_delivery_another_one_delivers_after_the_lease(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("CONTENT", "", HANG))
    await far.submit()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER)], env=environment(far), cwd=ROOT, stdout=subprocess.PIPE
    ) as worker:
        try:
            while not any(line == "DATA" for line in sink.log):
                assert worker.poll() is None
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
        finally:
            worker.send_signal(signal.SIGKILL)
    sink.script = None
    await far.deliver()
    row = (await far.rows())[BOB]
    assert (row["state"], row["unreported"]) == ("queued", 1), "its lease lasts"
    assert sink.mails == []
    await far.later(queue.LEASE_SECONDS + 1)
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}
    assert len(sink.mails) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_through_servers_that_fail_at_random_each_recipient_has_one_fate_and_it_is_true(
    far: World, seed: int
) -> None:
    dice = random.Random(seed)
    sinks = [await far.sink(f"127.0.0.{n}") for n in (1, 2)]
    far.names.zone.clear()
    far.names.host("far.example", (10, "a.far.example", "127.0.0.1"), (20, "b.far.example", "127.0.0.2"))

    def script(verb: str, line: str) -> str | None:
        if verb == "RCPT" and "doomed" in line:
            return "550 5.1.1 no such user"
        if verb == "QUIT" or dice.random() > 0.06:
            return None
        choices = [DROP, "421 4.3.2 busy", "451 4.3.0 not now"]
        return dice.choice([*choices, "TAKE AND DROP"] if verb == "CONTENT" else choices)

    for sink in sinks:
        sink.script = script
    everybody = []
    for n in range(40):
        to = [f"r{n}-{i}{'-doomed' if dice.random() < 0.1 else ''}@far.example" for i in range(dice.randint(1, 4))]
        everybody += to
        await far.submit(*to)
    for _ in range(40):
        await far.start()
        await far.deliver()
        if "queued" not in (await far.states()).values():
            break
        await far.later(3600 * 4)
    states = await far.states()
    assert set(states) == set(everybody)
    got: dict[str, int] = {}
    for address in (address for sink in sinks for mail in sink.mails for address in mail.recipients):
        got[address] = got.get(address, 0) + 1
    told = b"".join(await far.inbox())
    for address, state in states.items():
        assert state == ("failed" if "doomed" in address else "delivered"), address
        assert (got.get(address, 0) >= 1) == (state == "delivered"), address
        assert (f"Final-Recipient: rfc822; {address}\r\nAction: failed".encode() in told) == (state == "failed")
    assert max(got.values()) <= 3, "a copy more for each answer that was lost, and no other"


async def test_a_server_that_hangs_does_not_hold_up_the_others(far: World) -> None:
    stuck, sink = await far.sink("127.0.0.1"), await far.sink("127.0.0.2")
    stuck.refuse(("MAIL", "", HANG))
    for n in range(20):
        far.names.host(f"d{n}.example", (10, f"mx.d{n}.example", "127.0.0.2"))
        await far.submit(f"x@d{n}.example")
    await far.submit()
    far.timeouts = replace(QUICK, mail=30.0)
    engine = await far.start()
    await engine.sweep()
    async with asyncio.timeout(60):
        while len(sink.mails) < 20:
            await asyncio.sleep(0.02)
    assert engine.at_work >= 1
    await engine.stop(grace=0.1)
    far.engine = None
    row = (await far.rows())[BOB]
    assert (row["state"], row["lease"], row["unreported"]) == ("queued", None, 0), "a stopped worker says so"
