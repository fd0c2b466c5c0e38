"""Look-ups in a history of 1,000,000 events: `pytest tests/store/test_trace_bench.py -m bench -s`.

A quarter of a million messages of 13 weeks, four events each, from 5,000 senders and 2,000 clients to 1,000 people,
one of whom gets a tenth of it all. BENCH_EVENTS says another number.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from mailcore import db
from mailcore.store import housekeeping, trace
from mailcore.store.trace import Found

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True)]

EVENTS = int(os.environ.get("BENCH_EVENTS", "1000000"))
MUST = 200  # ms

FILL = """
    INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
    SELECT %(begin)s::timestamptz + n * %(gap)s::interval + k * interval '30 ms',
        lpad(to_hex(n), 12, '0') || 'abc', (ARRAY['accepted', 'stored', 'queued', 'delivered'])[k + 1],
        CASE WHEN k > 0 THEN n %% 1000 END, CASE WHEN k > 1 THEN n END,
        CASE WHEN k <> 1 THEN 'sender' || n * 7 %% 5000 || '@far.example' END,
        CASE WHEN k > 0 THEN CASE WHEN n %% 10 = 0 THEN 'busy' ELSE 'person' || n %% 1000 END || '@home.example' END,
        CASE WHEN k = 0 THEN 'm' || n || '@far.example' END,
        CASE WHEN k = 0 THEN jsonb_build_object('from', '10.1.' || n %% 2000 / 250 || '.' || n %% 250, 'size', 4711)
            ELSE jsonb_build_object('host', 'mx.far.example [192.0.2.1]', 'reply', '250 2.0.0 Ok: queued as 4711') END
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n, generate_series(0, 3) AS k"""


def test_a_million_events_are_looked_up_in_200_ms() -> None:
    messages = EVENTS // 4
    begin = datetime.now(UTC) - timedelta(weeks=13)
    with connection.cursor() as cursor:
        for week in range(14):
            with db.django_transaction() as tx:
                db.run_sync(housekeeping.trace_partitions(tx, begin + timedelta(weeks=week), days=365))
        gap = f"{13 * 7 * 86400 / messages} seconds"
        started = time.perf_counter()
        for first in range(0, messages, 25_000):
            values = {"begin": begin, "gap": gap, "first": first, "last": min(first + 25_000, messages) - 1}
            cursor.execute(FILL, values)
        print(f"\n{EVENTS} events in {time.perf_counter() - started:.0f} s")
        cursor.execute("ANALYZE trace_event")
        cursor.execute("SELECT pg_size_pretty(sum(pg_total_relation_size(inhrelid))) FROM pg_inherits")
        print("on disk:", cursor.fetchone())
    rng = random.Random(1)

    def asked(text: Callable[[int], str], **more: object) -> Callable[[], list[Found]]:
        def ask() -> list[Found]:
            with db.django_transaction() as tx:
                return db.run_sync(trace.find(tx, text(rng.randrange(messages)), 50, **more))  # type: ignore[arg-type]

        return ask

    def own(name: str, text: Callable[[int], str]) -> Callable[[], list[Found]]:
        def ask() -> list[Found]:
            with db.django_transaction() as tx:
                found = trace.find_own(tx, 7, [f"{name}@home.example"], text(rng.randrange(messages)), 50)
                return db.run_sync(found)

        return ask

    week = {"since": begin + timedelta(weeks=5), "until": begin + timedelta(weeks=6)}
    questions = {
        "trace id": asked(lambda n: f"{n:012x}abc"),
        "Message-ID": asked(lambda n: f"<m{n}@far.example>"),
        "queue number": asked(str),
        "sender": asked(lambda n: f"sender{n % 5000}@far.example"),
        "recipient": asked(lambda n: f"person{n % 1000 // 10 * 10 + 1}@home.example"),
        "recipient of a tenth of all": asked(lambda _: "busy@home.example"),
        "client": asked(lambda n: f"10.1.{n % 2000 // 250}.{n % 250}"),
        "nothing: the newest": asked(lambda _: ""),
        "sender, within a week": asked(lambda n: f"sender{n % 5000}@far.example", **week),
        "client, of some domains only": asked(lambda n: f"10.1.{n % 2000 // 250}.{n % 250}", domains=["home.example"]),
        "one's own, the newest": own("person1", lambda _: ""),
        "one's own, by sender": own("person1", lambda n: f"sender{n % 5000}@far.example"),
        "one's own of a tenth of all, by sender": own("busy", lambda n: f"sender{n % 5000}@far.example"),
    }
    slowest = 0.0
    print(f"{'look-up by':40} {'p50 ms':>8} {'max':>8}  events")
    for name, ask in questions.items():
        times, counts = [], []
        for _ in range(25):
            started = time.perf_counter()
            counts.append(len(ask()))
            times.append((time.perf_counter() - started) * 1000)
        print(f"{name:40} {statistics.median(times):8.1f} {max(times):8.1f}  {statistics.median(counts):.0f}")
        slowest = max(slowest, statistics.median(times))
    assert slowest < MUST
