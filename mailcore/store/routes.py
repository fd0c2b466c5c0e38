"""Rules for where mail goes, by the domains of sender and recipient; passwords are sealed with the installation key."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.db import Row, Tx, sql

ACTIONS = ("mx", "relay", "hold", "bounce", "discard")
TLS = ("none", "may", "require")
MAX_RULES = 10_000


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table; `password` is sealed. Patterns: a domain (A-labels), `*.domain`, `*`; sender `<>`, too."""

    sender: str = "*"
    recipient: str = "*"
    action: str = "mx"
    host: str | None = None
    port: int | None = None
    username: str | None = None
    password: bytes | None = None
    tls: str = "may"
    source4: str | None = None
    source6: str | None = None
    hello: str | None = None
    connections: int | None = None
    per_connection: int | None = None
    per_minute: int | None = None
    text: str = ""
    id: int = 0


_COLUMNS = (
    "sender, recipient, action, host, port, username, password, tls, source4, source6, hello, connections, "
    "per_connection, per_minute, text"
)

ALL = sql(f"SELECT {_COLUMNS}, id FROM route ORDER BY id LIMIT %s::int")

PUT = sql(f"""
    INSERT INTO route ({_COLUMNS})
    VALUES (%s::text, %s::text, %s::text, %s::text, %s::int, %s::text, %b::bytea, %s::text, %s::text, %s::text,
        %s::text, %s::int, %s::int, %s::int, %s::text)
    ON CONFLICT (sender, recipient) DO UPDATE SET (action, host, port, username, password, tls, source4, source6, hello,
        connections, per_connection, per_minute, text) = (excluded.action, excluded.host, excluded.port,
        excluded.username, excluded.password, excluded.tls, excluded.source4, excluded.source6, excluded.hello,
        excluded.connections, excluded.per_connection, excluded.per_minute, excluded.text)
    RETURNING id, xmax = 0""")

REMOVE = sql("DELETE FROM route WHERE id = %s::bigint")

# What is left of this minute for a rule; asked once for each message where a rule has such a limit.
TAKE = sql("""
    UPDATE route SET used = 1 + CASE WHEN minute = date_trunc('minute', now()) THEN used ELSE 0 END,
        minute = date_trunc('minute', now())
    WHERE id = %(id)s::bigint AND (per_minute IS NULL OR minute IS DISTINCT FROM date_trunc('minute', now())
        OR used < per_minute)""")

LEFT_OF_MINUTE = sql("SELECT extract(epoch FROM date_trunc('minute', now()) + interval '1 minute' - now())::float8")


def _rule(row: Row) -> Rule:
    values = list(row)
    values[6] = None if row[6] is None else bytes(row[6])
    return Rule(*values)


async def rules(tx: Tx) -> list[Rule]:
    """All rules."""
    return [_rule(row) for row in await tx.fetch(ALL, (MAX_RULES,))]


async def put(tx: Tx, rule: Rule) -> tuple[int, bool]:
    """Add a rule, or replace the one for the same sender and recipient; its number, and whether it is new."""
    values = (
        *(rule.sender, rule.recipient, rule.action, rule.host, rule.port, rule.username, rule.password, rule.tls),
        *(rule.source4, rule.source6, rule.hello, rule.connections, rule.per_connection, rule.per_minute, rule.text),
    )
    row = await tx.one(PUT, values)
    assert row is not None
    return int(row[0]), bool(row[1])


async def remove(tx: Tx, number: int) -> bool:
    """Remove a rule by its number; False when there is none."""
    return bool(await tx.execute(REMOVE, (number,)))


async def take(tx: Tx, number: int) -> float:
    """Count a message against a rule's limit a minute: 0 = it may go, else seconds until the next minute."""
    if await tx.execute(TAKE, {"id": number}):
        return 0.0
    row = await tx.one(LEFT_OF_MINUTE)
    return float(row[0]) + 0.1 if row else 1.0
