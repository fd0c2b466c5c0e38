"""The history of messages."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore import db
from mailcore.store import trace
from mailcore.store.trace import Event, Found

pytestmark = pytest.mark.django_db


def find(text: str, limit: int = 20) -> list[Found]:
    with db.django_transaction() as tx:
        return db.run_sync(trace.find(tx, text, limit))


def add(*events: Event) -> None:
    with db.django_transaction() as tx:
        db.run_sync(trace.add(tx, events))


def test_ids_are_short_unique_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(trace.new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert {len(name) for name in ids} == {trace.ID_LENGTH}
    assert len({trace.new_id() for _ in range(20_000)}) == 20_000


def test_a_message_is_found_by_every_name_people_have_for_it() -> None:
    name = trace.new_id()
    add(
        Event(name, "accepted", 7, None, "Ann@Example.test", "bob@example.org", "<a.1@example.test>", {"ip": "::1"}),
        Event(name, "queued", 7, 4711, "ann@example.test", "bob@example.org"),
        Event(trace.new_id(), "accepted", 8, None, "carol@example.test", "dan@example.org", "<other@example.test>"),
    )
    for text in (
        name,
        name.upper(),
        "ann@example.test",
        "BOB@example.org",
        "<a.1@example.test>",
        "a.1@example.test",
        "4711",
        " 4711 ",
    ):
        found = find(text)
        assert [event.step for event in found] == ["accepted", "queued"], text
        assert {event.trace_id for event in found} == {name}
    assert found[0].detail == {"ip": "::1"}
    assert found[0].sender == "ann@example.test"
    assert found[0].at.tzinfo is not None
    assert find("nobody@example.test") == []


def test_a_message_is_found_by_the_address_of_its_client_and_within_a_time() -> None:
    first, second = "c" * 15, "d" * 15
    add(
        Event(
            first, "accepted", sender="x@far.example", detail={"from": "192.0.2.7"}, at=datetime(2026, 1, 1, tzinfo=UTC)
        ),
        Event(
            second,
            "refused",
            sender="x@far.example",
            detail={"from": "2001:db8::7"},
            at=datetime(2026, 2, 1, tzinfo=UTC),
        ),
    )
    assert [event.trace_id for event in find("192.0.2.7")] == [first]
    assert [event.trace_id for event in find("[2001:DB8:0::7]")] == [second]
    assert [event.trace_id for event in find("")] == [second, first], "nothing is asked: the newest of all"
    with db.django_transaction() as tx:
        for text in ("x@far.example", "192.0.2.7", ""):
            early = db.run_sync(trace.find(tx, text, until=datetime(2026, 1, 15, tzinfo=UTC)))
            assert [event.trace_id for event in early] == [first]
            late = db.run_sync(trace.find(tx, text, since=datetime(2026, 1, 15, tzinfo=UTC)))
            assert [event.trace_id for event in late] == ([] if text.startswith("192") else [second])


def test_an_administrator_of_domains_finds_their_mail_only() -> None:
    to_us, from_us, forged, foreign = ("efgh"[n] * 15 for n in range(4))
    add(
        Event(to_us, "accepted", sender="x@far.example", detail={"from": "192.0.2.7"}),
        Event(to_us, "stored", 7, recipient="ann@home.example"),
        Event(from_us, "accepted", 7, sender="ann@home.example", detail={"from": "192.0.2.7"}),
        Event(from_us, "queued", 7, sender="ann@home.example", recipient="x@far.example"),
        Event(forged, "accepted", sender="ann@home.example", detail={"from": "192.0.2.7"}),
        Event(forged, "stored", 8, recipient="bob@other.example"),
        Event(foreign, "accepted", sender="x@far.example", detail={"from": "192.0.2.7"}),
        Event(foreign, "stored", 8, recipient="bob@other.example"),
    )
    with db.django_transaction() as tx:
        for text in ("192.0.2.7", ""):
            found = db.run_sync(trace.find(tx, text, domains=["home.example"]))
            assert {event.trace_id for event in found} == {to_us, from_us}
        assert db.run_sync(trace.find(tx, "192.0.2.7", domains=[])) == []
        assert db.run_sync(trace.find(tx, forged, domains=["home.example"])) == []


def test_people_find_what_was_sent_to_them_and_what_they_sent() -> None:
    to_ann, by_ann, forged, foreign = ("ijkl"[n] * 15 for n in range(4))
    add(
        Event(to_ann, "accepted", sender="x@far.example", message_id="<1@far.example>"),
        Event(to_ann, "stored", 7, recipient="ann@home.example"),
        Event(by_ann, "accepted", 7, sender="info@home.example", detail={"to": ["X@far.example"]}),
        Event(by_ann, "delivered", 7, 4, "info@home.example", "x@far.example"),
        Event(forged, "accepted", sender="ann@home.example"),
        Event(forged, "stored", 8, recipient="bob@home.example"),
        Event(foreign, "accepted", 8, sender="bob@home.example"),
        Event(foreign, "delivered", 8, 5, "bob@home.example", "x@far.example"),
    )
    own = ["Ann@home.example", "info@home.example"]
    with db.django_transaction() as tx:

        def found(text: str) -> set[str]:
            return {event.trace_id for event in db.run_sync(trace.find_own(tx, 7, own, text))}

        assert found("") == {to_ann, by_ann}
        assert found("x@far.example") == {to_ann, by_ann}
        assert found("<1@far.example>") == {to_ann}
        for text in (forged, foreign, "bob@home.example", "5"):
            assert found(text) == set()


def test_the_newest_messages_come_first_and_each_in_order_of_time() -> None:
    early = Event("a" * 15, "accepted", sender="ann@example.test", at=datetime(2026, 1, 1, tzinfo=UTC))
    late = Event("b" * 15, "accepted", sender="ann@example.test", at=datetime(2026, 2, 1, tzinfo=UTC))
    later = Event("b" * 15, "delivered", sender="ann@example.test", at=datetime(2026, 2, 2, tzinfo=UTC))
    add(later, early, late)
    assert [(event.trace_id[0], event.step) for event in find("ann@example.test")] == [
        ("b", "accepted"),
        ("b", "delivered"),
        ("a", "accepted"),
    ]
    assert {event.trace_id[0] for event in find("ann@example.test", 1)} == {"b"}


def test_an_unfinished_transaction_leaves_no_trace() -> None:
    name = trace.new_id()
    with pytest.raises(ZeroDivisionError), db.django_transaction() as tx:
        db.run_sync(trace.add(tx, [Event(name, "accepted")]))
        raise ZeroDivisionError
    assert find(name) == []


@given(
    st.lists(st.text(st.characters(codec=None), max_size=50), max_size=3),
    st.dictionaries(st.text(st.characters(codec=None)), st.binary(max_size=20) | st.text(st.characters(codec=None))),
)
def test_any_text_can_be_traced(words: list[str], detail: dict[str, object]) -> None:
    sender, recipient, message_id = [*words, None, None, None][:3]
    name = trace.new_id()
    add(Event(name, "accepted", None, None, sender, recipient, message_id, {**detail, "list": words, "number": 1}))
    assert find(name)[0].detail["number"] == 1


def test_a_remote_that_answers_with_a_book_is_cut_short() -> None:
    name = trace.new_id()
    add(Event(name, "attempt", recipient="x" * 100_000, detail={"reply": "y" * 100_000}))
    found = find(name)[0]
    assert len(found.detail["reply"]) == trace.MAX_TEXT
    assert len(found.recipient or "") == trace.MAX_KEY


def test_a_monstrous_message_id_fits_into_the_index() -> None:
    letters = random.Random(7)
    monster = "".join(chr(letters.randrange(0x20000, 0x2A000)) for _ in range(2000))
    add(Event("0" * 15, "accepted", sender=monster, message_id=monster))
    assert [event.step for event in find(monster)] == ["accepted"]
