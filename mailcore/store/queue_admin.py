"""What people do to the outbound queue: look, retry, hold, release, return, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import housekeeping, trace
from mailcore.store.queue import Claimed, claimed
from mailcore.wake import Change

MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient in the queue; `queue_id` is its message. `at_work`: a worker has it in hand now."""

    queue_id: int
    trace_id: str
    state: str
    sender: str
    recipient: str
    destination: str
    size: int
    attempts: int
    queued_at: datetime
    next_attempt_at: datetime
    at_work: bool
    code: int | None
    reply: str | None
    host: str | None
    held_reason: str | None
    account_id: int | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Removed:
    """How many messages were taken out, and how many stay because they are being delivered."""

    messages: int
    at_work: int


# An argument that is NULL asks for nothing.
LIST = sql("""
    SELECT o.id, o.trace_id, r.state, o.sender, r.address, r.destination, o.size, r.attempts, o.created_at,
        r.next_attempt_at, coalesce(r.lease_until > now(), false), r.last_code, r.last_reply, r.last_host,
        r.held_reason, o.account_id, r.finished_at
    FROM outbound_recipient r JOIN outbound o ON o.id = r.outbound_id
    WHERE (%(states)s::text[] IS NULL OR r.state = ANY(%(states)s::text[]))
        AND (%(destination)s::text IS NULL OR r.destination = %(destination)s::text)
        AND (%(recipient)s::text IS NULL OR lower(r.address) = lower(%(recipient)s::text))
        AND (%(sender)s::text IS NULL OR lower(o.sender) = lower(%(sender)s::text))
        AND (%(ids)s::bigint[] IS NULL OR o.id = ANY(%(ids)s::bigint[]))
    ORDER BY r.id LIMIT %(limit)s::int""")

NUMBERS = sql("""
    SELECT id, trace_id FROM outbound WHERE id = ANY(%s::bigint[]) OR trace_id = ANY(%s::text[])""")

RETRY = sql("""
    UPDATE outbound_recipient SET next_attempt_at = now()
    WHERE outbound_id = ANY(%s::bigint[]) AND state = 'queued' AND (lease_until IS NULL OR lease_until < now())""")

HOLD = sql("""
    UPDATE outbound_recipient SET state = 'held', held_reason = %(reason)s::text
    WHERE outbound_id = ANY(%(ids)s::bigint[]) AND state = 'queued'""")

RELEASE = sql("""
    UPDATE outbound_recipient SET state = 'queued', held_reason = NULL, unreported = 0, next_attempt_at = now()
    WHERE outbound_id = ANY(%s::bigint[]) AND state = 'held'""")

LOCK_RECIPIENTS = sql("""
    SELECT outbound_id, coalesce(lease_until > now(), false) FROM outbound_recipient
    WHERE outbound_id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE""")
REMOVE_RECIPIENTS = sql("DELETE FROM outbound_recipient WHERE outbound_id = ANY(%s::bigint[])")
REMOVE = sql("DELETE FROM outbound WHERE id = ANY(%s::bigint[]) RETURNING blob")

# With a new fence and a short lease, as a worker claims; but held rows too, and whenever they are due.
SEIZE = sql("""
    UPDATE outbound_recipient r SET fence = fence + 1, lease_until = now() + interval '1 minute'
    FROM outbound o
    WHERE r.outbound_id = ANY(%s::bigint[]) AND r.state IN ('queued', 'held') AND o.id = r.outbound_id
        AND (r.lease_until IS NULL OR r.lease_until < now())
    RETURNING r.id, r.fence, r.outbound_id, r.address, r.destination, r.attempts, r.notify, r.orcpt, r.delay_notified,
        r.last_code, r.last_reply, r.last_host, o.sender, o.blob, o.size, o.prepend, o.smtputf8, o.body_8bit, o.dsn_ret,
        o.dsn_envid, o.trace_id, o.account_id, o.created_at,
        extract(epoch FROM now() - greatest(o.created_at, o.send_after))::float8""")


async def rows(
    tx: Tx,
    *,
    ids: Sequence[int] | None = None,
    states: Sequence[str] | None = None,
    destination: str | None = None,
    sender: str | None = None,
    recipient: str | None = None,
    limit: int = MAX_ROWS,
) -> list[Row]:
    """Recipients in the queue, oldest first, that fit everything that is given."""
    names = {
        "ids": None if ids is None else list(ids),
        "states": None if states is None else list(states),
        "destination": destination,
        "sender": sender,
        "recipient": recipient,
        "limit": min(limit, MAX_ROWS),
    }
    return [Row(*row) for row in await tx.fetch(LIST, names)]


async def numbers(tx: Tx, names: Sequence[str]) -> list[int]:
    """Queue numbers for what people type: queue numbers and trace ids. Raises NOT_FOUND for one that is neither."""
    wanted = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 18]
    found = await tx.fetch(NUMBERS, (wanted, [name.lower() for name in names]))
    known = {str(row[0]) for row in found} | {row[1] for row in found}
    for name in names:
        if name.lower() not in known:
            raise MailError(Code.NOT_FOUND, f"{name} is not in the queue")
    return sorted({int(row[0]) for row in found})


async def retry(tx: Tx, ids: Sequence[int]) -> int:
    """Make queued recipients due now; returns how many."""
    await _lock(tx, ids)
    count = await tx.execute(RETRY, (list(ids),))
    await _note(tx, ids, "retry")
    _wake(tx, ids)
    return count


async def hold(tx: Tx, ids: Sequence[int], reason: str) -> int:
    """Set queued recipients aside until they are released; a delivery under way is not broken off."""
    await _lock(tx, ids)
    count = await tx.execute(HOLD, {"ids": list(ids), "reason": reason})
    await _note(tx, ids, "held", reason=reason)
    return count


async def release(tx: Tx, ids: Sequence[int]) -> int:
    """Queue held recipients again, due now."""
    await _lock(tx, ids)
    count = await tx.execute(RELEASE, (list(ids),))
    await _note(tx, ids, "released")
    _wake(tx, ids)
    return count


async def remove(tx: Tx, ids: Sequence[int]) -> Removed:
    """Take messages out of the queue without telling anybody, with their octets when nobody else needs them.

    A message that a worker has in hand stays: it is on the wire, and what becomes of it has to be recorded somewhere.
    """
    at_work = await _lock(tx, ids)
    free = sorted(set(ids) - at_work)
    await _note(tx, free, "removed")
    await tx.execute(REMOVE_RECIPIENTS, (free,))
    gone = await tx.fetch(REMOVE, (free,))
    await housekeeping.remove_blobs(tx, [bytes(row[0]) for row in gone])
    return Removed(len(gone), len(at_work))


async def seize(tx: Tx, ids: Sequence[int]) -> list[Claimed]:
    """Claim every open recipient of messages, held ones too, to settle them in this transaction (return to sender)."""
    await _lock(tx, ids)
    return [claimed(row) for row in await tx.fetch(SEIZE, (list(ids),))]


async def _lock(tx: Tx, ids: Sequence[int]) -> set[int]:
    """Lock the recipients of messages in the order of their numbers, as everybody does; returns the messages that a
    worker has in hand. An UPDATE by itself would lock them as its plan happens to find them."""
    return {int(row[0]) for row in await tx.fetch(LOCK_RECIPIENTS, (list(ids),)) if row[1]}


async def _note(tx: Tx, ids: Sequence[int], step: str, **detail: object) -> None:
    found = await rows(tx, ids=ids, states=("queued", "held"))
    await trace.add(
        tx,
        [
            trace.Event(row.trace_id, step, row.account_id, row.queue_id, row.sender, row.recipient, None, detail)
            for row in found
        ],
    )


def _wake(tx: Tx, ids: Sequence[int]) -> None:
    for number in ids:
        tx.changed(Change(0, 0, number, "queue"))
