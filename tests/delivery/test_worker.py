"""The real thing: Celery's worker and beat as processes of their own, and Redis as unreliable as it likes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis

from mailcore import db, tasks, wake
from mailcore.celery import QUEUE, app, broker_url
from mailcore.delivery import doorbell
from mailcore.errors import Code, MailError
from mailcore.store import housekeeping, queue
from tests.delivery.sink import HANG
from tests.delivery.world import BOB, ROOT, World, environment
from tests.waiting import PATIENCE, eventually
from tests.waiting import until as until_all_ended

WORKER = ["worker", "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
BEAT = ["beat", "--loglevel", "WARNING", "--pidfile="]


@pytest.fixture
async def far(here: World) -> AsyncIterator[World]:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    assert here.engine is None, "the worker delivers, not this process"
    yield here


@contextlib.contextmanager
def celery(far: World, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "celery", "-A", "mailcore.celery", "--quiet", *command]
    process = subprocess.Popen(argv, env=environment(far), cwd=ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


async def until(condition: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    def holds() -> bool:
        assert all(process.poll() is None for process in processes), "a process died"
        return condition()

    await eventually(holds, seconds=120)


async def test_worker_and_beat_deliver_whatever_happens_to_redis(far: World, valkey: str) -> None:
    sink = await far.sink()
    client = redis.Redis.from_url(valkey)
    client.flushall()
    stop = wake.on_queue(doorbell.ring)
    try:
        with celery(far, *WORKER) as worker:
            await far.submit()
            await until(lambda: len(sink.mails) == 1, worker)
            await far.submit("warm@far.example")  # nothing sweeps yet: it is the doorbell that is heard
            await until(lambda: len(sink.mails) == 2, worker)
            # While a worker has the connection it asks whether there is more.
            await until(lambda: sink.log[-1] == "QUIT", worker)
            # The doorbell is lost with everything else that Redis knows.
            stop()
            await far.submit("sweep@far.example")
            client.flushall()
            await asyncio.sleep(0.3)
            assert len(sink.mails) == 2
            with celery(far, *BEAT) as beat:
                await until(lambda: len(sink.mails) == 3, worker, beat)
                # Killed in mid-delivery; another worker takes over when the lease has ended.
                sink.refuse(("CONTENT", "", HANG))
                await far.submit("killed@far.example")
                await until(lambda: "RCPT TO:<killed@far.example>" in " ".join(sink.log), worker, beat)
                await asyncio.sleep(0.2)
                worker.kill()
                worker.wait()
                sink.script = None
                await far.later(queue.LEASE_SECONDS)
                with celery(far, *WORKER) as second:
                    await until(lambda: len(sink.mails) == 4, second, beat)

        async def settled() -> bool:
            return "queued" not in (await far.states()).values()

        await eventually(settled)
    finally:
        stop()
    assert [mail.recipients[0] for mail in sink.mails] == [
        *(BOB, "warm@far.example", "sweep@far.example", "killed@far.example")
    ]
    assert set((await far.states()).values()) == {"delivered"}


def test_a_database_away_is_one_line_in_the_log_and_other_errors_are_errors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> tasks.Runner:
        raise MailError(Code.UNAVAILABLE, "try again later", "server closed the connection\n\tThis probably means …")

    def broken() -> tasks.Runner:
        raise MailError(Code.INTERNAL, "this is a bug")

    monkeypatch.setattr(tasks, "runner", away)
    tasks.sweep()
    assert [record.getMessage() for record in caplog.records] == [
        "sweep waits for the database: server closed the connection"
    ]
    monkeypatch.setattr(tasks, "runner", broken)
    with pytest.raises(MailError):
        tasks.sweep()


async def test_housekeeping_does_every_chore(here: World) -> None:
    from mailcore import db, tasks

    async with db.transaction() as tx:
        await tx.execute(
            "INSERT INTO blob (hash, size, data, touched_at) VALUES ('x', 1, 'x', now() - interval '2 days')"
        )
    weeks: list[str] = []
    try:
        done = await tasks.clean()
        assert done.pop("unused blobs removed") == 1
        assert set(done.values()) == {0} and len(done) == len(tasks._CHORES) - 1
        async with db.read() as tx:
            weeks = [row[0] for row in await tx.fetch(housekeeping.TRACE_PARTITIONS) if row[0] != "trace_event_default"]
        assert len(weeks) >= housekeeping.TRACE_WEEKS_AHEAD
    finally:
        async with db.transaction() as tx:
            for name in weeks:
                await tx.execute(f"DROP TABLE {name}")


def test_the_bell_rings_without_waiting_and_redis_away_does_no_harm(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[int]] = []
    stuck, rung, ready = threading.Event(), threading.Event(), threading.Event()

    def send(name: str, args: list[list[int]], **_: object) -> None:
        assert name == "mailcore.deliver_ids"
        sent.append(args[0])
        if len(sent) == 1:
            stuck.set()
            assert rung.wait(PATIENCE), "nobody waits for Redis"
            raise ConnectionError("no Redis")
        ready.set()

    monkeypatch.setattr(app, "send_task", send)
    monkeypatch.setattr(doorbell, "PAUSE_AFTER_ERROR", 0.05)
    bell = doorbell.Doorbell()
    bell.ring([1])
    assert stuck.wait(PATIENCE)
    for number in range(2, 100):
        bell.ring([number])
    rung.set()
    assert ready.wait(PATIENCE)
    assert sent == [[1], list(range(2, 100))], "what was rung meanwhile goes together"


def test_what_celery_is_told_to_do_it_is_told_by_number(valkey: str) -> None:
    client = redis.Redis.from_url(valkey)
    client.flushall()
    doorbell.ring_now([1, 2], force=True)
    (message,) = client.lrange(QUEUE, 0, -1)
    assert b'"content-type": "application/json"' in message
    client.flushall()
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_acks_late and app.conf.worker_prefetch_multiplier == 1 and app.conf.task_ignore_result
    assert app.conf.result_backend is None


@pytest.mark.parametrize(
    ("ours", "kombus"),
    [
        ("redis://:pw@127.0.0.1:6379/0", "redis://:pw@127.0.0.1:6379/0"),
        ("unix://:p%2Fw@/run/valkey.sock?db=3", "redis+socket://:p%2Fw@/run/valkey.sock?virtual_host=3"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock?virtual_host=0"),
    ],
)
def test_the_brokers_address_in_kombus_words(ours: str, kombus: str) -> None:
    assert broker_url(ours) == kombus


def test_a_worker_that_waits_for_the_database_gathers_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "dsn", lambda: "host=127.0.0.1 port=1")
    monkeypatch.setattr(db, "WAIT_FOR_DATABASE", 0.1)
    before = set(threading.enumerate())
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tasks.sweep()
    until_all_ended(lambda: set(threading.enumerate()) <= before)
    until_all_ended(lambda: len(os.listdir("/proc/self/fd")) <= files)
