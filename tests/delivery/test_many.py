"""A queue of a million recipients, and a hundred thousand pauses: what is asked for often reads what it needs."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from django.db import connection

from mailcore import db
from mailcore.store import destinations, queue, queue_admin, queue_due
from mailcore.store.queue import Share
from mailcore.store.queue_admin import Selection
from tests.delivery.world import BOB, World, run

MILLION = 1_000_000
PAUSES = 100_000


def cost(verb: Any, *args: Any, **names: Any) -> float:
    """Seconds of the best of five."""
    best = 1e9
    for _ in range(5):
        began = time.perf_counter()
        run(verb, *args, **names)
        best = min(best, time.perf_counter() - began)
    return best


async def test_a_worker_reads_only_what_is_new_of_pauses(here: World) -> None:
    async with db.transaction() as tx:
        for name in ("one.test", "two.test", "host:127.0.0.9"):
            await destinations.pause(tx, name, "time out")
    async with db.transaction() as tx:
        found, since = await destinations.changes(tx, None)
        assert {each.name for each in found} == {"one.test", "two.test", "host:127.0.0.9"}
        await tx.execute("UPDATE delivery_pause SET changed_at = changed_at - interval '1 hour'")
    async with db.transaction() as tx:
        found, since = await destinations.changes(tx, since)
        assert found == []
        await destinations.resume(tx, ["one.test"])
        await destinations.pause(tx, "three.test", "time out")
    async with db.transaction() as tx:
        found, since = await destinations.changes(tx, since)
        assert [(each.name, each.failures) for each in found] == [("one.test", 0), ("three.test", 1)]
        assert {each.name for each in await destinations.pauses(tx)} == {"two.test", "three.test", "host:127.0.0.9"}


async def test_what_one_worker_finds_dead_or_alive_another_one_hears_of(here: World) -> None:
    engine = await here.start()
    await engine._knowledge.ready()
    async with db.transaction() as tx:
        await destinations.pause(tx, "far.example", "time out")
    await engine.refresh()
    assert engine._knowledge.is_suspect("far.example")
    async with db.transaction() as tx:
        await destinations.resume(tx, ["far.example"])
    await engine.refresh()
    assert not engine._knowledge.is_suspect("far.example")


async def fill(count: int, priority: int = 0) -> None:
    """Mail of one domain's senders, of this priority, that has waited for long, all for one destination, and behind it
    some ordinary mail of others."""
    async with db.transaction() as tx:
        await tx.execute(
            "INSERT INTO outbound (trace_id, sender, blob, size, by_mode) SELECT 't' || n, 'ann@' || CASE WHEN n <= %s"
            " THEN 'news.test' ELSE 'calm' || n %% 7 || '.test' END, 'x', 1000, CASE WHEN n %% 2 = 0 THEN 'N' ELSE 'R'"
            " END FROM generate_series(1, %s) AS n",
            (count, count + 50),
        )
        await tx.execute(
            "INSERT INTO outbound_recipient (outbound_id, address, destination, sender_domain, priority,"
            " next_attempt_at) SELECT id, 'Bob' || id || '@far.example', 'far.example', split_part(sender, '@', 2),"
            " CASE WHEN sender = 'ann@news.test' THEN %s ELSE 0 END, now() - interval '1 hour'"
            " + make_interval(secs => id / 1000.0) FROM outbound ORDER BY id",
            (priority,),
        )


async def read_by(tx: db.AsyncTx) -> int:
    """Rows of the queue that were read over this connection, as far as Postgres has not yet added them up."""
    row = await tx.one(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('outbound', 'outbound_recipient')"
    )
    assert row is not None
    return int(row[0])


CALM = Share("far.example", None, ["news.test"])
NEWS = Share("far.example by rule 1", ["news.test"], [])
EVERYBODY = Share("far.example by rule 3", None, [])
FEW = Share("far.example by rule 2", ["%.test"], ["news.test", "calm1.test", "calm2.test"])


@pytest.mark.parametrize("by_priority", [False, True])
@pytest.mark.parametrize(("share", "found"), [(None, "news"), (CALM, "calm"), (NEWS, "news"), (FEW, "calm")])
async def test_a_claim_reads_what_it_claims_however_much_waits(
    here: World, share: Share | None, found: str, by_priority: bool
) -> None:
    """As planned for these arguments, and as planned for any."""
    await fill(5000)
    async with db.transaction() as tx:
        await tx.execute("ANALYZE outbound")
        await tx.execute("ANALYZE outbound_recipient")
    for plan in ("force_custom_plan", "force_generic_plan"):
        async with db.transaction() as tx:
            await tx.execute(f"SET LOCAL plan_cache_mode = {plan}")
            before = await read_by(tx)
            claims = await queue.claim(tx, destination="far.example", share=share, by_priority=by_priority)
            assert len(claims) == 16 and all(claim.sender.startswith(f"ann@{found}") for claim in claims)
            assert await read_by(tx) - before < 1000, plan


async def test_a_claim_of_some_senders_reads_the_first_of_each_and_all_of_few(here: World) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "INSERT INTO outbound (trace_id, sender, blob, size) SELECT 't' || n, 'ann@s' || n %% 400 || '.test', 'x',"
            " 1000 FROM generate_series(1, 8000) AS n"
        )
        await tx.execute(
            "INSERT INTO outbound_recipient (outbound_id, address, destination, sender_domain, next_attempt_at) SELECT"
            " id, 'Bob' || id || '@far.example', 'far.example', split_part(sender, '@', 2), now() - interval '1 hour'"
            " + make_interval(secs => id / 1000.0) FROM outbound ORDER BY id"
        )
        await tx.execute("ANALYZE outbound_recipient")
        before = await read_by(tx)
        claims = await queue.claim(tx, destination="far.example", share=Share("far.example", None, ["s1.test"]))
        assert await read_by(tx) - before < 4000
    async with db.read() as reader:
        oldest = await reader.fetch(
            "SELECT id FROM outbound_recipient WHERE sender_domain <> 's1.test' ORDER BY next_attempt_at, id LIMIT 16"
        )
    assert sorted(claim.recipient_id for claim in claims) == [row[0] for row in oldest]


@pytest.mark.parametrize(
    "where", [{}, {"destination": "far.example"}, {"destination": "far.example", "share": EVERYBODY}]
)
async def test_what_may_wait_is_not_read_for_what_is_behind_it(here: World, where: dict[str, Any]) -> None:
    await fill(5000, priority=-9)
    async with db.transaction() as tx:
        await tx.execute("ANALYZE outbound")
        await tx.execute("ANALYZE outbound_recipient")
    for plan in ("force_custom_plan", "force_generic_plan"):
        async with db.transaction() as tx:
            await tx.execute(f"SET LOCAL plan_cache_mode = {plan}")
            before = await read_by(tx)
            claims = await queue.claim(tx, **where, by_priority=True)
            assert len(claims) == 16 and {claim.priority for claim in claims} == {0}
            assert await read_by(tx) - before < 1000, plan


async def test_workers_that_claim_of_some_senders_at_one_time_get_each_recipient_once(here: World) -> None:
    await fill(300)
    claimed: Counter[int] = Counter()

    async def work() -> None:
        left = True
        while left:
            async with db.transaction() as tx:
                claims = await queue.claim(tx, destination="far.example", share=NEWS)
            claimed.update(claim.recipient_id for claim in claims)
            left = bool(claims) or sum(claimed.values()) < 300

    async with asyncio.timeout(60):
        await asyncio.gather(*(work() for _ in range(5)))
    assert len(claimed) == 300 and set(claimed.values()) == {1}


async def test_what_is_late_is_read_until_its_sender_knows_and_no_more(here: World) -> None:
    await fill(5000)
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_recipient SET deliver_by = now() - interval '1 minute', late_notified = true")
        await tx.execute(
            "UPDATE outbound_recipient SET late_notified = false WHERE id IN"
            " (SELECT id FROM outbound_recipient ORDER BY id DESC LIMIT 30)"
        )
        await tx.execute("ANALYZE outbound_recipient")
    async with db.transaction() as tx:
        before = await read_by(tx)
        late = await queue_due.late(tx)
        assert len(late) == 30 and {each.by_mode for each in late} == {"N", "R"}
        assert await read_by(tx) - before < 500
        before = await read_by(tx)
        assert await queue_due.late(tx) == [], "once: what comes back is claimed, of the rest the sender is told"
        assert await read_by(tx) - before < 100


@pytest.mark.bench
@pytest.mark.django_db
def test_a_million_recipients(capsys: pytest.CaptureFixture[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbound (trace_id, sender, blob, size) SELECT 't' || n, 'ann@example.test', 'x', 1000"
            " FROM generate_series(1, %s) AS n",
            [MILLION],
        )
        cursor.execute(
            "INSERT INTO outbound_recipient (outbound_id, address, destination, state) SELECT id,"
            " 'Bob' || id || '@d' || id % 1000 || '.example', 'd' || id % 1000 || '.example',"
            " CASE WHEN id % 10 = 0 THEN 'queued' ELSE 'delivered' END FROM outbound"
        )
        cursor.execute(
            "INSERT INTO delivery_pause (name, until, reason, changed_at) SELECT 'p' || n || '.example',"
            " now() + interval '1 minute', 'time out', now() - interval '10 minutes' FROM generate_series(1, %s) AS n",
            [PAUSES],
        )
        cursor.execute("ANALYZE outbound")
        cursor.execute("ANALYZE outbound_recipient")
        cursor.execute("ANALYZE delivery_pause")
        cursor.execute("SELECT outbound_id, address FROM outbound_recipient ORDER BY id DESC OFFSET 10 LIMIT 1")
        number, address = cursor.fetchone()
        cursor.execute(
            "EXPLAIN SELECT r.id FROM outbound_recipient r JOIN outbound o ON o.id = r.outbound_id"
            f" WHERE lower(r.address) = lower('{address}') ORDER BY r.id LIMIT 5000"
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    _, since = run(destinations.changes, None)
    seconds = {
        "rows of a recipient": cost(queue_admin.rows, Selection(recipient=address)),
        "rows of nobody": cost(queue_admin.rows, Selection(recipient=BOB, states=("queued", "held"))),
        "number of a trace id": cost(queue_admin.numbers, [f"t{number}"]),
        "what is new of pauses": cost(destinations.changes, since),
        "all pauses (20,000 at most)": cost(destinations.pauses),
    }
    with capsys.disabled():
        print("\n" + plan, *(f"{name}: {value * 1000:.2f} ms" for name, value in seconds.items()), sep="\n")
    assert "outbound_address" in plan
