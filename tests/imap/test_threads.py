"""Threading: the rules of RFC 5256 §3, and that no set of messages breaks them."""

from __future__ import annotations

import re
import struct
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.imap import threads
from mailcore.imap.threads import ALGORITHMS, Row


def row(
    uid: int, own: int = 0, refs: tuple[int, ...] = (), subject: str = "", reply: bool = False, came: int = 0
) -> Row:
    ancestry = struct.pack(f"!B{1 + len(refs)}Q", reply, own, *refs)
    return uid, subject, ancestry, datetime.fromtimestamp(came or uid, UTC)


def threaded(algorithm: str, *rows: Row) -> str:
    found = ALGORITHMS[algorithm](rows)
    return (found.form % tuple(found.uids)).decode()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((), ""),
        ((row(1, 1), row(2, 2)), "(1)(2)"),
        ((row(1, 1), row(2, 2, (1,)), row(3, 3, (1, 2))), "(1 2 3)"),
        ((row(1, 1), row(2, 2, (1,)), row(3, 3, (1,))), "(1 (2)(3))"),
        ((row(1, 1), row(2, 2, (1,)), row(3, 3, (1, 2)), row(4, 4, (1,))), "(1 (2 3)(4))"),
        # What is missing keeps its children together, but an only child needs no such parent.
        ((row(2, 2, (9,)), row(3, 3, (9,))), "((2)(3))"),
        ((row(2, 2, (9,)),), "(2)"),
        ((row(2, 2, (8, 9)), row(3, 3, (8, 7))), "((2)(3))"),
        # A missing message inside a thread is left out.
        ((row(1, 1), row(2, 2, (1, 9)), row(3, 3, (1, 9))), "(1 (2)(3))"),
        # The first of two messages with one id has it.
        ((row(1, 1), row(2, 1), row(3, 3, (1,))), "(1 3)(2)"),
        # Loops are not made: each link that would is left out.
        ((row(1, 1, (2,)), row(2, 2, (1,))), "(2 1)"),
        ((row(1, 1, (1,)),), "(1)"),
        ((row(1, 1, (3,)), row(2, 2, (1,)), row(3, 3, (2,))), "(3 1 2)"),
        # A later message's own references say more than what others say of it.
        ((row(5, 5, (1, 2)), row(6, 2, (7,)), row(7, 7)), "(7 6 5)"),
    ],
)
def test_references(rows, expected):
    assert threaded("REFERENCES", *rows) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # A reply without references joins the thread of its subject.
        ((row(1, 1, subject="a"), row(2, 2, subject="a", reply=True)), "(1 2)"),
        ((row(1, 1, subject="a", reply=True), row(2, 2, subject="a")), "(2 1)"),
        # Two that are none, or two replies, become siblings.
        ((row(1, 1, subject="a"), row(2, 2, subject="a")), "((1)(2))"),
        ((row(1, 1, subject="a", reply=True), row(2, 2, subject="a", reply=True)), "((1)(2))"),
        ((row(1, 1, subject="a"), row(2, 2, subject="a"), row(3, 3, subject="a")), "((1)(2)(3))"),
        # An empty subject joins nothing.
        ((row(1, 1), row(2, 2)), "(1)(2)"),
        # Threads whose first message is missing.
        (
            (row(1, 1, (8,), "a"), row(2, 2, (8,), "b"), row(3, 3, (9,), "a"), row(4, 4, (9,), "c")),
            "((1)(2)(3)(4))",
        ),
        ((row(1, 1, subject="a"), row(2, 2, (9,), "a"), row(3, 3, (9,), "c")), "((1)(2)(3))"),
    ],
)
def test_references_gathers_subjects(rows, expected):
    assert threaded("REFERENCES", *rows) == expected


def test_refs_leaves_subjects_alone_and_puts_the_liveliest_thread_last():
    rows = row(1, 1, subject="a"), row(2, 2, subject="a"), row(3, 3, (1,), "a", True)
    assert threaded("REFS", *rows) == "(2)(1 3)"
    assert threaded("REFERENCES", *rows) == "((1 3)(2))"


def test_refs_sorts_threads_by_arrival_and_messages_by_sent_date():
    rows = row(1, 1, came=9), row(3, 3, (1,), came=2), row(2, 2, (1,), came=1), row(4, 4, came=5)
    assert threaded("REFS", *rows) == "(4)(1 (3)(2))"


def test_ordered_subject_has_no_grandchildren():
    rows = row(1, subject="a"), row(2, subject="b"), row(3, subject="a"), row(4, subject="a"), row(5, subject="b")
    assert threaded("ORDEREDSUBJECT", *rows) == "(1 (3)(4))(2 5)"


def test_siblings_come_by_date_whatever_their_numbers():
    assert threaded("REFERENCES", row(9, 9, (1,)), row(3, 1), row(2, 2, (1,))) == "(3 (9)(2))"


mails = st.lists(
    st.tuples(
        st.integers(0, 6), st.lists(st.integers(1, 9), max_size=5), st.sampled_from(["", "a", "b"]), st.booleans()
    ),
    max_size=25,
)


@given(mails, st.randoms(use_true_random=False), st.sampled_from(sorted(ALGORITHMS)))
def test_every_message_is_in_exactly_one_place(found, random, algorithm):
    uids = random.sample(range(1, 100), len(found))
    rows = [
        row(uid, own, tuple(refs), subject, reply) for uid, (own, refs, subject, reply) in zip(uids, found, strict=True)
    ]
    answer = threaded(algorithm, *rows)
    assert sorted(map(int, re.findall(r"\d+", answer))) == sorted(uids)
    # Well-formed: no empty thread, and several children wherever there are parentheses inside of a thread.
    assert re.fullmatch(r"[0-9 ()]*", answer) and "()" not in answer
    depth, kids = 0, [0]
    for sign in re.findall(r"[()]", answer):
        if sign == "(":
            depth += 1
            kids[-1] += 1
            kids.append(0)
        else:
            depth -= 1
            assert kids.pop() != 1
        assert depth >= 0
    assert depth == 0


def chain(n: int) -> list[Row]:
    return [row(uid, uid, tuple(range(max(1, uid - 100), uid))) for uid in range(1, n + 1)]


def backwards(n: int) -> list[Row]:
    return [row(n - uid + 1, uid, (uid - 1,) if uid > 1 else ()) for uid in range(1, n + 1)]


def tangle(n: int) -> list[Row]:
    """Every message claims that the top of one deep chain answers it: each claim is a walk through the chain."""
    return [row(uid, uid, (uid - 1,)) for uid in range(2, n // 2)] + [
        row(uid, 0, (uid - n // 2 + 1, n // 2 - 1, 1)) for uid in range(n // 2, n)
    ]


@pytest.mark.parametrize("make", [chain, backwards, tangle], ids=lambda make: make.__name__)
def test_hostile_mailboxes_cost_no_more_than_their_size(make):
    def cost(n: int) -> float:
        rows = make(n)
        best = 9.0
        for _ in range(3):
            start = time.process_time()
            found = threads.references(rows)
            best = min(best, time.process_time() - start)
        assert len(found.uids) == len(rows)
        return best

    assert cost(8_000) < 10 * cost(1_000) * 2
