"""Sets of sequence numbers and UIDs as ranges; nothing here ever expands 1:4294967295 unasked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_SET_RANGES

STAR = 0
"""How `*`, the largest number in use, is written inside SequenceSet.ranges."""

MAX_NUMBER = 0xFFFF_FFFF

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class NumSet:
    """A concrete set of numbers: sorted, disjoint, non-adjacent inclusive ranges of 1..2^32-1."""

    ranges: Ranges = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> NumSet:
        """From numbers in any order; linear when they are sorted."""
        known = sorted(set(numbers))
        ranges = []
        start, count = 0, len(known)
        while start < count:
            # How far the numbers run on without a gap is found in ever longer, then ever shorter strides.
            offset, end, stride = known[start] - start, start, 1
            while end + stride < count and known[end + stride] == end + stride + offset:
                end += stride
                stride *= 2
            while stride := stride // 2:
                if end + stride < count and known[end + stride] == end + stride + offset:
                    end += stride
            ranges.append((known[start], known[end]))
            start = end + 1
        return cls(tuple(ranges))

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> NumSet:
        """From inclusive ranges in any order and direction, overlapping or not."""
        return cls(_merge(sorted((first, last) if first <= last else (last, first) for first, last in ranges)))

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __len__(self) -> int:
        """How many numbers."""
        return sum(last - first + 1 for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        """Every number, ascending (bound it with intersect_sorted first when the set comes from a client)."""
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.ranges, (number, MAX_NUMBER))
        return at > 0 and self.ranges[at - 1][1] >= number

    def format(self) -> bytes:
        """b'1:3,5'. Raises ValueError when empty, which the grammar cannot say."""
        if not self.ranges:
            raise ValueError("an empty set has no IMAP spelling")
        return ",".join([f"{a}:{b}" if a != b else f"{a}" for a, b in self.ranges]).encode()

    def slices(self, known: Sequence[int]) -> list[slice]:
        """Where the members sit in `known` (ascending, unique): slices, ascending. O(ranges · log known)."""
        found = []
        start = 0
        for first, last in self.ranges:
            start = bisect_left(known, first, start)
            if start == len(known):
                break
            stop = bisect_right(known, last, start)
            if stop > start:
                found.append(slice(start, stop))
                start = stop
        return found

    def intersect_sorted(self, known: Sequence[int]) -> list[int]:
        """The members of `known` (ascending, unique) that are in the set, ascending."""
        members: list[int] = []
        for part in self.slices(known):
            members.extend(known[part])
        return members

    def intersect(self, other: NumSet) -> NumSet:
        """The numbers in both."""
        return self.subtract(self.subtract(other))

    def union(self, other: NumSet) -> NumSet:
        """The numbers in either."""
        return NumSet(_merge(sorted(self.ranges + other.ranges)))

    def subtract(self, other: NumSet) -> NumSet:
        """The numbers in this one only. Linear in both range counts."""
        left: list[tuple[int, int]] = []
        holes = other.ranges
        at = 0
        for first, last in self.ranges:
            while at < len(holes) and holes[at][1] < first:
                at += 1
            hole = at
            while hole < len(holes) and holes[hole][0] <= last:
                if holes[hole][0] > first:
                    left.append((first, holes[hole][0] - 1))
                first = holes[hole][1] + 1
                hole += 1
            if first <= last:
                left.append((first, last))
            at = max(at, hole - 1)
        return NumSet(tuple(left))


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A sequence-set as the client wrote it: ranges may be reversed, overlap, and hold STAR.

    `saved` is `$`, the result of the last SEARCH RETURN (SAVE) (RFC 5182); `ranges` is then empty.
    """

    ranges: Ranges = ()
    saved: bool = False

    def resolve(self, largest: int) -> NumSet:
        """Replace `*` by the largest number in use and normalise; `559:*` with largest 300 is 300:559 (RFC 9051 §9).

        largest 0 says that nothing is in use: ranges with `*` are then dropped. `$` is the caller's to replace.
        """
        if largest:
            return NumSet.from_ranges((first or largest, last or largest) for first, last in self.ranges)
        return NumSet.from_ranges(pair for pair in self.ranges if STAR not in pair)

    @property
    def largest_named(self) -> int:
        """The largest number written in the set, 0 if only `*` or `$`; a sequence number beyond EXISTS is an error."""
        return max((number for pair in self.ranges for number in pair), default=0)


def parse_sequence_set(text: bytes) -> SequenceSet:
    """Parse `1:3,5,7:*` or `$`. Raises ImapSyntaxError. At most limits.MAX_SET_RANGES ranges."""
    if text == b"$":
        return SequenceSet(saved=True)
    parts = text.split(b",", MAX_SET_RANGES)
    if len(parts) > MAX_SET_RANGES:
        raise ImapSyntaxError(f"The sequence set has more than {MAX_SET_RANGES} ranges", code="LIMIT")
    ranges = []
    for part in parts:
        first, colon, last = part.partition(b":")
        low = _number(first)
        ranges.append((low, _number(last) if colon else low))
    return SequenceSet(tuple(ranges))


def parse_numset(text: bytes) -> NumSet:
    """Parse a set without `*` or `$` (answers, QRESYNC's known UIDs). Raises ImapSyntaxError."""
    parsed = parse_sequence_set(text)
    if parsed.saved or any(STAR in pair for pair in parsed.ranges):
        raise ImapSyntaxError("'*' and '$' are not allowed in this set")
    return NumSet.from_ranges(parsed.ranges)


def _number(text: bytes) -> int:
    if text == b"*":
        return STAR
    if text.isdigit() and len(text) <= 10:
        number = int(text)
        if 1 <= number <= MAX_NUMBER and text[0] != 48:
            return number
    shown = text[:20].decode("ascii", "replace")
    raise ImapSyntaxError(f"Expected a number from 1 to 4294967295 or '*' in the sequence set, got '{shown}'")


def _merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Join sorted (first <= last) ranges that touch or overlap."""
    merged: list[tuple[int, int]] = []
    start = end = -1
    for first, last in ranges:
        if first <= end + 1 and start >= 0:
            if last > end:
                end = last
        else:
            if start >= 0:
                merged.append((start, end))
            start, end = first, last
    if start >= 0:
        merged.append((start, end))
    return tuple(merged)
