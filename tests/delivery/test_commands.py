"""`manage.py queue` and `manage.py trace`, as an administrator uses them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection

from accounts import people
from mailcore import db, provision
from mailcore.store import fetch, mailboxes, queue, trace
from mailcore.store.queue import Outgoing, Recipient, Result
from mailcore.wire.smtp.params import By
from tests.delivery.world import ANN, BOB, RAW, command, run

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> int:
    people.add_domain("example.test")
    return provision.add_account(ANN, name="Ann").pk


@pytest.fixture(autouse=True)
def no_bell(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the workers were told; the tests of the worker have a real one."""
    rung: list[list[int]] = []
    monkeypatch.setattr("mailcore.delivery.doorbell.ring_now", lambda ids, force: rung.append(list(ids)))
    return rung


def rows(*arguments: str) -> list[dict[str, Any]]:
    found = json.loads(command("queue", "list", "--json", *arguments))
    assert isinstance(found, list)
    return found


def submit(account: int | None, *to: str, sender: str = ANN, message_id: str | None = None) -> tuple[int, str]:
    name = trace.new_id()
    recipients = [Recipient(each) for each in to or (BOB,)]
    outgoing = Outgoing(sender, recipients, name, RAW, account_id=account, message_id=message_id)
    return run(queue.enqueue, outgoing), name


def deferred(number: int) -> None:
    """As after an attempt that the other server put off."""
    claims = run(queue.claim, outbound_id=number)
    results = [Result(c.recipient_id, c.fence, "queued", 450, "450 4.2.0 greylisted", "mx", 300) for c in claims]
    run(queue.record, results)


def inbox(account: int) -> list[bytes]:
    ids = [row[0] for row in run(fetch.rows, account, 1, 1, 1 << 31, ("message_id",))]
    return list(run(fetch.raws, account, ids).values())


def test_an_empty_queue_says_so(account: int) -> None:
    assert command("queue", "list") == "Nothing in the queue.\n"
    assert rows() == []


def test_the_list_shows_what_waits_and_why(account: int) -> None:
    number, name = submit(account)
    deferred(number)
    submit(account, "carol@near.example")
    table = command("queue", "list")
    assert "450 4.2.0 greylisted" in table and BOB in table and "carol@near.example" in table
    first, second = rows()
    assert (first["queue_id"], first["trace_id"], first["state"], first["attempts"]) == (number, name, "queued", 1)
    assert (first["reply"], first["code"], first["host"]) == ("450 4.2.0 greylisted", 450, "mx")
    assert second["recipient"] == "carol@near.example"
    assert [row["recipient"] for row in rows("--destination", "near.example")] == ["carol@near.example"]
    assert [row["recipient"] for row in rows("--recipient", "BOB@far.example")] == [BOB]
    assert rows("--sender", "nobody@example.test") == []
    assert rows("--state", "delivered") == []
    assert len(rows("--state", "all", "--limit", "1")) == 1


def test_a_message_is_shown_by_its_number_and_by_its_trace_id(account: int) -> None:
    number, name = submit(account, BOB, "carol@far.example")
    text = command("queue", "show", str(number))
    assert name in text and BOB in text and "carol@far.example" in text
    assert command("queue", "show", name) == text
    shown = json.loads(command("queue", "show", name, "--json"))
    assert [each["recipient"] for each in shown["recipients"]] == [BOB, "carol@far.example"]


@pytest.mark.parametrize("verb", ["show", "retry", "hold", "release", "bounce", "remove"])
def test_what_is_not_in_the_queue_is_one_clear_line(account: int, verb: str) -> None:
    with pytest.raises(CommandError, match=r"^999 is not in the queue"):
        command("queue", verb, "999")


@pytest.mark.parametrize("verb", ["retry", "hold", "release", "bounce", "remove"])
def test_nothing_is_done_to_everything_by_accident(account: int, verb: str) -> None:
    submit(account)
    with pytest.raises(CommandError, match="Say which mail"):
        command("queue", verb)


def test_retry_makes_it_due_now_and_rings(account: int, no_bell: list[list[int]]) -> None:
    number, name = submit(account)
    deferred(number)
    assert run(queue.claim) == []
    assert command("queue", "retry", name) == "1 recipient will be tried now.\n"
    assert no_bell == [[number]]
    assert len(run(queue.claim)) == 1


def test_what_is_held_waits_until_it_is_released(account: int, no_bell: list[list[int]]) -> None:
    number, _ = submit(account)
    other, _ = submit(account, "carol@near.example")
    said = command("queue", "hold", "--destination", "far.example", "--reason", "they asked us to wait")
    assert said == "1 recipient held.\n"
    assert [claim.outbound_id for claim in run(queue.claim)] == [other]
    assert "held (they asked us to wait)" in command("queue", "list")
    assert command("queue", "release", "--all") == "1 recipient released.\n"
    assert no_bell == [[number]]
    assert [claim.outbound_id for claim in run(queue.claim)] == [number]


def test_a_message_on_hold_in_mid_delivery_counts_as_delivered_when_it_was(account: int) -> None:
    number, _ = submit(account, BOB, "carol@far.example")
    first, second = run(queue.claim)
    command("queue", "hold", str(number))
    run(
        queue.record,
        [
            Result(first.recipient_id, first.fence, "delivered", 250, "ok", "mx"),
            Result(second.recipient_id, second.fence, "queued", 450, "later", "mx", 300),
        ],
    )
    assert [row["state"] for row in rows("--state", "all")] == ["delivered", "held"]


def test_bounce_returns_it_to_the_sender(account: int) -> None:
    number, _ = submit(account, BOB, "carol@far.example")
    command("queue", "hold", str(number))
    assert command("queue", "bounce", "--yes", str(number)) == "2 recipients returned to the sender.\n"
    assert {row["state"] for row in rows("--state", "all")} == {"failed"}
    (notice,) = inbox(account)
    assert notice.count(b"Action: failed") == 2
    assert b"returned by the administrator" in notice


def test_what_a_worker_has_in_hand_is_not_bounced_under_it(account: int) -> None:
    number, _ = submit(account)
    run(queue.claim)
    with pytest.raises(CommandError, match="being delivered at this moment"):
        command("queue", "bounce", "--yes", str(number))
    assert inbox(account) == []
    assert "being delivered" in command("queue", "list")


def test_remove_takes_it_out_and_tells_nobody(account: int) -> None:
    number, name = submit(account)
    assert command("queue", "remove", "--yes", name) == "1 recipient removed.\n"
    assert rows("--state", "all") == []
    assert inbox(account) == []
    assert [event.step for event in run(trace.find, str(number))] == ["queued", "removed"]


def test_what_a_worker_has_in_hand_is_not_removed_under_it(account: int) -> None:
    number, _ = submit(account, BOB)
    (claim,) = run(queue.claim)
    submit(account, "carol@near.example")
    with pytest.raises(CommandError, match=r"^Nothing was removed\. 1 recipient being delivered"):
        command("queue", "remove", "--yes", str(number))
    said = command("queue", "remove", "--yes", "--all")
    assert said.startswith("1 recipient removed. 1 recipient being delivered at this moment")
    assert [row["queue_id"] for row in rows()] == [number]
    run(queue.record, [Result(claim.recipient_id, claim.fence, "delivered", 250, "ok", "mx")])
    assert [row["state"] for row in rows("--state", "all")] == ["delivered"], "what became of it was recorded"


def test_octets_of_removed_mail_go_with_it_however_old_it_is(account: int) -> None:
    submit(account)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE blob SET touched_at = now() - interval '10 days'")
        command("queue", "remove", "--yes", "--all")
        cursor.execute("SELECT count(*) FROM blob")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("verb", "why"), [("hold", "nothing was held"), ("release", "nothing was released"), ("retry", "another try")]
)
def test_nothing_can_be_done_to_finished_mail_and_that_is_an_error(
    account: int, verb: str, why: str, no_bell: list[list[int]]
) -> None:
    number, _ = submit(account)
    (claim,) = run(queue.claim)
    run(queue.record, [Result(claim.recipient_id, claim.fence, "delivered", 250, "ok", "mx")])
    with pytest.raises(CommandError, match=why):
        command("queue", verb, str(number))
    assert no_bell == []


def test_the_history_of_a_message_reads_as_a_story(account: int) -> None:
    number, name = submit(account, message_id="<one@example.test>")
    deferred(number)
    event = trace.Event(name, "deferred", account, number, ANN, BOB, None, {
        "host": "mx.far.example [192.0.2.1]", "tls": "TLSv1.3 AES", "reply": "450 4.2.0 greylisted", "retry_in": 300,
        "stage": "RCPT TO", "attempt": 1, "status": "4.2.0",
    })  # fmt: skip
    run(trace.add, [event])
    command("queue", "bounce", "--yes", name)
    for text in (name, BOB, ANN, "one@example.test", str(number)):
        story = command("trace", text)
        lines = story.splitlines()
        titles = [line for line in lines if not line.startswith("  ") and line]
        assert any(line.startswith(f"{name}  from {ANN}  <one@example.test>") for line in titles)
        (line,) = (line for line in lines if " deferred " in line)
        assert f"{BOB} mx.far.example [192.0.2.1] (TLSv1.3 AES), at RCPT TO, said: 450 4.2.0 greylisted" in line
        assert line.endswith("again in 5 minutes")
    assert "told the sender: failed (bob@far.example)" in story


def test_the_history_names_mailboxes(account: int) -> None:
    name = trace.new_id()
    with db.django_transaction() as tx:
        inbox = db.run_sync(mailboxes.by_name(tx, account, "INBOX")).id
    detail = {"uid": 7, "email": 9}
    for mailbox in (inbox, 10_000):
        run(trace.add, [trace.Event(name, "stored", account, None, ANN, BOB, None, {"mailbox": mailbox, **detail})])
    story = command("trace", name)
    assert f"{BOB} in INBOX, uid 7, email 9" in story
    assert f"{BOB} in a mailbox that is no more, uid 7, email 9" in story
    assert [event["detail"]["mailbox"] for event in json.loads(command("trace", name, "--json"))] == [inbox, 10_000]


def test_the_history_as_json(account: int) -> None:
    number, name = submit(account)
    events = json.loads(command("trace", name, "--json"))
    assert [(event["step"], event["outbound_id"]) for event in events] == [("queued", number)]
    assert events[0]["at"].endswith("+00:00")


def test_an_unknown_message_is_one_clear_line(account: int) -> None:
    with pytest.raises(CommandError, match="Nothing is known of nobody"):
        command("trace", "nobody@example.test")
    assert json.loads(command("trace", "nobody@example.test", "--json")) == []


def test_what_is_urgent_and_what_has_a_time_is_shown(account: int) -> None:
    """RFC 6710, RFC 2852; a list in which nothing is urgent has no column for it."""
    submit(account)
    assert "priority" not in command("queue", "list")
    outgoing = Outgoing(ANN, [Recipient(BOB)], "one", RAW, account_id=account, priority=4, by=By(600, "RT"))
    run(queue.enqueue, outgoing)
    assert "priority" in command("queue", "list")
    assert [(row["priority"], row["by_mode"]) for row in rows()] == [(0, None), (4, "RT")]
    shown = command("queue", "show", "one")
    assert "priority      4\n" in shown and "UTC; else it comes back\n" in shown
