"""The two drivers under the store's verbs.

A verb is `async def verb(tx, …)` that awaits nothing but `tx`. In the async servers `tx` is an `AsyncTx` on a
psycopg pool;
in Django code it is a `DjangoTx` on Django's own connection, which never suspends, so `run_sync` finishes the verb
at once
and the verb joins `transaction.atomic()` and its rollback. What a transaction changed is published after its commit.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, TypeVar, cast

import psycopg
from django.conf import settings
from django.db import connection as django_connection
from django.db import transaction as django_atomic
from psycopg import pq
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from mailcore import arrays, libpq, wake
from mailcore.errors import Code, MailError
from mailcore.wake import Change

T = TypeVar("T")
Params = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]

# Seconds: until Postgres must have answered when a process starts, and until a caller is told to come back later.
WAIT_FOR_DATABASE = 15.0
WAIT_FOR_CONNECTION = 5.0

# Octets that the event loop copies itself; more takes it milliseconds.
INLINE_OCTETS = 1 << 20

# Every statement of the store, so that a test can PREPARE each against the migrated schema.
STATEMENTS: list[str] = []


def sql(text: str) -> str:
    """Register a statement (a module-level constant) and return it."""
    STATEMENTS.append(text)
    return text


def is_large(values: Iterable[bytes | None]) -> bool:
    """Whether these octets together are too many to be copied or hashed on an event loop."""
    return sum(map(len, filter(None, values))) > INLINE_OCTETS


class Tx(Protocol):
    """What a verb may await. Parameters are `%s` or `%(name)s`, each cast to its type where it is ambiguous."""

    changes: list[Change]

    async def execute(self, query: str, params: Params = ()) -> int:
        """Run a statement; return the number of rows it touched."""

    async def fetch(self, query: str, params: Params = (), *, anew: bool = False) -> list[Row]:
        """Run a query; return all rows. `anew`: planned for the tables as they are now; where two are joined, a plan
        from when they were empty would read each row of one for each of the other."""

    async def one(self, query: str, params: Params = (), *, anew: bool = False) -> Row | None:
        """Run a query; return its first row. `anew` as for `fetch`."""

    async def call(self, query: str, values: Sequence[arrays.Array]) -> list[Row]:
        """`fetch` for a hot statement whose parameters are arrays ready to send."""

    async def batch(self, *statements: tuple[str, Params]) -> list[list[Row]]:
        """Run statements in one round trip where the driver can; return the rows of each."""

    async def aside(self, work: Callable[[], T]) -> T:
        """The result of something that takes long, worked out where no event loop waits for it."""

    def changed(self, change: Change) -> None:
        """Remember a change; it is published when, and only when, the transaction has committed."""


class AsyncTx:
    """A transaction (or an autocommit reader) on the async pool; BEGIN travels with the first statement."""

    __slots__ = ("_begin", "_connection", "_cursor", "changes")

    def __init__(self, connection: psycopg.AsyncConnection[Row], begin: bool = False) -> None:
        self._connection = connection
        self._cursor: psycopg.AsyncCursor[Row] | None = None
        self._begin = begin
        self.changes: list[Change] = []

    async def execute(self, query: str, params: Params = ()) -> int:
        return (await self._run(query, params)).rowcount

    async def fetch(self, query: str, params: Params = (), *, anew: bool = False) -> list[Row]:
        return await (await self._run(query, params, anew)).fetchall()

    async def one(self, query: str, params: Params = (), *, anew: bool = False) -> Row | None:
        return await (await self._run(query, params, anew)).fetchone()

    async def _run(self, query: str, params: Params, anew: bool = False) -> psycopg.AsyncCursor[Row]:
        cursor = self._cursor = self._cursor or self._connection.cursor(binary=True)
        # Postgres goes on with a prepared statement's sixth plan until the tables are analyzed.
        prepare = False if anew else None
        if self._begin:
            async with self._connection.pipeline():
                await self._started()
                await cursor.execute(query, params, prepare=prepare)
        else:
            await cursor.execute(query, params, prepare=prepare)
        return cursor

    async def _started(self) -> None:
        if self._begin:
            self._begin = False
            await self._connection.execute("BEGIN")

    async def call(self, query: str, values: Sequence[arrays.Array]) -> list[Row]:
        if sum(len(value.data) for value in values) > INLINE_OCTETS:
            return await self._call_large(query, values)
        if self._begin or self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return await self.fetch(query, values)
        return await libpq.call(self._connection, query, [value.data for value in values])

    async def _call_large(self, query: str, values: Sequence[arrays.Array]) -> list[Row]:
        """libpq copies what is to be sent, 50 MB in 30 ms and more: a thread gives it to libpq."""
        await self._started()
        connection, (_, numbered) = self._connection, libpq.prepared(query)
        data, formats = [value.data for value in values], [pq.Format.BINARY] * len(values)
        await self.aside(lambda: connection.pgconn.send_query_params(numbered, data, None, formats, pq.Format.BINARY))
        return await libpq.rows(connection)

    async def aside(self, work: Callable[[], T]) -> T:
        going = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(going)
        except asyncio.CancelledError:
            # The connection goes back to the pool: nobody may be at work with it by then, however often this is said.
            while not going.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((going,))
            raise

    async def stream(self, query: str, values: Sequence[arrays.Array], take: Callable[[bytes | None], object]) -> None:
        """`call` outside of transactions, for one column of large values: each goes to `take` as soon as it is here.

        `take` must be quick. Two thirds of the CPU time of fetching a whole result first: no memory is touched twice.
        """
        await libpq.stream(self._connection, query, [value.data for value in values], take)

    async def batch(self, *statements: tuple[str, Params]) -> list[list[Row]]:
        cursors = []
        async with self._connection.pipeline():
            await self._started()
            for query, params in statements:
                cursor = self._connection.cursor(binary=True)
                await cursor.execute(query, params)
                cursors.append(cursor)
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]

    def changed(self, change: Change) -> None:
        self.changes.append(change)

    def let_go(self) -> None:
        """Have the connection replaced afterwards: libpq keeps a buffer as large as the largest statement it sent."""
        self._connection._expire_at = 0.0  # where the pool notes its max_lifetime


class DjangoTx:
    """A transaction on Django's connection of this thread; its methods never suspend."""

    __slots__ = ("_cursor", "changes")

    def __init__(self) -> None:
        django_connection.ensure_connection()
        # Not Django's cursor wrapper: the same cursor class and binary results as the async driver.
        self._cursor = psycopg.Cursor(django_connection.connection)
        self._cursor.format = psycopg.pq.Format.BINARY
        arrays.register(self._cursor)
        self.changes: list[Change] = []

    async def execute(self, query: str, params: Params = ()) -> int:
        self._cursor.execute(query, params)
        return self._cursor.rowcount

    async def fetch(self, query: str, params: Params = (), *, anew: bool = False) -> list[Row]:
        return self._cursor.execute(query, params).fetchall()

    async def one(self, query: str, params: Params = (), *, anew: bool = False) -> Row | None:
        return self._cursor.execute(query, params).fetchone()

    async def call(self, query: str, values: Sequence[arrays.Array]) -> list[Row]:
        return await self.fetch(query, values)

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    async def batch(self, *statements: tuple[str, Params]) -> list[list[Row]]:
        results = []
        for query, params in statements:
            self._cursor.execute(query, params)
            results.append(self._cursor.fetchall() if self._cursor.description else [])
        return results

    def changed(self, change: Change) -> None:
        self.changes.append(change)


def run_sync(verb: Coroutine[Any, Any, T]) -> T:
    """Finish a verb that was given a `DjangoTx`; one `send` is enough, because nothing in it suspends."""
    try:
        verb.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    verb.close()
    raise RuntimeError("a store verb awaited something other than its transaction")


_pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] | None = None


# What libpq knows nothing of: Django's own options.
_DJANGO_ONLY = frozenset(("server_side_binding", "pool", "isolation_level", "assume_role", "options"))


def dsn() -> str:
    """The connection string of Django's default database, so that both drivers always mean the same one, and reach it
    in the same way: with the same TLS, above all."""
    config = settings.DATABASES["default"]
    named = {
        "dbname": config["NAME"],
        "user": config["USER"],
        "password": config["PASSWORD"],
        "host": config["HOST"],
        "port": config["PORT"],
        **{key: value for key, value in config.get("OPTIONS", {}).items() if key not in _DJANGO_ONLY},
    }
    return psycopg.conninfo.make_conninfo(**{key: str(value) for key, value in named.items() if value})


def _server_options() -> str:
    """Settings of each of our connections, after those that DATABASE_URL asks for."""
    return f"{settings.DATABASES['default'].get('OPTIONS', {}).get('options', '')} -c timezone=UTC -c jit=off".strip()


async def _configure(connection: psycopg.AsyncConnection[Row]) -> None:
    connection.prepare_threshold = 1
    connection.prepared_max = 300
    arrays.register(connection)
    # libpq's input buffer grows to the largest value it has seen and stays so. As it is, every 16 kB of a result are a
    # turn of the event loop: 10,000 headers cost 22 ms of CPU, with 256 kB 13 ms, and Postgres waits less, too.
    await connection.execute("SELECT repeat('x', 200000)")


async def _check(connection: psycopg.AsyncConnection[Row]) -> None:
    """Find out at check-out whether Postgres has closed an idle connection; raises psycopg.OperationalError.

    It says so by itself: nothing is to be read from an idle connection but its end (or, rarely, a notice). Looking
    costs 1 µs where asking would cost a round trip. The others are looked after at once, as they mostly die together.
    """
    ready = select.poll()
    ready.register(connection.fileno(), select.POLLIN)
    if not ready.poll(0):
        return
    try:
        await AsyncConnectionPool.check_connection(connection)
    except psycopg.OperationalError:
        if _pool is not None:
            await _pool.check()
        raise


async def open_pool(max_size: int = 8, *, timeout: float = WAIT_FOR_CONNECTION) -> None:
    """Open this process's pool; call once in each async process, from its event loop. Raises MailError(UNAVAILABLE).

    `timeout`: seconds that a caller waits for a connection when all are in use or Postgres is away.
    """
    global _pool
    if _pool is not None:
        raise RuntimeError("the pool is open already")
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] = AsyncConnectionPool(
        dsn(),
        kwargs={"autocommit": True, "options": _server_options()},
        min_size=1,
        max_size=max_size,
        timeout=timeout,
        # Given up soon: the next caller begins anew at once, where the pool's own attempts come ever more rarely.
        reconnect_timeout=5.0,
        configure=_configure,
        check=_check,
        open=False,
    )
    await pool.open()
    try:
        await pool.wait(WAIT_FOR_DATABASE)
    except PoolTimeout as error:
        await pool.close()
        raise MailError(Code.UNAVAILABLE, "the database cannot be reached", str(error)) from error
    _pool = pool


async def close_pool() -> None:
    global _pool
    if _pool is not None:
        pool, _pool = _pool, None
        await pool.close()


class _Checkout:
    """A connection of the pool for a while; what is the database's fault becomes MailError(UNAVAILABLE).

    A class, because a generator's context manager costs as much as all the rest of it.
    """

    __slots__ = ("_connection", "_from")

    async def __aenter__(self) -> psycopg.AsyncConnection[Row]:
        if _pool is None:
            raise RuntimeError("call db.open_pool() first")
        self._from = _pool
        try:
            self._connection = await _pool.getconn()
        except psycopg.OperationalError as error:
            raise _unavailable(error) from error
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        connection = self._connection
        if error is not None and connection.pgconn.pipeline_status != PipelineStatus.OFF:
            # Cancelled between entering a pipeline and its block: psycopg leaves it on, and nothing is committed in it.
            await connection.close()
        await self._from.putconn(connection)  # which closes one that is still busy
        # ProgramLimitExceeded: what was to be stored is at fault, not the database.
        if isinstance(error, psycopg.OperationalError) and not isinstance(error, psycopg.errors.ProgramLimitExceeded):
            raise _unavailable(error) from error


def _unavailable(error: psycopg.OperationalError) -> MailError:
    return MailError(Code.UNAVAILABLE, "the database is not available, try again later", str(error))


def _connection() -> _Checkout:
    return _Checkout()


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncTx]:
    """A transaction on the pool; commits when the block ends, then publishes what it changed."""
    async with _connection() as connection:
        tx = AsyncTx(connection, begin=True)
        try:
            yield tx
            status = connection.info.transaction_status
            if status is TransactionStatus.INERROR:  # COMMIT would roll back and call it a success
                raise RuntimeError("a statement of the transaction failed and nobody said so")
            if status is not TransactionStatus.IDLE:
                await connection.execute("COMMIT")
        except BaseException:
            # One that is still at work cannot be told anything: the pool closes it, and nothing is committed.
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                await connection.execute("ROLLBACK")
            raise
    if tx.changes:
        wake.publish(tx.changes)


class _Autocommit:
    __slots__ = ("_checkout", "_tx")

    async def __aenter__(self) -> AsyncTx:
        self._checkout = _connection()
        self._tx = AsyncTx(await self._checkout.__aenter__())
        return self._tx

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        await self._checkout.__aexit__(kind, error, traceback)
        if error is None and self._tx.changes:
            wake.publish(self._tx.changes)


def single() -> _Autocommit:
    """For a verb that runs exactly one statement: it commits by itself, in its own round trip; then publishes."""
    return _Autocommit()


def read() -> _Autocommit:
    """An autocommit connection for verbs that only read; each statement sees its own snapshot."""
    return _Autocommit()


@asynccontextmanager
async def snapshot() -> AsyncIterator[AsyncTx]:
    """Several reads of one and the same state."""
    async with _connection() as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield AsyncTx(connection)
        finally:
            await connection.execute("ROLLBACK")


@contextmanager
def django_transaction() -> Iterator[DjangoTx]:
    """A transaction on Django's connection; nests in `atomic()`, publishes after the outermost commit."""
    with django_atomic.atomic():
        tx = DjangoTx()
        yield tx
        if tx.changes:
            changes = tx.changes
            django_atomic.on_commit(lambda: wake.publish(changes))
