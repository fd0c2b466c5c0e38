"""DKIM keys of the hosted domains; the private halves are sealed, and opened only to sign.

A key is `next` while its record is being published, `active` while it signs, and `retired` while mail that it signed
may still be on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mailcore.db import Tx, sql

State = Literal["next", "active", "retired"]

# Days for which the record of a key that signs no more stays published: mail waits for five, and may be verified later.
KEEP_DAYS = 8


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as it is stored: `private_key` sealed, `public_key` the p= of its DNS record, `since` = in its state."""

    domain: str
    selector: str
    algorithm: str
    private_key: bytes
    public_key: str
    state: State
    since: datetime


GET = sql("""
    SELECT domain, selector, algorithm, private_key, public_key, state, changed_at FROM dkim_key
    WHERE domain = %s::text ORDER BY id""")

ADD = sql("""
    INSERT INTO dkim_key (domain, selector, algorithm, private_key, public_key, state)
    VALUES (%s::text, %s::text, %s::text, %b::bytea, %s::text, %s::text) ON CONFLICT DO NOTHING""")

# Two who rotate at once: the second finds nothing that is next.
TURN = sql("""
    WITH coming AS (
        SELECT id, algorithm FROM dkim_key WHERE domain = %(domain)s::text AND state = 'next'
            AND selector = ANY(%(selectors)s::text[]) ORDER BY id FOR UPDATE
    ), retired AS (
        UPDATE dkim_key k SET state = 'retired', changed_at = now() FROM coming
        WHERE k.domain = %(domain)s::text AND k.state = 'active' AND k.algorithm = coming.algorithm
    )
    UPDATE dkim_key k SET state = 'active', changed_at = now() FROM coming WHERE k.id = coming.id
    RETURNING k.selector""")

WAITING = sql("SELECT DISTINCT domain FROM dkim_key WHERE state = 'next' ORDER BY domain LIMIT %s::int")

FORGET = sql(f"""
    DELETE FROM dkim_key WHERE state = 'retired' AND changed_at < now() - interval '{KEEP_DAYS} days'""")


async def of_domain(tx: Tx, domain: str) -> list[SigningKey]:
    """All keys of a domain, oldest first."""
    rows = await tx.fetch(GET, (domain,))
    return [SigningKey(name, selector, kind, bytes(key), *rest) for name, selector, kind, key, *rest in rows]


async def add(
    tx: Tx, domain: str, selector: str, algorithm: str, private_key: bytes, public_key: str, state: State = "active"
) -> bool:
    """Keep a new key; False when the domain has one of that selector already."""
    return bool(await tx.execute(ADD, (domain, selector, algorithm, private_key, public_key, state)))


async def turn(tx: Tx, domain: str, selectors: Sequence[str]) -> list[str]:
    """Let these coming keys sign, and retire those of the same algorithms; the selectors that sign now."""
    rows = await tx.fetch(TURN, {"domain": domain, "selectors": list(selectors)})
    return sorted(row[0] for row in rows)


async def waiting(tx: Tx, limit: int = 1000) -> list[str]:
    """Domains with keys that are yet to sign."""
    return [row[0] for row in await tx.fetch(WAITING, (limit,))]


async def forget(tx: Tx) -> int:
    """Remove keys that have been retired for long enough."""
    return await tx.execute(FORGET)
