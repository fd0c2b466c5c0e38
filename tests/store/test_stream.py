"""`AsyncTx.stream`: large values come one by one, in order; an error or a taker who refuses harms nobody else."""

from __future__ import annotations

import psycopg
import pytest

from mailcore import db
from mailcore.arrays import Byteas, Int8s

ECHO = "SELECT b FROM unnest(%b::bytea[]) AS x(b)"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def pool():
    await db.open_pool(2)
    yield
    await db.close_pool()


async def test_values_come_in_order_whatever_their_size(pool):
    values = [b"", None, bytes(9_000_000), b"x" * 300_000, b"end"]
    async with db.read() as tx:
        for _ in range(2):
            taken: list[bytes | None] = []
            await tx.stream(ECHO, (Byteas(values),), taken.append)
            assert taken == values
            # libpq would keep single-row mode for the first statement of a pipeline.
            assert await tx.batch(("SELECT 1", ()), ("SELECT 2", ())) == [[(1,)], [(2,)]]


async def test_an_error_leaves_the_connection_usable_and_a_forgotten_statement_is_prepared_again(pool):
    taken: list[bytes | None] = []
    async with db.read() as tx:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await tx.stream("SELECT int8send(100 / n) FROM unnest(%b::bigint[]) AS x(n)", (Int8s([0]),), taken.append)
        assert await tx.one("SELECT 1") == (1,)
        await tx.stream(ECHO, (Byteas([b"one"]),), taken.append)
        await tx.execute("DEALLOCATE ALL")
        await tx.stream(ECHO, (Byteas([b"two"]),), taken.append)
    assert taken == [b"one", b"two"]


async def test_who_cannot_take_a_value_ends_only_his_own_reading(pool):
    def refuse(value: bytes | None) -> None:
        raise LookupError

    for _ in range(4):
        with pytest.raises(LookupError):
            async with db.read() as tx:
                await tx.stream(ECHO, (Byteas([bytes(3_000_000)] * 2),), refuse)
    async with db.read() as tx:
        assert await tx.one("SELECT 1") == (1,)
