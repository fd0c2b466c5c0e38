"""The pool of connections when Postgres has dropped them: nobody is told "try again" because of a dead one."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from django.conf import settings
from psycopg.pq import PipelineStatus

from mailcore import db
from mailcore.errors import Code, MailError
from webmail import env

pytestmark = [pytest.mark.django_db(transaction=True)]


async def _hold(seconds: float) -> int:
    async with db.transaction() as tx:
        row = await tx.one("SELECT pg_backend_pid() FROM pg_sleep(%s::float8)", (seconds,))
    assert row is not None
    return int(row[0])


async def test_connections_that_postgres_dropped_cost_nobody_an_error(database_url: str) -> None:
    await db.open_pool(4)
    try:
        everybody = asyncio.Barrier(4)

        async def one() -> int:
            async with db.read() as tx:
                row = await tx.one("SELECT pg_backend_pid()")
                await everybody.wait()
            assert row is not None
            return int(row[0])

        before = set(await asyncio.gather(*(one() for _ in range(4))))
        assert len(before) == 4
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
            await admin.execute("SELECT pg_terminate_backend(pid, 2000) FROM unnest(%s::int[]) AS pid", [list(before)])
        after = set(await asyncio.gather(*(_hold(0.0) for _ in range(20))))
        assert not after & before
    finally:
        await db.close_pool()


async def test_who_is_cancelled_leaves_no_connection_in_a_pipeline(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one, statements are not committed, and their results go to whoever asks next."""
    monkeypatch.setattr(psycopg.waiting, "MAX_BUSY_TIME", -1.0)  # a busy loop: psycopg lets others run wherever it can

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.batch(("SELECT 1", ()), ("SELECT 2", ()))

    await db.open_pool(1)
    try:
        for turns in range(25):
            task = asyncio.create_task(work())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with db.read() as tx:
                assert isinstance(tx, db.AsyncTx)
                assert tx._connection.pgconn.pipeline_status == PipelineStatus.OFF
                assert await tx.one("SELECT 3") == (3,)
    finally:
        await db.close_pool()


async def test_a_notice_on_an_idle_connection_does_not_end_it(database_url: str) -> None:
    await db.open_pool(1)
    try:
        first = await _hold(0.0)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
            async with db.read() as tx:
                await tx.execute("LISTEN here")
            await admin.execute("NOTIFY here")
        await asyncio.sleep(0.1)
        assert await _hold(0.0) == first
    finally:
        await db.close_pool()


async def test_whoever_finds_no_connection_is_told_soon(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert db.WAIT_FOR_CONNECTION <= 5.0
    await db.open_pool(1, timeout=0.2)
    try:
        async with db.transaction():
            with pytest.raises(MailError) as error:
                await _hold(0.0)
        assert error.value.code is Code.UNAVAILABLE
        await _hold(0.0)
    finally:
        await db.close_pool()


async def test_the_pool_connects_as_the_url_says(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`?sslmode=verify-full` held for Django's own connection only."""
    there = settings.DATABASES["default"]
    asked = env.database(
        "postgresql://db.test/mail?sslmode=verify-full&application_name=us&options=-c%20work_mem%3D7MB"
    )
    monkeypatch.setitem(there, "OPTIONS", asked["OPTIONS"])
    where = psycopg.conninfo.conninfo_to_dict(db.dsn())
    assert (where["sslmode"], where["dbname"]) == ("verify-full", there["NAME"])
    assert int(where["tcp_user_timeout"]) <= 60_000, "a database that has vanished is given up"
    monkeypatch.setitem(there, "OPTIONS", {**asked["OPTIONS"], "sslmode": "prefer"})
    await db.open_pool(1)
    try:
        async with db.read() as tx:
            shown = await tx.one(
                "SELECT current_setting('application_name'), current_setting('work_mem'), current_setting('timezone')"
            )
        assert shown == ("us", "7MB", "UTC")
    finally:
        await db.close_pool()
