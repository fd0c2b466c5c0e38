"""The framer: whole commands come out, refused ones are skipped, and what follows is read rightly."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailcore.wire.imap import response
from mailcore.wire.imap.limits import BEFORE_LOGIN, after_login
from tests.wire.imap.driving import (
    ROOMY,
    TIGHT,
    Continue,
    Frame,
    Framer,
    Line,
    Literal,
    LiteralData,
    LiteralOffer,
    Rejected,
    StreamedLiteral,
    by_size,
    bytewise,
    events_of,
    keep,
    refuse,
)

NOOP = Frame("z", (b"NOOP",))


def both(data: bytes, limits=ROOMY, answer=None):  # type: ignore[no-untyped-def]  # pairs of what the driver takes
    """The events of `data`, having checked that one octet at a time gives the same."""
    kwargs = {} if answer is None else {"answer": answer}
    whole = events_of([data], limits, **kwargs)
    assert events_of(bytewise(data), limits, **kwargs) == whole
    return whole


def test_a_command_without_literals_is_one_piece_of_text() -> None:
    assert both(b"a1 UID FETCH 1:* (FLAGS)\r\na2 NOOP\r\n") == [
        Frame("a1", (b"UID FETCH 1:* (FLAGS)",)),
        Frame("a2", (b"NOOP",)),
    ]


def test_synchronizing_literals_are_asked_for() -> None:
    # RFC 9051 §4.3's kind of dialogue: LOGIN with two literals.
    assert both(b"A001 LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man\r\n") == [
        Continue(),
        Continue(),
        Frame("A001", (b"LOGIN ", Literal(b"FRED FOOBAR"), b" ", Literal(b"fat man"), b"")),
    ]


def test_non_synchronizing_literals_are_not() -> None:
    assert both(b"A001 LOGIN {11+}\r\nFRED FOOBAR {7+}\r\nfat man\r\n") == [
        Frame("A001", (b"LOGIN ", Literal(b"FRED FOOBAR"), b" ", Literal(b"fat man"), b""))
    ]


def test_a_literal_holds_any_octets() -> None:
    assert both(b"a SEARCH TEXT {8+}\r\n\r\n\0{3}\r\n\r\n") == [
        Frame("a", (b"SEARCH TEXT ", Literal(b"\r\n\0{3}\r\n"), b""))
    ]
    assert both(b"a X ~{2+}\r\n\0\0\r\n") == [Frame("a", (b"X ", Literal(b"\0\0", binary=True), b""))]


def test_an_append_is_offered_and_streamed() -> None:
    head = b"A003 APPEND saved-messages (\\Seen) {5}\r\n"
    offer = LiteralOffer("A003", (b"APPEND saved-messages (\\Seen) ",), 5, sync=True, binary=False)
    assert both(head + b"hello\r\n") == [
        offer,
        Continue(),
        LiteralData(b"hello", True),
        Frame("A003", (b"APPEND saved-messages (\\Seen) ", StreamedLiteral(0, 5), b"")),
    ]
    assert both(head + b"hello\r\n", answer=keep)[1:] == [
        Continue(),
        Frame("A003", (b"APPEND saved-messages (\\Seen) ", Literal(b"hello"), b"")),
    ]


def test_the_mailbox_name_of_an_append_is_not_offered() -> None:
    events = both(b"a append {5+}\r\nInbox ~{2+}\r\nhi\r\n")
    assert events[0] == LiteralOffer("a", (b"append ", Literal(b"Inbox"), b" "), 2, sync=False, binary=True)
    assert events[1:] == [
        LiteralData(b"hi", True),
        Frame("a", (b"append ", Literal(b"Inbox"), b" ", StreamedLiteral(0, 2, binary=True), b"")),
    ]


def test_each_message_of_a_multiappend_is_offered() -> None:
    events = both(b"a APPEND x {0+}\r\n (\\Seen) {3+}\r\nabc\r\nz NOOP\r\n")
    assert [type(event).__name__ for event in events] == [
        "LiteralOffer",
        "LiteralData",
        "LiteralOffer",
        "LiteralData",
        "Frame",
        "Frame",
    ]
    assert events[1] == LiteralData(b"", True)
    assert events[4].pieces == (b"APPEND x ", StreamedLiteral(0, 0), b" (\\Seen) ", StreamedLiteral(1, 3), b"")


def test_the_session_can_see_what_a_command_has_cost() -> None:
    framer = Framer(ROOMY)
    framer.feed(b"a APPEND {1+}\r\nx {3+}\r\nabc {5+}\r\nabcde {7+}\r\n")
    framer.next_event()
    assert (framer.memory, framer.literal_octets) == (1, 4)
    framer.accept_in_memory()
    framer.next_event()
    assert (framer.memory, framer.literal_octets) == (4, 9)
    framer.accept_stream()
    framer.next_event()
    framer.next_event()
    assert (framer.memory, framer.literal_octets) == (4, 16)
    framer.refuse("enough")
    framer.feed(b"1234567\r\n")
    assert framer.next_event() == Rejected("a", "NO", "enough")
    assert (framer.memory, framer.literal_octets) == (0, 0)


def test_a_refused_synchronizing_literal_ends_the_command_at_once() -> None:
    assert both(b"a APPEND x {9}\r\nz NOOP\r\n", answer=refuse)[1:] == [
        Rejected("a", "NO", "no such mailbox", "TRYCREATE"),
        NOOP,
    ]


def test_a_refused_non_synchronizing_literal_is_skipped_first() -> None:
    data = b"a APPEND x {9+}\r\n\r\nz BAD\r\n {13+}\r\nz NOOP {3+}\r\n (more) text\r\nz NOOP\r\n"
    assert both(data, answer=refuse)[1:] == [Rejected("a", "NO", "no such mailbox", "TRYCREATE"), NOOP]


def test_a_synchronizing_literal_after_a_refused_one_ends_the_command() -> None:
    # The client waits for a continuation that will not come and takes the tagged answer instead.
    data = b"a APPEND x {3+}\r\nabc (\\Seen) {5}\r\nz NOOP\r\n"
    assert both(data, answer=refuse)[1:] == [Rejected("a", "NO", "no such mailbox", "TRYCREATE"), NOOP]


def test_a_stream_can_be_refused_half_way() -> None:
    framer = Framer(ROOMY)
    framer.feed(b"a APPEND x {10}\r\n")
    assert isinstance(framer.next_event(), LiteralOffer)
    framer.accept_stream()
    assert framer.next_event() == Continue()
    framer.feed(b"abc")
    assert framer.next_event() == LiteralData(b"abc", False)
    framer.refuse("the disk is full", code="UNAVAILABLE")
    assert framer.next_event() is None
    framer.feed(b"defghij\r\nz NOOP\r\n")
    assert framer.next_event() == Rejected("a", "NO", "the disk is full", "UNAVAILABLE")
    assert framer.next_event() == NOOP


def test_a_command_can_be_refused_after_its_stream() -> None:
    framer = Framer(ROOMY)
    framer.feed(b"a APPEND x {3+}\r\nabc {2+}\r\nxy\r\nz NOOP\r\n")
    assert isinstance(framer.next_event(), LiteralOffer)
    framer.accept_stream()
    assert framer.next_event() == LiteralData(b"abc", True)
    framer.refuse("over quota", code="OVERQUOTA")
    assert framer.next_event() == Rejected("a", "NO", "over quota", "OVERQUOTA")
    assert framer.next_event() == NOOP


def test_an_accepted_literal_can_still_be_refused_before_the_continuation() -> None:
    framer = Framer(ROOMY)
    framer.feed(b"a APPEND x {3}\r\n")
    framer.next_event()
    framer.accept_stream()
    framer.refuse("changed my mind")
    assert framer.next_event() == Rejected("a", "NO", "changed my mind")
    framer.feed(b"z NOOP\r\n")
    assert framer.next_event() == NOOP


def test_misuse_by_the_session_is_an_error_of_ours() -> None:
    framer = Framer(ROOMY)
    for call in (framer.accept_stream, framer.accept_in_memory, lambda: framer.refuse("x")):
        with pytest.raises(RuntimeError):
            call()
    framer.feed(b"a APPEND x {3}\r\n")
    framer.next_event()
    for call in (framer.next_event, framer.clear, lambda: framer.expect_line(10)):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize(
    ("data", "tag", "status", "code"),
    [
        (b"a SEARCH TEXT {21}\r\n", "a", "BAD", "TOOBIG"),
        (b"a SEARCH TEXT {21+}\r\n" + b"x" * 21 + b"\r\n", "a", "BAD", "TOOBIG"),
        (
            b"a X {20+}\r\n" + b"x" * 20 + b" {20+}\r\n" + b"x" * 20 + b" {20+}\r\n" + b"x" * 20 + b"\r\n",
            "a",
            "BAD",
            "TOOBIG",
        ),
        (b"a APPEND x {31}\r\n", "a", "NO", "TOOBIG"),
        (b"a APPEND x {26+}\r\n" + b"x" * 26 + b"\r\n", "a", "BAD", "TOOBIG"),
        (b"a APPEND x {99999999999999999999999}\r\n", "a", "NO", "TOOBIG"),
        (b"a " + b"x" * 59 + b"\r\n", "a", "BAD", "LIMIT"),
        (b"x" * 100 + b"\r\n", None, "BAD", "LIMIT"),
        (b"a " + b"x" * 59 + b" {7+}\r\nz NOOP\n\r\n", "a", "BAD", "LIMIT"),
        (b"a X {1+}\r\ny" + b"x" * 60 + b"{3+}\r\nz N\r\n", "a", "BAD", "LIMIT"),
        (b"\r\n", None, "BAD", None),
        (b"a\r\n", "a", "BAD", None),
        (b"a \r\n", "a", "BAD", None),
        (b" NOOP\r\n", None, "BAD", None),
        (b"a+b NOOP\r\n", None, "BAD", None),
        (b"(a NOOP {3+}\r\nabc\r\n", None, "BAD", None),
        (b"(a NOOP {3}\r\n", None, "BAD", None),
        (b"a NOOP\n", "a", "BAD", None),
        (b"a NO\rOP\r\n", "a", "BAD", None),
        (b"a X {3+}\nabc\r\n", "a", "BAD", None),
        (b"a X {3+}\r\nabc\n", "a", "BAD", None),
    ],
)
def test_what_is_refused_costs_an_error_and_never_sync(
    data: bytes, tag: str | None, status: str, code: str | None
) -> None:
    first, second = [event for event in both(data + b"z NOOP\r\n", TIGHT, keep) if not isinstance(event, Continue)]
    assert isinstance(first, Rejected)
    assert (first.tag, first.status, first.code, first.fatal) == (tag, status, code, False)
    assert second == NOOP


@pytest.mark.parametrize(
    "data",
    [
        b"a SEARCH TEXT {121+}\r\n",
        b"a SEARCH TEXT {99999999999999999999999+}\r\n",
        b"a SEARCH TEXT {60+}\r\n" + b"x" * 60 + b" {80+}\r\n",
        b"a " + b"x" * 200,
    ],
)
def test_skipping_has_an_end_too(data: bytes) -> None:
    events = both(data + b"z NOOP\r\n", TIGHT)
    assert len(events) == 1 and isinstance(events[0], Rejected) and events[0].fatal


def test_what_was_skipped_before_does_not_count() -> None:
    events = both((b"a SEARCH TEXT {90+}\r\n" + b"x" * 90 + b"\r\n") * 3 + b"z NOOP\r\n", TIGHT)
    assert [type(event).__name__ for event in events] == ["Rejected"] * 3 + ["Frame"]
    assert not any(event.fatal for event in events[:3])


def test_raw_lines() -> None:
    data = b"a IDLE\r\nDONE\r\nb AUTHENTICATE\r\n{5}\r\nc IDLE\r\nmuch too long a line\r\nd IDLE\r\nDONE\nz NOOP\r\n"
    assert both(data) == [
        Frame("a", (b"IDLE",)),
        Line(b"DONE"),
        Frame("b", (b"AUTHENTICATE",)),
        Line(b"{5}"),
        Frame("c", (b"IDLE",)),
        Rejected(None, "BAD", "The line is too long", "LIMIT"),
        Frame("d", (b"IDLE",)),
        Rejected(None, "BAD", "Lines must end with CRLF"),
        NOOP,
    ]


def test_what_was_pipelined_before_starttls_is_forgotten() -> None:
    framer = Framer(BEFORE_LOGIN)
    framer.feed(b"a STARTTLS\r\nb LOGIN x y\r\n")
    assert framer.next_event() == Frame("a", (b"STARTTLS",))
    framer.clear()
    assert framer.next_event() is None and framer.idle
    framer.feed(b"z NOOP\r\n")
    assert framer.next_event() == NOOP


def test_compress_takes_over_the_unread_bytes() -> None:
    framer = Framer(ROOMY)
    framer.feed(b"a COMPRESS DEFLATE\r\n\x01\x02")
    framer.next_event()
    assert framer.buffered == 2 and not framer.idle
    assert framer.take_rest() == b"\x01\x02"


def test_limits_may_change_between_commands() -> None:
    framer = Framer(BEFORE_LOGIN)
    framer.feed(b"a APPEND x {9000}\r\n")
    assert isinstance(framer.next_event(), Rejected)
    framer.limits = after_login(10_000)
    framer.feed(b"a APPEND x {9000}\r\n")
    assert isinstance(framer.next_event(), LiteralOffer)


def test_literal_minus_allows_4096_octets() -> None:
    limits = after_login(10_000, literal_plus=False)
    assert isinstance(events_of([b"a APPEND x {4096+}\r\n"], limits)[0], LiteralOffer)
    rejected = events_of([b"a APPEND x {4097+}\r\n" + b"x" * 4097 + b"\r\nz NOOP\r\n"], limits)
    assert rejected[0].code == "TOOBIG" and rejected[1] == NOOP


def test_nothing_is_offered_before_login() -> None:
    events = events_of([b"a APPEND x {3+}\r\nabc\r\n"], BEFORE_LOGIN)
    assert events == [Frame("a", (b"APPEND x ", Literal(b"abc"), b""))]


def test_a_streamed_literal_of_50_mb_stays_out_of_memory() -> None:
    size = 50 << 20
    framer = Framer(after_login(size))
    framer.feed(b"a APPEND x {%d+}\r\n" % size)
    assert isinstance(framer.next_event(), LiteralOffer)
    framer.accept_stream()
    chunk = b"x" * 65_536
    received = 0
    tracemalloc.start()
    try:
        for _ in range(size // len(chunk)):
            framer.feed(chunk)
            event = framer.next_event()
            assert isinstance(event, LiteralData)
            received += len(event.data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received == size and event.last
    assert peak < 1 << 20
    framer.feed(b"\r\nz NOOP\r\n")
    assert framer.next_event() == Frame("a", (b"APPEND x ", StreamedLiteral(0, size), b""))
    assert framer.next_event() == NOOP


@pytest.mark.parametrize("head", [b"a SEARCH TEXT {20000000+}\r\n", b"a " + b"x" * 70_000])
def test_what_is_skipped_stays_out_of_memory(head: bytes) -> None:
    framer = Framer(replace(after_login(1 << 20), discard=1 << 30))
    framer.feed(head)
    chunk = b"x" * 50_000
    tracemalloc.start()
    try:
        for _ in range(400):
            assert framer.next_event() is None
            framer.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000
    framer.feed(b"\r\nz NOOP\r\n")
    assert isinstance(framer.next_event(), Rejected)
    assert framer.next_event() == NOOP


def test_a_connection_before_login_keeps_little() -> None:
    framer = Framer(BEFORE_LOGIN)
    peak = 0
    for _ in range(100):
        framer.feed(b"a LOGIN {8000+}\r\n" + b"x" * 8000 + b" {8000+}\r\n")
        while framer.next_event() is not None:
            pass
        peak = max(peak, framer.buffered)
    assert peak <= 24_000


FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b" ", b"a", b"b NOOP", b"c APPEND x ", b"d IDLE\r\n", b"DONE\r\n", b"(", b'"', b"x" * 30,
    b"{0+}\r\n", b"{1+}\r\n", b"{2+}\r\n", b"{3}\r\n", b"{5+}\r\n", b"~{4+}\r\n", b"{19}\r\n", b"{24+}\r\n",
    b"{40+}\r\n",
    b"{99+}\r\n", b"{}", b"}", b"{1+}", b"\0", b"\xff", b"e LOGIN a b\r\n", b"f AUTHENTICATE\r\n",
]  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=4), max_size=25).map(b"".join),
    st.lists(st.integers(0, 999)),
)
@example(b"c APPEND x {3}\r\nabcd NOOP\r\n", [3, 16, 19])
def test_frames_do_not_depend_on_how_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    whole = events_of([data], TIGHT, by_size)
    assert settled(events_of(bytewise(data), TIGHT, by_size)) == settled(whole)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    assert settled(events_of([data[a:b] for a, b in itertools.pairwise(places)], TIGHT, by_size)) == settled(whole)


def settled(events: list[object]) -> list[object]:
    """Without a last literal that is still coming in."""
    return events[:-1] if events and isinstance(events[-1], LiteralData) and not events[-1].last else events


@settings(max_examples=200)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=15).map(b"".join), st.binary(max_size=10))
def test_a_tail_does_not_change_what_came_before(data: bytes, tail: bytes) -> None:
    before = settled(events_of([data], TIGHT, by_size))
    after = events_of([data + tail], TIGHT, by_size)
    assert after[: len(before)] == before


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_raise_or_hang(data: bytes) -> None:
    for event in events_of([data], TIGHT, by_size):
        if isinstance(event, Frame):
            assert response.status_line(event.tag, "OK", "done") == event.tag.encode() + b" OK done\r\n"
        elif isinstance(event, Rejected):
            response.status_line(event.tag, event.status, event.text, event.code)


@given(st.integers(0, 255))
def test_every_tag_that_is_taken_can_be_answered(octet: int) -> None:
    (event,) = events_of([b"a" + bytes((octet,)) + b"b NOOP\r\n"])[:1]
    assert response.status_line(event.tag, "BAD", "x").endswith(b" BAD x\r\n")


def test_text_octets_of_one_command_are_limited_over_all_its_lines() -> None:
    data = b"a X" + b" {0+}\r\n" * 20 + b"\r\nz NOOP\r\n"
    events = both(data, TIGHT)
    assert isinstance(events[0], Rejected) and events[0].code == "LIMIT"
    assert events[1] == NOOP
