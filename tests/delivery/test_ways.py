"""Mail of senders with a rule of their own: what happens on everybody else's way does not concern it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailcore import db
from mailcore.conf import conf
from mailcore.delivery.pacing import Window
from mailcore.delivery.plan import Plans
from mailcore.store import destinations, queue, routes
from mailcore.store.queue import Outgoing, Recipient
from mailcore.store.routes import Rule
from tests.delivery.sink import Sink
from tests.delivery.world import ANN, BOB, World

ZOE = "zoe@news.other.test"


@pytest.fixture
async def relay(here: World) -> Sink:
    """Zoe's mail goes by a relay; everybody else's to far.example's host, where nobody answers."""
    sink = await here.sink("127.0.0.2")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.3"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule("*.other.test", "*", "relay", "127.0.0.2", sink.port))
    return sink


async def paused() -> dict[str, float]:
    async with db.read() as tx:
        return {each.name: each.left for each in await destinations.pauses(tx) if not each.name.startswith("host:")}


async def test_a_dead_host_does_not_stop_what_a_rule_for_its_sender_leads_elsewhere(here: World, relay: Sink) -> None:
    for n in range(3):
        await here.submit(f"a{n}@far.example")
    await here.deliver()
    assert list(await paused()) == ["far.example"]
    for n in range(3):
        await here.submit(f"z{n}@far.example", sender=ZOE)
    await here.deliver()
    assert sorted(mail.recipients[0] for mail in relay.mails) == [f"z{n}@far.example" for n in range(3)]
    assert (await here.states())["a0@far.example"] == "queued"


async def test_a_dead_relay_of_one_sender_does_not_stop_the_others_and_is_paused_by_itself(here: World) -> None:
    sink = await here.sink("127.0.0.1")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        number, _ = await routes.put(tx, Rule("*.other.test", "*", "relay", "127.0.0.9", sink.port))
    for n in range(4):
        await here.submit(f"z{n}@far.example", sender=ZOE)
    await here.submit()
    await here.deliver()
    assert [mail.sender for mail in sink.mails] == [ANN]
    assert list(await paused()) == [f"far.example by rule {number}"]
    attempts = sum(row["attempts"] for row in (await here.rows()).values())
    assert attempts == 2, "one message found it out for the four"
    await here.deliver()
    assert sum(row["attempts"] for row in (await here.rows()).values()) == 2


async def test_a_senders_rule_limits_the_connections_of_his_mail(here: World, relay: Sink) -> None:
    async with db.transaction() as tx:
        await routes.put(tx, Rule("*.other.test", "*", "relay", "127.0.0.2", relay.port, connections=2))
        await routes.put(tx, Rule("many.test", "*", "relay", "127.0.0.2", relay.port))
    relay.delay = 0.002
    for n in range(100):
        await here.submit(f"z{n}@far.example", sender=ZOE)
    await here.deliver()
    assert (len(relay.mails), relay.most_open) == (100, 2)
    for n in range(100):
        await here.submit(f"m{n}@far.example", sender="x@many.test")
    await here.deliver()
    assert len(relay.mails) == 200 and relay.most_open > 2, "a rule without that limit"


async def test_of_two_ways_behind_a_pause_only_the_paused_ones_senders_hear_of_a_delay(
    here: World, relay: Sink
) -> None:
    await here.submit()
    await here.submit("zed@far.example", sender=ZOE)
    await here.later(5 * 3600)
    async with db.transaction() as tx:
        await destinations.pause(tx, "far.example", "time out")
    await here.deliver()
    assert await here.states() == {BOB: "queued", "zed@far.example": "delivered"}
    (notice,) = await here.inbox()
    assert b"Action: delayed" in notice and b"zed@" not in notice


async def test_trouble_in_the_dns_is_no_strain_on_the_hop(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    strained: list[Window] = []
    monkeypatch.setattr(Window, "strained", lambda window: strained.append(window))
    for n in range(5):
        here.names.add(f"d{n}.example", "MX", "10 mx.provider.test.")
        await here.submit(f"x@d{n}.example")
    here.names.failing.add("mx.provider.test")
    await here.deliver()
    assert set((await here.states()).values()) == {"queued"}
    assert strained == []
    here.names.failing.clear()
    here.names.add("mx.provider.test", "A", "127.0.0.1")  # nobody listens there
    await here.later(3600)
    await here.start(smtp_out_port=1)
    await here.deliver()
    assert strained, "a host that does not answer is"


LABELS = st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "other.test", "x_y.test"])
PATTERNS = LABELS | LABELS.map(lambda each: f"*.{each}") | st.just("*")


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rules=st.lists(st.tuples(PATTERNS | st.just("<>"), PATTERNS), unique=True, max_size=6),
    senders=st.lists(LABELS | st.just(""), min_size=1, max_size=5),
    destination=LABELS,
)
def test_each_message_is_in_exactly_the_share_of_the_way_that_it_goes(
    rules: list[tuple[str, str]], senders: list[str], destination: str
) -> None:
    plans = Plans(conf, [Rule(sender, to, "hold", id=n) for n, (sender, to) in enumerate(rules, 1)])
    ways = plans.ways(destination)
    assert len({way.name for way in ways}) == len(ways)
    with db.django_transaction() as tx:
        db.run_sync(tx.execute("DELETE FROM outbound_recipient"))
        for sender in senders:
            address = f"Ann@{sender.upper()}" if sender else ""
            db.run_sync(queue.enqueue(tx, Outgoing(address, [Recipient(f"bob@{destination}")], "t", b"x")))
        found = []
        for way in ways:
            for claim in db.run_sync(queue.claim(tx, destination=destination, share=way.share)):
                assert plans.way(claim.sender, destination) == way
                assert plans.of(claim.sender, destination) == way.plan
                found.append(claim.sender.rpartition("@")[2].lower())
    assert sorted(found) == sorted(senders)
