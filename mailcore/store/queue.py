"""The outbound queue: one row per message, one per recipient; who delivers a row holds a lease on it.

The truth is here and on the database's clock; Redis only rings the bell. A claim sets a lease and counts the row's
fence up; a result must carry the fence of its claim, so that a late worker cannot overwrite what a later one did.
What an administrator does to the queue is in `queue_admin`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from accounts.addresses import AddressError, Parsed, parse_address
from mailcore.arrays import Bools, Byteas, Int4s, Int8s, Texts, columns
from mailcore.db import Row, Tx, is_large, sql
from mailcore.errors import Code, MailError
from mailcore.store import suppression, trace
from mailcore.store.queue_claims import CLAIMS, CLAIMS_BY_PRIORITY
from mailcore.store.queue_entry import ENQUEUE, MESSAGE, RECIPIENT
from mailcore.wake import Change
from mailcore.wire.smtp.params import By

State = Literal["queued", "held", "delivered", "failed"]
# BODY of RFC 6152 and RFC 3030; BINARYMIME is sent octet by octet, in chunks or not at all.
Body = Literal["7BIT", "8BITMIME", "BINARYMIME"]

LEASE_SECONDS = 120
MAX_REPLY = 2000
# Octets of a message that are read at a time: the event loop copies them.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Recipient:
    """An envelope recipient; `notify` (NEVER or SUCCESS,FAILURE,DELAY) and `orcpt` as RFC 3461 writes them.

    `written_to`: what the sender wrote to, if an address of ours led on to this one; he is told of no other.
    """

    address: str
    notify: str | None = None
    orcpt: str | None = None
    written_to: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for the queue: give `raw`, or the `blob` (SHA-256) of one that is stored already and its `size`.

    `account_id` is the account that submitted it and thereby may use `sender`: its mail is DKIM-signed with the
    sender's domain and loses its Bcc field. Mail that only passes through (a forward) has None and leaves as it came.
    `requiretls` (RFC 8689): True = REQUIRETLS was given with MAIL, False = its header says "TLS-Required: No", None =
    what the recipients' domains publish decides. `by` (RFC 2852) counts from when the message may leave, and
    `late_notified` says that the sender knows that it is over; `priority` is that of RFC 6710, -9 to 9.
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
    body: Body = "7BIT"
    requiretls: bool | None = None
    dsn_ret: str | None = None
    dsn_envid: str | None = None
    send_after: datetime | None = None
    message_id: str | None = None
    by: By | None = None
    priority: int = 0
    late_notified: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A recipient that this worker may deliver to until its lease ends. Ages in seconds, by the database's clock.

    `deadline`, by this process's `time.monotonic`, is when the sender's time is over; `by_mode` says what then (`By`).
    """

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
    body: Body
    requiretls: bool | None
    dsn_ret: str | None
    dsn_envid: str | None
    trace_id: str
    account_id: int | None
    created_at: datetime
    age: float
    released: bool = False  # by a person: no rule may hold it again
    priority: int = 0
    deadline: float | None = None
    by_mode: str | None = None
    late_notified: bool = False
    written_to: str | None = None

    @property
    def by(self) -> By | None:
        """The time that is left, for the next server."""
        if self.deadline is None or self.by_mode is None:
            return None
        return By(int(self.deadline - time.monotonic()), self.by_mode)

    @property
    def is_late(self) -> bool:
        """The sender's time is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True, slots=True)
class Share:
    """Of a destination's mail, that of senders whose domain fits `mine` (LIKE patterns; None = all; "" = the null
    sender) and none of `others`; `name` is that of its pause."""

    name: str
    mine: Sequence[str] | None
    others: Sequence[str]


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


# In the order of their hashes, as everybody locks them.
TOUCH_BLOBS = sql("""
    WITH stale AS (
        SELECT hash FROM blob WHERE hash = ANY(%s::bytea[]) AND touched_at < now() - interval '10 minutes'
        ORDER BY hash FOR UPDATE)
    UPDATE blob SET touched_at = now() FROM stale WHERE blob.hash = stale.hash""")

COUNT_BLOBS = sql("SELECT count(*) FROM blob WHERE hash = ANY(%s::bytea[])")
BLOB_PIECE = sql("""
    SELECT substring(data FROM %s::int + 1 FOR %s::int), octet_length(data) FROM blob WHERE hash = %s::bytea""")
BLOBS = sql("SELECT hash, data FROM blob WHERE hash = ANY(%b::bytea[])")

# A row for each content, or one row without; what is hosted here and whether anybody is suppressed stands in each.
FACTS = sql(f"""
    SELECT here.names, listed.any, b.hash, b.data
    FROM (SELECT array_agg(name::text) AS names FROM accounts_domain WHERE name = ANY(%b::text[])) AS here
    CROSS JOIN (SELECT EXISTS (SELECT FROM suppression WHERE address = ANY(%b::text[]) AND {suppression.ACTIVE}) AS any)
        AS listed
    LEFT JOIN blob b ON b.hash = ANY(%b::bytea[])""")

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

PUT_OFF = sql("""
    UPDATE outbound_recipient r
    SET lease_until = NULL, attempts = attempts - 1, unreported = unreported - 1,
        next_attempt_at = greatest(next_attempt_at, now() + make_interval(secs => %(wait)s::float8))
    FROM unnest(%(ids)s::bigint[], %(fences)s::bigint[]) AS c(id, fence)
    WHERE r.id = c.id AND r.fence = c.fence AND r.lease_until IS NOT NULL""")

# A row that was put on hold in mid-delivery stays held unless the delivery settled it. What stands in the trace, and
# whose strikes a delivery wipes out, goes by the recipients whose fence was right; `of` is their number. IS TRUE keeps
# Postgres from joining row by row, because it takes arrays for short: it looks into a hash table instead.
RECORD = sql("""
    WITH done AS (
        UPDATE outbound_recipient r
        SET state = CASE WHEN v.state = 'queued' THEN r.state ELSE v.state END,
            held_reason = CASE WHEN v.state = 'held' THEN v.reply ELSE r.held_reason END,
            lease_until = NULL, unreported = 0, last_code = v.code, last_reply = v.reply, last_host = v.host,
            next_attempt_at = CASE WHEN v.state = 'queued' THEN now() + make_interval(secs => v.retry_ms / 1000.0)
                ELSE r.next_attempt_at END,
            delay_notified = r.delay_notified OR v.delay_notified,
            finished_at = CASE WHEN v.state IN ('delivered', 'failed') THEN now() END
        FROM unnest(%b::bigint[], %b::bigint[], %b::text[], %b::bigint[], %b::text[], %b::text[], %b::bigint[],
            %b::bool[]) AS v(id, fence, state, code, reply, host, retry_ms, delay_notified)
        WHERE r.id = v.id AND r.fence = v.fence AND r.lease_until IS NOT NULL AND r.state IN ('queued', 'held')
        RETURNING r.id
    ), traced AS (
        INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
        SELECT coalesce(e.at, now()), e.trace_id, e.step, e.account_id, e.outbound_id, e.sender, e.recipient,
            e.message_id, e.detail::jsonb
        FROM unnest(%b::bigint[], %b::timestamptz[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::text[],
            %b::text[], %b::text[], %b::text[]) WITH ORDINALITY AS e(of, at, trace_id, step, account_id, outbound_id,
            sender, recipient, message_id, detail, n)
        WHERE (e.of IN (SELECT id FROM done)) IS TRUE ORDER BY e.n
    ), forgiven AS (
        DELETE FROM suppression s USING unnest(%b::bigint[], %b::text[]) AS f(of, address)
        WHERE s.address = f.address AND s.source = 'bounce' AND NOT s.active
            AND (f.of IN (SELECT id FROM done)) IS TRUE
    )
    SELECT id FROM done""")
_RESULT = (Int8s, Int8s, Texts, Int8s, Texts, Texts, Int8s, Bools)


async def enqueue(tx: Tx, outgoing: Outgoing) -> int:
    """Put a message into the queue and return its queue number. Raises BAD_VALUE, NOT_FOUND (blob)."""
    return (await enqueue_many(tx, (outgoing,)))[0]


async def enqueue_many(tx: Tx, items: Sequence[Outgoing], events: Sequence[trace.Event] = ()) -> list[int]:
    """Put messages into the queue, with their blobs and trace, `events` first; queue numbers in order.

    One statement, if all of them bring their octets (`needs_one_statement`). Raises BAD_VALUE for a message without
    recipients or with an address that cannot be one, NOT_FOUND for a `blob` that is not stored.
    """
    if not items:
        await trace.add(tx, events)
        return []
    large = is_large(item.raw for item in items)
    blobs, hashes = await tx.aside(partial(_blobs, items)) if large else _blobs(items)
    recipients = _recipients(items)
    if known := sorted({key for key in hashes if key not in blobs}):
        await _touch(tx, known)
    steps = [(n, event) for n, item in enumerate(items, 1) for event in _queued(item)]
    ordered = sorted(blobs.items())  # everybody locks in one order
    octets = partial(Byteas, [raw for _, raw in ordered])
    rows = await tx.call(
        ENQUEUE,
        [
            *columns([_row(item, key) for item, key in zip(items, hashes, strict=True)], MESSAGE),
            Byteas([key for key, _ in ordered]),
            await tx.aside(octets) if large else octets(),
            *columns(recipients, RECIPIENT),
            Int4s([0] * len(events) + [n for n, _ in steps]),
            *trace.arrays([*events, *(event for _, event in steps)]),
        ],
    )
    ids = [int(row[0]) for row in rows]
    for number in ids:
        tx.changed(Change(0, 0, number, "queue"))
    return ids


def needs_one_statement(items: Sequence[Outgoing]) -> bool:
    """Whether `enqueue_many` takes these in one statement, so that it may run without a transaction around it."""
    return all(item.raw is not None for item in items)


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


def _row(item: Outgoing, blob: bytes) -> tuple[object, ...]:
    return (
        *(item.trace_id, item.account_id, item.sender, blob, _size(item), item.prepend, item.smtputf8, item.body),
        *(item.requiretls, item.dsn_ret, item.dsn_envid, item.send_after),
        *(item.by.seconds if item.by else None, item.by.mode if item.by else None, item.priority),
        item.late_notified,
    )


def _size(item: Outgoing) -> int:
    return (len(item.raw) if item.raw is not None else item.size) + len(item.prepend)


def _recipients(items: Sequence[Outgoing]) -> list[tuple[object, ...]]:
    """A row for each recipient: the number of its message, then as RECIPIENT has them."""
    rows: list[tuple[object, ...]] = []
    for n, item in enumerate(items, 1):
        if not item.recipients:
            raise MailError(Code.BAD_VALUE, "a message needs at least one recipient")
        if item.sender:
            _parsed(item.sender)
        rows += [
            (n, to.address, _parsed(to.address).domain, to.notify, to.orcpt, to.written_to) for to in item.recipients
        ]
    return rows


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


def _queued(item: Outgoing) -> list[trace.Event]:
    detail: dict[str, object] = {"size": _size(item)}
    if item.send_after is not None:
        detail["send_after"] = item.send_after.isoformat()
    return [
        trace.Event(item.trace_id, "queued", item.account_id, None, item.sender, to.address, item.message_id, detail)
        for to in item.recipients
    ]


async def blob(tx: Tx, key: bytes, limit: int | None = None) -> bytes:
    """The raw octets of a stored message, the first `limit` of them. Raises NOT_FOUND."""
    pieces: list[bytes] = []
    at, size = 0, PIECE if limit is None else limit
    while not pieces or at < size:
        row = await tx.one(BLOB_PIECE, (at, min(PIECE, size - at), key))
        if row is None:
            raise MailError(Code.NOT_FOUND, "the message's content is not stored", f"blob {key.hex()}")
        pieces.append(bytes(row[0]))
        at += PIECE
        size = row[1] if limit is None else min(row[1], limit)
    return pieces[0] if len(pieces) == 1 else await tx.aside(partial(b"".join, pieces))


async def blobs(tx: Tx, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The raw octets of several stored messages; missing ones are left out."""
    return {bytes(key): bytes(data) for key, data in await tx.call(BLOBS, (Byteas(keys),))}


async def claim(
    tx: Tx,
    *,
    destination: str | None = None,
    share: Share | None = None,
    outbound_id: int | None = None,
    limit: int = 16,
    lease_seconds: float = LEASE_SECONDS,
    force: bool = False,
    by_priority: bool = False,
) -> list[Claimed]:
    """Take due recipients (of a destination or a share of it, of one message, or any) that nobody holds: the oldest, or
    `by_priority` the oldest of the most urgent (a tenth dearer, so it is for when there is anything to put into order).

    Nothing of a frozen destination; of a paused one only with `force`.
    """
    names: dict[str, object] = {"limit": limit, "lease": lease_seconds, "force": force}
    if destination is not None:
        kind, names["destination"] = "destination", destination
        if share is not None:
            kind = "share"
            names |= {"share": share.name, "others": list(share.others)}
            names["mine"] = None if share.mine is None else list(share.mine)
    elif outbound_id is not None:
        kind, names["outbound"] = "outbound", outbound_id
    else:
        kind = "any"
    oldest, suspects = CLAIMS[kind]
    rows = await tx.fetch(CLAIMS_BY_PRIORITY.get(kind, oldest) if by_priority else oldest, names)
    if not rows:
        rows = await tx.fetch(suspects, {**names, "limit": 1})
    rows.sort(key=lambda row: (-row[26], row[2], row[0]))
    return [claimed(row) for row in rows]


def claimed(row: Row) -> Claimed:
    values = list(row)
    values[13], values[15] = bytes(row[13]), bytes(row[15])
    values[27] = None if row[27] is None else time.monotonic() + row[27]
    return Claimed(*values)


async def facts(
    tx: Tx, claims: Sequence[Claimed], wanted: Sequence[bytes]
) -> tuple[set[str], dict[str, suppression.Suppressed], dict[bytes, bytes]]:
    """What a batch needs besides, in one statement: the hosted ones of its destinations, its suppressed addresses (by
    `suppression.key`; they take another), the contents that are wanted."""
    addresses = [claim.address for claim in claims]
    destinations = sorted({claim.destination for claim in claims})
    rows = await tx.call(FACTS, (Texts(destinations), Texts(suppression.keys(addresses)), Byteas(wanted)))
    local, any_listed, _, _ = rows[0]
    return (
        set(local or ()),
        await suppression.find(tx, addresses) if any_listed else {},
        {bytes(key): bytes(data) for _, _, key, data in rows if key is not None},
    )


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


async def give_back(tx: Tx, claims: Sequence[tuple[int, int]], wait: float | None = None) -> None:
    """Return claims that were not used: they are due again at once, or in `wait` seconds, and count as no attempt."""
    claims = sorted(claims)
    names = {"ids": [c[0] for c in claims], "fences": [c[1] for c in claims]}
    if wait is None:
        await tx.execute(GIVE_BACK, names)
    else:
        await tx.execute(PUT_OFF, {**names, "wait": wait})


async def record(
    tx: Tx,
    results: Sequence[Result],
    events: Sequence[tuple[int, trace.Event]] = (),
    forgiven: Sequence[tuple[int, str]] = (),
) -> set[int]:
    """Record what became of claims and end their leases; returns the recipients whose fence was still right.

    Theirs are the `events` that are written, and the addresses that have no strikes any more: both by recipient id.
    One statement.
    """
    results = sorted(results, key=lambda result: result.recipient_id)
    rows = await tx.call(
        RECORD,
        [
            *columns([_record_row(result) for result in results], _RESULT),
            Int8s([number for number, _ in events]),
            *trace.arrays([event for _, event in events]),
            Int8s([number for number, _ in forgiven]),
            Texts([suppression.key(address) for _, address in forgiven]),
        ],
    )
    return {int(row[0]) for row in rows}


def _record_row(result: Result) -> tuple[object, ...]:
    reply = None if result.reply is None else result.reply.replace("\0", "\ufffd")[:MAX_REPLY]
    retry = round((result.retry_in or 0) * 1000)
    fixed = (result.recipient_id, result.fence, result.state, result.code, reply, result.host)
    return (*fixed, retry, result.delay_notified)
