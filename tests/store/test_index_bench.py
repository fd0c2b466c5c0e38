"""Figures of the search index, for docs/performance.md: `pytest tests/store/test_index_bench.py -m bench -s`.

A mailbox of BENCH_MESSAGES (default 10,000) texts of about 4 kB: paragraphs of the standard library, and in each mail
numbers, addresses and hashes of its own. And a large one of BENCH_LARGE (default 100,000) texts of 2.3 kB of invented
words, no two alike (tests/store/invented_mail.py): a million take some 20 minutes and 5 GB of disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path

import psycopg
import pytest

from mailcore import db, indexer, mime
from mailcore.store import accounts, append, index_build, search
from mailcore.store.index_segment import Builder
from tests.store import invented_mail
from tests.store.test_index_worker import indexing_process

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True)]
ACCOUNT, LARGE = 5, 6
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "10000"))
MANY = int(os.environ.get("BENCH_LARGE", "100000"))


@functools.cache
def paragraphs() -> list[str]:
    """Text that is on every machine: the standard library's."""
    found: list[str] = []
    size = 0
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if size < 20_000_000 and "site-packages" not in path.parts:
            whole = path.read_text(errors="ignore")
            size += len(whole)
            found += [part for part in whole.split("\n\n") if 40 < len(part) < 3_000]
    return found


def text(rng: random.Random) -> str:
    room = rng.expovariate(1 / 3_600)
    parts = [f"{rng.getrandbits(128):032x} order {rng.randrange(10**7)} https://x.example/{rng.getrandbits(60):x}"]
    while room > 0:
        parts.append(rng.choice(paragraphs()))
        room -= len(parts[-1])
    return "\n\n".join(parts)


def message(rng: random.Random, n: int) -> bytes:
    who = f"person{rng.randrange(300)}"
    subject = " ".join(rng.choice(paragraphs()).split()[:6])
    return (
        f"Received: from mx{rng.randrange(40)}.example.org by mail.example.net id {rng.getrandbits(64):x}\r\n"
        f"From: {who} <{who}@example.org>\r\nTo: me@example.net\r\nSubject: {subject} {n}\r\n"
        f"Message-ID: <{rng.getrandbits(96):x}@example.org>\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text(rng)}\r\n"
    ).encode()


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


async def fill(account_id: int, count: int, seed: int) -> float:
    """Store messages, in transactions of 32; returns the seconds."""
    rng = random.Random(seed)
    spent = 0.0
    for _ in range(0, count, 32):
        items = [append.Incoming(account_id, 0, raw, mime.parse(raw)) for raw in (message(rng, n) for n in range(32))]
        begun = time.perf_counter()
        async with db.transaction() as tx:
            await append.append(tx, items)
        spent += time.perf_counter() - begun
    return spent


async def measured(account_id: int, asked: search.Criterion, plain: bool = False) -> tuple[float, int]:
    begun = time.perf_counter()
    async with db.read() as tx:
        if plain:
            found = len(await tx.fetch(*search.uids_query(account_id, 1, asked)))
        else:
            found = len(await search.numbers(tx, account_id, 1, asked))
    return (time.perf_counter() - begun) * 1000, found


def questions(builder: Builder) -> dict[str, list[search.Text]]:
    """By kind; how frequent words are is what `builder` knows of its messages."""
    rng = random.Random(3)
    share = {
        word: (1 if isinstance(sections, int) else len(sections)) / len(builder.documents)
        for word, sections in builder._words.items()
        if word.isalpha()
    }

    def some(count: int, low: float, high: float) -> list[str]:
        there = sorted(word for word, part in share.items() if low <= part <= high and len(word) >= 5)
        return rng.sample(there, min(count, len(there)))

    rare = some(25, 0, 2 / len(builder.documents))
    frequent = some(14, 0.05, 0.2)
    return {
        "rare word, BODY": [search.Text("body", one) for one in rare],
        "rare word, TEXT": [search.Text("text", one) for one in rare],
        "word in no mail": [search.Text("body", one[:4] + two[3:]) for one, two in itertools.pairwise(rare)],
        "hash, absent": [search.Text("text", f"{rng.getrandbits(80):x}") for _ in range(7)],
        "1 % word": [search.Text("body", one) for one in some(7, 0.008, 0.012)],
        "30 to 60 % word": [search.Text("body", one) for one in some(5, 0.3, 0.6)],
        "SUBJECT": [search.Text("subject", one) for one in rare[:7]],
        "FROM": [search.Text("from", f"person{n}@") for n in range(7)],
        "phrase": [search.Text("body", f"{one} {two}") for one, two in zip(frequent[::2], frequent[1::2], strict=True)],
        "3 characters": [search.Text("body", one) for one in ("sch", "qui", "ing", "zen")],
    }


async def table(account_id: int, asks: dict[str, list[search.Text]], plain: bool) -> None:
    for name, asked in asks.items():
        times, hits = [], []
        for one in asked:
            await measured(account_id, one)
            best = min([await measured(account_id, one) for _ in range(5)])
            times.append(best[0])
            hits.append(best[1])
        line = f"  {name:18} p50 {statistics.median(times):7.2f} ms  max {max(times):7.2f}"
        line += f"  hits {statistics.median(hits):g}"
        if plain:
            scans = [min([await measured(account_id, one, True) for _ in range(3)])[0] for one in asked[:1]]
            line += f"  without index {statistics.median(scans):7.2f}"
        say(line)


async def test_figures(database_url):
    await db.open_pool(4)
    try:
        async with db.transaction() as tx:
            await accounts.create(tx, ACCOUNT)
        await fill(ACCOUNT, MESSAGES, 1)
        async with db.read() as tx:
            rows = await index_build.texts(tx, ACCOUNT, 1, 2_000, 2_000)
        begun = time.process_time()
        builder = Builder()
        for docno, fields, body_at, whole in rows:
            builder.add(docno, fields, whole[: body_at - 2], whole[body_at - 1 :])
        builder.finish(1, 2_000)
        say(f"building: {(time.process_time() - begun) / len(rows) * 1000:.2f} ms of CPU a message")
        await build(ACCOUNT, MESSAGES)
        await fill(ACCOUNT, 128, 2)  # the tail that is there on average
        sizes(database_url, MESSAGES)
        say(f"mailbox of {MESSAGES}:")
        await table(ACCOUNT, questions(builder), plain=True)
    finally:
        await db.close_pool()


async def build(account_id: int, count: int) -> None:
    """Index an account as the worker does, but without its rests."""
    begun, cpu = time.perf_counter(), time.process_time()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    try:
        await indexer.reindex(account_id, derive=False)
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)
    spent, cpu = time.perf_counter() - begun, (time.process_time() - cpu) / count * 1000
    say(f"index of {count}: {count / spent:.0f} messages/s, {cpu:.2f} ms of CPU each")


def sizes(url: str, count: int) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("VACUUM ANALYZE")
        text, index, disk, segments, pairs = other.execute(
            """SELECT (SELECT sum(octet_length(text)) FROM message_text), (SELECT sum(size) FROM search_segment),
                pg_total_relation_size('search_block') + pg_total_relation_size('search_filter'),
                (SELECT count(*) FROM search_segment), (SELECT sum(pairs) FROM search_segment)"""
        ).fetchone()
    say(
        f"text {text / count:.0f} octets a message, index {index / count:.0f}, on disk {disk / count:.0f},"
        f" {segments} segments, {pairs / count:.0f} pairs a message"
    )


async def test_a_large_mailbox(database_url):
    await db.open_pool(4)
    try:
        async with db.transaction() as tx:
            await accounts.create(tx, LARGE)
        known = await asyncio.to_thread(invented_mail.fill, database_url, LARGE, MANY, words=8 * MANY)
        await build(LARGE, MANY)
        sizes(database_url, MANY)
        say(f"mailbox of {MANY}:")
        await table(LARGE, invented(known), plain=False)
    finally:
        await db.close_pool()


def invented(known: list[str]) -> dict[str, list[search.Text]]:
    """Questions by kind; a word's rank among the invented ones says how many messages have it."""
    rng = random.Random(4)

    def rank(share: float) -> int:
        return int(-invented_mail.WORDS / (math.log(1 - share) * math.log(len(known))))

    def some(low: int, high: int, count: int = 25) -> list[str]:
        return rng.sample([word for word in known[low:high] if len(word) >= 5], count)

    rare, frequent = some(len(known) // 2, len(known)), some(rank(0.2), rank(0.05), 50)
    return {
        "rare word, BODY": [search.Text("body", one) for one in rare],
        "rare word, TEXT": [search.Text("text", one) for one in rare],
        "word in no mail": [search.Text("body", one[:4] + two[3:]) for one, two in itertools.pairwise(rare)],
        "hash, absent": [search.Text("text", f"{rng.getrandbits(80):x}") for _ in range(25)],
        "1 % word": [search.Text("body", one) for one in some(rank(0.012), rank(0.008))],
        "30 to 60 % word": [search.Text("body", one) for one in known[rank(0.6) : rank(0.3)]],
        "SUBJECT": [search.Text("subject", one) for one in some(len(known) // 50, len(known) // 25)],
        "FROM": [search.Text("from", f"{one}@") for one in some(0, 20_000)],
        "phrase": [search.Text("body", f"{one} {two}") for one, two in zip(frequent[::2], frequent[1::2], strict=True)],
        "3 characters": [search.Text("body", one[:3]) for one in some(1_000, 20_000, 7)],
    }


async def test_delivery_beside_the_worker(database_url):
    """Deliveries, and in turn a process that indexes goes on or stands still, so that what else runs touches both."""
    await db.open_pool(4)
    try:
        for account_id in (ACCOUNT, LARGE):
            async with db.transaction() as tx:
                await accounts.create(tx, account_id)
        await fill(LARGE, 6_400, 9)
        ready = [[message(random.Random(n), n) for n in range(32)] for n in range(4)]
        batches = [[append.Incoming(ACCOUNT, 0, raw, mime.parse(raw)) for raw in raws] for raws in ready]
        rates: dict[bool, list[float]] = {True: [], False: []}
        process = indexing_process()
        try:
            await asyncio.sleep(1.5)
            for turn in range(16):
                beside = turn % 2 == 0
                process.send_signal(signal.SIGCONT if beside else signal.SIGSTOP)
                begun, count = time.perf_counter(), 0
                while time.perf_counter() - begun < 1.2:
                    for items in batches:
                        async with db.transaction() as tx:
                            await append.append(tx, items)
                        count += len(items)
                assert process.poll() is None, "it had finished before the deliveries"
                rates[beside].append(count / (time.perf_counter() - begun))
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        alone, with_it = (statistics.median(rates[beside]) for beside in (False, True))
        say(f"deliveries alone {alone:.0f}, beside the worker {with_it:.0f} messages/s: {with_it / alone:.2f}")
    finally:
        await db.close_pool()
