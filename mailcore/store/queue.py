"""The outbound queue: one row per message, one per recipient; who delivers a row holds a lease on it.

The truth is here and on the database's clock; Redis only rings the bell. A claim sets a lease and counts the row's
fence up; a result must carry the fence of its claim, so that a late worker cannot overwrite what a later one did.
What an administrator does to the queue is in `queue_admin`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from accounts.addresses import AddressError, Parsed, parse_address
from mailcore.db import Row, Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import trace
from mailcore.wake import Change

State = Literal["queued", "held", "delivered", "failed"]

LEASE_SECONDS = 120
# A row whose claims died this often in a row without a result is taken to kill its worker, and set aside.
MAX_UNREPORTED = 5
MAX_REPLY = 2000


@dataclass(frozen=True, slots=True)
class Recipient:
    """An envelope recipient; `notify` (NEVER or SUCCESS,FAILURE,DELAY) and `orcpt` as RFC 3461 writes them."""

    address: str
    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for the queue: give `raw`, or the `blob` (SHA-256) of one that is stored already and its `size`.

    `account_id` is the account that submitted it and thereby may use `sender`: its mail is DKIM-signed with the
    sender's domain and loses its Bcc field. Mail that only passes through (a forward) has None and leaves as it came.
    """

    sender: str
    recipients: Sequence[Recipient]
    trace_id: str
    raw: bytes | None = None
    blob: bytes | None = None
    size: int = 0
    account_id: int | None = None
    prepend: bytes = b""
    smtputf8: bool = False
    body_8bit: bool = False
    dsn_ret: str | None = None
    dsn_envid: str | None = None
    send_after: datetime | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A recipient that this worker may deliver to until its lease ends. Ages in seconds, by the database's clock."""

    recipient_id: int
    fence: int
    outbound_id: int
    address: str
    destination: str
    attempts: int
    notify: str | None
    orcpt: str | None
    delay_notified: bool
    last_code: int | None
    last_reply: str | None
    last_host: str | None
    sender: str
    blob: bytes
    size: int
    prepend: bytes
    smtputf8: bool
    body_8bit: bool
    dsn_ret: str | None
    dsn_envid: str | None
    trace_id: str
    account_id: int | None
    created_at: datetime
    age: float


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a claim. `retry_in` (seconds) goes with "queued"; `delay_notified` after a delay DSN."""

    recipient_id: int
    fence: int
    state: State
    code: int | None = None
    reply: str | None = None
    host: str | None = None
    retry_in: float | None = None
    delay_notified: bool = False


@dataclass(slots=True)
class _Columns:
    """Recipients as arrays, one statement for however many there are."""

    n: list[int] = field(default_factory=list)
    address: list[str] = field(default_factory=list)
    destination: list[str] = field(default_factory=list)
    notify: list[str | None] = field(default_factory=list)
    orcpt: list[str | None] = field(default_factory=list)


# The row is written only when it is not fresh: storing a blob again right away costs no update.
STORE_BLOBS = sql("""
    INSERT INTO blob (hash, size, data)
    SELECT * FROM unnest(%b::bytea[], %b::bigint[], %b::bytea[])
    ON CONFLICT (hash) DO UPDATE SET touched_at = now() WHERE blob.touched_at < now() - interval '10 minutes'""")

# In the order of their hashes, as everybody locks them.
TOUCH_BLOBS = sql("""
    WITH stale AS (
        SELECT hash FROM blob WHERE hash = ANY(%s::bytea[]) AND touched_at < now() - interval '10 minutes'
        ORDER BY hash FOR UPDATE)
    UPDATE blob SET touched_at = now() FROM stale WHERE blob.hash = stale.hash""")

COUNT_BLOBS = sql("SELECT count(*) FROM blob WHERE hash = ANY(%s::bytea[])")
BLOB = sql("SELECT data FROM blob WHERE hash = %s::bytea")
BLOBS = sql("SELECT hash, data FROM blob WHERE hash = ANY(%s::bytea[])")

ENQUEUE = sql("""
    WITH message AS (
        SELECT nextval('outbound_id_seq') AS id, m.*
        FROM unnest(%(trace)s::text[], %(account)s::bigint[], %(sender)s::text[], %(blob)b::bytea[], %(size)s::bigint[],
            %(prepend)b::bytea[], %(smtputf8)s::bool[], %(body_8bit)s::bool[], %(ret)s::text[], %(envid)s::text[],
            %(send_after)s::timestamptz[]) WITH ORDINALITY AS m(trace_id, account_id, sender, blob, size, prepend,
            smtputf8, body_8bit, dsn_ret, dsn_envid, send_after, n)
    ), kept AS (
        INSERT INTO outbound (id, trace_id, account_id, sender, blob, size, prepend, smtputf8, body_8bit, dsn_ret,
            dsn_envid, send_after)
        SELECT id, trace_id, account_id, sender, blob, size, prepend, smtputf8, body_8bit, dsn_ret, dsn_envid,
            coalesce(send_after, now())
        FROM message
    ), recipients AS (
        INSERT INTO outbound_recipient (outbound_id, address, destination, notify, orcpt, next_attempt_at)
        SELECT message.id, r.address, r.destination, r.notify, r.orcpt, greatest(now(), message.send_after)
        FROM unnest(%(r_n)s::bigint[], %(r_address)s::text[], %(r_destination)s::text[], %(r_notify)s::text[],
            %(r_orcpt)s::text[]) WITH ORDINALITY AS r(n, address, destination, notify, orcpt, position)
        JOIN message ON message.n = r.n ORDER BY r.position
    )
    SELECT id FROM message ORDER BY n""")

_CLAIM = """
    WITH due AS (
        SELECT id FROM outbound_recipient
        WHERE state = 'queued' AND {which} AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until < now())
            AND unreported {unreported}
        ORDER BY next_attempt_at, id LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED
    )
    UPDATE outbound_recipient r
    SET lease_until = now() + make_interval(secs => %(lease)s::float8), fence = fence + 1, attempts = attempts + 1,
        unreported = unreported + 1
    FROM due, outbound o WHERE r.id = due.id AND o.id = r.outbound_id
    RETURNING r.id, r.fence, r.outbound_id, r.address, r.destination, r.attempts, r.notify, r.orcpt, r.delay_notified,
        r.last_code, r.last_reply, r.last_host, o.sender, o.blob, o.size, o.prepend, o.smtputf8, o.body_8bit, o.dsn_ret,
        o.dsn_envid, o.trace_id, o.account_id, o.created_at,
        extract(epoch FROM now() - greatest(o.created_at, o.send_after))::float8"""

# A worker died with these; they come one at a time, so that the innocent are not set aside with the guilty.
_SUSPECT = f"BETWEEN 1 AND {MAX_UNREPORTED - 1}"
CLAIM_DESTINATION = sql(_CLAIM.format(which="destination = %(destination)s::text", unreported="= 0"))
CLAIM_DESTINATION_SUSPECT = sql(_CLAIM.format(which="destination = %(destination)s::text", unreported=_SUSPECT))
CLAIM_ANY = sql(_CLAIM.format(which="true", unreported="= 0"))
CLAIM_ANY_SUSPECT = sql(_CLAIM.format(which="true", unreported=_SUSPECT))
CLAIM_OUTBOUND = sql(_CLAIM.format(which="outbound_id = %(outbound)s::bigint", unreported="= 0"))
CLAIM_OUTBOUND_SUSPECT = sql(_CLAIM.format(which="outbound_id = %(outbound)s::bigint", unreported=_SUSPECT))

LOCK_CLAIMS = sql("""
    SELECT r.id FROM outbound_recipient r JOIN unnest(%(ids)s::bigint[], %(fences)s::bigint[]) AS c(id, fence)
        ON r.id = c.id AND r.fence = c.fence
    WHERE r.lease_until IS NOT NULL ORDER BY r.id FOR UPDATE OF r""")

RENEW = sql("""
    UPDATE outbound_recipient r SET lease_until = now() + make_interval(secs => %(lease)s::float8)
    FROM unnest(%(ids)s::bigint[], %(fences)s::bigint[]) AS c(id, fence)
    WHERE r.id = c.id AND r.fence = c.fence AND r.lease_until IS NOT NULL
    RETURNING r.id""")

GIVE_BACK = sql("""
    UPDATE outbound_recipient r
    SET lease_until = NULL, attempts = attempts - 1, unreported = unreported - 1
    FROM unnest(%(ids)s::bigint[], %(fences)s::bigint[]) AS c(id, fence)
    WHERE r.id = c.id AND r.fence = c.fence AND r.lease_until IS NOT NULL""")

# A row that was put on hold in mid-delivery stays held unless the delivery settled it.
RECORD = sql("""
    UPDATE outbound_recipient r
    SET state = CASE WHEN v.state = 'queued' THEN r.state ELSE v.state END, lease_until = NULL, unreported = 0,
        last_code = v.code, last_reply = v.reply, last_host = v.host,
        next_attempt_at = CASE WHEN v.state = 'queued' THEN now() + make_interval(secs => v.retry_in)
            ELSE r.next_attempt_at END,
        delay_notified = r.delay_notified OR v.delay_notified,
        finished_at = CASE WHEN v.state IN ('delivered', 'failed') THEN now() END
    FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::text[], %s::text[], %s::float8[], %s::bool[])
        AS v(id, fence, state, code, reply, host, retry_in, delay_notified)
    WHERE r.id = v.id AND r.fence = v.fence AND r.lease_until IS NOT NULL AND r.state IN ('queued', 'held')
    RETURNING r.id""")

# Steps from one destination to the next through the index instead of reading every queued row.
DUE = sql("""
    WITH RECURSIVE name AS (
        (SELECT destination FROM outbound_recipient WHERE state = 'queued' ORDER BY destination LIMIT 1)
        UNION ALL
        SELECT (SELECT r.destination FROM outbound_recipient r
            WHERE r.state = 'queued' AND r.destination > name.destination ORDER BY r.destination LIMIT 1)
        FROM name WHERE name.destination IS NOT NULL
    )
    SELECT destination FROM name
    WHERE destination IS NOT NULL AND EXISTS (
        SELECT FROM outbound_recipient r
        WHERE r.state = 'queued' AND r.destination = name.destination AND r.next_attempt_at <= now()
            AND (r.lease_until IS NULL OR r.lease_until < now()) AND r.unreported < %(unreported)s::int)
    LIMIT %(limit)s::int""")

NEXT_DUE = sql("""
    SELECT min(greatest(next_attempt_at, coalesce(lease_until, next_attempt_at))) FROM outbound_recipient
    WHERE state = 'queued'""")

DESTINATIONS = sql("""
    SELECT DISTINCT destination FROM outbound_recipient
    WHERE outbound_id = ANY(%s::bigint[]) AND state = 'queued' AND next_attempt_at <= now()
        AND (lease_until IS NULL OR lease_until < now())""")

SET_ASIDE = sql("""
    UPDATE outbound_recipient r SET state = 'held', lease_until = NULL, held_reason = %(reason)s::text
    FROM outbound o
    WHERE r.state = 'queued' AND r.unreported >= %(unreported)s::int AND r.lease_until < now() AND o.id = r.outbound_id
    RETURNING r.id, r.outbound_id, r.address, o.sender, o.trace_id, o.account_id""")


async def enqueue(tx: Tx, outgoing: Outgoing) -> int:
    """Put a message into the queue and return its queue number. Raises BAD_VALUE, NOT_FOUND (blob)."""
    return (await enqueue_many(tx, (outgoing,)))[0]


async def enqueue_many(tx: Tx, items: Sequence[Outgoing]) -> list[int]:
    """Put messages into the queue, with their blobs and trace, in two or three statements; queue numbers in order.

    Raises BAD_VALUE for a message without recipients or with an address that cannot be one, NOT_FOUND for a `blob`
    that is not stored.
    """
    if not items:
        return []
    blobs, hashes = _blobs(items)
    columns = _columns(items)
    if blobs:
        ordered = sorted(blobs.items())  # everybody locks in one order
        keys, data = [key for key, _ in ordered], [raw for _, raw in ordered]
        await tx.execute(STORE_BLOBS, (keys, [len(raw) for raw in data], data))
    if known := sorted({key for key in hashes if key not in blobs}):
        await _touch(tx, known)
    rows = await tx.fetch(
        ENQUEUE,
        {
            "trace": [item.trace_id for item in items],
            "account": [item.account_id for item in items],
            "sender": [item.sender for item in items],
            "blob": hashes,
            "size": [(len(item.raw) if item.raw is not None else item.size) + len(item.prepend) for item in items],
            "prepend": [item.prepend for item in items],
            "smtputf8": [item.smtputf8 for item in items],
            "body_8bit": [item.body_8bit for item in items],
            "ret": [item.dsn_ret for item in items],
            "envid": [item.dsn_envid for item in items],
            "send_after": [item.send_after for item in items],
            "r_n": columns.n,
            "r_address": columns.address,
            "r_destination": columns.destination,
            "r_notify": columns.notify,
            "r_orcpt": columns.orcpt,
        },
    )
    ids = [int(row[0]) for row in rows]
    await trace.add(tx, [event for item, number in zip(items, ids, strict=True) for event in _queued(item, number)])
    for number in ids:
        tx.changed(Change(0, 0, number, "queue"))
    return ids


def _blobs(items: Sequence[Outgoing]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The blobs to store, and each message's hash."""
    blobs: dict[bytes, bytes] = {}
    hashes = []
    for item in items:
        if item.raw is None and item.blob is None:
            raise MailError(Code.BAD_VALUE, "a message for the queue has neither content nor the hash of one")
        key = item.blob if item.blob is not None else hashlib.sha256(item.raw or b"").digest()
        if item.raw is not None:
            blobs[key] = item.raw
        hashes.append(key)
    return blobs, hashes


def _columns(items: Sequence[Outgoing]) -> _Columns:
    columns = _Columns()
    for n, item in enumerate(items, 1):
        if not item.recipients:
            raise MailError(Code.BAD_VALUE, "a message needs at least one recipient")
        if item.sender:
            _parsed(item.sender)
        for recipient in item.recipients:
            destination = _parsed(recipient.address).domain
            columns.n.append(n)
            columns.address.append(recipient.address)
            columns.destination.append(destination)
            columns.notify.append(recipient.notify)
            columns.orcpt.append(recipient.orcpt)
    return columns


def _parsed(address: str) -> Parsed:
    try:
        return parse_address(address)
    except AddressError as error:
        raise MailError(Code.BAD_VALUE, error.text, f"address {address!r}") from None


async def _touch(tx: Tx, hashes: list[bytes]) -> None:
    await tx.execute(TOUCH_BLOBS, (hashes,))
    row = await tx.one(COUNT_BLOBS, (hashes,))
    if row is None or row[0] != len(hashes):
        raise MailError(Code.NOT_FOUND, "the message is not stored (any more)")


def _queued(item: Outgoing, number: int) -> list[trace.Event]:
    detail: dict[str, object] = {"size": (len(item.raw) if item.raw is not None else item.size) + len(item.prepend)}
    if item.send_after is not None:
        detail["send_after"] = item.send_after.isoformat()
    return [
        trace.Event(item.trace_id, "queued", item.account_id, number, item.sender, to.address, item.message_id, detail)
        for to in item.recipients
    ]


async def blob(tx: Tx, key: bytes) -> bytes:
    """The raw octets of a stored message. Raises NOT_FOUND."""
    row = await tx.one(BLOB, (key,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "the message's content is not stored", f"blob {key.hex()}")
    return bytes(row[0])


async def blobs(tx: Tx, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The raw octets of several stored messages; missing ones are left out."""
    return {bytes(key): bytes(data) for key, data in await tx.fetch(BLOBS, (list(keys),))}


async def claim(
    tx: Tx,
    *,
    destination: str | None = None,
    outbound_id: int | None = None,
    limit: int = 16,
    lease_seconds: float = LEASE_SECONDS,
) -> list[Claimed]:
    """Take due recipients (of a destination, of one message, or any) that nobody holds: the oldest, by message."""
    names: dict[str, object] = {"limit": limit, "lease": lease_seconds}
    if destination is not None:
        statements, names["destination"] = (CLAIM_DESTINATION, CLAIM_DESTINATION_SUSPECT), destination
    elif outbound_id is not None:
        statements, names["outbound"] = (CLAIM_OUTBOUND, CLAIM_OUTBOUND_SUSPECT), outbound_id
    else:
        statements = (CLAIM_ANY, CLAIM_ANY_SUSPECT)
    rows = await tx.fetch(statements[0], names)
    if not rows:
        rows = await tx.fetch(statements[1], {**names, "limit": 1})
    rows.sort(key=lambda row: (row[2], row[0]))
    return [claimed(row) for row in rows]


def claimed(row: Row) -> Claimed:
    values = list(row)
    values[13], values[15] = bytes(row[13]), bytes(row[15])
    return Claimed(*values)


async def lock(tx: Tx, claims: Sequence[Claimed]) -> bool:
    """Lock rows of the queue for what follows in this transaction; False when one of them is not ours any more.

    The queue is locked before accounts, accounts before mailboxes, mailboxes before blobs.
    """
    names = {"ids": [c.recipient_id for c in claims], "fences": [c.fence for c in claims]}
    return len(await tx.fetch(LOCK_CLAIMS, names)) == len(claims)


async def renew(tx: Tx, claims: Sequence[tuple[int, int]], lease_seconds: float = LEASE_SECONDS) -> set[int]:
    """Prolong the leases of (recipient id, fence) pairs; returns the recipients that are still ours."""
    claims = sorted(claims)  # rows are locked in one order, here, in give_back and in record
    names = {"ids": [c[0] for c in claims], "fences": [c[1] for c in claims], "lease": lease_seconds}
    return {int(row[0]) for row in await tx.fetch(RENEW, names)}


async def give_back(tx: Tx, claims: Sequence[tuple[int, int]]) -> None:
    """Return claims that were not used: they are due again at once and count as no attempt."""
    claims = sorted(claims)
    await tx.execute(GIVE_BACK, {"ids": [c[0] for c in claims], "fences": [c[1] for c in claims]})


async def record(tx: Tx, results: Sequence[Result]) -> set[int]:
    """Record what became of claims and end their leases; returns the recipients whose fence was still right."""
    results = sorted(results, key=lambda result: result.recipient_id)
    rows = await tx.fetch(
        RECORD,
        (
            [result.recipient_id for result in results],
            [result.fence for result in results],
            [result.state for result in results],
            [result.code for result in results],
            [None if result.reply is None else result.reply.replace("\0", "\ufffd")[:MAX_REPLY] for result in results],
            [result.host for result in results],
            [float(result.retry_in or 0) for result in results],
            [result.delay_notified for result in results],
        ),
    )
    return {int(row[0]) for row in rows}


async def due(tx: Tx, limit: int = 10_000) -> list[str]:
    """Destinations with recipients that may be delivered to now, those with an expired lease among them."""
    return [row[0] for row in await tx.fetch(DUE, {"limit": limit, "unreported": MAX_UNREPORTED})]


async def next_due(tx: Tx) -> datetime | None:
    """When the next recipient comes due; None when none is queued."""
    row = await tx.one(NEXT_DUE)
    return row[0] if row else None


async def destinations(tx: Tx, outbound_ids: Sequence[int]) -> list[str]:
    """Destinations of these messages that have something due."""
    return [row[0] for row in await tx.fetch(DESTINATIONS, (list(outbound_ids),))]


async def set_aside(tx: Tx) -> int:
    """Hold recipients whose claims died again and again, so that they stop killing workers; returns how many."""
    reason = f"set aside: {MAX_UNREPORTED} deliveries in a row ended without a result"
    rows = await tx.fetch(SET_ASIDE, {"reason": reason, "unreported": MAX_UNREPORTED})
    await trace.add(
        tx,
        [
            trace.Event(trace_id, "held", account_id, outbound_id, sender, address, None, {"reason": reason})
            for _, outbound_id, address, sender, trace_id, account_id in rows
        ],
    )
    return len(rows)
