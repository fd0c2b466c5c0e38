"""Number sets against Python's own sets as the model."""

from __future__ import annotations

import time
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_SET_RANGES
from mailcore.wire.imap.numset import MAX_NUMBER, STAR, NumSet, SequenceSet, parse_numset, parse_sequence_set

small = st.sets(st.integers(1, 60))
narrow = st.builds(lambda first, more: (first, first + more), st.integers(1, 60), st.integers(0, 3))
pairs = st.lists(narrow | st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=8)


def expand(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for a, b in ranges for number in range(min(a, b), max(a, b) + 1)}


def test_parse_and_format() -> None:
    assert parse_sequence_set(b"2,4:7,9,12:*") == SequenceSet(((2, 2), (4, 7), (9, 9), (12, STAR)))
    assert parse_sequence_set(b"*:4,5:7") == SequenceSet(((STAR, 4), (5, 7)))
    assert parse_sequence_set(b"$") == SequenceSet(saved=True)
    assert parse_numset(b"7:5,1:2,3").format() == b"1:3,5:7"
    assert parse_numset(b"1:4294967295").ranges == ((1, MAX_NUMBER),)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b",",
        b"1,",
        b":",
        b"1:",
        b":1",
        b"1:2:3",
        b"0",
        b"-1",
        b"01",
        b"4294967296",
        b"99999999999",
        b"**",
        b"1 2",
        b"$,1",
        b"a",
        b"\xb2",
    ],
)
def test_malformed_sets(text: bytes) -> None:
    with pytest.raises(ImapSyntaxError):
        parse_sequence_set(text)


@pytest.mark.parametrize("text", [b"*", b"1:*", b"$"])
def test_a_concrete_set_has_no_star(text: bytes) -> None:
    with pytest.raises(ImapSyntaxError):
        parse_numset(text)


def test_the_number_of_ranges_is_bounded() -> None:
    assert len(parse_sequence_set(b",".join([b"1"] * MAX_SET_RANGES)).ranges) == MAX_SET_RANGES
    with pytest.raises(ImapSyntaxError):
        parse_sequence_set(b",".join([b"1"] * (MAX_SET_RANGES + 1)))


def test_star_is_the_largest_number_in_use() -> None:
    assert parse_sequence_set(b"2,4:7,9,12:*").resolve(15).format() == b"2,4:7,9,12:15"
    assert parse_sequence_set(b"*:4,5:7").resolve(10).format() == b"4:10"
    # RFC 9051 §9: 559:* always includes the last message.
    assert parse_sequence_set(b"559:*").resolve(300).format() == b"300:559"
    assert parse_sequence_set(b"*").resolve(3).format() == b"3"
    assert parse_sequence_set(b"1:*,7").resolve(0).format() == b"7"
    assert not parse_sequence_set(b"1:*").resolve(0)


def test_the_largest_number_named() -> None:
    assert parse_sequence_set(b"9:2,*").largest_named == 9
    assert parse_sequence_set(b"*").largest_named == 0
    assert parse_sequence_set(b"$").largest_named == 0


def test_huge_ranges_are_never_expanded() -> None:
    everything = parse_numset(b"1:4294967295")
    known = array("I", range(1, 200_001))
    began = time.process_time()
    assert len(everything) == MAX_NUMBER
    assert 4_000_000_000 in everything
    assert everything.slices(known) == [slice(0, 200_000)]
    assert everything.subtract(NumSet.of([5])).format() == b"1:4,6:4294967295"
    assert everything.intersect(NumSet.of([7, 9])).format() == b"7,9"
    assert time.process_time() - began < 2
    assert everything.intersect_sorted(known) == list(known)


def test_many_ranges_meet_many_uids_quickly() -> None:
    scattered = parse_numset(b",".join(b"%d" % n for n in range(1, 40_000, 2)))
    known = array("I", range(1, 200_001))
    began = time.process_time()
    assert len(scattered.intersect_sorted(known)) == 20_000
    assert len(scattered.union(NumSet.of(range(2, 40_000, 2))).ranges) == 1
    assert not scattered.intersect(NumSet.of(range(2, 40_000, 2)))
    assert time.process_time() - began < 5


def test_an_empty_set_cannot_be_written() -> None:
    assert not NumSet()
    with pytest.raises(ValueError, match="empty"):
        NumSet().format()


@given(small)
def test_of_and_back(numbers: set[int]) -> None:
    found = NumSet.of(numbers)
    assert list(found) == sorted(numbers)
    assert len(found) == len(numbers)
    assert bool(found) == bool(numbers)
    assert {n for n in range(70) if n in found} == numbers
    if numbers:
        assert parse_numset(found.format()) == found


@given(pairs)
def test_ranges_are_normal(ranges: list[tuple[int, int]]) -> None:
    found = NumSet.from_ranges(ranges)
    assert set(found) == expand(ranges)
    assert all(a <= b for a, b in found.ranges)
    assert all(left[1] + 1 < right[0] for left, right in zip(found.ranges, found.ranges[1:], strict=False))


def test_one_hole_may_cut_two_ranges() -> None:
    assert parse_numset(b"1:3,5:7,9").subtract(parse_numset(b"2:6")).format() == b"1,7,9"


@given(pairs, pairs)
def test_set_algebra(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = NumSet.from_ranges(left), NumSet.from_ranges(right)
    x, y = expand(left), expand(right)
    assert a.union(b) == NumSet.of(x | y)
    assert a.intersect(b) == NumSet.of(x & y)
    assert a.subtract(b) == NumSet.of(x - y)


@given(pairs, small.map(sorted))
def test_intersection_with_known_numbers(ranges: list[tuple[int, int]], known: list[int]) -> None:
    found = NumSet.from_ranges(ranges)
    wanted = sorted(expand(ranges) & set(known))
    assert found.intersect_sorted(array("I", known)) == wanted
    assert [number for part in found.slices(known) for number in known[part]] == wanted


@given(pairs, st.integers(0, 70))
def test_resolve_without_star_is_the_set_itself(ranges: list[tuple[int, int]], largest: int) -> None:
    assert set(SequenceSet(tuple(ranges)).resolve(largest)) == expand(ranges)


@given(st.binary(max_size=20) | st.text("0123456789:,*$", max_size=20).map(str.encode))
def test_no_bytes_raise_anything_else(text: bytes) -> None:
    try:
        parse_sequence_set(text).resolve(5)
    except ImapSyntaxError:
        pass
