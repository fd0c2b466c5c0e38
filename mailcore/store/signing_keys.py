"""DKIM keys of the hosted domains; the private halves are sealed, and opened only to sign."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.db import Tx, sql


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as it is stored: `private_key` sealed, `public_key` the p= of its DNS record."""

    domain: str
    selector: str
    algorithm: str
    private_key: bytes
    public_key: str
    is_active: bool


GET = sql("""
    SELECT domain, selector, algorithm, private_key, public_key, is_active FROM dkim_key
    WHERE domain = %s::text ORDER BY id""")

ADD = sql("""
    INSERT INTO dkim_key (domain, selector, algorithm, private_key, public_key)
    VALUES (%s::text, %s::text, %s::text, %b::bytea, %s::text) ON CONFLICT DO NOTHING""")


async def of_domain(tx: Tx, domain: str) -> list[SigningKey]:
    """All keys of a domain, oldest first."""
    rows = await tx.fetch(GET, (domain,))
    return [SigningKey(name, selector, kind, bytes(key), public, on) for name, selector, kind, key, public, on in rows]


async def add(tx: Tx, domain: str, selector: str, algorithm: str, private_key: bytes, public_key: str) -> bool:
    """Keep a new key; False when the domain has one of that selector already."""
    return bool(await tx.execute(ADD, (domain, selector, algorithm, private_key, public_key)))
