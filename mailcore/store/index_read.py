"""Looking words up in the search index: which messages have them, for sure or maybe, and which nobody has indexed yet.

What a segment says of a message is true for ever, as texts do not change, so no snapshot is needed: segments that are
replaced while they are read, and messages that are in none, are for the caller to scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mailcore.arrays import Int4s, Int8s
from mailcore.db import Params, Row, Tx, sql
from mailcore.store import index_segment
from mailcore.store.index_segment import Part
from mailcore.store.index_words import VERSION, Run, runs

BEYOND = sql("SELECT next_message FROM account_state WHERE account_id = %s::bigint")

COVERED = sql("""
    SELECT s.segment, s.first, s.beyond, s.documents, s.messages, s.decides, s.natural_blocks, s.machine_blocks
    FROM search_index i JOIN search_segment s USING (account_id)
    WHERE i.account_id = %s::bigint AND i.version = %s::text ORDER BY s.first""")

# OFFSET 0: each key is looked up by itself, whatever the planner believes of the tables.
FILTER = sql("""
    SELECT k.segment, k.number, f.bits
    FROM unnest(%(segments)s::bigint[], %(rows)s::int[]) AS k(segment, number) CROSS JOIN LATERAL (
        SELECT bits FROM search_filter f
        WHERE f.account_id = %(account)s::bigint AND f.segment = k.segment AND f.number = k.number OFFSET 0) AS f""")

BLOCKS = sql("""
    SELECT k.segment, k.block, b.words, b.sections
    FROM unnest(%(segments)s::bigint[], %(blocks)s::int[]) AS k(segment, block) CROSS JOIN LATERAL (
        SELECT words, sections FROM search_block b
        WHERE b.account_id = %(account)s::bigint AND b.segment = k.segment AND b.block = k.block OFFSET 0) AS b""")

# Blocks that are read at a time: what Python does with them is at most a few milliseconds of the event loop.
AT_ONCE = 48
FILTERS_AT_ONCE = 16  # segments
# So few messages are rather read than narrowed down by another word.
FEW = 20


@dataclass(frozen=True, slots=True)
class Covered:
    """A segment, as a search needs it."""

    number: int
    first: int
    beyond: int
    documents: bytes | None
    messages: int
    decides: bool
    natural: int
    machine: int


@dataclass(frozen=True, slots=True)
class Index:
    """What there is to look at. `beyond`: no message had this number, or a higher one, when the search began."""

    account_id: int
    beyond: int
    segments: tuple[Covered, ...]


@dataclass(slots=True)
class Hits:
    """Messages that have the words for sure, by segment; numbers of such as may have them (`maybe`), and ranges that
    are in no segment (`unread`)."""

    sure: list[tuple[Covered, bytes]] = field(default_factory=list)
    maybe: list[int] = field(default_factory=list)
    unread: list[tuple[int, int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many are sure."""
        return sum(marked.count(1) for _, marked in self.sure)

    def numbers(self) -> list[int]:
        """Those that are sure."""
        return [one for at, marked in self.sure for one in index_segment.numbers(at.first, at.documents, marked)]

    def bitmap(self, others: Iterable[int], beyond: int) -> bytes:
        """A bit for each number up to `beyond`, as Postgres' get_bit(bytea, bigint) reads them: what is sure, and
        others."""
        bits = 0
        for at, marked in self.sure:
            bits |= index_segment.bits(at.documents, marked) << at.first
        size = beyond // 8 + 1
        octets = bytearray(bits.to_bytes(max(size, (bits.bit_length() + 7) // 8), "little")[:size])
        for number in others:
            if number < beyond:
                octets[number >> 3] |= 1 << (number & 7)
        return bytes(octets)


def can_look_up(needle: str) -> bool:
    """Whether the index is of any use for a folded text: it has a run of letters and digits that is long enough."""
    return bool(runs(needle)[0])


async def opened(tx: Tx, account_id: int, also: tuple[str, Params]) -> tuple[Index, list[Row]]:
    """The account's index as it is now, and what `also` found in the same round trip.

    Statements may see states of their own: segments may hold messages that came after `beyond` was read.
    """
    others, beyond, rows = await tx.batch(also, (BEYOND, (account_id,)), (COVERED, (account_id, VERSION)))
    return Index(account_id, beyond[0][0] if beyond else 1, tuple([Covered(*row) for row in rows])), others


async def find(tx: Tx, index: Index, needle: str, part: Part, *, decides: bool = True) -> Hits:
    """Look up a folded text in the header, the body or anywhere; without `decides` nothing is sure."""
    wanted, decide = runs(needle)
    hits = Hits()
    found: dict[int, bytes] = {}  # of each segment, for each message 1 if it may have the text
    left: list[Covered] = list(index.segments) if wanted else []
    for run in wanted:
        marked = await _marked(tx, index.account_id, left, run)
        for segment in left:
            number = segment.number
            if number in marked:
                messages = index_segment.messages(marked[number], part)
                found[number] = index_segment.both(found[number], messages) if number in found else messages
            else:  # replaced in the meantime
                found.pop(number, None)
        left = [segment for segment in left if found.get(segment.number, b"").count(1) > FEW]
    at = 1
    for segment in index.segments:
        if segment.number in found:
            these = found[segment.number]
            if 1 in these:
                if decide and decides and segment.decides:
                    hits.sure.append((segment, these))
                else:
                    hits.maybe += index_segment.numbers(segment.first, segment.documents, these)
            if segment.first > at:
                hits.unread.append((at, segment.first))
            at = segment.beyond
    if at < index.beyond:
        hits.unread.append((at, index.beyond))
    return hits


async def _marked(tx: Tx, account_id: int, segments: Sequence[Covered], run: Run) -> dict[int, bytearray]:
    """By segment, a 1 for each section where a run occurs; segments that are not there any more are missing."""
    found: dict[int, bytearray] = {}
    keys: list[tuple[int, int]] = []
    for at in range(0, len(segments), FILTERS_AT_ONCE):
        piece = segments[at : at + FILTERS_AT_ONCE]
        rows = await _filter(tx, account_id, piece, run)
        for segment in piece:
            if segment.number in rows:
                blocks = index_segment.blocks_of(run, segment.natural, segment.machine, rows[segment.number])
                keys += [(segment.number, block) for block in blocks]
                found[segment.number] = bytearray(2 * segment.messages if blocks else 0)
    for at in range(0, len(keys), AT_ONCE):
        asked = keys[at : at + AT_ONCE]
        names = {
            "account": account_id,
            "segments": Int8s([number for number, _ in asked]),
            "blocks": Int4s([block for _, block in asked]),
        }
        missing = dict.fromkeys(asked)
        for number, block, words, sections in await tx.fetch(BLOCKS, names):
            del missing[number, block]
            if number in found:
                index_segment.mark(run, words, sections, found[number])
        for number, _ in missing:
            found.pop(number, None)
    return found


async def _filter(tx: Tx, account_id: int, segments: Sequence[Covered], run: Run) -> dict[int, dict[int, bytes]]:
    """By segment, the rows of its filter that a run needs; segments that lack any are missing."""
    asked = {s.number: index_segment.filter_rows(run, s.natural, s.machine) for s in segments}
    keys = [(number, row) for number, rows in asked.items() for row in rows]
    names = {
        "account": account_id,
        "segments": Int8s([number for number, _ in keys]),
        "rows": Int4s([row for _, row in keys]),
    }
    there: dict[int, dict[int, bytes]] = {number: {} for number in asked}
    if keys:
        for number, row, bits in await tx.fetch(FILTER, names):
            there[number][row] = bits
    return {number: rows for number, rows in there.items() if len(rows) == len(asked[number])}
