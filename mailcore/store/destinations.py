"""Destinations that are left alone: frozen by an administrator, or paused because nobody answered there.

Both stand in Postgres, so that all workers know: a claim looks here (`mailcore.store.queue`). A pause has the name of a
destination (`DESTINATION by rule N` of a share of its mail), or of one host (`host:PLACE`: an address, with
the port if it is not the usual one), which others may share. Frozen mail waits until it is thawed; paused mail is tried
by one connection when the pause is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailcore.db import Tx, sql

# Seconds: the first pause and the longest; each failure in a row doubles it.
FIRST, LAST = 30.0, 1800.0
# Seconds that a transaction may take from writing a pause to its commit: so far back it is read again.
OVERLAP = 30.0
# After so long without a failure the next one counts as the first again; until then a destination is suspect.
FORGET = 7200.0
MAX_PAUSES = 20_000
# How the name of a host's pause begins.
HOST = "host:"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen destination, with the recipients that wait for it."""

    destination: str
    since: datetime
    until: datetime | None
    reason: str
    waiting: int


@dataclass(frozen=True, slots=True)
class Pause:
    """`left`: seconds until it is over, negative when it is and the next attempt has not begun or not succeeded."""

    name: str
    left: float
    failures: int
    reason: str
    since: datetime

    @property
    def host(self) -> str:
        """The place, if it is a host's."""
        return self.name.removeprefix(HOST) if self.name.startswith(HOST) else ""


FREEZE = sql("""
    INSERT INTO frozen_destination (destination, until, reason) VALUES (%s::text, %s::timestamptz, %s::text)
    ON CONFLICT (destination) DO UPDATE SET until = excluded.until, reason = excluded.reason
    RETURNING (SELECT count(*) FROM outbound_recipient r
        WHERE r.destination = frozen_destination.destination AND r.state = 'queued')""")

THAW = sql("DELETE FROM frozen_destination WHERE destination = ANY(%s::text[]) RETURNING destination")
THAW_ALL = sql("DELETE FROM frozen_destination RETURNING destination")
FORGET_FROZEN = sql("DELETE FROM frozen_destination WHERE until < now()")

FROZEN = sql("""
    SELECT f.destination, f.created_at, f.until, f.reason, (SELECT count(*) FROM outbound_recipient r
        WHERE r.destination = f.destination AND r.state = 'queued')
    FROM frozen_destination f WHERE f.until IS NULL OR f.until > now() ORDER BY f.destination""")

# Of several workers that fail at one time the first one counts; a long time after the last pause begins a new count.
PAUSE = sql("""
    INSERT INTO delivery_pause AS p (name, until, failures, reason)
    VALUES (%(name)s::text, now() + make_interval(secs => %(first)s::float8), 1, %(reason)s::text)
    ON CONFLICT (name) DO UPDATE SET changed_at = clock_timestamp(),
        failures = CASE WHEN p.until < now() - make_interval(secs => %(forget)s::float8) THEN 1 ELSE p.failures + 1 END,
        since = CASE WHEN p.failures = 0 OR p.until < now() - make_interval(secs => %(forget)s::float8) THEN now()
            ELSE p.since END,
        until = now() + make_interval(secs => least(%(last)s::float8, %(first)s::float8 *
            CASE WHEN p.until < now() - make_interval(secs => %(forget)s::float8) THEN 1
                ELSE 2 ^ least(p.failures, 20) END)),
        reason = excluded.reason
    WHERE p.until <= now()""")

# The row stays for a while, so that all workers hear of it.
RESUME = sql("""
    UPDATE delivery_pause SET failures = 0, until = least(until, now()), changed_at = clock_timestamp()
    WHERE name = ANY(%s::text[]) AND failures > 0""")
# With the ways of senders that have rules of their own ("DESTINATION by rule N").
RESUME_MATCHING = sql("""
    UPDATE delivery_pause SET until = now(), changed_at = clock_timestamp()
    WHERE split_part(name, ' ', 1) = ANY(%s::text[]) AND until > now()""")

PAUSES = sql("""
    SELECT name, extract(epoch FROM until - now())::float8, failures, reason, since FROM delivery_pause
    WHERE failures > 0 AND until > now() - make_interval(secs => %(forget)s::float8)
    ORDER BY until DESC LIMIT %(limit)s::int""")

CHANGES = sql("""
    SELECT name, extract(epoch FROM until - now())::float8, failures, reason, since, changed_at FROM delivery_pause
    WHERE changed_at > %(since)s::timestamptz ORDER BY changed_at DESC LIMIT %(limit)s::int""")
NOW = sql("SELECT now()")

PAUSES_OF = sql("""
    SELECT name, extract(epoch FROM until - now())::float8, failures, reason, since FROM delivery_pause
    WHERE name = ANY(%s::text[]) AND failures > 0""")

FORGET_PAUSES = sql("""
    DELETE FROM delivery_pause WHERE until < now() - make_interval(secs => %s::float8)
        OR (failures = 0 AND changed_at < now() - interval '10 minutes')""")


async def freeze(tx: Tx, destination: str, until: datetime | None = None, reason: str = "") -> int:
    """Stop deliveries to a destination until `until`, or until it is thawed; how many recipients wait now.

    What is on the wire is finished.
    """
    row = await tx.one(FREEZE, (destination, until, reason))
    return int(row[0]) if row else 0


async def thaw(tx: Tx, names: Sequence[str] | None) -> list[str]:
    """Let mail go again to these destinations (None = to all); returns those that were frozen."""
    rows = await (tx.fetch(THAW_ALL) if names is None else tx.fetch(THAW, (list(names),)))
    return sorted(row[0] for row in rows)


async def frozen(tx: Tx) -> list[Frozen]:
    """What is frozen now."""
    return [Frozen(*row) for row in await tx.fetch(FROZEN)]


async def pause(tx: Tx, name: str, reason: str, first: float = FIRST, last: float = LAST) -> None:
    """Leave a destination, or a host, alone for a while: nobody answered there."""
    await tx.execute(PAUSE, {"name": name, "reason": reason[:500], "first": first, "last": last, "forget": FORGET})


async def resume(tx: Tx, names: Sequence[str]) -> None:
    """Somebody answered: the pauses of these names are over and forgotten."""
    await tx.execute(RESUME, (sorted(names),))


async def cut_short(tx: Tx, names: Sequence[str]) -> int:
    """Pauses end now, because an administrator wants another try; how many there were."""
    return await tx.execute(RESUME_MATCHING, (sorted(names),))


async def pauses(tx: Tx) -> list[Pause]:
    """Every pause that lasts, or ended so lately that the name is suspect."""
    return [Pause(*row) for row in await tx.fetch(PAUSES, {"forget": FORGET, "limit": MAX_PAUSES})]


async def changes(tx: Tx, since: datetime | None) -> tuple[list[Pause], datetime | None]:
    """Pauses that were made, prolonged or ended (`failures` 0) since the last reading, and what to say the next time;
    with None, all that there are now."""
    if since is None:
        row = await tx.one(NOW)
        return await pauses(tx), row[0] - timedelta(seconds=OVERLAP) if row else None
    rows = await tx.fetch(CHANGES, {"since": since, "limit": MAX_PAUSES})
    if rows:
        since = max(since, rows[0][5] - timedelta(seconds=OVERLAP))
    return [Pause(*row[:5]) for row in reversed(rows)], since


async def pauses_of(tx: Tx, names: Sequence[str]) -> list[Pause]:
    """The pauses of these names."""
    return [Pause(*row) for row in await tx.fetch(PAUSES_OF, (list(names),))]


async def forget(tx: Tx, limit: int = 0) -> int:
    """Housekeeping: what is over long since; returns how many."""
    return await tx.execute(FORGET_PAUSES, (FORGET,)) + await tx.execute(FORGET_FROZEN)
