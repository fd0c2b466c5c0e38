"""What nobody needs goes, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from accounts import people
from accounts.models import Account
from mailcore import db, mime, provision
from mailcore.errors import Code, MailError
from mailcore.store import changes, expunge, fetch, housekeeping, queue, trace
from mailcore.store.append import Incoming, append
from mailcore.store.queue import Outgoing, Recipient, Result

pytestmark = pytest.mark.django_db

RAW = b"From: ann@example.test\r\nSubject: hello\r\n\r\nHello\r\n"


def run(verb: Any, *args: Any, **names: Any) -> Any:
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **names))


def execute(statement: str, *params: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def count(table: str) -> int:
    return int(execute(f"SELECT count(*) FROM {table}")[0][0])


@pytest.fixture
def ann() -> int:
    people.add_domain("example.test")
    return provision.add_account("ann@example.test").pk


def store(account: int, raw: bytes = RAW) -> int:
    (stored,) = run(append, [Incoming(account, 0, raw, mime.parse(raw))])
    return int(stored.uid)


def age_blobs(days: int = 2) -> None:
    execute("UPDATE blob SET touched_at = touched_at - make_interval(days => %s)", days)


def test_expunged_mail_can_be_had_for_a_month_and_is_then_gone_for_good(ann: int) -> None:
    uid = store(ann)
    run(expunge.expunge, ann, 1, [uid], False)
    age_blobs()
    assert run(housekeeping.expunged) == 0
    assert run(housekeeping.blobs) == 0
    execute("UPDATE expunged SET expunged_at = now() - interval '31 days'")
    assert run(housekeeping.expunged) == 1
    assert (count("message"), count("message_text"), count("blob")) == (0, 0, 0)
    assert count("expunged") == 1, "that it is gone stays known"
    assert run(housekeeping.tombstones) == 0
    execute("UPDATE expunged SET expunged_at = now() - interval '401 days'")
    assert run(housekeeping.tombstones) == 1


def test_whoever_asks_from_before_what_is_remembered_is_told_so(ann: int) -> None:
    first, second = store(ann), store(ann)
    known = run(changes.state, ann)
    run(expunge.expunge, ann, 1, [first], False)
    gone = run(changes.state, ann)
    run(expunge.expunge, ann, 1, [second], False)
    execute("UPDATE expunged SET expunged_at = now() - interval '401 days' WHERE uid = %s", first)
    assert run(changes.emails, ann, known, 10).destroyed == [1, 2]
    assert run(changes.mailbox, ann, 1, known).floor <= known
    assert run(housekeeping.tombstones) == 1
    with pytest.raises(MailError) as error:
        run(changes.emails, ann, known, 10)
    assert error.value.code is Code.BAD_VALUE
    assert run(changes.emails, ann, gone, 10).destroyed == [2]
    found = run(changes.mailbox, ann, 1, known)
    assert (found.floor, found.vanished) == (gone, [second])


def test_mail_that_is_still_somewhere_stays(ann: int) -> None:
    first, second = store(ann), store(ann)
    run(expunge.expunge, ann, 1, [first], False)
    execute("UPDATE expunged SET expunged_at = now() - interval '31 days'")
    age_blobs()
    assert run(housekeeping.expunged) == 1, "the first message goes"
    assert count("blob") == 1, "its octets are also those of the second"
    (row,) = run(fetch.rows, ann, 1, second, second, ("message_id",))
    assert run(fetch.raw, ann, row[0]) == RAW


def test_a_message_that_left_one_of_two_mailboxes_stays(ann: int) -> None:
    uid = store(ann)
    execute(
        """INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, internal_date, size)
        SELECT account_id, 2, 1, message_id, modseq, internal_date, size FROM entry WHERE uid = %s""",
        uid,
    )
    run(expunge.expunge, ann, 1, [uid], False)
    execute("UPDATE expunged SET expunged_at = now() - interval '31 days'")
    assert run(housekeeping.expunged) == 0
    assert count("message") == 1


def test_blobs_without_a_message_go_after_a_day() -> None:
    run(queue.enqueue, Outgoing("ann@example.test", [Recipient("b@example.org")], "t", RAW))
    execute("INSERT INTO blob (hash, size, data) VALUES (decode('00', 'hex'), 1, 'x')")
    assert run(housekeeping.blobs) == 0, "somebody may be about to use it"
    age_blobs()
    assert run(housekeeping.blobs) == 1
    assert count("blob") == 1, "what is in the queue stays"


def test_finished_messages_leave_the_queue_after_two_weeks_and_open_ones_never() -> None:
    def enqueue(*to: str) -> None:
        run(queue.enqueue, Outgoing("ann@example.test", [Recipient(each) for each in to], "t", RAW + to[0].encode()))

    enqueue("done@example.org", "done2@example.org")
    enqueue("half@example.org", "open@example.org")
    for claim in run(queue.claim):
        state: queue.State = "queued" if claim.address.startswith("open") else "delivered"
        run(queue.record, [Result(claim.recipient_id, claim.fence, state, retry_in=60)])
    age_blobs()
    assert run(housekeeping.finished) == 0
    execute("UPDATE outbound SET created_at = now() - interval '20 days'")
    assert run(housekeeping.finished) == 0, "it was delivered only now"
    execute("UPDATE outbound_recipient SET finished_at = finished_at - interval '15 days'")
    assert run(housekeeping.finished) == 1
    assert (count("outbound"), count("outbound_recipient"), count("blob")) == (1, 2, 1)


def partitions() -> set[str]:
    return {row[0] for row in execute("SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class c ON "
                                      "c.oid = inhparent WHERE c.relname = 'trace_event'")}  # fmt: skip


def test_the_trace_gets_a_partition_for_each_week_ahead_and_loses_the_old_ones() -> None:
    now = datetime.now(UTC)
    made = run(housekeeping.trace_partitions, now)
    assert len(made) == housekeeping.TRACE_WEEKS_AHEAD + 1
    assert run(housekeeping.trace_partitions, now) == []
    for week in range(3):
        run(trace.add, [trace.Event("x", "accepted", at=now + timedelta(weeks=week))])
    assert execute("SELECT count(*) FROM ONLY trace_event_default") == [(0,)]
    assert len(run(trace.find, "x")) == 3
    done = run(housekeeping.trace_partitions, now + timedelta(days=housekeeping.KEEP_TRACE + 28))
    assert sum(text.startswith("dropped") for text in done) >= 2
    assert "trace_event_default" in partitions()
    assert len(run(trace.find, "x")) < 3


def test_events_that_were_there_first_stay_where_they_are() -> None:
    now = datetime.now(UTC)
    run(trace.add, [trace.Event("y", "accepted", at=now)])
    assert len(run(housekeeping.trace_partitions, now)) == housekeeping.TRACE_WEEKS_AHEAD
    assert len(run(trace.find, "y")) == 1
    assert run(housekeeping.old_traces) == 0
    execute("UPDATE trace_event_default SET at = at - interval '91 days'")
    assert run(housekeeping.old_traces) == 1


def test_the_blobs_of_a_removed_account_go_however_old_they_are(ann: int) -> None:
    store(ann)
    age_blobs(100)
    provision.remove_account(Account.objects.get(pk=ann))
    assert run(housekeeping.blobs) == 0  # somebody may be storing the same message right now
    age_blobs()
    assert run(housekeeping.blobs) == 1
    assert count("blob") == 0
