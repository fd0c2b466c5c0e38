"""Certificates of our own servers, their keys (sealed), and what a certificate authority asks for.

A certificate belongs to the installation and not to a host: whoever serves TLS reads it here. `version` rises with
every change, so that one cheap question says whether anything is new.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mailcore.db import Tx, sql

Source = Literal["acme", "imported"]

# Seconds for which whoever tries to get a certificate has it for himself.
CLAIM = 900
# Certificates that an authority is asked about in one round.
MOST_ASKED = 50
CHALLENGES_KEPT = "1 day"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row; `chain` is None while nobody has issued it. Keys are sealed PEM."""

    name: str
    source: Source
    names: tuple[str, ...]
    chain: str | None
    private_key: bytes
    next_key: bytes
    not_before: datetime | None
    not_after: datetime | None
    version: int
    failures: int
    error: str
    tried_at: datetime | None
    next_try_at: datetime


_COLUMNS = """name, source, names, chain, private_key, next_key, not_before, not_after, version, failures, error,
        tried_at, next_try_at"""

# Every commit changes the sum, in whatever order they come. 0.2 ms for 1,000 certificates.
MARK = sql("SELECT count(*), coalesce(sum(version), 0)::bigint FROM certificate WHERE chain IS NOT NULL")

VERSIONS = sql("SELECT name, version FROM certificate WHERE chain IS NOT NULL")

GET = sql(f"SELECT {_COLUMNS} FROM certificate WHERE name = ANY(%s::text[])")

ALL = sql(f"SELECT {_COLUMNS} FROM certificate ORDER BY name LIMIT %s::int")

WANT = sql("""
    INSERT INTO certificate (name, source, private_key, next_key, names, version)
    VALUES (%s::text, 'acme', %b::bytea, %b::bytea, %s::text[], nextval('certificate_version'))
    ON CONFLICT (name) DO UPDATE SET names = excluded.names
        WHERE certificate.chain IS NULL AND excluded.names <> '{}'""")

KEEP = sql("""
    INSERT INTO certificate (name, source, names, chain, private_key, next_key, not_before, not_after, version,
        tried_at)
    VALUES (%(name)s::text, %(source)s::text, %(names)s::text[], %(chain)s::text, %(key)b::bytea, %(next)b::bytea,
        %(begins)s::timestamptz, %(ends)s::timestamptz, nextval('certificate_version'), now())
    ON CONFLICT (name) DO UPDATE SET source = excluded.source, names = excluded.names, chain = excluded.chain,
        private_key = excluded.private_key, next_key = excluded.next_key, not_before = excluded.not_before,
        not_after = excluded.not_after, version = excluded.version, tried_at = now(), next_try_at = now(),
        failures = 0, error = '', renew_at = NULL, ask_at = now()""")

TO_ASK_ABOUT = sql("""
    SELECT name, chain FROM certificate
    WHERE source = 'acme' AND chain IS NOT NULL AND not_after > now() AND ask_at <= now()
    ORDER BY ask_at, name LIMIT %s::int""")

# What an authority says of the next question is kept within reason.
ADVISED = sql("""
    UPDATE certificate SET renew_at = %(renew)s::timestamptz,
        ask_at = least(greatest(coalesce(%(ask)s::timestamptz, now() + interval '6 hours'), now() + interval '1 hour'),
            now() + interval '1 day')
    WHERE name = %(name)s::text""")

# Two thirds of its life are over, or the authority's moment has come (it has the choice until five sixths), or it was
# never issued.
DUE = sql("""
    SELECT name FROM certificate
    WHERE source = 'acme' AND next_try_at <= now()
        AND (chain IS NULL OR now() >= least(not_before + (not_after - not_before) * 5 / 6,
            coalesce(renew_at, not_before + (not_after - not_before) * 2 / 3)))
    ORDER BY not_after NULLS FIRST, name LIMIT %s::int""")

CLAIM_ONE = sql(f"""
    UPDATE certificate SET next_try_at = now() + interval '{CLAIM} seconds', tried_at = now()
    WHERE name = %s::text AND source = 'acme' AND (next_try_at <= now() OR %s::bool)
    RETURNING {_COLUMNS}""")

FAILED = sql("""
    UPDATE certificate SET failures = failures + 1, error = %s::text, tried_at = now(),
        next_try_at = now() + make_interval(secs => greatest(%s::int, least(86400, 900 * 2 ^ least(failures, 20))))
    WHERE name = %s::text""")

INCOMPLETE = sql("""
    UPDATE certificate SET failures = 1, error = %s::text, next_try_at = now() + make_interval(secs => %s::int)
    WHERE name = %s::text""")

# A domain's certificate is for names below it; a host's is for its own name.
UNHOSTED = sql("""
    DELETE FROM certificate c WHERE source = 'acme' AND names <> '{}' AND NOT name = ANY(names)
        AND NOT EXISTS (SELECT FROM accounts_domain d WHERE d.name = c.name)""")

REMOVE = sql("DELETE FROM certificate WHERE name = %s::text")

ACCOUNT = sql("SELECT private_key, uri FROM acme_account WHERE directory = %s::text")

KEEP_ACCOUNT = sql("""
    INSERT INTO acme_account (directory, private_key, uri) VALUES (%s::text, %b::bytea, %s::text)
    ON CONFLICT (directory) DO UPDATE SET private_key = excluded.private_key, uri = excluded.uri""")

CHALLENGE = sql("""
    INSERT INTO acme_challenge (token, answer) VALUES (%s::text, %s::text)
    ON CONFLICT (token) DO UPDATE SET answer = excluded.answer, created_at = now()""")

ANSWER = sql("SELECT answer FROM acme_challenge WHERE token = %s::text")

FORGET_CHALLENGES = sql(f"DELETE FROM acme_challenge WHERE created_at < now() - interval '{CHALLENGES_KEPT}'")

DOMAINS = sql("SELECT name FROM accounts_domain WHERE is_active ORDER BY name")


async def mark(tx: Tx) -> tuple[int, int]:
    """Something that is another after every change of what can be served."""
    row = await tx.one(MARK)
    assert row is not None
    return row[0], row[1]


async def versions(tx: Tx) -> dict[str, int]:
    """The certificates that can be served."""
    return {name: version for name, version in await tx.fetch(VERSIONS)}


async def get(tx: Tx, names: Collection[str]) -> list[Stored]:
    """Those of these that there are, issued or wanted."""
    return [_stored(row) for row in await tx.fetch(GET, (list(names),))]


async def every(tx: Tx, limit: int = 100_000) -> list[Stored]:
    """All, issued or wanted, by name."""
    return [_stored(row) for row in await tx.fetch(ALL, (limit,))]


def _stored(row: Sequence[object]) -> Stored:
    name, source, names, chain, key, following, *rest = row
    # A row of the database has no types.
    return Stored(name, source, tuple(names), chain, bytes(key), bytes(following), *rest)  # type: ignore[arg-type, call-overload]


async def want(tx: Tx, name: str, private_key: bytes, next_key: bytes, names: Sequence[str] = ()) -> bool:
    """Have a certificate of this name (and these) issued soon; False when there is nothing to change about it."""
    return bool(await tx.execute(WANT, (name, private_key, next_key, list(names))))


async def keep(
    tx: Tx,
    name: str,
    source: Source,
    names: Sequence[str],
    chain: str,
    private_key: bytes,
    next_key: bytes,
    life: tuple[datetime, datetime],
) -> None:
    """A new certificate, in the place of the one of that name; servers use it within seconds."""
    values = {"name": name, "source": source, "names": list(names), "chain": chain, "key": private_key}
    await tx.execute(KEEP, values | {"next": next_key, "begins": life[0], "ends": life[1]})


async def due(tx: Tx, limit: int = 1000) -> list[str]:
    """Those that should be issued or renewed now."""
    return [row[0] for row in await tx.fetch(DUE, (limit,))]


async def claim(tx: Tx, name: str, *, force: bool = False) -> Stored | None:
    """Have it for oneself for a quarter of an hour; None when another has it, or its time has not come (`force`)."""
    row = await tx.one(CLAIM_ONE, (name, force))
    return None if row is None else _stored(row)


async def failed(tx: Tx, name: str, error: str, wait: int = 0) -> None:
    """It was not issued: again after 15 minutes, 30, …, a day at most, and `wait` seconds at least."""
    await tx.execute(FAILED, (error, wait, name))


async def incomplete(tx: Tx, name: str, error: str, wait: int) -> None:
    """It was issued, but for fewer names than wanted."""
    await tx.execute(INCOMPLETE, (error, wait, name))


async def remove(tx: Tx, name: str) -> bool:
    """Forget a certificate and its keys; False when there is none."""
    return bool(await tx.execute(REMOVE, (name,)))


async def forget_unhosted(tx: Tx) -> int:
    """Remove what was issued, or wanted, for domains that are hosted no more."""
    return await tx.execute(UNHOSTED)


async def acme_account(tx: Tx, directory: str) -> tuple[bytes, str] | None:
    """The sealed key and the address of our account with an authority."""
    row = await tx.one(ACCOUNT, (directory,))
    return None if row is None else (bytes(row[0]), row[1])


async def keep_acme_account(tx: Tx, directory: str, private_key: bytes, uri: str) -> None:
    """Remember our account with an authority."""
    await tx.execute(KEEP_ACCOUNT, (directory, private_key, uri))


async def publish_challenge(tx: Tx, token: str, answer: str) -> None:
    """Let the web processes answer an authority's question."""
    await tx.execute(CHALLENGE, (token, answer))


async def challenge_answer(tx: Tx, token: str) -> str | None:
    """What to answer to a question for this token."""
    row = await tx.one(ANSWER, (token,))
    return None if row is None else row[0]


async def to_ask_about(tx: Tx) -> dict[str, str]:
    """Certificates in use, by name, about which an authority may be asked when to renew them."""
    return {row[0]: row[1] for row in await tx.fetch(TO_ASK_ABOUT, (MOST_ASKED,))}


async def advised(tx: Tx, name: str, renew_at: datetime | None, ask_at: datetime | None) -> None:
    """Note when the authority wants a certificate renewed, None = it does not say, and when to ask again."""
    await tx.execute(ADVISED, {"name": name, "renew": renew_at, "ask": ask_at})


async def forget_challenges(tx: Tx) -> int:
    """Remove the answers of a day ago."""
    return await tx.execute(FORGET_CHALLENGES)


async def hosted_domains(tx: Tx) -> list[str]:
    """Every domain that this installation answers for, aliases too."""
    return [row[0] for row in await tx.fetch(DOMAINS)]
