"""Queued mail for people here: who gets a copy, what the sender hears, and what is locked in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import pytest
from django.db import connection

from accounts import people
from accounts.models import AliasTarget
from mailcore import db, mime, provision
from mailcore.conf import conf
from mailcore.delivery import local
from mailcore.delivery.bounce import tell_noted
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.errors import MailError
from mailcore.store import housekeeping, locks, queue, quota
from tests.delivery.world import ANN, RAW, World

T = TypeVar("T")

LIST = "list@example.test"


async def apart(work: Callable[[], T]) -> T:
    """Work of Django's, in a thread and on a connection of its own."""

    def run() -> T:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(run)


async def account(address: str) -> int:
    return int(await apart(lambda: provision.add_account(address).pk))


async def alias(address: str, *targets: str) -> None:
    await apart(lambda: people.add_alias(address, targets))


async def spoil(address: str) -> None:
    """A target of all aliases becomes what no check would let in now."""
    await apart(lambda: AliasTarget.objects.filter(address=address).update(address="no address"))


async def test_a_forward_that_cannot_be_made_is_no_failure_when_copies_are_kept(here: World) -> None:
    await alias(LIST, ANN, "far@elsewhere.example")
    await spoil("far@elsewhere.example")
    name = await here.submit(LIST)
    await here.deliver()
    assert await here.states() == {LIST: "delivered"}
    (copy,) = await here.inbox()
    assert b"Hello Bob" in copy, "and no notice of a failure beside it"
    (told,) = [event for event in await here.steps(name) if event.step == "delivered"]
    assert "not forwarded to no address" in str(told.detail["reply"])


async def test_a_forward_that_cannot_be_made_is_tried_again_when_nobody_has_a_copy(here: World) -> None:
    await alias(LIST, "far@elsewhere.example")
    await spoil("far@elsewhere.example")
    await here.submit(LIST)
    await here.deliver()
    assert await here.states() == {LIST: "queued"}, "an administrator can mend it"


async def test_of_a_list_a_full_member_waits_and_the_others_have_their_mail(here: World) -> None:
    bob = await account("bob@example.test")
    await alias(LIST, ANN, "bob@example.test")
    async with db.transaction() as tx:
        await quota.set_limit(tx, bob, 10)
    name = await here.submit(LIST)
    await here.deliver()
    assert len(await here.inbox()) == 1
    (led,) = [event for event in await here.steps(name) if event.step == "expanded"]
    assert (led.recipient, led.detail) == (LIST, {"to": [ANN, "bob@example.test"], "targets": 2})
    assert await here.states() == {LIST: "delivered", "bob@example.test": "queued"}
    async with db.transaction() as tx:
        await quota.set_limit(tx, bob, None)
    await here.later(3600)
    await here.deliver()
    assert (len(await here.inbox(bob)), len(await here.inbox())) == (1, 1)


async def test_large_mail_is_parsed_beside_the_event_loop_and_before_the_transaction(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    open_transactions: list[int] = []

    def parse(raw: bytes) -> mime.Derived:
        threads.append(threading.current_thread())
        with psycopg.connect(db.dsn()) as watcher:
            found = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            ).fetchone()
            open_transactions.append(int(found[0]) if found else -1)
        return mime.parse(raw)

    monkeypatch.setattr(local, "mime", type("Spy", (), {"parse": staticmethod(parse), "Derived": mime.Derived}))
    await here.submit(ANN, raw=RAW + b"one line of text\r\n" * 100_000)
    await here.deliver()
    assert await here.states() == {ANN: "delivered"}
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert open_transactions == [0]


async def _is_free(statement: str, *params: Any) -> bool:
    """Whether somebody else could have that row's lock now."""
    try:
        async with db.transaction() as tx:
            await tx.execute(statement + " NOWAIT", params)
    except MailError as error:
        assert "could not obtain lock" in (error.private or "")
        return False
    return True


async def _waits(task: asyncio.Task[Any]) -> None:
    """Until the database says that somebody waits for a lock."""
    for _ in range(500):
        async with db.read() as tx:
            row = await tx.one(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'"
            )
        if row and row[0]:
            return
        assert not task.done()
        await asyncio.sleep(0.01)
    pytest.fail("nobody waits")


async def test_notices_lock_the_senders_accounts_in_ascending_order_wherever_their_addresses_lead(
    here: World,
) -> None:
    second = await account("second@example.test")
    # The first account's mail is sent from an address that leads to the second account, and the other way round.
    await alias("one@example.test", "second@example.test")
    await alias("two@example.test", ANN)
    await here.submit(sender="one@example.test", account=here.account)
    await here.submit(sender="two@example.test", account=second, raw=RAW + b"other\r\n")
    async with db.transaction() as tx:
        claims = await queue.claim(tx)
    failed = Outcome(Verdict.FAILED, Stage.RCPT, "5.1.1", "unknown")
    assert here.account < second and len(claims) == 2

    async def tell() -> None:
        async with db.transaction() as tx:
            await settle(tx, [Settled(claim, failed) for claim in claims])
            await tell_noted(tx, conf, [claim.outbound_id for claim in claims])

    async with db.transaction() as first:
        await locks.lock_account(first, here.account)
        task = asyncio.create_task(tell())
        await _waits(task)
        free = await _is_free("SELECT FROM account_state WHERE account_id = %s::bigint FOR UPDATE", second)
    await task
    assert free, "who waits for an account holds none that comes after it"
    assert (len(await here.inbox()), len(await here.inbox(second))) == (1, 1)


async def test_blobs_are_removed_in_the_order_in_which_everybody_locks_them(here: World) -> None:
    low, high = b"\x00" * 32, b"\xff" * 32
    async with db.transaction() as tx:
        for key in (high, low):
            await tx.execute(
                "INSERT INTO blob (hash, size, data, touched_at) VALUES (%s::bytea, 1, 'x', now() - interval '2 days')",
                (key,),
            )

    async def remove() -> int:
        async with db.transaction() as tx:
            return await housekeeping.blobs(tx)

    async with db.transaction() as tx:
        await tx.execute("SELECT FROM blob WHERE hash = %s::bytea FOR UPDATE", (low,))
        task = asyncio.create_task(remove())
        await _waits(task)
        free = await _is_free("SELECT FROM blob WHERE hash = %s::bytea FOR UPDATE", high)
    assert free and await task == 2
