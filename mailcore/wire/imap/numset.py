"""Sets of sequence numbers and UIDs as ranges; nothing here ever expands 1:4294967295 unasked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

STAR = 0
"""How `*`, the largest number in use, is written inside SequenceSet.ranges."""


@dataclass(frozen=True, slots=True)
class NumSet:
    """A concrete set of numbers: sorted, disjoint, non-adjacent inclusive ranges of 1..2^32-1."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> NumSet:
        """From numbers in any order; linear when they are sorted."""
        raise NotImplementedError

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> NumSet:
        """From inclusive ranges in any order and direction, overlapping or not."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __len__(self) -> int:
        """How many numbers."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        """Every number, ascending (bound it with intersect_sorted first when the set comes from a client)."""
        raise NotImplementedError

    def __contains__(self, number: int) -> bool:
        raise NotImplementedError

    def format(self) -> bytes:
        """b'1:3,5'. Raises ValueError when empty, which the grammar cannot say."""
        raise NotImplementedError

    def slices(self, known: Sequence[int]) -> list[slice]:
        """Where the members sit in `known` (ascending, unique): slices, ascending. O(ranges · log known)."""
        raise NotImplementedError

    def intersect_sorted(self, known: Sequence[int]) -> list[int]:
        """The members of `known` (ascending, unique) that are in the set, ascending."""
        raise NotImplementedError

    def intersect(self, other: NumSet) -> NumSet:
        raise NotImplementedError

    def union(self, other: NumSet) -> NumSet:
        raise NotImplementedError

    def subtract(self, other: NumSet) -> NumSet:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A sequence-set as the client wrote it: ranges may be reversed, overlap, and hold STAR; `saved` is `$` (RFC 5182)."""

    ranges: tuple[tuple[int, int], ...] = ()
    saved: bool = False

    def resolve(self, largest: int) -> NumSet:
        """Replace `*` by the largest number in use (0: nothing is, the answer is then without `*`) and normalise.

        `559:*` with largest 300 is 300:559 (RFC 9051 §9). `$` is the caller's to replace.
        """
        raise NotImplementedError

    @property
    def largest_named(self) -> int:
        """The largest number written in the set, 0 if only `*` or `$`: beyond EXISTS it is an error for sequence numbers."""
        raise NotImplementedError


def parse_sequence_set(text: bytes) -> SequenceSet:
    """Parse `1:3,5,7:*` or `$`. Raises ImapSyntaxError. At most limits.MAX_SET_RANGES ranges."""
    raise NotImplementedError


def parse_numset(text: bytes) -> NumSet:
    """Parse a set without `*` or `$` (QRESYNC's known UIDs, answers). Raises ImapSyntaxError."""
    raise NotImplementedError
