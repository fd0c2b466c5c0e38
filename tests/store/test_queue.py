"""The outbound queue: what is put in comes out once, leases end, fences hold."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from mailcore import db, wake
from mailcore.errors import Code, MailError
from mailcore.store import queue, queue_admin, queue_claims, queue_due, trace
from mailcore.store.queue import Claimed, Outgoing, Recipient, Result
from tests.store.test_concurrency import waits_for_a_lock

RAW = b"From: ann@example.test\r\nTo: bob@example.org\r\nSubject: hello\r\n\r\nHello Bob\r\n"


def run(verb: Any, *args: Any, **names: Any) -> Any:
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **names))


def message(*to: str, raw: bytes = RAW, **more: Any) -> Outgoing:
    recipients = [Recipient(address) for address in to or ("bob@example.org",)]
    return Outgoing("ann@example.test", recipients, trace.new_id(), raw, **more)


def later(seconds: float) -> None:
    """Let time pass for the queue: leases and next attempts come nearer."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE outbound_recipient SET next_attempt_at = next_attempt_at - make_interval(secs => %s),
            lease_until = lease_until - make_interval(secs => %s)""",
            (seconds, seconds),
        )


def result(claim: Claimed, state: queue.State = "delivered", **more: Any) -> Result:
    return Result(claim.recipient_id, claim.fence, state, 250, "2.0.0 ok", "mx.example.org", **more)


@pytest.mark.django_db
def test_what_is_put_in_comes_out_with_all_that_delivery_needs() -> None:
    outgoing = Outgoing(
        "ann@example.test",
        [Recipient("Bob@Example.ORG", "SUCCESS,FAILURE", "rfc822;bob@example.org"), Recipient("zoë@bücher.example")],
        "trace",
        RAW,
        account_id=7,
        prepend=b"Received: from somewhere\r\n",
        smtputf8=True,
        body="8BITMIME",
        requiretls=True,
        dsn_ret="HDRS",
        dsn_envid="env",
    )
    number = run(queue.enqueue, outgoing)
    first, second = run(queue.claim)
    assert (first.outbound_id, first.address, first.destination) == (number, "Bob@Example.ORG", "example.org")
    assert (second.address, second.destination) == ("zoë@bücher.example", "xn--bcher-kva.example")
    assert (first.notify, first.orcpt, second.notify) == ("SUCCESS,FAILURE", "rfc822;bob@example.org", None)
    assert (first.sender, first.account_id, first.trace_id) == ("ann@example.test", 7, "trace")
    assert (first.prepend, first.smtputf8, first.body) == (b"Received: from somewhere\r\n", True, "8BITMIME")
    assert first.requiretls is True
    assert (first.dsn_ret, first.dsn_envid) == ("HDRS", "env")
    assert first.size == len(RAW) + len(first.prepend)
    assert (first.attempts, first.fence) == (1, 1)
    assert first.age < 60
    assert run(queue.blob, first.blob) == RAW
    assert run(queue.blobs, [first.blob, b"\0" * 32]) == {first.blob: RAW}


@pytest.mark.django_db
def test_a_leased_row_is_nobody_elses_until_the_lease_ends() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim, lease_seconds=60)
    assert run(queue.claim) == []
    later(61)
    (again,) = run(queue.claim)
    assert (again.recipient_id, again.fence, again.attempts) == (claim.recipient_id, 2, 2)


@pytest.mark.django_db
def test_a_result_that_comes_too_late_changes_nothing() -> None:
    run(queue.enqueue, message())
    (early,) = run(queue.claim)
    later(1000)
    (late,) = run(queue.claim)
    assert run(queue.record, [result(early, "failed")]) == set()
    assert run(queue.record, [result(late)]) == {late.recipient_id}
    assert run(queue.record, [result(late, "failed")]) == set(), "a result counts once"


@pytest.mark.django_db
def test_a_late_result_counts_as_long_as_nobody_else_has_begun() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim)
    later(1000)
    assert run(queue.record, [result(claim)]) == {claim.recipient_id}
    assert run(queue.claim) == []


@pytest.mark.django_db
def test_a_retry_comes_due_when_it_was_asked_for() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim)
    run(queue.record, [result(claim, "queued", retry_in=300)])
    assert run(queue_due.due) == []
    later(299)
    assert run(queue.claim) == []
    later(2)
    assert run(queue_due.due) == ["example.org"]
    (again,) = run(queue.claim)
    last = (again.last_code, again.last_reply, again.last_host)
    assert (again.attempts, last) == (2, (250, "2.0.0 ok", "mx.example.org"))


@pytest.mark.django_db
def test_a_message_to_be_sent_later_waits() -> None:
    run(queue.enqueue, message(send_after=datetime.now(UTC) + timedelta(hours=1)))
    assert run(queue.claim) == []
    later(3500)
    assert run(queue.claim) == []
    later(1000)
    assert len(run(queue.claim)) == 1


@pytest.mark.django_db
def test_claims_are_made_by_destination_or_message_within_the_limit() -> None:
    first = run(queue.enqueue, message("a@one.example", "b@two.example", "c@one.example"))
    second = run(queue.enqueue, message("d@one.example"))
    assert run(queue_due.due) == ["one.example", "two.example"]
    assert sorted(run(queue_due.destinations, [first])) == ["one.example", "two.example"]
    claims = run(queue.claim, destination="one.example", limit=2)
    assert [claim.address for claim in claims] == ["a@one.example", "c@one.example"]
    assert [c.address for c in run(queue.claim, outbound_id=second)] == ["d@one.example"]
    assert run(queue_due.due) == ["two.example"]
    assert run(queue_due.destinations, [second]) == {}
    assert [c.address for c in run(queue.claim)] == ["b@two.example"]
    assert run(queue_due.due) == []


@pytest.mark.django_db
def test_claims_given_back_are_due_at_once_and_count_as_no_attempt() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim)
    run(queue.give_back, [(claim.recipient_id, claim.fence)])
    (again,) = run(queue.claim)
    assert (again.attempts, again.fence) == (1, 2)
    run(queue.give_back, [(claim.recipient_id, claim.fence)])
    assert run(queue.claim) == [], "an old fence gives nothing back"


@pytest.mark.django_db
def test_a_lease_is_prolonged_only_for_its_holder() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim, lease_seconds=60)
    assert run(queue.renew, [(claim.recipient_id, claim.fence)], 600) == {claim.recipient_id}
    later(300)
    assert run(queue.claim) == []
    assert run(queue.renew, [(claim.recipient_id, claim.fence - 1)], 600) == set()


@pytest.mark.django_db
def test_a_message_that_kills_its_workers_is_set_aside_and_its_neighbours_are_not() -> None:
    run(queue.enqueue, message("poison@example.org"))
    run(queue.enqueue, message("innocent@example.org"))
    delivered = []
    for _ in range(20):
        claims = run(queue.claim)
        for claim in claims:
            if claim.address.startswith("poison"):
                break  # the worker dies here; nothing after it is reported either
            run(queue.record, [result(claim)])
            delivered.append(claim.address)
        later(1000)
        run(queue_due.set_aside)
        if not run(queue_due.due):
            break
    assert delivered == ["innocent@example.org"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT address, attempts, held_reason FROM outbound_recipient WHERE state = 'held'")
        ((address, attempts, reason),) = cursor.fetchall()
    assert address == "poison@example.org"
    assert attempts == queue_claims.MAX_UNREPORTED
    assert "without a result" in reason


@pytest.mark.django_db
def test_many_messages_at_once_keep_their_order_and_share_their_blob() -> None:
    items = [message(f"r{n}@d{n}.example", raw=RAW + b"x" * (n % 3)) for n in range(10)]
    numbers = run(queue.enqueue_many, items)
    assert numbers == sorted(numbers)
    by_number = {claim.outbound_id: claim.address for claim in run(queue.claim)}
    assert [by_number[number] for number in numbers] == [f"r{n}@d{n}.example" for n in range(10)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM blob")
        assert cursor.fetchone() == (3,)


@pytest.mark.django_db
def test_a_stored_blob_is_queued_by_its_hash_and_a_missing_one_refused() -> None:
    run(queue.enqueue, message())
    (claim,) = run(queue.claim)
    again = Outgoing("ann@example.test", [Recipient("c@example.net")], "t", blob=claim.blob, size=len(RAW))
    run(queue.enqueue, again)
    (other,) = run(queue.claim)
    assert (other.blob, other.size) == (claim.blob, len(RAW))
    missing = Outgoing("ann@example.test", [Recipient("c@example.net")], "t", blob=b"\1" * 32, size=5)
    with pytest.raises(MailError) as caught:
        run(queue.enqueue, missing)
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["", "bob", "bob@", "bob@exa mple.org", "bob\r\n@example.org", "bob@example.org\0"])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(MailError) as caught:
        run(queue.enqueue, message(address))
    assert caught.value.code is Code.BAD_VALUE


@pytest.mark.django_db
def test_a_message_without_recipients_is_refused() -> None:
    with pytest.raises(MailError) as caught:
        run(queue.enqueue, Outgoing("ann@example.test", [], "t", RAW))
    assert caught.value.code is Code.BAD_VALUE


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_outbound_mail_is_told_after_the_commit() -> None:
    heard: list[tuple[int, ...]] = []
    stop = wake.on_queue(heard.append)
    try:
        with pytest.raises(ZeroDivisionError), db.django_transaction() as tx:
            db.run_sync(queue.enqueue(tx, message()))
            raise ZeroDivisionError
        assert heard == []
        numbers = run(queue.enqueue_many, [message(), message()])
        assert heard == [tuple(numbers)]
    finally:
        stop()


@pytest.mark.django_db
def test_queueing_is_traced_for_each_recipient() -> None:
    outgoing = message("a@one.example", "b@two.example", message_id="<m@example.test>")
    number = run(queue.enqueue, outgoing)
    found = run(trace.find, "<m@example.test>")
    assert [(event.step, event.recipient, event.outbound_id) for event in found] == [
        ("queued", "a@one.example", number),
        ("queued", "b@two.example", number),
    ]


@pytest.mark.django_db(transaction=True)
async def test_workers_that_claim_at_the_same_time_never_share_a_row(database_url: str) -> None:
    await db.open_pool(6)
    try:
        async with db.transaction() as tx:
            await queue.enqueue_many(tx, [message(f"r{n}@example.org") for n in range(200)])

        async def worker() -> list[int]:
            taken: list[int] = []
            while True:
                async with db.transaction() as tx:
                    claims = await queue.claim(tx, destination="example.org")
                if not claims:
                    return taken
                taken += [claim.recipient_id for claim in claims]

        workers: list[Coroutine[Any, Any, list[int]]] = [worker() for _ in range(6)]
        taken = [number for part in await asyncio.gather(*workers) for number in part]
        assert len(taken) == 200 == len(set(taken))
    finally:
        await db.close_pool()


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "act", [lambda tx, ids: queue_admin.hold(tx, ids, "why"), queue_admin.retry, queue_admin.seize]
)
async def test_an_administrator_locks_recipients_in_the_order_in_which_workers_do(database_url: str, act: Any) -> None:
    await db.open_pool(3)
    try:
        async with db.transaction() as tx:
            await queue.enqueue(tx, message("one@example.org", "two@example.org"))
            first, second = [row[0] for row in await tx.fetch("SELECT id FROM outbound_recipient ORDER BY id")]
        async with db.transaction() as tx:  # a new version of the first row, behind the second
            await tx.execute("UPDATE outbound_recipient SET destination = 'other' WHERE id = %s::bigint", (first,))

        async def administer() -> None:
            async with db.transaction() as tx:
                await act(tx, [second, first])

        async with db.transaction() as tx:
            lock = "SELECT id FROM outbound_recipient WHERE id = %s::bigint FOR UPDATE"
            await tx.one(lock, (first,))
            other = asyncio.create_task(administer())
            await waits_for_a_lock(tx)
            assert await tx.one(f"{lock} NOWAIT", (second,)) == (second,)
        await other
    finally:
        await db.close_pool()
