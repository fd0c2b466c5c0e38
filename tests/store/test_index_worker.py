"""The index is built by processes of their own: one that is killed at any time, and one that a real worker starts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from mailcore import db, tasks
from mailcore.celery import QUEUE, app
from mailcore.store import index_lookup
from tests.store.test_index import compare, expire, pool, put, segments, whole
from tests.waiting import PATIENCE, eventually

__all__ = ["pool"]

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parent.parent.parent


def environment() -> dict[str, str]:
    """Of a process that works on this test's database."""
    names = connection.settings_dict
    login = f"{quote(names['USER'], safe='')}:{quote(names['PASSWORD'], safe='')}"
    url = f"postgresql://{login}@/{names['NAME']}?host={quote(names['HOST'], safe='')}&port={names['PORT']}"
    return os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "webmail.settings", "PYTHONPATH": str(ROOT)}


def indexing_process() -> subprocess.Popen[bytes]:
    """What the worker starts."""
    return subprocess.Popen(
        [sys.executable, "-m", "mailcore.indexer"], cwd=ROOT, env=environment() | {"PGAPPNAME": "indexer"}
    )


async def over() -> bool:
    """Whether Postgres has done with what the indexing process had told it."""
    async with db.read() as tx:
        asked = "SELECT FROM pg_stat_activity WHERE application_name = 'indexer' AND datname = current_database()"
        return await tx.one(asked) is None


async def test_the_process_that_the_worker_starts_is_killed_and_started_again(pool, monkeypatch):
    """SIGKILL at any time; what it leaves is complete, and the next one goes on when the lease has run out."""
    monkeypatch.setattr(index_lookup, "FEW", 0)
    rng = random.Random(13)
    await put(rng, 300)
    for _ in range(3):
        process = indexing_process()
        try:
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                async with db.read() as tx:
                    row = await tx.one("SELECT FROM search_index WHERE lease_until > now()")
                if row is not None:
                    break
                await asyncio.sleep(0.005)
            await asyncio.sleep(rng.random() * 0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        await eventually(over)
        await whole()
        await compare(rng, 10)
        await put(rng, 150)
        await expire()
    process = indexing_process()
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    assert (await segments())[-1][1] > 450
    await whole()
    await compare(rng, 10)


async def test_a_worker_that_is_rung_has_the_index_built(pool, monkeypatch):
    monkeypatch.setattr(index_lookup, "FEW", 0)
    rng = random.Random(14)
    await put(rng, tasks.ENOUGH_TO_INDEX + 10)
    quiet = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
    argv = [sys.executable, "-m", "celery", "-A", "mailcore.celery", "--quiet", "worker", *quiet]
    worker = subprocess.Popen(argv, env=environment(), cwd=ROOT)
    try:
        app.send_task("mailcore.index", queue=QUEUE)
        deadline = time.monotonic() + 180
        while not await segments():
            assert worker.poll() is None and time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await compare(rng, 10)
    finally:
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 120)


def test_a_trickle_of_mail_waits_a_while_for_a_process_of_its_own():
    assert not tasks.worth_a_process(300, 60)
    assert tasks.worth_a_process(300, tasks.LONG_ENOUGH)
    assert tasks.worth_a_process(tasks.ENOUGH_TO_INDEX, 0)
