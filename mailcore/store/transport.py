"""MTA-STS policies of other domains, and what TLS reports are made of (RFC 8461, RFC 8460).

Times are the database's. A policy is kept until it expires, whatever its domain's DNS and web server say meanwhile:
that is what keeps an attacker from talking us out of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mailcore.db import Row, Tx, sql

# After a failed fetch the next one waits for so long (RFC 8461 §3.3: five minutes or more).
FETCH_AGAIN = 300
# A policy is fetched anew after a day (RFC 8461 §10.2), for as long as mail has asked for it within so many days.
REFRESH_AFTER = 86_400
USED_WITHIN = 30
KEEP_RESULTS = 3
KEEP_REPORTS = 400
PIECE = 1000


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A row; `alive` = not expired, `resting` = fetching failed a moment ago."""

    domain: str
    policy_id: str
    mode: str | None
    mx: tuple[str, ...]
    max_age: int
    alive: bool
    resting: bool
    failure: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """Sessions with one host that went alike; `result` is "" for success, `policy` JSON."""

    domain: str
    policy: str
    result: str = ""
    host: str = ""
    helo: str = ""
    ip: str = ""
    reason: str = ""

    @property
    def key(self) -> bytes:
        parts = (self.policy, self.result, self.host, self.helo, self.ip, self.reason)
        return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


@dataclass(frozen=True, slots=True)
class Counted:
    """A `Count` of a day, and how many sessions there were."""

    day: date
    count: Count
    sessions: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one policy of a received report says. `details`: failures as dictionaries; `signed_by`: the domain whose
    signature vouches for it, else `doubt` says why there is none."""

    domain: str
    organization: str
    report_id: str
    begins_at: datetime
    ends_at: datetime
    policy_type: str
    successes: int
    failures: int
    details: list[dict[str, Any]]
    contact: str
    trace_id: str
    signed_by: str = ""
    doubt: str = ""
    id: int = 0
    received_at: datetime | None = None


POLICY = sql("""
    SELECT domain, policy_id, mode, mx, max_age, coalesce(expires_at > now(), false),
        coalesce(failed_at > now() - make_interval(secs => %(rest)s::int), false), failure
    FROM mta_sts_policy WHERE domain = %(domain)s::text""")

# At most once a day for each domain.
USED = sql("""
    UPDATE mta_sts_policy SET used_at = now()
    WHERE domain = %s::text AND used_at < now() - interval '1 day'""")

KEEP_POLICY = sql("""
    INSERT INTO mta_sts_policy (domain, policy_id, mode, mx, max_age, fetched_at, expires_at)
    VALUES (%(domain)s::text, %(id)s::text, %(mode)s::text, %(mx)s::text[], %(max_age)s::int, now(),
        now() + make_interval(secs => %(max_age)s::int))
    ON CONFLICT (domain) DO UPDATE SET policy_id = excluded.policy_id, mode = excluded.mode, mx = excluded.mx,
        max_age = excluded.max_age, fetched_at = excluded.fetched_at, expires_at = excluded.expires_at,
        failed_at = NULL, failure = NULL""")

FETCH_FAILED = sql("""
    INSERT INTO mta_sts_policy (domain, failed_at, failure) VALUES (%s::text, now(), %s::text)
    ON CONFLICT (domain) DO UPDATE SET failed_at = now(), failure = excluded.failure""")

TO_REFRESH = sql("""
    SELECT domain, policy_id FROM mta_sts_policy
    WHERE mode IS NOT NULL AND expires_at > now() AND used_at > now() - make_interval(days => %(used)s::int)
        AND fetched_at < now() - make_interval(secs => least(%(after)s::int, max_age / 2))
        AND (failed_at IS NULL OR failed_at < now() - interval '1 hour')
    ORDER BY expires_at LIMIT %(limit)s::int""")

FORGET_POLICIES = sql("""
    DELETE FROM mta_sts_policy WHERE domain IN (
        SELECT domain FROM mta_sts_policy
        WHERE coalesce(expires_at, failed_at) < now() - interval '7 days' LIMIT %s::int)""")

# In the order of the key, as all workers lock them.
ADD_RESULTS = sql("""
    INSERT INTO tls_result (day, domain, key, policy, result, host, helo, ip, reason, sessions)
    SELECT (now() AT TIME ZONE 'UTC')::date, r.*
    FROM unnest(%s::text[], %b::bytea[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::int[]) AS r(domain, key, policy, result, host, helo, ip, reason, sessions)
    ORDER BY domain, key
    ON CONFLICT (day, domain, key) DO UPDATE SET sessions = tls_result.sessions + excluded.sessions""")

RESULT_DAYS = sql("""
    SELECT DISTINCT day, domain FROM tls_result WHERE day < (now() AT TIME ZONE 'UTC')::date ORDER BY day, domain""")

# Whoever gets them locks them: a report is sent once, however many workers there are.
RESULTS = sql("""
    SELECT day, domain, policy, result, host, helo, ip, reason, sessions FROM tls_result
    WHERE day = %s::date AND domain = %s::text ORDER BY key LIMIT 5000 FOR UPDATE SKIP LOCKED""")

FORGET_RESULTS = sql("DELETE FROM tls_result WHERE day = %s::date AND domain = %s::text")

OLD_RESULTS = sql("""
    DELETE FROM tls_result WHERE (day, domain, key) IN (
        SELECT day, domain, key FROM tls_result
        WHERE day < (now() AT TIME ZONE 'UTC')::date - %s::int LIMIT %s::int)""")

KEEP_REPORT = sql("""
    INSERT INTO tls_report (domain, organization, report_id, begins_at, ends_at, policy_type, successes, failures,
        details, contact, trace_id, signed_by, doubt)
    VALUES (%s::text, %s::text, %s::text, %s::timestamptz, %s::timestamptz, %s::text, %s::bigint, %s::bigint, %s::text,
        %s::text, %s::text, %s::text, %s::text)
    ON CONFLICT (domain, organization, report_id, policy_type, signed_by) DO NOTHING""")

REPORTS = sql("""
    SELECT domain, organization, report_id, begins_at, ends_at, policy_type, successes, failures, details, contact,
        trace_id, signed_by, doubt, id, received_at
    FROM tls_report
    WHERE (%(domain)s::text IS NULL OR domain = %(domain)s::text) AND (NOT %(failed)s::bool OR failures > 0)
        AND (%(id)s::bigint IS NULL OR id = %(id)s::bigint)
    ORDER BY ends_at DESC, id DESC LIMIT %(limit)s::int""")

OLD_REPORTS = sql("""
    DELETE FROM tls_report WHERE id IN (
        SELECT id FROM tls_report WHERE received_at < now() - make_interval(days => %s::int) LIMIT %s::int)""")

OUR_DOMAIN = sql("""
    SELECT d.name FROM accounts_domain d JOIN dkim_key k ON k.domain = d.name AND k.state = 'active'
    WHERE d.is_active ORDER BY %s::text = d.name OR %s::text LIKE '%%.' || d.name DESC, d.id LIMIT 1""")


async def policy(tx: Tx, domain: str) -> StoredPolicy | None:
    """What is kept for a domain."""
    row = await tx.one(POLICY, {"domain": domain, "rest": FETCH_AGAIN})
    if row is None:
        return None
    name, policy_id, mode, mx, max_age, alive, resting, failure = row
    return StoredPolicy(name, policy_id, mode, tuple(mx), max_age, alive, resting, failure)


async def policy_used(tx: Tx, domain: str) -> None:
    """Mail asked for it: it is worth being fetched anew before it expires."""
    await tx.execute(USED, (domain,))


async def keep_policy(tx: Tx, domain: str, policy_id: str, mode: str, mx: Sequence[str], max_age: int) -> None:
    """A policy that was fetched just now; it lives for `max_age` seconds."""
    names = {"domain": domain, "id": policy_id, "mode": mode, "mx": list(mx), "max_age": max_age}
    await tx.execute(KEEP_POLICY, names)


async def fetch_failed(tx: Tx, domain: str, failure: str) -> None:
    """Fetching failed; a policy that is kept stays."""
    await tx.execute(FETCH_FAILED, (domain, failure))


async def policies_to_refresh(tx: Tx, limit: int = 200) -> list[tuple[str, str]]:
    """Domains whose policy is in use and a day old (or half its life), with its id, the next to expire first."""
    names = {"used": USED_WITHIN, "after": REFRESH_AFTER, "limit": limit}
    return [(row[0], row[1]) for row in await tx.fetch(TO_REFRESH, names)]


async def old_policies(tx: Tx) -> int:
    """Forget what expired a week ago."""
    return await tx.execute(FORGET_POLICIES, (PIECE,))


async def count(tx: Tx, counts: Sequence[Count]) -> None:
    """Add sessions to today's results."""
    sums: dict[tuple[str, bytes], tuple[Count, int]] = {}
    for each in counts:
        at = (each.domain, each.key)
        sums[at] = (each, sums[at][1] + 1 if at in sums else 1)
    if not sums:
        return
    items = list(sums.values())
    await tx.execute(
        ADD_RESULTS,
        (
            [each.domain for each, _ in items],
            [each.key for each, _ in items],
            [each.policy for each, _ in items],
            [each.result for each, _ in items],
            [each.host for each, _ in items],
            [each.helo for each, _ in items],
            [each.ip for each, _ in items],
            [each.reason for each, _ in items],
            [sessions for _, sessions in items],
        ),
    )


async def days_to_report(tx: Tx) -> list[tuple[date, str]]:
    """Days that are over, and domains that something is known of."""
    return [(row[0], row[1]) for row in await tx.fetch(RESULT_DAYS)]


async def results(tx: Tx, day: date, domain: str) -> list[Counted]:
    """A day's results of a domain, locked; none when another worker has them."""
    rows = await tx.fetch(RESULTS, (day, domain))
    return [Counted(row[0], Count(*row[1:8]), row[8]) for row in rows]


async def forget_results(tx: Tx, day: date, domain: str) -> None:
    """They are reported, or nobody wants them."""
    await tx.execute(FORGET_RESULTS, (day, domain))


async def old_results(tx: Tx) -> int:
    """Forget what could not be reported for days."""
    return await tx.execute(OLD_RESULTS, (KEEP_RESULTS, PIECE))


async def keep_report(tx: Tx, report: Report) -> bool:
    """Store what a received report says of a policy; False when it was here before."""
    details = json.dumps(report.details, ensure_ascii=False)
    return bool(
        await tx.execute(
            KEEP_REPORT,
            (
                *(report.domain, report.organization, report.report_id, report.begins_at, report.ends_at),
                *(report.policy_type, report.successes, report.failures, details, report.contact, report.trace_id),
                *(report.signed_by, report.doubt),
            ),
        )
    )


async def reports(
    tx: Tx, *, domain: str | None = None, failed: bool = False, number: int | None = None, limit: int = 100
) -> list[Report]:
    """Received reports, the latest first; `failed`: only those that tell of failures."""
    rows = await tx.fetch(REPORTS, {"domain": domain, "failed": failed, "id": number, "limit": limit})
    return [_report(row) for row in rows]


def _report(row: Row) -> Report:
    values = list(row)
    values[8] = json.loads(values[8])
    return Report(*values)


async def old_reports(tx: Tx) -> int:
    """Forget what came more than a year ago."""
    return await tx.execute(OLD_REPORTS, (KEEP_REPORTS, PIECE))


async def our_domain(tx: Tx, hostname: str) -> str | None:
    """The hosted domain that reports go out in the name of: the one that the host's name lies in, else the oldest."""
    row = await tx.one(OUR_DOMAIN, (hostname, hostname))
    return row[0] if row else None
