"""Statements and their results straight through libpq, past psycopg's cursors: for what is asked most often.

Nothing is adapted, and rows can be taken as they come; what a cursor does for one statement costs 0.1 ms.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from functools import cache

import psycopg
from psycopg import pq

_numbers = itertools.count(1)


@cache
def prepared(query: str) -> tuple[bytes, bytes]:
    """The name of a statement of `call`, and its text with libpq's own placeholders."""
    count = itertools.count(1)
    numbered = re.sub("%[sb]", lambda _: f"${next(count)}", query)
    return b"mailstead_%d" % next(_numbers), numbered.encode()


def _succeeded(results: list[pq.abc.PGresult]) -> list[pq.abc.PGresult]:
    for result in results:
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
    return results


async def results(pgconn: pq.abc.PGconn, take: Callable[[bytes | None], object] | None = None) -> list[pq.abc.PGresult]:
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
