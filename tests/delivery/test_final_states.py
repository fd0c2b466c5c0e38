"""Messages through mail hosts that fail at random, carried by workers that are killed: each recipient has one end."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace

import pytest

from mailcore import db
from mailcore.store import trace
from mailcore.store.queue import Outgoing, Recipient, enqueue_many
from tests.delivery.mx import FAULTS, STAGES, FaultyHost
from tests.delivery.world import ANN, ROOT, World, environment

ADDRESSES = [f"127.0.2.{n}" for n in range(1, 9)]
DOMAINS = [f"d{n}.example" for n in range(20)]
FAULTY = 0.035  # of the answers; a message needs half a dozen good ones

# What a worker waits for in vain is short, but not where a slow machine would look like a server that has taken a copy.
WORKER = """
import asyncio
import django
django.setup()
from mailcore import db
from mailcore.conf import conf
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.engine import Engine, Limits

HostMemory.FIRST, HostMemory.LAST = 0.05, 0.2  # its clock is the real one

async def main():
    await db.open_pool(4)
    times = Timeouts(20, 2, 2, 2, 2, 2, 2, 60, 60, 0.2, 120)
    engine = Engine(conf, Limits(linger=0.05, together=0.3), times)
    print("working", flush=True)
    while True:
        await engine.refresh()
        await engine.sweep()
        await asyncio.sleep(0.2)

asyncio.run(main())
"""

WAITING = """
    SELECT count(*) FILTER (WHERE r.state IN ('queued', 'held')), count(*) FILTER (WHERE r.lease_until > now()),
        count(*) FILTER (WHERE r.state = 'queued' AND r.next_attempt_at <= now() AND p.name IS NULL),
        coalesce(max(extract(epoch FROM greatest(r.next_attempt_at, p.until) - now())), 0)::float8,
        (SELECT count(*) FROM outbound_notice)
    FROM outbound_recipient r LEFT JOIN delivery_pause p ON p.name = r.destination AND p.until > now()
    WHERE r.state IN ('queued', 'held')"""


class Workers:
    """Processes that deliver; `kill` ends all of them at once, at any point."""

    def __init__(self, here: World, count: int) -> None:
        self.here, self.count = here, count
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, "-c", textwrap.dedent(WORKER)]
        self.running = [
            subprocess.Popen(command, env=environment(self.here), cwd=ROOT, stdout=subprocess.DEVNULL)
            for _ in range(self.count)
        ]

    def kill(self) -> None:
        for worker in self.running:
            worker.kill()
            worker.wait()


async def carry(here: World, host: FaultyHost, workers: Workers, kills: int, total: int, patience: float) -> None:
    """Until nothing waits; workers are killed when so many of the messages are through."""
    marks = [total * n // (kills + 1) for n in range(1, kills + 1)]
    workers.start()
    until = time.monotonic() + patience
    while True:
        assert time.monotonic() < until, "not at the end yet"
        await asyncio.sleep(0.1)
        async with db.read() as tx:
            row = await tx.one(WAITING)
        assert row is not None
        left, leased, due, wait, untold = row
        if marks and total - left >= marks[0] and leased:
            marks.pop(0)
            workers.kill()
            host.epoch += 1
            async with db.transaction() as tx:
                await tx.execute(
                    "UPDATE outbound_recipient SET lease_until = now() - interval '1 second' "
                    "WHERE lease_until IS NOT NULL"
                )
            workers.start()
        elif not left and not untold:
            return
        elif not leased and not due and left:
            await here.later(wait + 1)


async def judge(here: World, host: FaultyHost, sent: dict[str, tuple[str, list[str]]]) -> Counter[str]:
    """Compare the queue, the hosts, the sender's mailbox and the history."""
    counts: Counter[str] = Counter()
    async with db.read() as tx:
        rows = await tx.fetch(
            "SELECT o.trace_id, r.address, r.state FROM outbound_recipient r JOIN outbound o ON "
            "o.id = r.outbound_id WHERE o.sender <> ''"
        )
        ends = Counter(
            (row[0], row[1])
            for row in await tx.fetch(
                "SELECT trace_id, recipient FROM trace_event WHERE step IN ('delivered', 'failed')"
            )
        )
    states = {(row[0], row[1]): row[2] for row in rows}
    told = Counter(
        line.partition("; ")[2]
        for raw in await here.inbox()
        for block in raw.decode("latin-1").split("\r\n\r\n")
        if "\r\nAction: failed\r\n" in block
        for line in block.split("\r\n")
        if line.startswith("Final-Recipient:")
    )
    for key, (name, recipients) in sent.items():
        for to in recipients:
            state, copies = states.pop((name, to)), host.copies.get((key, to), [])
            assert state in ("delivered", "failed"), (to, state)
            assert ends[name, to] == 1, (to, ends[name, to])
            assert told[to] == (state == "failed"), (to, state, told[to])
            assert state == "failed" or copies, f"{to} was delivered, and never arrived"
            # After a copy that a live worker knew to be taken there is nothing more: no other copy, and no failure.
            for n, copy in enumerate(copies):
                is_last = n == len(copies) - 1
                is_known = copy.is_known and copy.epoch == (host.epoch if is_last else copies[n + 1].epoch)
                assert not (is_known and (not is_last or state == "failed")), (to, state, copies)
            counts[state] += 1
            counts["second copies"] += max(0, len(copies) - 1)
            counts["failed, and arrived"] += state == "failed" and bool(copies)
    assert not states
    return counts


async def run(here: World, messages: int, workers: int, kills: int, patience: float) -> Counter[str]:
    dice = random.Random(20261122)
    host = FaultyHost(dice, FAULTY, stall=4.0, tls=here.server_tls())
    here.conf = replace(here.conf, smtp_out_port=await host.start(ADDRESSES))
    for n, domain in enumerate(DOMAINS):
        first, second = ADDRESSES[n % 8], ADDRESSES[(n + 3) % 8]
        here.names.host(domain, (10, f"a.{domain}", first), (20, f"b.{domain}", second))
    sent: dict[str, tuple[str, list[str]]] = {}
    items = []
    for n in range(messages):
        recipients = [f"r{n}x{m}@{dice.choice(DOMAINS)}" for m in range(dice.choice([1, 1, 1, 2, 3]))]
        sent[str(n)] = (trace.new_id(), recipients)
        raw = f"From: {ANN}\r\nSubject: {n}\r\nX-Key: {n}\r\n\r\nHello\r\n".encode() + b"text\r\n" * 20
        to = [Recipient(each) for each in recipients]
        items.append(Outgoing(ANN, to, sent[str(n)][0], raw, account_id=here.account))
    for start in range(0, messages, 500):
        async with db.transaction() as tx:
            await enqueue_many(tx, items[start : start + 500])
    total = sum(len(recipients) for _, recipients in sent.values())
    crew = Workers(here, workers)
    began = time.monotonic()
    try:
        await carry(here, host, crew, kills, total, patience)
    finally:
        crew.kill()
        await host.stop()
    counts = await judge(here, host, sent)
    counts |= Counter(recipients=total, connections=host.connections, faults=host.faults.total())
    counts["seconds"] = round(time.monotonic() - began)
    counts["kinds of faults"] = len(host.faults)
    return counts


async def test_300_messages_end_in_one_state_each(here: World) -> None:
    counts = await run(here, 300, workers=1, kills=1, patience=300)
    assert counts["failed"] and counts["delivered"] > counts["failed"]


@pytest.mark.soak
async def test_10000_messages_end_in_one_state_each(here: World) -> None:
    counts = await run(here, 10_000, workers=2, kills=12, patience=3000)
    print(dict(counts))
    assert counts["kinds of faults"] >= len(STAGES) * len(FAULTS) - 8
