"""How much an account, a sender address and a domain may send within an hour and a day (see accounts.policies).

Counted in Postgres, so that all processes share it, in spans of five minutes; only what has a limit is counted. A
message is counted before it is stored and given back when it is refused after all: `take` counts first and looks then,
under the locks of what it counted, so that messages sent at the same time cannot pass together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from accounts.policies import Limits, Subject, effective
from mailcore.db import Row, Tx, sql
from mailcore.errors import Code, MailError

SPAN = 300  # seconds
KEEP_DAYS = 2

_SUBJECTS = """(VALUES ('account', u.id::text), ('address', %(sender)s::text), ('domain', d.name::text))
            AS w(scope, subject)"""
_SUMS = """(sum(s.messages) FILTER (WHERE s.began > now() - interval '1 hour'))::int AS m_hour,
            sum(s.messages)::int AS m_day,
            (sum(s.recipients) FILTER (WHERE s.began > now() - interval '1 hour'))::int AS r_hour,
            sum(s.recipients)::int AS r_day"""

# 0.2 ms.
SPENT = sql(f"""
    SELECT d.name, d.policy::text, u.policy::text, c.scope, c.m_hour, c.m_day, c.r_hour, c.r_day
    FROM accounts_account u JOIN accounts_domain d ON d.id = u.domain_id LEFT JOIN LATERAL (
        SELECT s.scope, {_SUMS}
        FROM {_SUBJECTS} JOIN sending_count s ON s.scope = w.scope AND s.subject = w.subject
        WHERE s.began > now() - interval '1 day' GROUP BY s.scope) AS c ON true
    WHERE u.id = %(account)s::bigint""")

POLICIES = sql("""
    SELECT d.policy::text, u.policy::text FROM accounts_account u JOIN accounts_domain d ON d.id = u.domain_id
    WHERE u.id = %s::bigint""")

# Counts, and says what is spent then, with the span of what was counted. Who came a moment earlier may be counting in
# the span before: its row is locked, and read, like that of our own. Subjects that no limit can meet are left out, so
# that a domain's people do not wait for each other without need. A count that a crash of Postgres forgets is no loss,
# and one commit less that waits for the disk.
COUNT = sql(f"""
    WITH counted AS (
        INSERT INTO sending_count (scope, subject, began, messages, recipients)
        SELECT w.scope, w.subject, to_timestamp((floor(extract(epoch FROM now()) / {SPAN}) - s.ago) * {SPAN}),
            s.messages, s.recipients
        FROM accounts_account u JOIN accounts_domain d ON d.id = u.domain_id CROSS JOIN LATERAL {_SUBJECTS}
            CROSS JOIN (VALUES (0, 1, %(recipients)s::int), (1, 0, 0)) AS s(ago, messages, recipients)
        WHERE u.id = %(account)s::bigint AND (w.scope = 'account'
            OR EXISTS (SELECT FROM jsonb_object_keys(d.policy || u.policy) AS k WHERE starts_with(k, w.scope || '-')))
        ORDER BY w.scope, s.ago DESC -- everybody locks them in this order
        ON CONFLICT (scope, subject, began) DO UPDATE
        SET messages = sending_count.messages + excluded.messages,
            recipients = sending_count.recipients + excluded.recipients
        RETURNING scope, began, messages, recipients)
    SELECT d.name, d.policy::text, u.policy::text, c.scope, c.m_hour, c.m_day, c.r_hour, c.r_day, c.span,
        set_config('synchronous_commit', 'off', true)
    FROM accounts_account u JOIN accounts_domain d ON d.id = u.domain_id LEFT JOIN LATERAL (
        SELECT s.scope, {_SUMS}, max(s.span) AS span
        FROM (
            SELECT scope, began, messages, recipients, began AS span FROM counted
            UNION ALL
            SELECT s.scope, s.began, s.messages, s.recipients, NULL
            FROM {_SUBJECTS} JOIN sending_count s ON s.scope = w.scope AND s.subject = w.subject
            WHERE s.began > now() - interval '1 day'
                AND NOT EXISTS (SELECT FROM counted k WHERE k.scope = s.scope AND k.began = s.began)) AS s
        GROUP BY s.scope) AS c ON true
    WHERE u.id = %(account)s::bigint""")

GIVE_BACK = sql("""
    UPDATE sending_count s SET messages = s.messages - 1, recipients = s.recipients - %(recipients)s::int
    FROM unnest(%(scopes)s::text[], %(subjects)s::text[]) AS w(scope, subject)
    WHERE s.scope = w.scope AND s.subject = w.subject AND s.began = %(began)s::timestamptz""")

SPANS = sql("""
    SELECT began, messages, recipients FROM sending_count
    WHERE scope = %(scope)s::text AND subject = %(subject)s::text
        AND began > now() - make_interval(secs => %(within)s::int)
    ORDER BY began""")

FORGET = sql("""
    DELETE FROM sending_count WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM sending_count WHERE began < now() - make_interval(days => %(days)s::int)
        LIMIT %(limit)s::int))""")

_WHO: dict[Subject, str] = {"account": "Your account", "address": "This sender address", "domain": "Your domain"}
_HOUR, _DAY = 3600, 86_400


@dataclass(frozen=True, slots=True)
class _Bound:
    """One limit of a subject, and how much of it is spent: messages or recipients within so many seconds."""

    what: str
    within: int
    limit: int
    spent: int


@dataclass(frozen=True, slots=True)
class _Account:
    """What is counted for one subject; only those that have a limit are."""

    scope: Subject
    subject: str
    bounds: tuple[_Bound, ...]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be sent now. `recipients`: of one message more, None = no limit."""

    subjects: tuple[_Account, ...]

    @property
    def recipients(self) -> int | None:
        left = None
        for _, bound in self._all():
            more = bound.limit - bound.spent
            if bound.what == "recipients":
                left = more if left is None else min(left, more)
            elif more < 1:
                left = 0
        return None if left is None else max(left, 0)

    def exceeded(self, messages: int, recipients: int) -> tuple[_Account, _Bound] | None:
        """The first limit that so much more would exceed."""
        for subject, bound in self._all():
            if bound.spent + (messages if bound.what == "messages" else recipients) > bound.limit:
                return subject, bound
        return None

    def _all(self) -> Iterator[tuple[_Account, _Bound]]:
        for subject in self.subjects:
            for bound in subject.bounds:
                yield subject, bound


NO_LIMITS = Allowance(())


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that is counted, until it is given back."""

    scopes: list[str]
    subjects: list[str]
    recipients: int
    began: datetime


async def allowance(tx: Tx, account_id: int, sender: str) -> Allowance:
    """What an account may send now as `sender` (normalised)."""
    return _allowance(await tx.fetch(SPENT, {"account": account_id, "sender": sender}), account_id, sender)


def _allowance(rows: Sequence[Row], account_id: int, sender: str) -> Allowance:
    if not rows:
        return NO_LIMITS
    domain, above, own = rows[0][:3]
    policy = effective(above, own)
    spent = {row[3]: [each or 0 for each in row[4:8]] for row in rows}
    named: list[tuple[Subject, str, Limits]] = [
        ("account", str(account_id), policy.account),
        ("address", sender, policy.address),
        ("domain", domain, policy.domain),
    ]
    found = [_Account(scope, subject, _bounds(limits, spent.get(scope))) for scope, subject, limits in named]
    return Allowance(tuple(each for each in found if each.bounds))


def _bounds(limits: Limits, spent: Sequence[int] | None) -> tuple[_Bound, ...]:
    m_hour, m_day, r_hour, r_day = spent or (0, 0, 0, 0)
    each = (
        ("messages", _HOUR, limits.messages_per_hour, m_hour),
        ("recipients", _HOUR, limits.recipients_per_hour, r_hour),
        ("messages", _DAY, limits.messages_per_day, m_day),
        ("recipients", _DAY, limits.recipients_per_day, r_day),
    )
    return tuple(_Bound(what, within, limit, count) for what, within, limit, count in each if limit is not None)


async def max_priority(tx: Tx, account_id: int) -> int:
    """The policy of that name, for an account."""
    row = await tx.one(POLICIES, (account_id,))
    return effective(*row).max_priority if row else 0


async def sent(tx: Tx, account_id: int) -> tuple[int, int]:
    """To how many recipients an account has sent within the last hour and day, as far as that is counted."""
    for row in await tx.fetch(SPENT, {"account": account_id, "sender": ""}):
        if row[3] == "account":
            return row[6] or 0, row[7] or 0
    return 0, 0


async def require(tx: Tx, allowed: Allowance, recipients: int) -> None:
    """Raises TOO_MANY, with a text for the sender, when a message to so many more would exceed a limit."""
    if (found := allowed.exceeded(1, recipients)) is not None:
        raise await _refusal(tx, *found, recipients, recipients if found[1].what == "recipients" else 1)


async def take(tx: Tx, account_id: int, sender: str, recipients: int) -> Taken | None:
    """Count a message; None when nothing is counted. Raises TOO_MANY: roll the transaction back then."""
    names = {"account": account_id, "sender": sender}
    rows = await tx.fetch(COUNT, names | {"recipients": recipients})
    if (found := _allowance(rows, account_id, sender).exceeded(0, 0)) is not None:
        raise await _refusal(tx, *found, recipients, 0)
    counted = {row[3]: row[8] for row in rows if row[8] is not None}
    if not counted:
        return None
    subjects = {"account": str(account_id), "address": sender, "domain": rows[0][0]}
    scopes = sorted(counted)  # as COUNT locks them: whoever gives back locks them, too
    return Taken(scopes, [subjects[scope] for scope in scopes], recipients, counted[scopes[0]])


async def give_back(tx: Tx, taken: Taken) -> None:
    """A message that was counted was not sent."""
    names = {"scopes": taken.scopes, "subjects": taken.subjects, "recipients": taken.recipients, "began": taken.began}
    await tx.execute(GIVE_BACK, names)


async def forget(tx: Tx, limit: int = 1000) -> int:
    """Remove counts that no limit looks at any more; returns how many."""
    return await tx.execute(FORGET, {"days": KEEP_DAYS, "limit": limit})


async def _refusal(tx: Tx, subject: _Account, bound: _Bound, recipients: int, more: int) -> MailError:
    """Says when `more`, beyond what is counted, will not be too many; a message to too many never will be."""
    span = "an hour" if bound.within == _HOUR else "a day"
    text = f"{_WHO[subject.scope]} may send {bound.limit} messages {span}"
    if bound.what == "recipients":
        text = f"{_WHO[subject.scope]} may send to {bound.limit} recipients {span}"
    if (recipients if bound.what == "recipients" else 1) > bound.limit:
        return MailError(Code.TOO_MANY, text)
    spent, again = bound.spent, datetime.now(UTC)
    names = {"scope": subject.scope, "subject": subject.subject, "within": bound.within}
    for began, messages, sent_to in await tx.fetch(SPANS, names):
        if spent + more <= bound.limit:
            break
        spent -= messages if bound.what == "messages" else sent_to
        again = began + timedelta(seconds=bound.within + 60)
    return MailError(Code.TOO_MANY, f"{text}; more at {again.astimezone(UTC):%H:%M} UTC")
