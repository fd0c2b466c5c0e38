"""Statements and their results straight through libpq, past psycopg's cursors: for what is asked most often.

Nothing is adapted, and rows can be taken as they come; what a cursor does for one statement costs 0.1 ms. Whoever is
cancelled leaves no statement at work, as with psycopg's own cursors.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.pq import TransactionStatus

Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
Take = Callable[[bytes | None], object]

# Seconds until Postgres must have ended a statement that nobody waits for.
CANCEL_SECONDS = 5.0

_numbers = itertools.count(1)
# What was prepared on each connection.
_named: WeakKeyDictionary[Connection, set[bytes]] = WeakKeyDictionary()


@cache
def prepared(query: str) -> tuple[bytes, bytes]:
    """The name of a statement of `call`, and its text with libpq's own placeholders."""
    count = itertools.count(1)
    numbered = re.sub("%[sb]", lambda _: f"${next(count)}", query)
    return b"mailstead_%d" % next(_numbers), numbered.encode()


async def call(connection: Connection, query: str, values: Sequence[bytes]) -> list[Row]:
    """All rows of a statement, outside of transactions and pipelines; `values` in binary form. Raises psycopg.Error."""
    try:
        await _send(connection, query, values)
        return await rows(connection)
    except psycopg.errors.InvalidSqlStatementName:
        # psycopg deallocates all statements of a connection when it finds that necessary: this one, too.
        _forget(connection, query)
        await _send(connection, query, values)
        return await rows(connection)


async def stream(connection: Connection, query: str, values: Sequence[bytes], take: Take) -> None:
    """`call` for one column; each value goes to `take` as soon as it is here."""
    try:
        await _stream(connection, query, values, take)
    except psycopg.errors.InvalidSqlStatementName:  # as in `call`; nothing has come yet
        _forget(connection, query)
        await _stream(connection, query, values, take)


async def rows(connection: Connection) -> list[Row]:
    """What Postgres answers to the statement just sent. Raises psycopg.Error."""
    (result,) = await _answer(connection)
    loader = Transformer(connection)
    loader.set_pgresult(result)
    return loader.load_rows(0, result.ntuples, tuple)


async def _stream(connection: Connection, query: str, values: Sequence[bytes], take: Take) -> None:
    pgconn = connection.pgconn
    await _send(connection, query, values)
    pgconn.set_single_row_mode()
    try:
        await _answer(connection, take)
    finally:
        if pgconn.transaction_status == TransactionStatus.IDLE:
            # libpq keeps the mode for the first statement of a pipeline; only one outside of pipelines ends it.
            pgconn.send_query(b"SELECT")
            await _results(pgconn)


async def _send(connection: Connection, query: str, values: Sequence[bytes]) -> None:
    pgconn, (name, numbered) = connection.pgconn, prepared(query)
    known = _named.setdefault(connection, set())
    if name not in known:
        known.add(name)  # before it is: if nothing comes of it, the caller finds no statement and asks again
        pgconn.send_prepare(name, numbered)
        await _answer(connection)
    pgconn.send_query_prepared(name, values, [pq.Format.BINARY] * len(values), pq.Format.BINARY)


def _forget(connection: Connection, query: str) -> None:
    """Only this statement is known to be gone: others may have been prepared since, and twice is an error."""
    _named[connection].discard(prepared(query)[0])


async def _answer(connection: Connection, take: Take | None = None) -> list[pq.abc.PGresult]:
    pgconn = connection.pgconn
    try:
        return await _results(pgconn, take)
    except asyncio.CancelledError:
        if pgconn.transaction_status == TransactionStatus.ACTIVE:  # or all of the answer is here already
            # Rows on their way are read past, so that the connection is good again; if not, the pool closes it.
            with suppress(psycopg.Error, TimeoutError):
                await connection.cancel_safe(timeout=CANCEL_SECONDS)
                async with asyncio.timeout(CANCEL_SECONDS):
                    await _results(pgconn, take and (lambda _: None))
        raise


def _succeeded(results: list[pq.abc.PGresult]) -> list[pq.abc.PGresult]:
    for result in results:
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
    return results


async def _results(pgconn: pq.abc.PGconn, take: Take | None = None) -> list[pq.abc.PGresult]:
    """What Postgres answers to the command just given; `take` gets rows of single-row mode. Raises psycopg.Error."""
    loop, socket = asyncio.get_running_loop(), pgconn.socket
    found: list[pq.abc.PGresult] = []
    complete = loop.create_future()
    unsent = pgconn.flush()

    def move() -> None:
        # Here and not in the caller's task: to wake that for each piece costs as much as to take it in.
        nonlocal unsent
        if complete.done():
            return
        try:
            if unsent:
                unsent = pgconn.flush()
                if not unsent:
                    loop.remove_writer(socket)
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    complete.set_result(None)
                    return
                if take is not None and result.status == pq.ExecStatus.SINGLE_TUPLE:
                    take(result.get_value(0, 0))
                else:
                    found.append(result)
        except Exception as error:
            complete.set_exception(error)

    loop.add_reader(socket, move)
    if unsent:
        loop.add_writer(socket, move)
    try:
        await complete
        return _succeeded(found)
    finally:
        loop.remove_reader(socket)
        if unsent:
            loop.remove_writer(socket)
