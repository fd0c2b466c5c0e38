"""Celery's tasks: they ring the engine of their process, or keep house. Payloads are ids and names, never content.

The engine lives on an event loop in a thread of its own and goes on when a task is done: how many deliveries run at a
time is the engine's business, not the number of Celery's threads.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

import uvloop
from celery.signals import worker_ready, worker_shutdown
from django.conf import settings

from mailcore import db, pulse, wake
from mailcore.celery import app
from mailcore.conf import conf
from mailcore.db import Tx
from mailcore.delivery import rotation
from mailcore.delivery.engine import Engine
from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls import chores
from mailcore.errors import Code, MailError
from mailcore.store import (
    certificates,
    changes,
    destinations,
    forwards,
    housekeeping,
    index_build,
    limits,
    suppression,
    transport,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

POOL = 6
# Seconds that a courier waits for one of them: when a thousand destinations come due, all couriers ask at once.
PATIENCE = 20.0
GRACE = 20.0
CALL_SECONDS = 30.0
MAX_FILES = 8192
# One round of housekeeping; what it does not finish is left to the next.
HOUSEKEEPING_BUDGET = 120.0
ROTATION_BUDGET = 300.0


class Runner:
    """An event loop in a thread, with the engine on it."""

    def __init__(self) -> None:
        _allow_many_files()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._begun: set[Future[None]] = set()
        try:
            self.engine = self.call(self._start(), 60)
        except BaseException:  # the next task tries again, with another
            self._end()
            raise

    def call(self, work: Coroutine[Any, Any, T], timeout: float = CALL_SECONDS) -> T:
        """Run a coroutine on the loop and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop and return at once, so that what takes minutes keeps no bell waiting."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._begun.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._begun.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("what a task had begun broke off: %s", error, exc_info=error)

    def stop(self) -> None:
        """Let messages on the wire finish, give the rest back, close everything."""
        for future in list(self._begun):
            future.cancel()
        self.call(self._stop(), GRACE + 10)
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _start(self) -> Engine:
        await db.open_pool(POOL, timeout=PATIENCE)
        try:
            await wake.start(conf.redis_url, _modseqs)
            return Engine(conf)
        except BaseException:
            await db.close_pool()
            raise

    async def _stop(self) -> None:
        await self.engine.stop(GRACE)
        await wake.stop()
        await db.close_pool()


def _allow_many_files() -> None:
    """A connection is a file, and so is a question to DNS: as many as the system lets us, up to what is of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _modseqs(account_ids: list[int]) -> dict[int, int]:
    async with db.read() as tx:
        return await changes.states(tx, account_ids)


_lock = threading.Lock()
_runner: Runner | None = None


def runner() -> Runner:
    """This process's engine, started on first use. Raises MailError(UNAVAILABLE) while the database is away."""
    global _runner
    with _lock:
        if _runner is None:
            _runner = Runner()
        return _runner


def patient(task: Callable[P, None]) -> Callable[P, None]:
    """While the database is away a task is one line in the log: the next sweep finds what is due.

    A task that came to its end, beat's sweep every few seconds above all, is the worker's sign of life.
    """

    @functools.wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            task(*args, **kwargs)
        except MailError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            log.warning(
                "%s waits for the database: %s", task.__name__, (error.private or error.text).partition("\n")[0]
            )
        pulse.give()

    return run


@worker_ready.connect
def _begin(**_: object) -> None:
    """What came due while no worker ran need not wait for beat."""
    threading.Thread(target=sweep, name="first sweep", daemon=True).start()


@worker_shutdown.connect
def _end(**_: object) -> None:
    global _runner
    with _lock:
        if _runner is not None:
            ending, _runner = _runner, None
            ending.stop()
        if _indexer is not None and _indexer.poll() is None:
            _indexer.kill()  # at any point, as it may die by itself
            _indexer.wait()
        if _renewer is not None and _renewer.poll() is None:
            _renewer.kill()  # the next one has a quarter of an hour's patience with it
            _renewer.wait()


@app.task(name="mailcore.deliver")
@patient
def deliver(destinations: Sequence[str], force: bool = False) -> None:
    """Doorbell: something is due at these destinations."""
    here = runner()
    here.call(_ring(here.engine, destinations, force))


@app.task(name="mailcore.deliver_ids")
@patient
def deliver_ids(outbound_ids: Sequence[int], force: bool = False) -> None:
    """Doorbell: these messages have been queued, or an administrator wants them tried now."""
    here = runner()
    here.call(here.engine.ring_ids(outbound_ids, force=force))


@app.task(name="mailcore.sweep")
@patient
def sweep() -> None:
    """Every few seconds: whatever is due and nobody has rung for."""
    here = runner()
    here.call(here.engine.sweep())


async def _ring(engine: Engine, destinations: Sequence[str], force: bool) -> None:
    engine.ring(destinations, force=force)


# --- the search index -----------------------------------------------------------------------------------------------

# A process costs 0.4 s of CPU before it does anything: it starts when so many messages wait, or as many seconds after
# there was first something to do. Until then their texts are read by searches, a few milliseconds for a thousand.
ENOUGH_TO_INDEX = 2_000
LONG_ENOUGH = 300.0

_indexing = threading.Lock()
_indexer: subprocess.Popen[bytes] | None = None
_due_since: float | None = None


@app.task(name="mailcore.index")
@patient
def index() -> None:
    """Every few seconds: when mail waits to be indexed, a process of its own does it (mailcore.indexer).

    Another process, because indexing is all processor time: beside it, the engine's event loop would crawl.
    """
    global _indexer, _due_since
    with _indexing:
        if _indexer is not None and _indexer.poll() is None:
            return
        accounts, messages = runner().call(_to_index())
        now = time.monotonic()
        _due_since = (_due_since or now) if accounts else None
        if _due_since is not None and worth_a_process(messages, now - _due_since):
            _due_since = None
            _indexer = subprocess.Popen(
                [sys.executable, "-m", "mailcore.indexer"], cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL
            )


def worth_a_process(messages: int, waited: float) -> bool:
    """Whether to start one for so many messages that wait, the first of them for so many seconds."""
    return messages >= ENOUGH_TO_INDEX or waited >= LONG_ENOUGH


async def _to_index() -> tuple[int, int]:
    async with db.read() as tx:
        return await index_build.due(tx)


# --- certificates ---------------------------------------------------------------------------------------------------

# Seconds between two looks at what certificates are wanted: each asks the DNS for a few names of every domain.
LOOK_SECONDS = 3600.0

_renewing = threading.Lock()
_renewer: subprocess.Popen[bytes] | None = None
_looked: float | None = None


@app.task(name="mailcore.certificates")
@patient
def renew_certificates() -> None:
    """Every few minutes: when a certificate is due or others may be wanted by now, a process of its own sees to it.

    Another process, because what speaks with a certificate authority takes 30 MB, a few seconds a month.
    """
    global _renewer, _looked
    if not conf.acme:
        return
    with _renewing:
        if _renewer is not None and _renewer.poll() is None:
            return
        now = time.monotonic()
        if _looked is not None and now - _looked < LOOK_SECONDS and not runner().call(_due_certificates()):
            return
        _looked = now
        _renewer = subprocess.Popen(
            [sys.executable, "manage.py", "certificate", "renew"], cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL
        )


async def _due_certificates() -> list[str]:
    async with db.read() as tx:
        return await certificates.due(tx)


# --- housekeeping ---------------------------------------------------------------------------------------------------

_CHORES: tuple[tuple[str, Callable[[Tx], Awaitable[int]]], ...] = (
    ("finished messages left the queue", housekeeping.finished),
    ("expunged messages removed for good", housekeeping.expunged),
    ("tombstones forgotten", housekeeping.tombstones),
    ("old flag changes forgotten", housekeeping.flag_changes),
    ("unused blobs removed", housekeeping.blobs),
    ("old trace events removed", housekeeping.old_traces),
    ("pauses and freezes forgotten", destinations.forget),
    ("suppressed addresses forgotten", suppression.forget),
    ("expired MTA-STS policies forgotten", transport.old_policies),
    ("results for TLS reports that nobody could be sent forgotten", transport.old_results),
    ("old TLS reports removed", transport.old_reports),
    ("counts of sent mail forgotten", limits.forget),
    ("senders of forwarded mail forgotten", forwards.forget),
)


@app.task(name="mailcore.rotate_keys")
@patient
def rotate_keys() -> None:
    """Every few minutes: signing keys whose records the DNS shows by now begin to sign."""
    runner().begin(_rotate())


async def _rotate() -> None:
    async with asyncio.timeout(ROTATION_BUDGET):
        await rotation.step(Resolver(conf.dns))


@app.task(name="mailcore.housekeeping")
@patient
def keep_house() -> None:
    """Every hour: what nobody needs any more goes, in pieces, within a time budget."""
    runner().call(clean(), HOUSEKEEPING_BUDGET + CALL_SECONDS)


@app.task(name="mailcore.transport")
@patient
def transport_security() -> None:
    """Every hour: MTA-STS policies are fetched anew before they expire, yesterday's TLS reports sent."""
    runner().begin(chores.run(conf))


async def clean(budget: float = HOUSEKEEPING_BUDGET) -> dict[str, int]:
    """All chores, each piece in a transaction of its own; returns how much was done of each."""
    deadline = time.monotonic() + budget
    done: dict[str, int] = {}
    try:
        async with db.transaction() as tx:
            for text in await housekeeping.trace_partitions(tx):
                log.info("trace: %s", text)
    except MailError as error:
        log.warning("partitions of the trace are left to the next round: %s", error.private or error.text)
    for name, chore in _CHORES:
        while time.monotonic() < deadline:
            async with db.transaction() as tx:
                count = await chore(tx)
            done[name] = done.get(name, 0) + count
            if count < housekeeping.PIECE:
                break
        if done.get(name):
            log.info("%d %s", done[name], name)
    return done
