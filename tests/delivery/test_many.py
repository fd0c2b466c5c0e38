"""A queue of a million recipients, and a hundred thousand pauses: what is asked for often reads what it needs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import connection

from mailcore import db
from mailcore.store import destinations, queue_admin
from mailcore.store.queue_admin import Selection
from tests.delivery.world import BOB, World

MILLION = 1_000_000
PAUSES = 100_000


def run(verb: Any, *args: Any, **names: Any) -> Any:
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **names))


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
