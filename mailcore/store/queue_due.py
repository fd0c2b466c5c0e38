"""What of the queue is due: the questions of a sweep, and what it takes up when nobody else would."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.db import Tx, sql
from mailcore.store import trace
from mailcore.store.queue import LEASE_SECONDS, Claimed, claimed
from mailcore.store.queue_claims import COLUMNS, MAX_UNREPORTED, claiming

# Mail that a pause keeps waiting, and that has got so old that its sender is to be told, or that it has to come back.
# The pause without a name is the smarthost's, which all mail waits for.
CLAIM_OVERDUE = sql(
    claiming("""
        SELECT r.id FROM outbound_recipient r JOIN outbound o ON o.id = r.outbound_id
        WHERE r.state = 'queued' AND r.next_attempt_at <= now() AND (r.lease_until IS NULL OR r.lease_until < now())
            AND r.unreported = 0
            AND NOT EXISTS (SELECT FROM frozen_destination f
                WHERE f.destination = r.destination AND (f.until IS NULL OR f.until > now()))
            AND (r.destination IN (SELECT split_part(name, ' ', 1) FROM delivery_pause WHERE until > now())
                OR EXISTS (SELECT FROM delivery_pause WHERE name = '' AND until > now()))
            AND now() - greatest(o.created_at, o.send_after) > make_interval(secs => CASE
                WHEN o.sender = '' THEN %(max_age_bounce)s::float8
                WHEN r.delay_notified THEN %(max_age)s::float8 ELSE %(delay)s::float8 END)
        ORDER BY r.next_attempt_at, r.id FOR UPDATE OF r SKIP LOCKED""")
)

# Steps from one destination to the next through the index instead of reading every queued row, and asks the index for
# the most urgent of each: joined, all that is urgent would be read once for each destination.
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
        AND NOT EXISTS (SELECT FROM frozen_destination f
            WHERE f.destination = name.destination AND (f.until IS NULL OR f.until > now()))
        AND NOT EXISTS (SELECT FROM delivery_pause p WHERE p.name = name.destination AND p.until > now())
    ORDER BY (
        SELECT u.priority FROM outbound_recipient u
        WHERE u.state = 'queued' AND u.priority > 0 AND u.destination = name.destination AND u.next_attempt_at <= now()
        ORDER BY u.priority DESC LIMIT 1
    ) DESC NULLS LAST LIMIT %(limit)s::int""")

# What senders that a rule may be for have due, from the index of what is due: paused and frozen destinations with it.
DUE_OF_SENDERS = sql("""
    SELECT DISTINCT destination, sender_domain FROM outbound_recipient
    WHERE state = 'queued' AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until < now())
        AND unreported < %(unreported)s::int AND sender_domain LIKE ANY (%(senders)s::text[])
    LIMIT %(limit)s::int""")

SENDERS = sql("""
    SELECT DISTINCT destination, sender_domain FROM outbound_recipient
    WHERE outbound_id = ANY(%(outbound)s::bigint[]) AND sender_domain LIKE ANY (%(senders)s::text[])""")

RANKED = sql("SELECT EXISTS (SELECT FROM outbound_recipient WHERE state = 'queued' AND priority <> 0)")

DESTINATIONS = sql("""
    SELECT destination, bool_or(priority <> 0) FROM outbound_recipient
    WHERE outbound_id = ANY(%s::bigint[]) AND state = 'queued' AND next_attempt_at <= now()
        AND (lease_until IS NULL OR lease_until < now())
    GROUP BY destination ORDER BY max(priority) DESC""")

# The time is over: the sender wants it back, whether or not it could be tried then, or wants to know; what is being
# delivered at this moment may not be late after all. Whatever this takes leaves the index that it reads.
LATE = sql(f"""
    WITH late AS (
        SELECT id FROM outbound_recipient
        WHERE state = 'queued' AND deliver_by <= now() AND NOT late_notified
            AND (lease_until IS NULL OR lease_until < now())
        ORDER BY deliver_by LIMIT 200 FOR UPDATE SKIP LOCKED
    )
    UPDATE outbound_recipient r SET late_notified = starts_with(o.by_mode, 'N'),
        lease_until = CASE WHEN starts_with(o.by_mode, 'N') THEN r.lease_until
            ELSE now() + make_interval(secs => %(lease)s::float8) END,
        fence = CASE WHEN starts_with(o.by_mode, 'N') THEN r.fence ELSE r.fence + 1 END
    FROM late, outbound o WHERE r.id = late.id AND o.id = r.outbound_id
    RETURNING {COLUMNS}""")

SET_ASIDE = sql("""
    UPDATE outbound_recipient r SET state = 'held', lease_until = NULL, held_reason = %(reason)s::text
    FROM outbound o
    WHERE r.state = 'queued' AND r.unreported >= %(unreported)s::int AND r.lease_until < now() AND o.id = r.outbound_id
    RETURNING r.id, r.outbound_id, r.address, o.sender, o.trace_id, o.account_id""")


async def claim_overdue(
    tx: Tx, *, delay: float, max_age: float, max_age_bounce: float, limit: int = 200
) -> list[Claimed]:
    """Take recipients behind a pause that are older (seconds) than when their sender is told, or than they may get."""
    names = {"limit": limit, "lease": LEASE_SECONDS, "delay": delay, "max_age": max_age}
    rows = await tx.fetch(CLAIM_OVERDUE, names | {"max_age_bounce": max_age_bounce})
    return [claimed(row) for row in sorted(rows, key=lambda row: (row[2], row[0]))]


async def late(tx: Tx) -> list[Claimed]:
    """Recipients whose mail was to be delivered by now (RFC 2852), 200 at most, each once: of mode R they are claimed,
    of mode N locked, and marked as told of."""
    rows = await tx.fetch(LATE, {"lease": LEASE_SECONDS})
    return [claimed(row) for row in sorted(rows, key=lambda row: (row[2], row[0]))]


async def due(tx: Tx, limit: int = 10_000) -> list[str]:
    """Destinations with recipients that may be delivered to now, those with an expired lease among them; first those
    that something urgent is for."""
    return [row[0] for row in await tx.fetch(DUE, {"limit": limit, "unreported": MAX_UNREPORTED})]


async def is_ranked(tx: Tx) -> bool:
    """Whether anything in the queue has another priority than ordinary mail."""
    row = await tx.one(RANKED)
    return bool(row and row[0])


async def due_of_senders(tx: Tx, senders: Sequence[str], limit: int = 10_000) -> list[tuple[str, str]]:
    """Destination and sender's domain ("" = null sender) of what is due from senders (LIKE patterns of domains)."""
    names = {"senders": list(senders), "limit": limit, "unreported": MAX_UNREPORTED}
    return [(row[0], row[1]) for row in await tx.fetch(DUE_OF_SENDERS, names)]


async def senders(tx: Tx, outbound_ids: Sequence[int], senders: Sequence[str]) -> list[tuple[str, str]]:
    """The same of these messages, due or not."""
    names = {"outbound": list(outbound_ids), "senders": list(senders)}
    return [(row[0], row[1]) for row in await tx.fetch(SENDERS, names)]


async def destinations(tx: Tx, outbound_ids: Sequence[int]) -> dict[str, bool]:
    """Destinations of these messages that have something due, the most urgent first, and whether what they have is of
    another priority than ordinary mail."""
    return dict(await tx.fetch(DESTINATIONS, (list(outbound_ids),)))


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
