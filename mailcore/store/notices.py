"""Notices that wait a moment, so that a sender hears in one report of all the recipients that fail together.

Each is written in the transaction of the result that it tells of, and taken by the one that makes the report: whatever
dies in between, it is told, and told once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from mailcore.db import Tx, sql
from mailcore.store.queue import MAX_REPLY, Claimed, claimed
from mailcore.store.queue_claims import COLUMNS

# Seconds after which a notice no longer waits for recipients that are still at work, as a multiple of the usual wait.
PATIENCE = 8.0
# Notices that are looked at for those that are ready.
MOST = 1000
# Seconds until a report that could not be made is tried again.
LATER = 600.0


@dataclass(frozen=True, slots=True)
class Noted:
    """Something to tell of one recipient; `action` of RFC 3464, `is_remote`: `text` is the remote's, of `host`."""

    outbound_id: int
    recipient_id: int
    address: str
    orcpt: str | None
    action: str
    status: str
    text: str
    is_remote: bool
    host: str | None


_NAMES = ", ".join(each.name for each in fields(Noted))

ADD = sql(f"""
    INSERT INTO outbound_notice ({_NAMES})
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::bool[], %s::text[])""")

# Of many the oldest, so that a hundred thousand that come back together are not all read for each few that are told.
READY = sql("""
    SELECT n.outbound_id FROM (
        SELECT outbound_id, created_at FROM outbound_notice
        WHERE created_at <= statement_timestamp() - make_interval(secs => %(after)s::float8)
        ORDER BY created_at LIMIT %(most)s::int
    ) AS n GROUP BY n.outbound_id
    HAVING min(n.created_at) <= statement_timestamp() - make_interval(secs => %(after)s::float8 * %(patience)s::float8)
        OR NOT EXISTS (SELECT FROM outbound_recipient r
            WHERE r.outbound_id = n.outbound_id AND r.state = 'queued' AND r.lease_until > now())
    ORDER BY min(n.created_at) LIMIT %(limit)s::int""")

# Somebody else may be at it: a message that he has locked is left to him, so that it goes into one report. Of one that
# was taken out of the queue nobody is told. What is final knows its time even if the notice was put off.
TAKE = sql(f"""
    WITH mine AS (
        SELECT id FROM outbound WHERE id = ANY(%(messages)s::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM outbound_notice WHERE outbound_id = ANY(%(messages)s::bigint[]) AND (
            outbound_id IN (SELECT id FROM mine)
            OR NOT EXISTS (SELECT FROM outbound WHERE outbound.id = outbound_notice.outbound_id))
        RETURNING *
    )
    SELECT {COLUMNS}, {", ".join(f"taken.{each.name}" for each in fields(Noted))},
        least(taken.created_at, r.finished_at)
    FROM taken JOIN outbound_recipient r ON r.id = taken.recipient_id JOIN outbound o ON o.id = r.outbound_id
    ORDER BY taken.id""")

PUT_OFF = sql("""
    UPDATE outbound_notice SET created_at = now() + make_interval(secs => %s::float8)
    WHERE outbound_id = ANY(%s::bigint[])""")


async def add(tx: Tx, noted: Sequence[Noted]) -> None:
    """Keep what is to be told."""
    if noted:
        columns = [[getattr(each, name.name) for each in noted] for name in fields(Noted)]
        columns[6] = [text.replace("\0", "\ufffd")[:MAX_REPLY] for text in columns[6]]
        await tx.execute(ADD, columns)


async def ready(tx: Tx, after: float, limit: int = 50) -> list[int]:
    """Messages of which there was something to tell so many seconds ago, and no recipient is being delivered to (which
    nobody waits for long)."""
    names = {"after": after, "patience": PATIENCE, "most": MOST, "limit": limit}
    return [int(row[0]) for row in await tx.fetch(READY, names)]


async def take(tx: Tx, outbound_ids: Sequence[int]) -> list[tuple[Claimed, Noted, datetime]]:
    """What is to be told of these messages, which is told in this transaction, and when it happened; the address is
    that of then."""
    width = len(fields(Claimed))
    return [
        (claimed(row[:width]), Noted(*row[width:-1]), row[-1])
        for row in await tx.fetch(TAKE, {"messages": list(outbound_ids)})
    ]


async def put_off(tx: Tx, outbound_ids: Sequence[int]) -> None:
    """Leave these for later: no report could be made."""
    await tx.execute(PUT_OFF, (LATER, list(outbound_ids)))
