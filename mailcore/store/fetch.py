"""Reading messages: by UID for IMAP, by email id for JMAP; bodies as slices of the raw bytes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from mailcore.arrays import PACKED_UID, Int4s, Int8s, unpack_uids
from mailcore.db import AsyncTx, Row, Tx, sql
from mailcore.errors import Code, MailError

MAX_UID = 0xFFFFFFFF

# What `rows` and `messages` can be asked for; the first group lives in the narrow table and costs no join.
ENTRY_COLUMNS = ("uid", "modseq", "flags", "keywords", "internal_date", "size", "saved_at", "message_id", "mailbox_id")
MESSAGE_COLUMNS = (
    "thread_id",
    "envelope",
    "bodystructure",
    "headers",
    "header_size",
    "parts",
    "preview",
    "summary",
    "base_subject",
    "sent_at",
    "received_at",
    "blob",
    "has_attachment",
)
COLUMNS = frozenset(ENTRY_COLUMNS + MESSAGE_COLUMNS)
NARROW_COLUMNS = frozenset(ENTRY_COLUMNS)

UIDS = sql(f"""
    SELECT coalesce(string_agg({PACKED_UID}, ''::bytea ORDER BY uid), ''::bytea)
    FROM entry WHERE account_id = %s::bigint AND mailbox_id = %s::bigint""")

FLAGS = sql("""
    SELECT uid, modseq, flags, keywords FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND uid BETWEEN %s::bigint AND %s::bigint ORDER BY uid""")

_ROWS = """SELECT {columns} FROM entry e {join}
    WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = %(mailbox)s::bigint
        AND e.uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint {which} ORDER BY e.uid"""
_JOIN = "JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id"
_SOME = "AND e.uid = ANY(%(uids)s::bigint[])"

_EVERY = ", ".join([f"e.{name}" for name in ENTRY_COLUMNS] + [f"m.{name}" for name in MESSAGE_COLUMNS])
# The shapes that `_rows` builds, registered with every column.
sql(_ROWS.format(columns=_EVERY, join=_JOIN, which=""))
sql(_ROWS.format(columns=_EVERY, join=_JOIN, which=_SOME))

_MESSAGES = """SELECT {columns} FROM message m
    WHERE account_id = (%b::bigint[])[1] AND id = ANY(%b::bigint[]) ORDER BY id"""
MESSAGE_ONLY_COLUMNS = frozenset({*MESSAGE_COLUMNS, "id", "size", "created_modseq"})
sql(_MESSAGES.format(columns=", ".join(sorted(MESSAGE_ONLY_COLUMNS))))

PLACEMENTS = sql("""
    SELECT message_id, mailbox_id, uid, flags, keywords, modseq, internal_date FROM entry
    WHERE account_id = %s::bigint AND message_id = ANY(%s::bigint[]) ORDER BY message_id, mailbox_id, uid""")

RAW = sql("""
    SELECT b.data FROM message m JOIN blob b ON b.hash = m.blob WHERE m.account_id = %s::bigint AND m.id =
        %s::bigint""")
RAW_SLICE = sql("""
    SELECT substring(b.data FROM %s::int + 1 FOR %s::int) FROM message m JOIN blob b ON b.hash = m.blob
    WHERE m.account_id = %s::bigint AND m.id = %s::bigint""")
RAWS = sql("""
    SELECT m.id, b.data FROM message m JOIN blob b ON b.hash = m.blob
    WHERE m.account_id = %s::bigint AND m.id = ANY(%s::bigint[])""")
HEADERS = sql("""
    SELECT m.id, substring(b.data FROM 1 FOR m.header_size) FROM message m JOIN blob b ON b.hash = m.blob
    WHERE m.account_id = %s::bigint AND m.id = ANY(%s::bigint[])""")
SLICES = sql("""
    SELECT n.at, substring(b.data FROM n.start + 1 FOR n.length)
    FROM unnest(%s::bigint[], %s::int[], %s::int[]) WITH ORDINALITY AS n(id, start, length, at)
        JOIN message m ON m.account_id = %s::bigint AND m.id = n.id JOIN blob b ON b.hash = m.blob""")
# The sort holds pointers to the octets, which are read one after the other.
STREAM = sql("""
    SELECT substring(s.data FROM s.start + 1 FOR s.length) FROM (
        SELECT n.start, n.length, b.data
        FROM unnest(%b::bigint[], %b::int[], %b::int[]) WITH ORDINALITY AS n(id, start, length, at)
            LEFT JOIN message m ON m.account_id = (%b::bigint[])[1] AND m.id = n.id LEFT JOIN blob b ON b.hash = m.blob
        ORDER BY n.at OFFSET 0) AS s""")
FIRST_UNSEEN = sql("""
    SELECT uid FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND flags & 1 = 0 ORDER BY uid LIMIT 1""")
KEYWORDS = sql("""
    SELECT DISTINCT word FROM entry, unnest(keywords) AS word
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND keywords IS NOT NULL ORDER BY word LIMIT %s::int""")
# The newest message says whether there are any: a mailbox where nothing has come for long is not looked through.
ARRIVED = sql("""
    SELECT box.id, e.first, e.count FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS box(id, lo, hi), LATERAL (
        SELECT saved_at FROM entry WHERE account_id = %s::bigint AND mailbox_id = box.id ORDER BY uid DESC LIMIT 1
    ) AS newest, LATERAL (
        SELECT min(uid) AS first, count(*)::int AS count FROM entry
        WHERE newest.saved_at >= %s::timestamptz AND account_id = %s::bigint AND mailbox_id = box.id
            AND uid BETWEEN box.lo AND box.hi AND saved_at >= %s::timestamptz
    ) AS e WHERE e.count > 0""")
THREADS = sql("""
    SELECT m.thread_id, m.id FROM message m
    WHERE m.account_id = %s::bigint AND m.thread_id = ANY(%s::bigint[])
        AND EXISTS (SELECT FROM entry e WHERE e.account_id = m.account_id AND e.message_id = m.id)
    ORDER BY m.thread_id, m.received_at, m.id""")


class Placement(NamedTuple):
    """One mailbox that holds an email."""

    mailbox_id: int
    uid: int
    flags: int
    keywords: tuple[str, ...]
    modseq: int
    internal_date: datetime


async def uids(tx: Tx, account_id: int, mailbox_id: int) -> array[int]:
    """All UIDs of a mailbox, ascending, as 32-bit unsigned numbers: 4 octets each, one packed value on the wire."""
    row = await tx.one(UIDS, (account_id, mailbox_id))
    return unpack_uids(row[0] if row else b"")


async def flags(tx: Tx, account_id: int, mailbox_id: int, lo: int, hi: int) -> list[Row]:
    """(uid, modseq, flags, keywords or None) of the UIDs lo..hi, ascending."""
    return await tx.fetch(FLAGS, (account_id, mailbox_id, lo, hi))


async def rows(tx: Tx, account_id: int, mailbox_id: int, lo: int, hi: int, columns: Sequence[str]) -> list[Row]:
    """The named columns of the UIDs lo..hi (inclusive), in UID order; columns from COLUMNS."""
    query = _rows_query(tuple(columns), "")
    return await tx.fetch(query, {"account": account_id, "mailbox": mailbox_id, "lo": lo, "hi": hi})


async def rows_of(tx: Tx, account_id: int, mailbox_id: int, uids: Sequence[int], columns: Sequence[str]) -> list[Row]:
    """The named columns of the given UIDs (ascending) that exist, in UID order."""
    if not uids:
        return []
    names = {"account": account_id, "mailbox": mailbox_id, "lo": uids[0], "hi": uids[-1]}
    if len(uids) == uids[-1] - uids[0] + 1:
        return await tx.fetch(_rows_query(tuple(columns), ""), names)
    return await tx.fetch(_rows_query(tuple(columns), _SOME), {**names, "uids": list(uids)})


_queries: dict[tuple[tuple[str, ...], str], str] = {}


def _rows_query(columns: tuple[str, ...], which: str) -> str:
    query = _queries.get((columns, which))
    if query is None:
        if not COLUMNS.issuperset(columns):
            raise ValueError(f"no such columns: {set(columns) - COLUMNS}")
        names = [f"m.{name}" if name in MESSAGE_COLUMNS else f"e.{name}" for name in columns]
        join = _JOIN if any(name in MESSAGE_COLUMNS for name in columns) else ""
        query = _ROWS.format(columns=", ".join(names), join=join, which=which)
        if len(_queries) < 500:
            _queries[(columns, which)] = query
    return query


async def messages(tx: Tx, account_id: int, message_ids: Sequence[int], columns: Sequence[str]) -> list[Row]:
    """The named columns of emails by id, ascending; columns from MESSAGE_ONLY_COLUMNS. Missing ones are left out."""
    if not MESSAGE_ONLY_COLUMNS.issuperset(columns):
        raise ValueError(f"no such columns: {set(columns) - MESSAGE_ONLY_COLUMNS}")
    return await tx.call(_MESSAGES.format(columns=", ".join(columns)), (Int8s((account_id,)), Int8s(message_ids)))


async def placements(tx: Tx, account_id: int, message_ids: Sequence[int]) -> dict[int, list[Placement]]:
    """Which mailboxes hold each email; emails that are in none are left out."""
    found: dict[int, list[Placement]] = {}
    for message_id, *rest in await tx.fetch(PLACEMENTS, (account_id, list(message_ids))):
        mailbox_id, uid, bits, keywords, modseq, internal_date = rest
        found.setdefault(message_id, []).append(
            Placement(mailbox_id, uid, bits, tuple(keywords or ()), modseq, internal_date)
        )
    return found


async def raw(tx: Tx, account_id: int, message_id: int, start: int = 0, length: int | None = None) -> bytes:
    """The message's bytes as received, or `length` octets of them from `start`. Raises NOT_FOUND."""
    if start == 0 and length is None:
        row = await tx.one(RAW, (account_id, message_id))
    else:
        row = await tx.one(
            RAW_SLICE, (start, 0x7FFFFFFF - start - 1 if length is None else length, account_id, message_id)
        )
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such message")
    return bytes(row[0])


async def raws(tx: Tx, account_id: int, message_ids: Sequence[int]) -> dict[int, bytes]:
    """The bytes of several messages by email id; the caller bounds their total size."""
    return {row[0]: row[1] for row in await tx.fetch(RAWS, (account_id, list(message_ids)))}


async def slices(tx: Tx, account_id: int, pieces: Sequence[tuple[int, int, int]]) -> list[bytes | None]:
    """Octets of messages as (email id, start, length), in that order; None where the message is gone."""
    ids, starts, lengths = zip(*pieces, strict=True)
    found: list[bytes | None] = [None] * len(pieces)
    for at, octets in await tx.fetch(SLICES, (Int8s(ids), Int4s(starts), Int4s(lengths), account_id)):
        found[at - 1] = octets
    return found


async def stream(
    tx: AsyncTx, account_id: int, pieces: Sequence[tuple[int, int, int]], take: Callable[[bytes | None], object]
) -> None:
    """`slices` one by one, each handed to `take` as it arrives. In async servers only."""
    ids, starts, lengths = zip(*pieces, strict=True)
    await tx.stream(STREAM, (Int8s(ids), Int4s(starts), Int4s(lengths), Int8s((account_id,))), take)


async def first_unseen(tx: Tx, account_id: int, mailbox_id: int) -> int:
    """The first UID without \\Seen, 0 if there is none."""
    row = await tx.one(FIRST_UNSEEN, (account_id, mailbox_id))
    return row[0] if row else 0


async def arrived(
    tx: Tx, account_id: int, since: datetime, ranges: Sequence[tuple[int, int, int]]
) -> dict[int, tuple[int, int]]:
    """Of ranges of UIDs (mailbox id, lo, hi): the first one that came into its mailbox since then, and how many did."""
    ids, los, his = map(list, zip(*ranges, strict=True))
    params = (ids, los, his, account_id, since, account_id, since)
    return {row[0]: (row[1], row[2]) for row in await tx.fetch(ARRIVED, params)}


async def keywords(tx: Tx, account_id: int, mailbox_id: int, limit: int = 200) -> list[str]:
    """Keywords in use in a mailbox."""
    return [row[0] for row in await tx.fetch(KEYWORDS, (account_id, mailbox_id, limit))]


async def header_blocks(tx: Tx, account_id: int, message_ids: Sequence[int]) -> dict[int, bytes]:
    """The complete header blocks (with the blank line) of several messages by email id."""
    return {row[0]: row[1] for row in await tx.fetch(HEADERS, (account_id, list(message_ids)))}


async def threads(tx: Tx, account_id: int, thread_ids: Sequence[int]) -> dict[int, list[int]]:
    """The email ids of each thread, oldest first; emails in no mailbox are left out."""
    found: dict[int, list[int]] = {}
    for thread_id, message_id in await tx.fetch(THREADS, (account_id, list(thread_ids))):
        found.setdefault(thread_id, []).append(message_id)
    return found
