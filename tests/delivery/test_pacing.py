"""Connections: as many to a hop as it bears, and always one left for somebody quick."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore import db
from mailcore.conf import Smarthost
from mailcore.delivery.engine import Limits
from mailcore.delivery.pacing import START, Pace, Places, Window, Windows
from mailcore.store import destinations, routes
from mailcore.store.routes import Rule
from tests.delivery.sink import HANG
from tests.delivery.world import BOB, QUICK, World
from tests.ports import free_ports
from tests.waiting import eventually


def test_a_window_begins_small_grows_with_success_and_stops_at_its_limit() -> None:
    window = Window(20)
    assert window.size == START
    for _ in range(30):
        window.succeeded(0.01)
    assert window.size == 20


def test_trouble_takes_a_connection_away_and_growth_is_slow_from_then_on() -> None:
    window = Window(20)
    for _ in range(12):
        window.succeeded(0.01)
    window.busy = 12
    window.strained()
    assert window.size == 11
    window.succeeded(0.01)
    assert 11 < window.size < 11.2
    for _ in range(50):
        window.strained()
    assert window.size == 1, "one connection finds out when it is over"


@given(st.lists(st.sampled_from(["good", "bad", "enter", "leave"]), max_size=200), st.integers(1, 30))
def test_a_window_stays_between_one_and_its_limit(steps: list[str], limit: int) -> None:
    window = Window(limit)
    for step in steps:
        if step == "good":
            window.succeeded(0.1)
        elif step == "bad":
            window.strained()
        elif step == "enter" and window.has_room:
            window.busy += 1
        elif step == "leave" and window.busy:
            window.busy -= 1
        assert 1 <= window.size <= limit
        assert window.busy <= limit


async def test_who_waits_for_a_hop_gets_in_in_order_and_whoever_gives_up_takes_no_place() -> None:
    window, order = Window(1), []

    async def come(name: str) -> None:
        async with window.place():
            order.append(name)
            await asyncio.sleep(0)

    async with window.place():
        first, second, third = (asyncio.create_task(come(name)) for name in ("first", "second", "third"))
        await asyncio.sleep(0)
        assert window.is_wanted and order == []
        second.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert order == ["first", "third"]
    assert (window.busy, window.is_wanted) == (0, False)


async def test_somebody_who_gives_up_just_when_he_is_let_in_passes_the_place_on() -> None:
    window = Window(1)

    async def come() -> None:
        async with window.place():
            await asyncio.sleep(10)

    async with window.place():
        task = asyncio.create_task(come())
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert window.busy == 0


async def test_slow_and_suspect_hops_leave_places_for_others() -> None:
    places = Places(8)
    inside: list[Pace] = []

    async def stay(pace: Pace) -> None:
        async with places.place(pace):
            inside.append(pace)
            await asyncio.sleep(3_600)

    tasks = [asyncio.create_task(stay(pace)) for pace in [Pace.SUSPECT] * 20 + [Pace.SLOW] * 20]
    await eventually(lambda: len(inside) >= 6)
    assert (inside.count(Pace.SUSPECT), inside.count(Pace.SLOW)) == (2, 4)
    tasks.append(asyncio.create_task(stay(Pace.QUICK)))
    await eventually(lambda: Pace.QUICK in inside)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert places.taken == 0


def test_windows_of_hops_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailcore.delivery.pacing.KEEP", 3)
    windows = Windows()
    first = windows.of("a", 5)
    for name in "bcd":
        windows.of(name, 5)
    assert windows.of("a", 5) is not first
    assert windows.of("d", 2).limit == 2


async def test_many_slow_destinations_do_not_hold_up_the_quick_ones(here: World) -> None:
    stuck, sink = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    stuck.refuse(("MAIL", "", HANG))
    for n in range(30):
        here.names.host(f"slow{n}.test", (10, f"mx.slow{n}.test", "127.0.0.1"))
        here.names.host(f"quick{n}.test", (10, f"mx.quick{n}.test", "127.0.0.2"))
        for who in "abc":
            await here.submit(f"{who}@slow{n}.test")
        await here.submit(f"x@quick{n}.test")
    here.limits = Limits(linger=0.05, connections=40)
    here.timeouts = replace(QUICK, mail=30.0)
    engine = await here.start()
    await engine.sweep()
    async with asyncio.timeout(60):
        while len(sink.mails) < 30:
            await asyncio.sleep(0.02)
    assert stuck.most_open <= 30, "one connection each, until somebody answers"
    await engine.stop(grace=0.1)
    here.engine = None


async def test_a_host_that_says_too_much_gets_fewer_connections_and_all_its_mail(here: World) -> None:
    sink = await here.sink(delay=0.002)
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))

    def script(verb: str, line: str) -> str | None:
        return "421 4.7.0 too many connections from you" if verb == "CONNECT" and sink.open_now > 3 else None

    sink.script = script
    for _ in range(120):
        await here.submit()
    for _ in range(10):
        await here.deliver()
        if len(sink.mails) == 120:
            break
        await here.later(1900)
        await here.start()
    assert len(sink.mails) == 120


async def test_who_answers_again_is_no_longer_paused(here: World) -> None:
    sink = await here.sink("127.0.0.9")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    for _ in range(3):
        await here.submit()
    await here.deliver()
    async with db.read() as tx:
        names = {pause.name for pause in await destinations.pauses(tx)}
    assert names == {"far.example", "host:127.0.0.1"}
    back = await here.sink("127.0.0.1")
    await here.later(3600)
    await here.start()
    await here.deliver()
    assert len(back.mails) == 3 and sink.mails == []
    assert here.engine is not None
    await here.engine.refresh()
    async with db.read() as tx:
        assert {pause.name for pause in await destinations.pauses(tx)} <= {"host:127.0.0.1"}


@pytest.mark.parametrize("usual", ["dead", "alive", "neither"])
async def test_a_dead_port_says_nothing_of_another_one_of_that_host(here: World, usual: str) -> None:
    alive = await here.sink("127.0.0.1")
    dead, neither = free_ports(2)
    here.conf = replace(here.conf, smtp_out_port={"dead": dead, "alive": alive.port, "neither": neither}[usual])
    async with db.transaction() as tx:
        await routes.put(tx, Rule("*", "dead.example", "relay", "127.0.0.1", dead))
        await routes.put(tx, Rule("*", "elsewhere.example", "relay", "127.0.0.1", alive.port))
    await here.submit("x@dead.example")
    await here.deliver()
    await here.submit("y@elsewhere.example")
    await here.deliver()
    engine = await here.start()  # which knows what the first one found out
    await engine.refresh()
    await here.submit("z@elsewhere.example")
    await here.deliver()
    states = {"x@dead.example": "queued", "y@elsewhere.example": "delivered", "z@elsewhere.example": "delivered"}
    assert await here.states() == states
    async with db.read() as tx:
        names = {pause.name for pause in await destinations.pauses(tx)}
    assert names == {"dead.example", "host:127.0.0.1" if usual == "dead" else f"host:127.0.0.1:{dead}"}


async def test_senders_of_mail_behind_a_pause_hear_of_the_delay_and_get_it_back_in_the_end(here: World) -> None:
    await here.sink("127.0.0.9")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    for n in range(3):
        await here.submit(f"r{n}@far.example")
    await here.deliver()
    await here.later(5 * 3600)
    async with db.transaction() as tx:
        await tx.execute("UPDATE delivery_pause SET until = now() + interval '10 minutes'")
    await here.start()
    await here.deliver()
    notices = await here.inbox()
    assert len(notices) == 3 and all(b"Action: delayed" in notice for notice in notices)
    assert set((await here.states()).values()) == {"queued"}
    await here.later(5 * 86400)
    async with db.transaction() as tx:
        await tx.execute("UPDATE delivery_pause SET until = now() + interval '10 minutes'")
    await here.start()
    await here.deliver()
    assert set((await here.states()).values()) == {"failed"}
    failed = [notice for notice in await here.inbox() if b"Action: failed" in notice]
    assert len(failed) == 3 and all(b"connection refused" in notice for notice in failed)


async def test_senders_hear_of_the_delay_when_the_smarthost_is_away(here: World) -> None:
    await here.sink("127.0.0.9")
    await here.start(smarthost=Smarthost("127.0.0.1", here.conf.smtp_out_port))
    for n in range(3):
        await here.submit(f"x@d{n}.example")
    await here.deliver()
    assert sorted(row["attempts"] for row in (await here.rows()).values()) == [0, 0, 1]
    await here.later(5 * 3600)
    async with db.transaction() as tx:
        await tx.execute("UPDATE delivery_pause SET until = now() + interval '10 minutes'")
    await here.start()
    await here.deliver()
    assert len(await here.inbox()) == 3


async def test_frozen_mail_is_not_tried_and_goes_when_it_is_thawed(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await destinations.freeze(tx, "far.example")
    await here.submit()
    await here.deliver()
    assert (await here.rows())[BOB]["attempts"] == 0 and sink.connections == 0
    async with db.transaction() as tx:
        await destinations.thaw(tx, None)
    await here.deliver()
    assert len(sink.mails) == 1
