"""A segment of the search index: the words of some of an account's messages and where they occur. No input or output.

Words stand sorted in blocks, each zlib-compressed, with the sections they occur in: the header of the segment's n-th
message is section 2n, its body 2n+1. A filter tells which blocks may hold a piece of a word: for each slot that grams
hash to, one bit per block; slots stand together in rows of about 2 kB. Segments never change: they are replaced.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, chain, compress
from operator import sub
from typing import Literal

from mailcore.store.index_words import (
    GRAM,
    MACHINE_LENGTH,
    SHORT_GRAM,
    SLOTS,
    Run,
    asked_slots,
    is_machine,
    slots,
    words,
)

# A segment is full with so many messages (sections are 16-bit numbers) or pairs of word and section; the latter bounds
# what building one takes: about 150 MB, twice that where every fifth word is new.
MAX_DOCUMENTS = 32_000
MAX_PAIRS = 4_000_000

NATURAL_WORDS = 512  # in a block
MACHINE_WORDS = 256
_ROW = 2048  # octets of a row of the filter, before compression

Part = Literal["header", "body", "any"]


class Kind(IntEnum):
    """The filters: for natural words two, one of them for runs that are too short for the other."""

    SHORT = 0
    NATURAL = 1
    MACHINE = 2

    @property
    def machine(self) -> bool:
        return self is Kind.MACHINE

    @property
    def gram(self) -> int:
        return SHORT_GRAM if self is Kind.SHORT else GRAM


@dataclass(frozen=True, slots=True)
class Segment:
    """What is stored of a segment. `documents`: its messages' numbers less `first`, packed; None: all in the range.

    `blocks`: (words, sections) of each, the natural ones first. `filters`: (row, bits). `decides`: a word is in a
    message's text if, and only if, it is in the segment.
    """

    first: int
    beyond: int
    documents: bytes | None
    messages: int
    pairs: int
    decides: bool
    natural: int
    machine: int
    blocks: list[tuple[bytes, bytes]]
    filters: list[tuple[int, bytes]]

    @property
    def size(self) -> int:
        """Octets of it in the database, without the rows' own."""
        return sum(len(one) + len(other) for one, other in self.blocks) + sum(len(bits) for _, bits in self.filters)


# --- building -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Builder:
    """Takes messages in the order of their numbers."""

    documents: list[int] = field(default_factory=list)
    pairs: int = 0
    decides: bool = True
    _words: dict[str, int | list[int]] = field(default_factory=dict)  # most words are in one section

    @property
    def is_full(self) -> bool:
        return self.pairs >= MAX_PAIRS or len(self.documents) >= MAX_DOCUMENTS

    def add(self, docno: int, fields: str, header: str, body: str) -> None:
        """A message's folded text; `fields`: the columns searched by themselves, which a long header may not hold."""
        section = 2 * len(self.documents)
        self.documents.append(docno)
        of_header, of_body = words(header), words(body)
        more = words(fields) - of_header
        if more:
            self.decides = False
            of_header |= more
        at = self._words
        for place, found in enumerate((of_header, of_body), section):
            for word in found:
                known = at.get(word)
                if known is None:
                    at[word] = place
                elif isinstance(known, int):
                    at[word] = [known, place]
                else:
                    known.append(place)
        self.pairs += len(of_header) + len(of_body)

    def finish(self, first: int, beyond: int) -> Segment:
        """The segment of what was added, for messages from `first` to before `beyond`."""
        natural: list[str] = []
        machine: list[str] = []
        for word in sorted(self._words):
            (machine if len(word) >= MACHINE_LENGTH and is_machine(word) else natural).append(word)
        pieces = [
            [found[at : at + size] for at in range(0, len(found), size)]
            for found, size in ((natural, NATURAL_WORDS), (machine, MACHINE_WORDS))
        ]
        dense = len(self.documents) == beyond - first
        offsets = array("I", [docno - first for docno in self.documents])
        filters = [(len(Kind) * row + kind, bits) for kind in Kind for row, bits in _filter(pieces[kind.machine], kind)]
        return Segment(
            first,
            beyond,
            documents=None if dense else zlib.compress(_little(offsets).tobytes()),
            messages=len(self.documents),
            pairs=self.pairs,
            decides=self.decides,
            natural=len(pieces[0]),
            machine=len(pieces[1]),
            blocks=[self._block(block) for blocks in pieces for block in blocks],
            filters=filters,
        )

    def _block(self, block: Sequence[str]) -> tuple[bytes, bytes]:
        where = [(one,) if isinstance(one, int) else one for one in map(self._words.__getitem__, block)]
        flat = list(chain.from_iterable(where))
        counts = list(map(len, where))
        gaps = [0, *map(sub, flat[1:], flat)]
        for at in accumulate(counts[:-1], initial=0):
            gaps[at] = flat[at]  # of each word the first section itself
        text = "\n" + "\n".join(block) + "\n"
        return zlib.compress(text.encode()), zlib.compress(_planes(array("H", counts)) + _planes(array("H", gaps)))


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def _planes(numbers: array[int]) -> bytes:
    """All low octets, then all high ones, which are mostly zero."""
    octets = _little(numbers).tobytes()
    return octets[::2] + octets[1::2]


def _unplaned(octets: bytes) -> array[int]:
    half = len(octets) // 2
    mixed = bytearray(len(octets))
    mixed[::2], mixed[1::2] = octets[:half], octets[half:]
    numbers = array("H")
    numbers.frombytes(mixed)
    return _little(numbers)


def _filter(blocks: Sequence[Sequence[str]], kind: Kind) -> Iterator[tuple[int, bytes]]:
    if not blocks:
        return
    bits = [0] * SLOTS
    for number, block in enumerate(blocks):
        for slot in slots(block, kind.gram):
            bits[slot] |= 1 << number
    width, per_row = _layout(len(blocks))
    for at in range(0, SLOTS, per_row):
        yield at // per_row, zlib.compress(b"".join([one.to_bytes(width, "little") for one in bits[at : at + per_row]]))


def _layout(blocks: int) -> tuple[int, int]:
    """Octets of a slot, slots of a row."""
    width = (blocks + 7) // 8
    return width, min(SLOTS, max(1, _ROW // width))


# --- reading --------------------------------------------------------------------------------------------------------


def _asked(run: Run, natural: int, machine: int) -> Iterator[tuple[Kind, int, int]]:
    """(which filter, row, slot) for a run. Words of machines have no short grams: all their blocks are left."""
    short = len(run.text) < GRAM
    for kind, blocks in ((Kind.SHORT, natural),) if short else ((Kind.NATURAL, natural), (Kind.MACHINE, machine)):
        if blocks:
            per_row = _layout(blocks)[1]
            for slot in asked_slots(run.text):
                yield kind, len(Kind) * (slot // per_row) + kind, slot


def filter_rows(run: Run, natural: int, machine: int) -> set[int]:
    """Rows of the filters that tell where a run may occur, in a segment of so many natural and machine blocks."""
    return {row for _, row, _ in _asked(run, natural, machine)}


def blocks_of(run: Run, natural: int, machine: int, rows: Mapping[int, bytes]) -> list[int]:
    """Numbers of the blocks where a run may occur. `rows`: those of `filter_rows`, as stored."""
    left = [(1 << natural) - 1, (1 << machine) - 1]
    inflated = {row: zlib.decompress(bits) for row, bits in rows.items()}
    for kind, row, slot in _asked(run, natural, machine):
        width, per_row = _layout(machine if kind.machine else natural)
        at = slot % per_row * width
        left[kind.machine] &= int.from_bytes(inflated[row][at : at + width], "little")
    return _ones(left[0]) + [natural + number for number in _ones(left[1])]


def _ones(bits: int) -> list[int]:
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def mark(run: Run, block: bytes, where: bytes, marked: bytearray) -> None:
    """Put a 1 for each section of the words of a block that a run occurs in."""
    text = zlib.decompress(block)
    pattern = run.pattern
    at = text.find(pattern)
    if at < 0:
        return
    octets = zlib.decompress(where)
    total = 2 * (text.count(b"\n") - 1)
    counts, gaps = _unplaned(octets[:total]), _unplaned(octets[total:])
    starts = [0, *accumulate(counts)]
    word, seen = -1, 0
    while at >= 0:
        word += text.count(b"\n", seen, at + run.starts)
        seen = at + run.starts
        for section in accumulate(gaps[starts[word] : starts[word + 1]]):
            marked[section] = 1
        at = text.find(pattern, text.find(b"\n", seen))


def messages(marked: bytes | bytearray, part: Part) -> bytes:
    """Of marked sections the messages that have one in a part, a 1 for each."""
    header, body = bytes(marked[::2]), bytes(marked[1::2])
    if part == "any":
        return (int.from_bytes(header) | int.from_bytes(body)).to_bytes(len(header))
    return header if part == "header" else body


def both(one: bytes, other: bytes) -> bytes:
    """What is marked in both; empty where nothing is in one of them."""
    size = min(len(one), len(other))
    return (int.from_bytes(one[:size]) & int.from_bytes(other[:size])).to_bytes(size)


def numbers(first: int, documents: bytes | None, marked: bytes) -> list[int]:
    """The numbers in the account of a segment's messages that are marked."""
    found = []
    at = marked.find(1)
    while at >= 0:
        found.append(at)
        at = marked.find(1, at + 1)
    if documents is None:
        return [first + one for one in found]
    offsets = _offsets(documents)
    return [first + offsets[one] for one in found]


_DIGITS = bytes.maketrans(b"\0\1", b"01")


def bits(documents: bytes | None, marked: bytes) -> int:
    """The messages that are marked, a bit for each: the lowest is that of the segment's first number."""
    if documents is not None:
        offsets = _offsets(documents)
        spread = bytearray(offsets[-1] + 1)
        for offset in compress(offsets, marked):
            spread[offset] = 1
        marked = bytes(spread)
    return int(marked[::-1].translate(_DIGITS), 2)


def _offsets(documents: bytes) -> array[int]:
    offsets = array("I")
    offsets.frombytes(zlib.decompress(documents))
    return _little(offsets)
