"""The queue under an administrator's hand: some recipients and not others, elsewhere, not there for now."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError

from accounts import people
from mailcore import db, provision
from mailcore.store import destinations, fetch, queue, queue_due, trace
from mailcore.store.queue import Outgoing, Recipient, Result
from tests.delivery.world import ANN, RAW, command, run

pytestmark = pytest.mark.django_db

BOB, CAROL, DAN = "bob@far.example", "carol@far.example", "dan@near.example"


@pytest.fixture
def account() -> int:
    people.add_domain("example.test")
    return provision.add_account(ANN, name="Ann").pk


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What the workers were told."""
    calls: list[list[int]] = []
    monkeypatch.setattr("mailcore.delivery.doorbell.ring_now", lambda ids, force: calls.append(list(ids)))
    return calls


def submit(account: int | None, *to: str, sender: str = ANN) -> tuple[int, str]:
    name = trace.new_id()
    return run(queue.enqueue, Outgoing(sender, [Recipient(each) for each in to], name, RAW, account_id=account)), name


def states() -> dict[str, str]:
    return {row["recipient"]: row["state"] for row in json.loads(command("queue", "list", "--state", "all", "--json"))}


def claimed() -> set[str]:
    return {claim.address for claim in run(queue.claim, limit=100)}


def test_a_recipient_is_held_and_the_others_of_the_message_are_not(account: int) -> None:
    submit(account, BOB, CAROL, DAN)
    assert command("queue", "hold", BOB) == "1 recipient held.\n"
    assert command("queue", "hold", "--domain", "near.example") == "1 recipient held.\n"
    assert claimed() == {CAROL}
    assert states() == {BOB: "held", CAROL: "queued", DAN: "held"}


@pytest.mark.parametrize(
    ("filters", "held"),
    [
        (("--sender", ANN), {BOB, DAN}),
        (("--sender", "other.example"), {CAROL}),
        (("--sender", "<>"), {"erin@near.example"}),
        (("--account", ANN), {BOB, DAN}),
        (("--sender", ANN, "--domain", "far.example"), {BOB}),
        (("--all",), {BOB, CAROL, DAN, "erin@near.example"}),
    ],
)
def test_what_is_chosen_by_sender_account_and_domain(account: int, filters: tuple[str, ...], held: set[str]) -> None:
    submit(account, BOB, DAN)
    submit(None, CAROL, sender="zoe@other.example")
    submit(None, "erin@near.example", sender="")
    said = json.loads(command("queue", "hold", *filters, "--json"))
    assert said["recipients"] == len(held)
    assert {name for name, state in states().items() if state == "held"} == held


def test_show_finds_a_message_by_its_recipient(account: int) -> None:
    submit(account, BOB)
    number, _ = submit(account, BOB, CAROL)
    shown = json.loads(command("queue", "show", BOB, "--json"))
    assert (shown["queue_id"], len(shown["recipients"])) == (number, 2)
    with pytest.raises(CommandError, match=r"^Nothing for nobody@far\.example"):
        command("queue", "show", "nobody@far.example")


def test_nothing_that_fits_is_an_error_in_one_line(account: int) -> None:
    submit(account, BOB)
    with pytest.raises(CommandError, match=r"^Nothing in the queue fits\.$"):
        command("queue", "hold", "--domain", "elsewhere.example")
    with pytest.raises(CommandError, match="is not in the queue"):
        command("queue", "retry", "4711")


def test_whoever_retries_failed_mail_is_told_what_to_do(account: int) -> None:
    number, _ = submit(account, BOB)
    (claim,) = run(queue.claim)
    run(queue.record, [Result(claim.recipient_id, claim.fence, "failed", 550, "550 5.1.1 no such user", "mx")])
    with pytest.raises(CommandError, match=r"failed for good \(550 5.1.1 no such user\).*have it sent again"):
        command("queue", "retry", str(number))
    number, _ = submit(account, BOB)
    command("queue", "hold", str(number))
    with pytest.raises(CommandError, match="has to be released first"):
        command("queue", "retry", str(number))


def test_redirect_sends_elsewhere_and_remembers_for_whom_it_was(account: int, rung: list[list[int]]) -> None:
    number, name = submit(account, BOB, CAROL)
    command("queue", "hold", BOB)
    said = command("queue", "redirect", BOB, "--to", "b+1=x@other.example", "--yes")
    assert said == "1 recipient redirected to b+1=x@other.example.\n"
    assert rung == [[number]]
    claims = {claim.address: claim for claim in run(queue.claim)}
    assert set(claims) == {"b+1=x@other.example", CAROL}
    moved = claims["b+1=x@other.example"]
    assert (moved.destination, moved.orcpt, moved.trace_id) == ("other.example", "rfc822;bob@far.example", name)
    steps = [(event.step, event.recipient, event.detail.get("to")) for event in run(trace.find, name)]
    assert ("redirected", BOB, "b+1=x@other.example") in steps
    assert f"redirected {BOB} to b+1=x@other.example" in command("trace", name)


def test_redirect_refuses_an_address_that_nobody_has_here(account: int, rung: list[list[int]]) -> None:
    submit(account, BOB)
    with pytest.raises(CommandError, match=r"nobody@example\.test does not exist here"):
        command("queue", "redirect", BOB, "--to", "Nobody@Example.test", "--yes")
    assert states() == {BOB: "queued"} and rung == []
    command("queue", "redirect", BOB, "--to", "ann+tag@example.test", "--yes")
    assert states() == {"ann+tag@example.test": "queued"}


def test_redirected_twice_it_is_still_for_the_first(account: int) -> None:
    submit(account, BOB)
    command("queue", "redirect", BOB, "--to", CAROL, "--yes")
    command("queue", "redirect", CAROL, "--to", DAN, "--yes")
    (claim,) = run(queue.claim)
    assert (claim.address, claim.orcpt) == (DAN, "rfc822;bob@far.example")


def test_what_is_on_the_wire_is_not_redirected(account: int) -> None:
    submit(account, BOB)
    (claim,) = run(queue.claim)
    with pytest.raises(CommandError, match=r"Nothing was redirected. 1 recipient being delivered"):
        command("queue", "redirect", BOB, "--to", CAROL, "--yes")
    assert run(queue.record, [Result(claim.recipient_id, claim.fence, "delivered")]) == {claim.recipient_id}


def test_a_worker_whose_lease_ended_cannot_settle_what_was_redirected(account: int) -> None:
    submit(account, BOB)
    (claim,) = run(queue.claim, lease_seconds=-1.0)
    command("queue", "redirect", BOB, "--to", CAROL, "--yes")
    assert run(queue.record, [Result(claim.recipient_id, claim.fence, "failed")]) == set()
    assert states() == {CAROL: "queued"}


def test_one_recipient_is_bounced_and_removed_without_the_others(account: int) -> None:
    submit(account, BOB, CAROL, DAN)
    assert command("queue", "bounce", "--yes", BOB) == "1 recipient returned to the sender.\n"
    assert command("queue", "remove", "--yes", CAROL) == "1 recipient removed.\n"
    assert states() == {BOB: "failed", DAN: "queued"}
    with db.django_transaction() as tx:
        rows = db.run_sync(fetch.rows(tx, account, 1, 1, 1 << 31, ("message_id",)))
        raws = db.run_sync(fetch.raws(tx, account, [row[0] for row in rows]))
    (notice,) = raws.values()
    assert notice.count(b"Action: failed") == 1 and BOB.encode() in notice


def test_a_frozen_destination_gets_nothing_until_it_is_thawed(account: int, rung: list[list[int]]) -> None:
    number, _ = submit(account, BOB, DAN)
    said = command("queue", "freeze", "far.example", "--reason", "they asked us to wait")
    assert said == "far.example is frozen; 1 recipient in the queue for it.\n"
    assert run(queue_due.due) == ["near.example"]
    assert claimed() == {DAN}
    assert run(queue.claim, destination="far.example", force=True) == []
    assert "frozen: they asked us to wait" in command("queue", "list")
    (entry,) = json.loads(command("queue", "frozen", "--json"))
    assert (entry["destination"], entry["waiting"], entry["until"]) == ("far.example", 1, None)
    assert command("queue", "thaw", "far.example") == "Thawed: far.example.\n"
    assert rung == [[number]]
    assert claimed() == {BOB}
    with pytest.raises(CommandError, match="None of it is frozen"):
        command("queue", "thaw", "far.example")


def test_a_freeze_ends_by_itself(account: int) -> None:
    submit(account, BOB)
    command("queue", "freeze", "far.example", "--until", "1h")
    with db.django_transaction() as tx:
        db.run_sync(tx.execute("UPDATE frozen_destination SET until = now() - interval '1 second'"))
    assert json.loads(command("queue", "frozen", "--json")) == []
    assert claimed() == {BOB}


@pytest.mark.parametrize("text", ["yesterday", "5y", "2001-01-01"])
def test_a_freeze_until_nonsense_is_refused(text: str) -> None:
    with pytest.raises((CommandError, SystemExit)):
        command("queue", "freeze", "far.example", "--until", text)


def test_pauses_double_and_are_forgotten_when_somebody_answers(account: int) -> None:
    submit(account, BOB)
    lengths = []
    for _ in range(9):
        run(destinations.pause, "far.example", "time out")
        run(destinations.pause, "far.example", "another worker found the same at the same time")
        (pause,) = run(destinations.pauses)
        lengths.append(round(pause.left))
        with db.django_transaction() as tx:
            db.run_sync(tx.execute("UPDATE delivery_pause SET until = now()"))
    assert lengths == [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    run(destinations.pause, "far.example", "time out")
    assert run(queue_due.due) == [] == run(queue.claim, destination="far.example")
    assert "paused: time out" in command("queue", "list")
    run(destinations.resume, ["far.example"])
    assert claimed() == {BOB}


def test_whoever_retries_a_paused_destination_means_now(account: int) -> None:
    submit(account, BOB)
    run(destinations.pause, "far.example", "time out")
    command("queue", "retry", BOB)
    assert run(queue_due.due) == ["far.example"]


def test_mail_that_gets_old_behind_a_pause_is_taken_up_all_the_same(account: int) -> None:
    submit(account, BOB)
    run(destinations.pause, "far.example", "time out")
    limits = {"delay": 4 * 3600.0, "max_age": 5 * 86400.0, "max_age_bounce": 2 * 86400.0}
    assert run(queue_due.claim_overdue, **limits) == []
    with db.django_transaction() as tx:
        past = "now() - interval '5 hours'"
        db.run_sync(tx.execute(f"UPDATE outbound SET created_at = {past}, send_after = {past}"))
    (claim,) = run(queue_due.claim_overdue, **limits)
    assert claim.address == BOB


def test_a_listing_by_state_shows_what_is_finished_too(account: int) -> None:
    submit(account, "zed@far.test", BOB)
    command("queue", "bounce", "--recipient", BOB, "--yes")
    assert "zed@far.test" in command("queue", "list") and BOB not in command("queue", "list")
    assert BOB in command("queue", "list", "--state", "failed")
    assert BOB in command("queue", "list", "--state", "all")


def test_retry_says_that_the_destination_is_frozen(account: int) -> None:
    submit(account, "zed@far.test")
    command("queue", "freeze", "far.test")
    assert "far.test is frozen" in command("queue", "retry", "--all")
