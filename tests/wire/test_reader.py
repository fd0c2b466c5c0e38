"""The byte reader: lines and octets come out the same however the network cut them."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.reader import BareLF, BareNewline, ByteReader, LineTooLong


def reader_of(data: bytes) -> ByteReader:
    reader = ByteReader()
    reader.feed(data)
    return reader


def test_a_line_comes_without_its_crlf_and_only_when_complete() -> None:
    reader = reader_of(b"NOOP\r")
    assert reader.take_line(100) is None
    reader.feed(b"\nQUIT\r\n")
    assert reader.take_line(100) == b"NOOP"
    assert reader.take_line(100) == b"QUIT"
    assert reader.take_line(100) is None
    assert len(reader) == 0


@pytest.mark.parametrize("data", [b"a\nb\r\n", b"a\rx\r\nb\r\n", b"\nb\r\n", b"a\r\r\nb\r\n"])
def test_a_bare_cr_or_lf_is_an_error_and_the_next_line_is_read(data: bytes) -> None:
    reader = reader_of(data)
    with pytest.raises(BareNewline):
        reader.take_line(100)
    assert reader.take_line(100) == b"b"


def test_a_bare_lf_may_be_accepted_or_be_data() -> None:
    assert reader_of(b"a\nb\r\n").take_line(100, BareLF.ACCEPT) == b"a"
    assert reader_of(b"a\nb\rc\r\n").take_line(100, BareLF.DATA) == b"a\nb\rc"
    reader = reader_of(b"a\n\r")
    assert reader.take_line(100, BareLF.DATA) is None
    reader.feed(b"\n")
    assert reader.take_line(100, BareLF.DATA) == b"a\n"


@pytest.mark.parametrize("policy", list(BareLF))
def test_the_limit_counts_octets_without_the_line_end(policy: BareLF) -> None:
    assert reader_of(b"12345\r\n").take_line(5, policy) == b"12345"
    assert reader_of(b"12345\r").take_line(5, policy) is None
    for data in (b"123456\r\n", b"123456", b"12345\rx"):
        with pytest.raises(LineTooLong):
            reader_of(data).take_line(5, policy)


def test_an_over_long_line_is_discarded_without_being_kept() -> None:
    reader = reader_of(b"x" * 50)
    with pytest.raises(LineTooLong):
        reader.take_line(10)
    reader.discard_line(keep=4)
    assert reader.discarding and len(reader) == 0
    for _ in range(1000):
        reader.feed(b"y" * 1000)
        assert len(reader) == 0
    reader.feed(b"zzEND\r")
    reader.feed(b"\nnext\r\n")
    assert not reader.discarding
    assert reader.tail == b"zEND"
    assert reader.discarded == 50 + 1_000_000 + 7
    assert reader.take_line(10) == b"next"


def test_octets_are_taken_exactly_or_as_they_come() -> None:
    reader = reader_of(b"abcdef")
    assert reader.take(7) is None
    assert reader.take(2) == b"ab"
    assert reader.peek(2) == b"cd"
    assert reader.take_up_to(3) == b"cde"
    assert reader.take_up_to(3) == b"f"
    assert reader.take_up_to(3) == b""
    assert reader.take(0) == b""


def test_discard_reaches_into_what_has_not_arrived() -> None:
    reader = reader_of(b"abc")
    reader.discard(5)
    assert reader.discarding
    reader.feed(b"de")
    assert not reader.discarding
    reader.feed(b"f\r\n")
    assert reader.take_line(10) == b"f"


def test_discard_of_octets_and_then_of_a_line() -> None:
    reader = ByteReader()
    reader.discard(3)
    reader.discard_line(keep=10)
    reader.feed(b"a\nbrest of line\r\nnext")
    assert (reader.tail, reader.peek(10)) == (b"st of line", b"next")


def test_clear_forgets_everything_unread() -> None:
    reader = reader_of(b"STARTTLS\r\nEHLO injected\r\n")
    assert reader.take_line(100) == b"STARTTLS"
    assert reader.clear() == b"EHLO injected\r\n"
    assert reader.take_line(100) is None
    reader.feed(b"ok\r\n")
    assert reader.take_line(100) == b"ok"


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def lines_of(chunks: list[bytes], limit: int, policy: BareLF) -> list[object]:
    """What a caller sees that discards over-long lines."""
    reader, seen = ByteReader(), []
    for chunk in chunks:
        reader.feed(chunk)
        while not reader.discarding:
            if seen and seen[-1] == "too long":
                seen.append(("skipped", reader.tail))
            try:
                line = reader.take_line(limit, policy)
            except LineTooLong:
                reader.discard_line(keep=3)
                seen.append("too long")
                continue
            except BareNewline as error:
                seen.append(("bare", error.line))
                continue
            if line is None:
                break
            seen.append(line)
    return seen


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"bcd", b"efghijk"]), max_size=30).map(b"".join),
    st.lists(st.integers(0, 1000), max_size=8),
    st.sampled_from(BareLF),
)
def test_the_same_lines_however_they_arrive(data: bytes, cuts: list[int], policy: BareLF) -> None:
    if policy is BareLF.DATA:
        # discard_line() ends at LF, which is no line end under this policy.
        data = data.replace(b"efghijk", b"e")
        limit = len(data)
    else:
        limit = 8
    whole = lines_of([data], limit, policy)
    assert lines_of(chunks_of(data, cuts), limit, policy) == whole
    assert lines_of([bytes((octet,)) for octet in data], limit, policy) == whole


@pytest.mark.parametrize("policy", list(BareLF))
def test_byte_by_byte_takes_linear_time(policy: BareLF) -> None:
    reader = reader_of(b"x" * (4 << 20))
    began = time.process_time()
    for _ in range(20_000):
        reader.feed(b"x")
        assert reader.take_line(1 << 30, policy) is None
    # Searching the 4 MB again for each byte would take several seconds.
    assert time.process_time() - began < 5


def test_many_lines_in_one_buffer_take_linear_time() -> None:
    reader = reader_of(b"A1 NOOP\r\n" * 100_000)
    began = time.process_time()
    count = 0
    while reader.take_line(100) is not None:
        count += 1
    assert count == 100_000
    assert time.process_time() - began < 2
