"""A segment of the search index: the words of some of an account's messages and where they occur. No input or output.

Words stand sorted in blocks, each zlib-compressed, with the sections they occur in: the header of the segment's n-th
message is section 2n, its body 2n+1. A filter tells which blocks may hold a piece of a word: for each slot that grams
hash to, one bit per block; slots stand together in rows of about 2 kB. Segments never change: they are replaced.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import sub
from typing import Literal

from mailcore.store.index_words import MACHINE_GRAM, NATURAL_GRAM, SLOTS, Run, asked_slots, is_machine, slots, words

# A segment is full with so many messages (sections are 16-bit numbers) or pairs of word and section; the latter bounds
# what building one takes: about 150 MB.
MAX_DOCUMENTS = 32_000
MAX_PAIRS = 4_000_000

NATURAL_WORDS = 512  # in a block
MACHINE_WORDS = 256
_ROW = 2048  # octets of a row of the filter, before compression

Part = Literal["header", "body", "any"]


@dataclass(frozen=True, slots=True)
class Segment:
    """What is stored of a segment. `documents`: its messages' numbers less `first`, packed; None: all in the range.

    `blocks`: (words, sections) of each, the natural ones first. `filters`: (row, bits); rows of machine words' filter
    count down from -1. `decides`: a word is in a message's text if, and only if, it is in the segment.
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
    _words: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

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
        for word in of_header:
            at[word].append(section)
        for word in of_body:
            at[word].append(section + 1)
        self.pairs += len(of_header) + len(of_body)

    def finish(self, first: int, beyond: int) -> Segment:
        """The segment of what was added, for messages from `first` to before `beyond`."""
        natural: list[str] = []
        machine: list[str] = []
        for word in sorted(self._words):
            (machine if is_machine(word) else natural).append(word)
        pieces = [
            [found[at : at + size] for at in range(0, len(found), size)]
            for found, size in ((natural, NATURAL_WORDS), (machine, MACHINE_WORDS))
        ]
        dense = len(self.documents) == beyond - first
        offsets = array("I", [docno - first for docno in self.documents])
        filters = [*_filter(pieces[0], NATURAL_GRAM)]
        filters += [(-1 - row, bits) for row, bits in _filter(pieces[1], MACHINE_GRAM)]
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
        counts = array("H")
        gaps = array("H")
        for word in block:
            sections = self._words[word]
            counts.append(len(sections))
            gaps.append(sections[0])
            if len(sections) > 1:
                gaps.extend(map(sub, sections[1:], sections))
        text = "\n" + "\n".join(block) + "\n"
        return zlib.compress(text.encode()), zlib.compress(_planes(counts) + _planes(gaps))


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


def _filter(blocks: Sequence[Sequence[str]], gram: int) -> Iterator[tuple[int, bytes]]:
    if not blocks:
        return
    bits = [0] * SLOTS
    for number, block in enumerate(blocks):
        for slot in slots(block, gram):
            bits[slot] |= 1 << number
    width, per_row = _layout(len(blocks))
    for at in range(0, SLOTS, per_row):
        yield at // per_row, zlib.compress(b"".join([one.to_bytes(width, "little") for one in bits[at : at + per_row]]))


def _layout(blocks: int) -> tuple[int, int]:
    """Octets of a slot, slots of a row."""
    width = (blocks + 7) // 8
    return width, min(SLOTS, max(1, _ROW // width))


# --- reading --------------------------------------------------------------------------------------------------------


def _asked(run: Run, natural: int, machine: int) -> Iterator[tuple[bool, int, int]]:
    """(of machine words, row, slot) of the filter for a run."""
    for is_of_machine, blocks, gram in ((False, natural, NATURAL_GRAM), (True, machine, MACHINE_GRAM)):
        if blocks:
            per_row = _layout(blocks)[1]
            for slot in asked_slots(run.text, gram):
                row = slot // per_row
                yield is_of_machine, -1 - row if is_of_machine else row, slot


def filter_rows(run: Run, natural: int, machine: int) -> set[int]:
    """Rows of the filter that tell where a run may occur, in a segment of so many natural and machine blocks."""
    return {row for _, row, _ in _asked(run, natural, machine)}


def blocks_of(run: Run, natural: int, machine: int, rows: Mapping[int, bytes]) -> list[int]:
    """Numbers of the blocks where a run may occur. `rows`: those of `filter_rows`, as stored."""
    left = {False: (1 << natural) - 1, True: (1 << machine) - 1}
    inflated = {row: zlib.decompress(bits) for row, bits in rows.items()}
    for of_machine, row, slot in _asked(run, natural, machine):
        width, per_row = _layout(machine if of_machine else natural)
        at = slot % per_row * width
        left[of_machine] &= int.from_bytes(inflated[row][at : at + width], "little")
    return _ones(left[False]) + [natural + number for number in _ones(left[True])]


def _ones(bits: int) -> list[int]:
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def sections(run: Run, block: bytes, where: bytes) -> Iterator[Iterable[int]]:
    """The sections, ascending, of each word of a block that a run occurs in."""
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
        yield accumulate(gaps[starts[word] : starts[word + 1]])
        at = text.find(pattern, text.find(b"\n", seen))


def messages(found: set[int], part: Part) -> set[int]:
    """Which messages of a segment have sections among these in a part."""
    if part == "any":
        return {section >> 1 for section in found}
    wanted = part == "body"
    return {section >> 1 for section in found if section & 1 == wanted}


def numbers(first: int, documents: bytes | None, found: Iterable[int]) -> list[int]:
    """The numbers of a segment's messages in the account."""
    if documents is None:
        return [first + one for one in found]
    offsets = array("I")
    offsets.frombytes(zlib.decompress(documents))
    offsets = _little(offsets)
    return [first + offsets[one] for one in found]
