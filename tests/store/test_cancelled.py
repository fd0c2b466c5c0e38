"""Who is cancelled at any moment of a statement gets out of it at once, and leaves a good connection behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from psycopg.pq import TransactionStatus

from mailcore import db, libpq
from mailcore.arrays import Byteas, Int8s

NUMBERS = "SELECT generate_series(1, n) FROM unnest(%b::bigint[]) AS x(n)"
OCTETS = "SELECT b FROM unnest(%b::bytea[]) AS x(b)"
OURS = "SELECT name FROM pg_prepared_statements WHERE starts_with(name, 'mailstead')"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    # Whoever waited for an answer that does not come would do so for longer than the tests have patience.
    monkeypatch.setattr(libpq, "CANCEL_SECONDS", 3600.0)
    await db.open_pool(1)
    yield
    await db.close_pool()


async def _call(tx: db.AsyncTx) -> None:
    await tx.call(NUMBERS, (Int8s([10]),))


async def _call_large(tx: db.AsyncTx) -> None:
    await tx.call(OCTETS, (Byteas([bytes(db.INLINE_OCTETS + 1)]),))


async def _stream(tx: db.AsyncTx) -> None:
    await tx.stream(OCTETS, (Byteas([b"x" * 100_000] * 5),), lambda _: None)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("work", [_call, _call_large, _stream])
async def test_after_any_number_of_turns_of_the_loop(
    work: Callable[[db.AsyncTx], Awaitable[None]], prepared: bool
) -> None:
    async def run() -> None:
        async with db.read() as tx:
            await work(tx)

    for turns in range(40):
        await run()
        async with db.read() as tx:
            for (name,) in [] if prepared else await tx.fetch(OURS):
                await tx.execute(f"DEALLOCATE {name}")
        task = asyncio.create_task(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)
        async with db.read() as tx:
            assert await tx.batch(("SELECT 1", ()), ("SELECT 2", ())) == [[(1,)], [(2,)]]


@pytest.mark.usefixtures("pool")
async def test_when_the_answer_has_come_and_was_not_taken_yet() -> None:
    async with db.read() as tx:
        await _call(tx)
        task = asyncio.create_task(_call(tx))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            while tx._connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await asyncio.sleep(0)
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert await tx.one("SELECT 3") == (3,)
