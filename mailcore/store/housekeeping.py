"""What nobody needs any more goes: finished queue rows, long expunged mail, blobs without a message, old traces.

Verbs that do a bounded piece of work each and say how much it was; mailcore.tasks calls them until nothing is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mailcore.db import Row, Tx, sql
from mailcore.store import index_build, locks

PIECE = 1000

# Days. Expunged mail can be undeleted for so long; that it is gone (QRESYNC, JMAP) is remembered for longer.
KEEP_EXPUNGED = 30
KEEP_TOMBSTONES = 400
# What clients did not ask about for so long is found by a look at the whole mailbox.
KEEP_FLAG_CHANGES = 30
KEEP_FINISHED = 14
KEEP_TRACE = 90
# Work that was missed because nothing ran is caught up with for so long.
CATCH_UP = 30
CATCH_UP_BLOBS = 3

TRACE_WEEKS_AHEAD = 4

FINISHED = sql("""
    DELETE FROM outbound WHERE id IN (
        SELECT o.id FROM outbound o
        WHERE o.created_at < now() - make_interval(days => %(days)s::int) AND NOT EXISTS (
            SELECT FROM outbound_recipient r WHERE r.outbound_id = o.id
                AND (r.state IN ('queued', 'held') OR r.finished_at > now() - make_interval(days => %(days)s::int)))
        ORDER BY o.id LIMIT %(limit)s::int)
    RETURNING id, blob""")

FINISHED_RECIPIENTS = sql("DELETE FROM outbound_recipient WHERE outbound_id = ANY(%s::bigint[])")

EXPUNGED = sql("""
    SELECT DISTINCT x.account_id, x.message_id FROM expunged x
        JOIN message m ON m.account_id = x.account_id AND m.id = x.message_id
    WHERE x.expunged_at BETWEEN now() - make_interval(days => %(days)s::int + %(catch_up)s::int)
            AND now() - make_interval(days => %(days)s::int)
        AND NOT EXISTS (SELECT FROM entry e WHERE e.account_id = x.account_id AND e.message_id = x.message_id)
        AND NOT EXISTS (SELECT FROM expunged y WHERE y.account_id = x.account_id AND y.message_id = x.message_id
            AND y.expunged_at > now() - make_interval(days => %(days)s::int))
    LIMIT %(limit)s::int""")

REMOVE_MESSAGES = sql("""
    DELETE FROM message m WHERE m.account_id = %(account)s::bigint AND m.id = ANY(%(ids)s::bigint[])
        AND NOT EXISTS (SELECT FROM entry e WHERE e.account_id = m.account_id AND e.message_id = m.id)
    RETURNING m.id, m.blob""")

REMOVE_TEXTS = sql("DELETE FROM message_text WHERE account_id = %s::bigint AND docno = ANY(%s::bigint[])")

OLD_TOMBSTONES = sql("""
    SELECT account_id, modseq FROM expunged
    WHERE expunged_at < now() - make_interval(days => %(days)s::int) LIMIT %(limit)s::int""")

FORGET_TOMBSTONES = sql("""
    WITH gone AS (
        DELETE FROM expunged WHERE account_id = %(account)s::bigint AND modseq <= %(floor)s::bigint RETURNING modseq)
    UPDATE account_state SET gone_floor = greatest(gone_floor, %(floor)s::bigint)
    WHERE account_id = %(account)s::bigint RETURNING (SELECT count(*) FROM gone)""")

OLD_FLAG_CHANGES = sql("""
    SELECT account_id, modseq FROM flag_change
    WHERE changed_at < now() - make_interval(days => %(days)s::int) LIMIT %(limit)s::int""")

FORGET_FLAG_CHANGES = sql("""
    WITH gone AS (
        DELETE FROM flag_change WHERE account_id = %(account)s::bigint AND modseq <= %(floor)s::bigint RETURNING modseq)
    UPDATE account_state SET flag_floor = greatest(flag_floor, %(floor)s::bigint)
    WHERE account_id = %(account)s::bigint RETURNING (SELECT count(*) FROM gone)""")

_UNUSED = """touched_at < now() - interval '1 day'
        AND NOT EXISTS (SELECT FROM message m WHERE m.blob = blob.hash)
        AND NOT EXISTS (SELECT FROM outbound o WHERE o.blob = blob.hash)"""

# The row lock of whoever stores the same blob right now makes this wait and look again: it is fresh then, and stays.
# Locked in the order of their hashes first: a DELETE by itself would lock them as its plan happens to find them.
REMOVE_BLOBS = sql(f"""
    WITH unused AS (
        SELECT hash FROM blob WHERE hash = ANY(%s::bytea[]) AND {_UNUSED} ORDER BY hash FOR UPDATE)
    DELETE FROM blob USING unused WHERE blob.hash = unused.hash""")

UNUSED_BLOBS = sql(f"""
    SELECT hash FROM blob
    WHERE touched_at > now() - make_interval(days => %(catch_up)s::int) AND {_UNUSED}
    LIMIT %(limit)s::int""")

TRACE_PARTITIONS = sql("""
    SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'trace_event'::regclass""")

OLD_TRACES = sql("""
    DELETE FROM trace_event_default WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM trace_event_default WHERE at < now() - make_interval(days => %(days)s::int)
        LIMIT %(limit)s::int))""")

TRACES_BETWEEN = sql("""
    SELECT EXISTS (SELECT FROM trace_event_default WHERE at >= %s::timestamptz AND at < %s::timestamptz)""")


async def finished(tx: Tx, days: int = KEEP_FINISHED, limit: int = PIECE) -> int:
    """Remove messages from the queue whose recipients are all settled since `days`."""
    rows = await tx.fetch(FINISHED, {"days": days, "limit": limit})
    if rows:
        await tx.execute(FINISHED_RECIPIENTS, ([row[0] for row in rows],))
        await remove_blobs(tx, [bytes(row[1]) for row in rows])
    return len(rows)


async def expunged(tx: Tx, days: int = KEEP_EXPUNGED, limit: int = PIECE) -> int:
    """Remove for good what left its last mailbox more than `days` ago; that it is gone stays known."""
    names = {"days": days, "catch_up": CATCH_UP, "limit": limit}
    by_account: dict[int, list[int]] = {}
    for account_id, message_id in await tx.fetch(EXPUNGED, names):
        by_account.setdefault(account_id, []).append(message_id)
    count = 0
    hashes: list[bytes] = []
    for account_id in sorted(by_account):
        if await tx.one(locks.LOCK_ACCOUNT, (account_id,)) is None:
            continue  # removed meanwhile
        rows = await tx.fetch(REMOVE_MESSAGES, {"account": account_id, "ids": by_account[account_id]})
        await tx.execute(REMOVE_TEXTS, (account_id, [row[0] for row in rows]))
        await index_build.removed(tx, account_id, len(rows))
        hashes += [bytes(row[1]) for row in rows]
        count += len(rows)
    # Blobs after all accounts, as a delivery to several locks them.
    await remove_blobs(tx, hashes)
    return count


async def tombstones(tx: Tx, days: int = KEEP_TOMBSTONES, limit: int = PIECE) -> int:
    """Forget what left mailboxes more than `days` ago, and remember up to where: who asks from before starts anew."""
    return await _forget(tx, FORGET_TOMBSTONES, await tx.fetch(OLD_TOMBSTONES, {"days": days, "limit": limit}))


async def flag_changes(tx: Tx, days: int = KEEP_FLAG_CHANGES, limit: int = PIECE) -> int:
    """Forget where flags changed more than `days` ago, and remember up to where it is forgotten."""
    return await _forget(tx, FORGET_FLAG_CHANGES, await tx.fetch(OLD_FLAG_CHANGES, {"days": days, "limit": limit}))


async def _forget(tx: Tx, statement: str, old: Sequence[Row]) -> int:
    """Forget up to the highest of these (account, modseq) in each account; returns how many rows went."""
    floors: dict[int, int] = {}
    for account_id, modseq in old:
        floors[account_id] = max(modseq, floors.get(account_id, 0))
    count = 0
    for account_id in sorted(floors):
        await tx.one(locks.LOCK_ACCOUNT, (account_id,))
        row = await tx.one(statement, {"account": account_id, "floor": floors[account_id]})
        count += row[0] if row else 0
    return count


async def blobs(tx: Tx, limit: int = PIECE) -> int:
    """Remove blobs that were stored more than a day ago and are in no message and no queue."""
    rows = await tx.fetch(UNUSED_BLOBS, {"catch_up": CATCH_UP_BLOBS, "limit": limit})
    return await remove_blobs(tx, [bytes(row[0]) for row in rows])


async def remove_blobs(tx: Tx, hashes: Sequence[bytes]) -> int:
    """Remove those of these blobs that nobody needs any more, now that a row that named them is gone.

    What was stored less than a day ago stays: `blobs` finds it tomorrow. Locks blobs in one order, as everybody does.
    """
    return await tx.execute(REMOVE_BLOBS, (sorted(set(hashes)),)) if hashes else 0


async def trace_partitions(tx: Tx, now: datetime | None = None, days: int = KEEP_TRACE) -> list[str]:
    """Make the trace's partitions for the weeks to come, drop those older than `days`; returns what was done."""
    now = now or datetime.now(UTC)
    # Whoever waits for this lock makes everybody wait who traces: rather not now than that.
    await tx.execute("SET LOCAL lock_timeout = '2s'")
    there = {row[0] for row in await tx.fetch(TRACE_PARTITIONS)}
    monday = (now - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    done = []
    for week in range(TRACE_WEEKS_AHEAD + 1):
        begin = monday + timedelta(weeks=week)
        end = begin + timedelta(weeks=1)
        name = _partition(begin)
        if name in there:
            continue
        row = await tx.one(TRACES_BETWEEN, (begin, end))
        if row is not None and row[0]:
            continue  # this week's events are in the default partition already: it stays theirs
        # Postgres takes no parameters here; the values are ours.
        await tx.execute(
            f"CREATE TABLE {name} PARTITION OF trace_event "
            f"FOR VALUES FROM ('{begin.isoformat()}') TO ('{end.isoformat()}')"
        )
        done.append(f"made {name}")
    oldest = _partition(now - timedelta(days=days + 7))
    for name in sorted(there):
        if name.startswith("trace_event_20") and name < oldest:
            await tx.execute(f"DROP TABLE {name}")
            done.append(f"dropped {name}")
    return done


def _partition(day: datetime) -> str:
    year, week, _ = day.isocalendar()
    return f"trace_event_{year}w{week:02d}"


async def old_traces(tx: Tx, days: int = KEEP_TRACE, limit: int = PIECE * 10) -> int:
    """Remove old events from the default partition, which holds what came before there were others."""
    return await tx.execute(OLD_TRACES, {"days": days, "limit": limit})
