"""`Tx.call`, the way of the hottest statement: results, errors and large parameters as with `fetch`."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from mailcore import db
from mailcore.arrays import Byteas, Int8s
from mailcore.errors import MailError

ECHO = "SELECT n, length(b), now() IS NOT NULL FROM unnest(%b::bigint[], %b::bytea[]) AS x(n, b)"
DIVIDE = "SELECT 100 / n FROM unnest(%b::bigint[]) AS x(n)"
KILL = "SELECT pg_terminate_backend(pg_backend_pid()) FROM unnest(%b::bigint[])"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def pool():
    await db.open_pool(2)
    yield
    await db.close_pool()


async def test_it_gives_what_fetch_gives(pool):
    large = bytes(20_000_000)  # more than any socket buffer takes at once
    params = (Int8s([1, None, -3]), Byteas([b"", large, b"\0x"]))
    async with db.read() as tx:
        for _ in range(2):
            assert await tx.call(ECHO, params) == [(1, 0, True), (None, 20_000_000, True), (-3, 2, True)]
        assert await tx.fetch(ECHO, params) == await tx.call(ECHO, params)
        assert await tx.call(ECHO, (Int8s([]), Byteas([]))) == []


async def test_an_error_leaves_the_connection_usable(pool):
    async with db.read() as tx:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await tx.call(DIVIDE, (Int8s([1, 0]),))
        assert await tx.call(DIVIDE, (Int8s([5]),)) == [(20,)]
        assert await tx.one("SELECT 1") == (1,)


SLOWLY = "SELECT length(b), pg_sleep(60) FROM unnest(%b::bytea[]) AS x(b)"
AT_WORK = "FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, 'SELECT length(b), pg_sleep')"


@pytest.mark.parametrize("begin", [db.transaction, db.single])
async def test_whoever_is_cancelled_in_a_large_one_hears_that_and_nothing_else(pool, begin):
    """Not that the database is away: nobody could tell a time that is over from a Postgres that is."""

    async def work() -> None:
        async with begin() as tx:
            await tx.execute("SELECT 1")
            await tx.call(SLOWLY, (Byteas([bytes(2_000_000)]),))

    task = asyncio.create_task(work())
    async with db.read() as tx:
        async with asyncio.timeout(60):
            while not await tx.one(f"SELECT pid {AT_WORK}"):
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(60):
            while await tx.one(f"SELECT pg_terminate_backend(pid) {AT_WORK}"):
                await asyncio.sleep(0.01)


async def test_what_was_deallocated_is_prepared_again(pool):
    async with db.read() as tx:
        assert await tx.call(DIVIDE, (Int8s([5]),)) == [(20,)]
        await tx.execute("DEALLOCATE ALL")  # as psycopg does by itself
        assert await tx.call(DIVIDE, (Int8s([4]),)) == [(25,)]
        assert await tx.call(DIVIDE, (Int8s([2]),)) == [(50,)]


async def test_what_was_prepared_after_a_deallocation_is_not_prepared_twice(pool):
    echo = (Int8s([1]), Byteas([b""]))
    async with db.read() as tx:
        await tx.call(DIVIDE, (Int8s([5]),))
        await tx.execute("DEALLOCATE ALL")
        assert await tx.call(ECHO, echo) == [(1, 0, True)]
        assert await tx.call(DIVIDE, (Int8s([4]),)) == [(25,)]
        assert await tx.call(ECHO, echo) == [(1, 0, True)]


async def test_in_a_transaction_it_takes_part(pool):
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with db.transaction() as tx:
            assert await tx.call(DIVIDE, (Int8s([5]),)) == [(20,)]
            await tx.call(DIVIDE, (Int8s([0]),))
    async with db.transaction() as tx:
        assert await tx.call(DIVIDE, (Int8s([4]),)) == [(25,)]


async def test_a_lost_connection_and_a_caller_who_gives_up_harm_nobody_else(pool):
    with pytest.raises(MailError):
        async with db.read() as tx:
            await tx.call(KILL, (Int8s([1]),))
    sleeping = "SELECT pg_sleep(1) FROM unnest(%b::bigint[])"
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1), db.read() as tx:
            await tx.call(sleeping, (Int8s([1]),))
    for _ in range(4):
        async with db.read() as tx:
            assert await tx.call(DIVIDE, (Int8s([4]),)) == [(25,)]
