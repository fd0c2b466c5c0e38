"""Whatever workers and administrators do, in whatever order: each recipient ends once, and is told of at most once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import people
from mailcore import provision
from mailcore.conf import conf
from mailcore.delivery.bounce import tell_noted
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.store import destinations, notices, queue, queue_admin, queue_claims, queue_due, trace
from mailcore.store.queue import Claimed, Outgoing, Recipient
from mailcore.store.queue_admin import Selection
from tests.delivery.world import ANN, RAW, run

DOMAINS = ("a.test", "b.test", "c.test")
OPEN = ("queued", "held")

OUTCOMES = {
    "delivered": Outcome(Verdict.DELIVERED, Stage.CONTENT, "2.0.0", "250 ok", 250, remote=True),
    "failed": Outcome(Verdict.FAILED, Stage.RCPT, "5.1.1", "550 no", 550, remote=True),
    "deferred": Outcome(Verdict.LATER, Stage.RCPT, "4.2.0", "450 later", 450, remote=True),
    "held by a rule": Outcome(Verdict.HELD, Stage.ROUTE, "4.7.1", "look at it"),
}
VERBS = (
    *("claim", "claim by a worker that dies", "give back", "renew", *OUTCOMES, *OUTCOMES, "time passes"),
    *(
        "tell",
        "hold",
        "release",
        "retry",
        "redirect",
        "bounce",
        "remove",
        "freeze",
        "thaw",
        "pause",
        "resume",
        "set aside",
    ),
)


def fetched(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def tell() -> None:
    run(tell_noted, conf, run(notices.ready, 0.0))


@dataclass
class History:
    """What the workers believe, and what really counted."""

    claims: list[Claimed] = field(default_factory=list)  # also those that are over: workers are slow
    ended: Counter[int] = field(default_factory=Counter)
    removed: int = 0

    def settle(self, claims: list[Claimed], outcome: Outcome) -> None:
        host = "mx" if outcome.remote else None
        fences = {
            row[0]: row[1] for row in fetched("SELECT id, fence FROM outbound_recipient WHERE lease_until NOTNULL")
        }
        kept = run(settle, [Settled(claim, outcome, host) for claim in claims])
        newest = {claim.recipient_id for claim in claims if fences.get(claim.recipient_id) == claim.fence}
        assert kept <= newest, "a result counted although somebody else had the recipient by then"
        if outcome.verdict in (Verdict.DELIVERED, Verdict.FAILED):
            self.ended.update(kept)

    def do(self, verb: str, number: int) -> None:
        domain = DOMAINS[number % 3]
        rows = run(queue_admin.rows, Selection(destination=domain if number % 2 else None))
        chosen = [row.recipient_id for row in rows]
        if verb.startswith("claim"):
            lease = -1.0 if "dies" in verb else 60.0
            taken = run(
                queue.claim, destination=domain if number % 2 else None, limit=1 + number % 4, lease_seconds=lease
            )
            self.claims += taken
        elif verb in OUTCOMES and self.claims:
            self.settle([self.claims[number % len(self.claims)]], OUTCOMES[verb])
        elif verb == "give back" and self.claims:
            claim = self.claims[number % len(self.claims)]
            run(queue.give_back, [(claim.recipient_id, claim.fence)])
        elif verb == "renew" and self.claims:
            claim = self.claims[number % len(self.claims)]
            run(queue.renew, [(claim.recipient_id, claim.fence)])
        elif verb == "time passes":
            execute(
                "UPDATE outbound_recipient SET next_attempt_at = now(), lease_until = lease_until - interval '40 s'"
            )
        elif verb == "tell":
            tell()
        elif verb == "hold":
            run(queue_admin.hold, chosen, "why")
        elif verb in ("release", "retry"):
            run(getattr(queue_admin, verb), chosen)
        elif verb == "redirect":
            before = fetched("SELECT count(*) FROM outbound_recipient")[0][0]
            run(queue_admin.redirect, rows, f"x{number}@{DOMAINS[number % 2]}")
            self.removed += before - fetched("SELECT count(*) FROM outbound_recipient")[0][0]  # several become one copy
        elif verb == "bounce":
            if claims := run(queue_admin.seize, chosen[:2]):
                self.settle(claims, Outcome(Verdict.FAILED, Stage.ROUTE, "5.0.0", "returned"))
        elif verb == "remove":
            opened = [row.recipient_id for row in rows if row.state in OPEN][:1]
            self.removed += run(queue_admin.remove, opened).recipients
        elif verb in ("freeze", "pause"):
            run(destinations.freeze, domain) if verb == "freeze" else run(destinations.pause, domain, "dead")
        elif verb in ("thaw", "resume"):
            run(destinations.thaw, None) if verb == "thaw" else run(destinations.resume, list(DOMAINS))
        elif verb == "set aside":
            run(queue_due.set_aside)


@pytest.mark.django_db
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 11)), min_size=10, max_size=60))
def test_each_recipient_ends_once_and_is_told_of_at_most_once(steps: list[tuple[str, int]]) -> None:
    if not people.list_domains().filter(name="example.test").exists():
        people.add_domain("example.test")
        provision.add_account(ANN, name="Ann")
    account = people.get_account(ANN).pk
    for table in (
        "outbound_recipient",
        "outbound",
        "trace_event",
        "frozen_destination",
        "delivery_pause",
        "outbound_notice",
    ):
        execute(f"DELETE FROM {table}")
    items = [
        Outgoing(
            ANN,
            [Recipient(f"r{n}{m}@{domain}") for m, domain in enumerate(DOMAINS)],
            trace.new_id(),
            RAW,
            account_id=account,
        )
        for n in range(3)
    ]
    run(queue.enqueue_many, items)
    total = len(items) * len(DOMAINS)
    history = History()
    for verb, number in steps:
        history.do(verb, number)
    # Then everybody does his work.
    run(destinations.thaw, None)
    run(destinations.resume, list(DOMAINS))
    for _ in range(queue_claims.MAX_UNREPORTED + 3):
        execute("UPDATE outbound_recipient SET lease_until = NULL, next_attempt_at = now()")
        run(queue_admin.release, [row.recipient_id for row in run(queue_admin.rows, Selection(states=("held",)))])
        while claims := run(queue.claim):
            history.settle(claims, OUTCOMES["delivered"])
    tell()
    rows = run(queue_admin.rows)
    assert len(rows) == total - history.removed
    assert {row.state for row in rows} <= {"delivered", "failed"}
    left = {row.recipient_id for row in rows}
    assert {number: history.ended[number] for number in left} == dict.fromkeys(left, 1)
    assert max(history.ended.values(), default=1) == 1, "an old fence changed something"
    events = [event for item in items for event in run(trace.find, item.trace_id)]
    ends = [event for event in events if event.step in ("delivered", "failed")]
    assert len(ends) == len(history.ended)
    told = Counter(
        (event.outbound_id, address)
        for event in events
        if event.step == "dsn" and event.detail.get("kind") == "failed"
        for address in event.detail["recipients"]
    )
    wrote = {(row.queue_id, row.recipient): row.written_to or row.recipient for row in rows}
    failed = Counter(
        (event.outbound_id, wrote[event.outbound_id, event.recipient]) for event in ends if event.step == "failed"
    )
    assert told == failed, "told of each failure once, in the end"
