"""How long the webmail's own questions take in a folder of 10,000 (`pytest -m bench tests/jmap/test_speed.py -s`)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailcore import db, mime
from mailcore.store.append import Incoming, append
from tests.jmap.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.bench]

ROW = "id threadId mailboxIds keywords from to subject receivedAt preview hasAttachment size".split()


async def fill(account: int, count: int) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for batch in range(0, count, 500):
        items = []
        for n in range(batch, batch + 500):
            lines = [
                f"From: Zoe {n % 97} <zoe{n % 97}@far.example>",
                "To: alice@example.org",
                f"Subject: About {n - n % 3}",
                f"Message-ID: <{n}@far.example>",
                *([f"References: <{n - n % 3}@far.example>"] if n % 3 else []),
                "Date: Mon, 02 Mar 2026 10:00:00 +0100",
                "",
                f"Words of mail {n}. {'Lorem ipsum. ' * 40}",
            ]
            raw = "\r\n".join(lines).encode()
            at = start + timedelta(minutes=n)
            items.append(Incoming(account, 1, raw, mime.parse(raw), flags=n % 10 != 0, internal_date=at))
        async with db.transaction() as tx:
            await append(tx, items)
    async with db.read() as tx:
        for table in ("entry", "message", "message_text", "mailbox", "account_state"):
            await tx.execute(f"ANALYZE {table}")


async def measure(name: str, work: Callable[[], Awaitable[Any]], times: int = 15) -> float:
    await work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - begun) * 1000)
    print(f"\n{name:40} p50 {statistics.median(taken):6.1f} ms   max {max(taken):6.1f} ms", end="")
    return statistics.median(taken)


def page(collapse: bool, position: int = 0, more: dict[str, Any] | None = None) -> list[tuple[str, dict[str, Any]]]:
    query = {
        "filter": {"inMailbox": "F1", **(more or {})},
        "sort": [{"property": "receivedAt", "isAscending": False}],
        "collapseThreads": collapse,
        "position": position,
        "limit": 50,
        "calculateTotal": True,
    }
    return [
        ("Email/query", query),
        ("Email/get", {"#ids": {"resultOf": "c0", "name": "Email/query", "path": "/ids"}, "properties": ROW}),
        ("Thread/get", {"#ids": {"resultOf": "c1", "name": "Email/get", "path": "/list/*/threadId"}}),
        (
            "Email/get",
            {"#ids": {"resultOf": "c2", "name": "Thread/get", "path": "/list/*/emailIds"}, "properties": ROW},
        ),
    ]


async def test_speed(world: World) -> None:
    alice = world.alice
    await fill(alice.account, 10_000)
    answers = await alice.calls(*page(True))
    assert answers[0][1]["total"] == 3334 and len(answers[3][1]["list"]) > 100
    await measure("session", lambda: alice.request("GET", "/.well-known/jmap"))
    await measure("Core/echo", lambda: alice.call("Core/echo"))
    await measure("Mailbox/get", lambda: alice.call("Mailbox/get", ids=None))
    flat = await measure("list page", lambda: alice.calls(*page(False)[:2]))
    whole = await measure("list page, conversations", lambda: alice.calls(*page(True)))
    await measure("list page, conversations, far down", lambda: alice.calls(*page(True, 3000)))
    await measure("only the query, conversations", lambda: alice.calls(*page(True)[:1]))
    await measure("only the query", lambda: alice.calls(*page(False)[:1]))
    await measure("unread only", lambda: alice.calls(*page(True, 0, {"notKeyword": "$seen"})))
    await measure("search of a word", lambda: alice.calls(*page(True, 0, {"text": "mail 777"})))
    (first, *_) = answers[0][1]["ids"]
    full = {"ids": [first], "fetchTextBodyValues": True, "maxBodyValueBytes": 400_000}
    await measure("open a message", lambda: alice.call("Email/get", **full))
    states = iter(range(1000))
    await measure(
        "mark read",
        lambda: alice.call("Email/set", update={first: {"keywords/$seen": True if next(states) % 2 else None}}),
    )
    assert flat < 30 and whole < 60
