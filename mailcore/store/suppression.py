"""Addresses that are not written to for a while, because mail to them was refused for good again and again.

Each hard refusal is a strike; the third within a month makes the address suppressed for a month. Strikes are an hour
apart at least: a server that loses its table of users for ten minutes refuses many messages, and proves nothing. Only
refusals that say "there is nobody of this name" count (`delivery.classify`): never spam blocks, contents, quotas or
anything for now. A delivery that works wipes the strikes out. An administrator adds and removes addresses, and whole
domains, by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailcore.db import Row, Tx, sql

STRIKES = 3
DAYS = 30
# Seconds after a strike in which no other counts.
APART = 3600.0


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An entry; when it is not `active`, the address has strikes and still gets mail. `until` None = for good."""

    address: str
    source: str
    category: str
    reason: str
    failures: int
    active: bool
    until: datetime | None
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Strike:
    """One hard refusal."""

    address: str
    category: str
    reason: str


_COLUMNS = "address, source, category, reason, failures, active, until, first_at, last_at"
ACTIVE = "active AND (until IS NULL OR until > now())"

FIND = sql(f"SELECT {_COLUMNS} FROM suppression WHERE address = ANY(%s::text[]) AND {ACTIVE}")
LIST = sql(f"""
    SELECT {_COLUMNS} FROM suppression
    WHERE (%(all)s::bool OR {ACTIVE}) AND (%(like)s::text IS NULL OR address = %(like)s::text
        OR split_part(address, '@', 2) = %(like)s::text)
    ORDER BY last_at DESC LIMIT %(limit)s::int""")

# What an administrator wrote stays as it is.
STRIKE = sql("""
    INSERT INTO suppression AS s (address, source, category, reason)
    SELECT DISTINCT ON (v.address) v.address, 'bounce', v.category, v.reason
    FROM unnest(%(addresses)s::text[], %(categories)s::text[], %(reasons)s::text[]) AS v(address, category, reason)
    ORDER BY v.address
    ON CONFLICT (address) DO UPDATE SET
        failures = CASE WHEN s.last_at < now() - make_interval(days => %(days)s::int) THEN 1 ELSE s.failures + 1 END,
        active = s.last_at >= now() - make_interval(days => %(days)s::int) AND s.failures + 1 >= %(strikes)s::int,
        until = now() + make_interval(days => %(days)s::int),
        category = excluded.category, reason = excluded.reason, last_at = now()
    WHERE s.source = 'bounce' AND s.last_at <= now() - make_interval(secs => %(apart)s::float8)""")

ADD = sql("""
    INSERT INTO suppression (address, source, category, reason, active, until)
    VALUES (%(address)s::text, %(source)s::text, %(category)s::text, %(reason)s::text, true, %(until)s::timestamptz)
    ON CONFLICT (address) DO UPDATE SET source = excluded.source, category = excluded.category,
        reason = excluded.reason, active = true, until = excluded.until, last_at = now()""")

REMOVE = sql("DELETE FROM suppression WHERE address = ANY(%s::text[]) RETURNING address")
REMOVE_OLD = sql("""
    DELETE FROM suppression WHERE (source = 'bounce' AND last_at < now() - make_interval(days => %(days)s::int * 3))
        OR (source <> 'bounce' AND until < now())""")


def key(address: str) -> str:
    """How an address is kept: lower case, whatever its domain thinks of case."""
    return address.lower()


def keys(addresses: Sequence[str]) -> list[str]:
    """What FIND asks for."""
    names = {key(address) for address in addresses}
    return sorted(names | {each.rpartition("@")[2] for each in names})


def hits(addresses: Sequence[str], rows: Sequence[Row]) -> dict[str, Suppressed]:
    """What FIND answers, by the addresses' `key`."""
    if not rows:
        return {}
    listed = {row[0]: Suppressed(*row) for row in rows}
    names = {key(address) for address in addresses}
    found = ((each, listed.get(each) or listed.get(each.rpartition("@")[2])) for each in names)
    return {each: hit for each, hit in found if hit is not None}


async def find(tx: Tx, addresses: Sequence[str]) -> dict[str, Suppressed]:
    """Those of the addresses (by `key`) that are suppressed, by themselves or with their domain."""
    return hits(addresses, await tx.fetch(FIND, (keys(addresses),)))


async def strike(tx: Tx, strikes: Sequence[Strike]) -> None:
    """Count hard refusals; those within an hour of the last one that counted are one with it."""
    strikes = sorted(strikes, key=lambda each: each.address)
    names: dict[str, object] = {
        "addresses": [key(each.address) for each in strikes],
        "categories": [each.category for each in strikes],
        "reasons": [each.reason.replace("\0", "\ufffd")[:500] for each in strikes],
        "days": DAYS,
        "strikes": STRIKES,
        "apart": APART,
    }
    await tx.execute(STRIKE, names)


async def entries(tx: Tx, like: str | None = None, *, strikes: bool = False, limit: int = 1000) -> list[Suppressed]:
    """The list, newest first: an address's or a domain's; with `strikes`, also what is not suppressed yet."""
    names = {"all": strikes, "like": None if like is None else key(like), "limit": limit}
    return [Suppressed(*row) for row in await tx.fetch(LIST, names)]


async def add(tx: Tx, address: str, *, source: str, category: str, reason: str, until: datetime | None) -> None:
    """Suppress an address or a domain now."""
    names = {"address": key(address), "source": source, "category": category, "reason": reason, "until": until}
    await tx.execute(ADD, names)


async def remove(tx: Tx, addresses: Sequence[str]) -> list[str]:
    """Take addresses off the list, strikes and all; returns those that were on it."""
    return sorted(row[0] for row in await tx.fetch(REMOVE, (sorted(key(each) for each in addresses),)))


async def forget(tx: Tx, limit: int = 0) -> int:
    """Housekeeping: entries that are over."""
    return await tx.execute(REMOVE_OLD, {"days": DAYS})
