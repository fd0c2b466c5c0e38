"""What the commands of the queue, the routes, aliases and suppressed addresses say, and what they refuse."""

from __future__ import annotations

import json
import threading

import pytest
from django.core.management import CommandError
from django.db import connection

from accounts import people, policies
from mailcore import phrases, provision
from mailcore.store import destinations, queue, queue_admin, trace
from mailcore.store.queue import Outgoing, Recipient, Result
from mailcore.store.queue_admin import Selection
from tests.delivery.world import ANN, BOB, RAW, command, run

CAROL = "carol@far.example"


def submit(*to: Recipient | str, sender: str = ANN) -> int:
    recipients = [Recipient(each) if isinstance(each, str) else each for each in to]
    return int(run(queue.enqueue, Outgoing(sender, recipients, trace.new_id(), RAW)))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("queue", "show", ""), "an ID is a queue number, a trace id or a recipient's address"),
        (("queue", "retry", " "), "an ID is a queue number, a trace id or a recipient's address"),
        (("route", "remove", "9" * 30), "^There is no rule 9{30}: `manage.py route list`"),
        (("route", "remove", "-1"), "^There is no rule -1"),
        (("route", "test", "foo"), "^foo: "),
        (("route", "test", ""), "^An empty text: "),
        (("route", "test", "a@b.example", "--sender", "bar"), "^bar: "),
        (("route", "add", "mx", "--recipient", "[nonsense]"), "no address literal"),
        (("route", "add", "mx", "--source", "fe80::1%eth0"), "without a zone"),
        (("route", "add", "mx", "--source", "fe80::1"), "no address that mail can be sent from"),
        (("route", "add", "mx", "--source", "224.0.0.1"), "no address that mail can be sent from"),
        (("route", "add", "mx", "--source", "192.0.2.300"), "no IP address"),
        (("route", "add", "mx", "--source", "192.0.2.1", "--source", "192.0.2.2"), "one IPv4 address"),
        (("route", "add", "discard"), "discard whose mail"),
        (("suppression", "add", "nonsense"), "neither an address .* nor a domain"),
    ],
)
def test_what_means_nothing_is_refused_and_the_reason_is_given(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        command(*arguments)


@pytest.mark.django_db
def test_the_history_says_what_was_decided_here_and_what_was_wished_for_in_words() -> None:
    number = submit(BOB)
    command("queue", "bounce", "--yes", str(number))
    history = command("trace", BOB)
    assert "at the queue, returned by the administrator" in history
    assert "class network" not in history  # nobody was asked
    wished = {"deliver_by": "600;R", "held": "2026-11-22T16:49:17.841165+00:00"}
    assert phrases.words("accepted", wished) == (
        "to be sent at 2026-11-22 16:49:17 UTC, to be delivered within 600 s, else it comes back"
    )
    late = {"status": "5.4.7", "class": "network"}
    assert phrases.sentence("failed", late, sent=True) == (
        "Could not be delivered: the time that was given for it is over."
    )
    assert "time" not in phrases.sentence("failed", late | {"host": "mx.far.example"}, sent=True)


@pytest.mark.django_db
def test_whoever_takes_an_alias_away_hears_who_still_leads_to_it() -> None:
    people.add_domain("example.test")
    people.add_alias("sales@example.test", [BOB])
    people.add_alias("all@example.test", ["sales@example.test", CAROL])
    said = command("alias", "remove", "sales@example.test")
    assert "removed." in said and "all@example.test still leads to it" in said
    assert "Warning" not in command("alias", "remove", "all@example.test", CAROL)


@pytest.mark.django_db
def test_the_list_says_what_frozen_and_paused_mail_waits_for() -> None:
    submit(BOB, "dan@near.example", "eve@third.example", "fay@fourth.example")
    command("queue", "freeze", "far.example")
    command("queue", "freeze", "third.example", "--until", "6h")
    run(destinations.pause, "near.example", "time out")
    lines = {line.split()[3]: line for line in command("queue", "list").splitlines()[1:]}
    assert "when thawed" in lines[BOB]
    assert lines["fay@fourth.example"].endswith(" now")
    rows = {row["recipient"]: row for row in json.loads(command("queue", "list", "--json"))}
    assert rows[BOB]["next_attempt_at"] is None
    for name, waits in (("dan@near.example", "paused: time out"), ("eve@third.example", "frozen")):
        assert rows[name]["next_attempt_at"] > rows["fay@fourth.example"]["next_attempt_at"]
        assert rows[name]["waits"] == waits and "  now" not in lines[name]


@pytest.mark.django_db
def test_a_host_that_is_left_out_is_told_from_a_destination_whose_mail_waits() -> None:
    run(destinations.pause, "near.example", "time out")
    assert "A host" not in command("queue", "frozen")
    run(destinations.pause, "host:192.0.2.7", "connection refused")
    said = command("queue", "frozen")
    assert "the host 192.0.2.7" in said and "host:" not in said
    assert said.endswith("A host that did not answer is left out for a while: mail goes to the other hosts.\n")


@pytest.mark.django_db
def test_route_test_says_that_mail_would_wait_or_come_back() -> None:
    command("route", "add", "relay", "--recipient", "far.example", "--host", "127.0.0.1:2525")
    assert "But" not in command("route", "test", BOB)
    command("suppression", "add", BOB)
    command("queue", "freeze", "far.example")
    run(destinations.pause, "far.example", "connection refused (connecting)")
    said = command("route", "test", BOB)
    for words in ("bob@far.example is suppressed", "far.example is frozen", "far.example is paused for"):
        assert words in said
    assert len(json.loads(command("route", "test", BOB, "--json"))["but"]) == 3


@pytest.mark.django_db
def test_several_recipients_sent_to_one_address_make_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailcore.delivery.doorbell.ring_now", lambda ids, force: None)
    first = submit(Recipient(BOB, "NEVER"), Recipient(CAROL, "SUCCESS"), "dan@near.example")
    second = submit(BOB, "Zoe@other.example")
    (claim,) = run(queue.claim, destination="other.example")
    run(queue.record, [Result(claim.recipient_id, claim.fence, "delivered")])
    said = command("queue", "redirect", "--domain", "far.example", "--to", "zoe@other.example", "--yes")
    assert said == "3 recipients redirected to zoe@other.example.\n"
    rows = run(queue_admin.rows, Selection())
    assert [(row.queue_id, row.recipient, row.state) for row in rows] == [
        (first, "zoe@other.example", "queued"),
        (first, "dan@near.example", "queued"),
        (second, "Zoe@other.example", "delivered"),
    ]
    (claim,) = run(queue.claim, destination="other.example")
    assert (claim.orcpt, claim.notify) == ("rfc822;bob@far.example", "SUCCESS"), "whoever asked for a receipt gets it"
    steps = [event for event in run(trace.find, rows[0].trace_id) if event.step == "redirected"]
    assert {event.recipient for event in steps} == {BOB, CAROL}


@pytest.mark.django_db(transaction=True)
def test_two_administrators_who_settle_things_at_once_do_not_undo_each_other(quick_flush: None) -> None:
    people.add_domain("example.test")
    provision.add_account(ANN, name="Ann")
    here, there = people.get_account(ANN), people.get_account(ANN)  # both read what holds, then both write
    policies.change(here, ["plus-tags=off"])

    def other() -> None:
        policies.change(there, ["messages-per-day=5"])
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert people.get_account(ANN).policy == {"plus-tags": False, "messages-per-day": 5}
    assert there.policy == people.get_account(ANN).policy
