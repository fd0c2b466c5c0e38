"""The index worker's verbs: claim an account's index, read texts, store segments. mailcore.indexer calls them in turn.

Nothing here locks what a delivery locks. A claim is a lease on the database's clock with a fence: what is stored must
carry the current one, so that a worker that was taken for dead stores nothing. A worker killed at any point leaves
complete segments or none: its transaction writes blocks first and puts the segments in their place last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.arrays import Array, Bools, Byteas, Int4s, Int8s, columns
from mailcore.db import Row, Tx, sql
from mailcore.store.index_segment import MAX_PAIRS, Segment
from mailcore.store.index_words import VERSION

LEASE_SECONDS = 300
RENEW_SECONDS = 30
# So many messages not yet indexed are worth a segment; scanning fewer costs a search less than a millisecond or two.
TAIL = 256
# Neighbouring segments of about one size become one when there are so many: each message is then written again.
FAN = 8
# Pairs of word and section that a message has, about; only for reckoning sizes before they are known.
PAIRS_OF_MESSAGE = 300
# A segment is made anew when more than this share of its messages is gone for good.
GONE = 0.3
_PIECE = 256  # blocks or rows of a filter written by one statement

_DUE = """
    FROM search_index i JOIN account_state a USING (account_id)
    WHERE (a.next_message - i.upto >= %(tail)s::bigint OR i.version <> %(version)s::text AND i.upto > 1
            OR i.removed > 0 AND i.removed > %(gone)s::float8 * (SELECT sum(s.messages) FROM search_segment s
                WHERE s.account_id = i.account_id))
        AND (i.lease_until IS NULL OR i.lease_until < now())"""

DUE = sql(f"SELECT count(*), coalesce(sum(a.next_message - i.upto), 0)::bigint {_DUE}")

CLAIM_DUE = sql(f"""
    UPDATE search_index SET lease_until = now() + make_interval(secs => %(lease)s::float8), fence = fence + 1
    WHERE account_id = (
        SELECT i.account_id {_DUE} ORDER BY a.next_message - i.upto DESC LIMIT 1 FOR UPDATE OF i SKIP LOCKED)
    RETURNING account_id, fence, version""")

CLAIM = sql("""
    UPDATE search_index SET lease_until = now() + make_interval(secs => %(lease)s::float8), fence = fence + 1
    WHERE account_id = %(account)s::bigint AND (lease_until IS NULL OR lease_until < now())
    RETURNING account_id, fence, version""")

RENEW = sql("""
    UPDATE search_index SET lease_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE account_id = %(account)s::bigint AND fence = %(fence)s::bigint""")

RELEASE = sql("""
    UPDATE search_index SET lease_until = NULL WHERE account_id = %s::bigint AND fence = %s::bigint""")

CLEAR = tuple(
    sql(f"DELETE FROM {table} WHERE account_id = %s::bigint")
    for table in ("search_segment", "search_filter", "search_block")
)

RESTART = sql("""
    UPDATE search_index SET upto = 1, removed = 0, version = %s::text
    WHERE account_id = %s::bigint AND fence = %s::bigint""")

STATE = sql("""
    SELECT a.next_message, i.removed FROM search_index i JOIN account_state a USING (account_id)
    WHERE i.account_id = %s::bigint AND i.fence = %s::bigint""")

SEGMENTS = sql("""
    SELECT segment, first, beyond, messages, pairs FROM search_segment WHERE account_id = %s::bigint ORDER BY first""")

LEFT = sql("""
    SELECT s.segment, s.messages, (SELECT count(*) FROM message_text t
        WHERE t.account_id = s.account_id AND t.docno >= s.first AND t.docno < s.beyond)
    FROM search_segment s WHERE s.account_id = %s::bigint""")

LOOKED_AT = sql("""
    UPDATE search_index SET removed = greatest(0, removed - %s::bigint)
    WHERE account_id = %s::bigint AND fence = %s::bigint""")

TEXTS = sql("""
    SELECT docno, concat_ws(chr(10), from_text, to_text, cc_text, bcc_text, subject_text), body_at, text
    FROM message_text
    WHERE account_id = %s::bigint AND docno >= %s::bigint AND docno < %s::bigint ORDER BY docno LIMIT %s::int""")

NUMBERS = sql("SELECT nextval('search_segment_number') FROM generate_series(1, %s::int)")

ADD_BLOCKS = sql("""
    INSERT INTO search_block (account_id, segment, block, words, sections)
    SELECT %b::bigint, %b::bigint, b.* FROM unnest(%b::int[], %b::bytea[], %b::bytea[]) AS b""")

ADD_FILTER = sql("""
    INSERT INTO search_filter (account_id, segment, number, bits)
    SELECT %b::bigint, %b::bigint, f.* FROM unnest(%b::int[], %b::bytea[]) AS f""")

ADVANCE = sql("""
    UPDATE search_index SET upto = greatest(upto, %(beyond)s::bigint),
        lease_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE account_id = %(account)s::bigint AND fence = %(fence)s::bigint""")

ADD_SEGMENTS = sql("""
    INSERT INTO search_segment (account_id, segment, first, beyond, documents, messages, pairs, decides, natural_blocks,
        machine_blocks, size)
    SELECT %b::bigint, s.* FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bytea[], %b::int[], %b::int[],
        %b::bool[], %b::int[], %b::int[], %b::bigint[]) AS s""")

REPLACE = tuple(
    sql(f"DELETE FROM {table} WHERE account_id = %s::bigint AND segment = ANY(%s::bigint[])")
    for table in ("search_segment", "search_filter", "search_block")
)

# Rather not counted than waited for: who removes messages holds the account's lock, for which deliveries wait.
REMOVED = sql("""
    UPDATE search_index SET removed = removed + %s::bigint WHERE account_id = (
        SELECT account_id FROM search_index WHERE account_id = %s::bigint AND upto > 1 FOR UPDATE SKIP LOCKED)""")


@dataclass(frozen=True, slots=True)
class Claim:
    account_id: int
    fence: int


@dataclass(frozen=True, slots=True)
class Work:
    """Messages from `first` to before `beyond` to be put into segments, in the place of those in `replaces`."""

    first: int
    beyond: int
    replaces: tuple[int, ...] = ()


class Lost(Exception):
    """Somebody else has claimed the account meanwhile, or it is gone."""


async def due(tx: Tx) -> tuple[int, int]:
    """In how many accounts there is something to do for a worker, and how many messages wait in them.

    Reads two narrow rows per account.
    """
    row = await tx.one(DUE, _due())
    return (row[0], row[1]) if row else (0, 0)


def _due() -> dict[str, object]:
    return {"tail": TAIL, "version": VERSION, "gone": GONE, "lease": LEASE_SECONDS}


async def claim(tx: Tx, account_id: int | None = None) -> Claim | None:
    """Claim the index of an account, or of the one with most to do; None: there is none, or somebody has it."""
    if account_id is None:
        row = await tx.one(CLAIM_DUE, _due())
    else:
        row = await tx.one(CLAIM, {"account": account_id, "lease": LEASE_SECONDS})
    if row is None:
        return None
    claimed = Claim(row[0], row[1])
    if row[2] != VERSION:
        await restart(tx, claimed)
    return claimed


async def restart(tx: Tx, claimed: Claim) -> None:
    """Forget all segments: the texts are to be made anew, or the segments are of another version. Raises Lost."""
    if not await tx.execute(RESTART, (VERSION, claimed.account_id, claimed.fence)):
        raise Lost
    for statement in CLEAR:
        await tx.execute(statement, (claimed.account_id,))


async def renew(tx: Tx, claimed: Claim) -> None:
    """Raises Lost."""
    names = {"lease": LEASE_SECONDS, "account": claimed.account_id, "fence": claimed.fence}
    if not await tx.execute(RENEW, names):
        raise Lost


async def release(tx: Tx, claimed: Claim) -> None:
    await tx.execute(RELEASE, (claimed.account_id, claimed.fence))


async def work(tx: Tx, claimed: Claim, least: int | None = None) -> Work | None:
    """What to do next; None: nothing, with fewer than `least` (or TAIL) messages not indexed. Raises Lost."""
    row = await tx.one(STATE, (claimed.account_id, claimed.fence))
    if row is None:
        raise Lost
    end, removed = row
    segments = await tx.fetch(SEGMENTS, (claimed.account_id,))
    if removed > GONE * sum(segment[3] for segment in segments):
        left = await tx.fetch(LEFT, (claimed.account_id,))
        if thinned := thin(segments, {number for number, before, now in left if now < (1 - GONE) * before}):
            return thinned
        await tx.execute(LOOKED_AT, (removed, claimed.account_id, claimed.fence))
    return plan(segments, end, TAIL if least is None else least)


def plan(segments: Sequence[Row], end: int, least: int) -> Work | None:
    """The messages from the last segment to before `end`, if they are `least` or more, together with segments before
    them when those have become many of a size: FAN of them are then one, of the next size.

    `segments`: (number, first, beyond, messages, pairs) in order.
    """
    first = segments[-1][2] if segments else 1
    if end - first < max(1, least):
        return None
    total = PAIRS_OF_MESSAGE * (end - first)
    taken = len(segments)
    while True:
        at, more = taken, 0
        while at and segments[at - 1][4] <= MAX_PAIRS // 2 and _size(segments[at - 1][4]) <= _size(total):
            at -= 1
            more += segments[at][4]
        if taken - at < FAN - 1 or total > MAX_PAIRS:
            break
        taken, total = at, total + more
    absorbed = segments[taken:]
    return Work(absorbed[0][1] if absorbed else first, end, tuple([segment[0] for segment in absorbed]))


def _size(pairs: int) -> int:
    """Of eight times as many pairs it is one more."""
    return pairs.bit_length() // 3


def thin(segments: Sequence[Row], weak: set[int]) -> Work | None:
    """The first of these segments, with its neighbours that are among them, too, up to a full segment."""
    taken: list[Row] = []
    for segment in segments:
        if segment[0] in weak and sum(one[4] for one in taken) + segment[4] <= MAX_PAIRS:
            taken.append(segment)
        elif taken:
            break
    return Work(taken[0][1], taken[-1][2], tuple([one[0] for one in taken])) if taken else None


async def texts(tx: Tx, account_id: int, first: int, beyond: int, limit: int) -> list[Row]:
    """(number, named fields, 1-based place of the body, text) of messages in a range."""
    return await tx.fetch(TEXTS, (account_id, first, beyond, limit))


async def store(tx: Tx, claimed: Claim, segments: Sequence[Segment], replaces: Sequence[int] = ()) -> None:
    """Put segments into the index, in the place of others. Raises Lost; nothing is stored then."""
    account = claimed.account_id
    numbers = [row[0] for row in await tx.fetch(NUMBERS, (len(segments),))]
    for number, segment in zip(numbers, segments, strict=True):
        for at in range(0, len(segment.blocks), _PIECE):
            piece = segment.blocks[at : at + _PIECE]
            ids = Int4s(range(at, at + len(piece)))
            values: list[object] = [
                account,
                number,
                ids,
                Byteas([one for one, _ in piece]),
                Byteas([one for _, one in piece]),
            ]
            await tx.execute(ADD_BLOCKS, values)
        for at in range(0, len(segment.filters), _PIECE):
            rows = segment.filters[at : at + _PIECE]
            await tx.execute(ADD_FILTER, [account, number, *columns(rows, (Int4s, Byteas))])
    # From here on the row is locked, for as long as the few statements that are left take.
    names = {"account": account, "fence": claimed.fence, "lease": LEASE_SECONDS, "beyond": segments[-1].beyond}
    if not await tx.execute(ADVANCE, names):
        raise Lost
    for statement in REPLACE if replaces else ():
        await tx.execute(statement, (account, list(replaces)))
    rows_ = [
        (number, s.first, s.beyond, s.documents, s.messages, s.pairs, s.decides, s.natural, s.machine, s.size)
        for number, s in zip(numbers, segments, strict=True)
    ]
    kinds: tuple[type[Array], ...] = (*(Int8s, Int8s, Int8s, Byteas, Int4s, Int4s, Bools, Int4s, Int4s, Int8s),)
    await tx.execute(ADD_SEGMENTS, [account, *columns(rows_, kinds)])


async def removed(tx: Tx, account_id: int, count: int) -> None:
    """Messages have been removed for good: when they are many, segments are made anew without them."""
    await tx.execute(REMOVED, (count, account_id))
