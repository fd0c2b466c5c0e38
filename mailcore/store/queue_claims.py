"""The statements that claim rows of the outbound queue: by destination, by sender, by message; by age, by priority.

Each is index work, however much waits: of what is due in order only what is claimed is read.
"""

from __future__ import annotations

from mailcore.db import sql

# A row whose claims died this often in a row without a result is taken to kill its worker, and set aside.
MAX_UNREPORTED = 5

# What a claim is made of; `claimed` reads it.
COLUMNS = """r.id, r.fence, r.outbound_id, r.address, r.destination, r.attempts, r.notify, r.orcpt, r.delay_notified,
        r.last_code, r.last_reply, r.last_host, o.sender, o.blob, o.size, o.prepend, o.smtputf8, o.body, o.requiretls,
        o.dsn_ret, o.dsn_envid, o.trace_id, o.account_id, o.created_at,
        extract(epoch FROM now() - greatest(o.created_at, o.send_after))::float8, coalesce(r.held_reason = '', false),
        r.priority, extract(epoch FROM r.deliver_by - now())::float8, o.by_mode, r.late_notified,
        r.written_to"""

_DUE = """state = 'queued' AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until < now())
            AND unreported {unreported}"""

# Rows that a claim may take, and that those of several senders are chosen from. Postgres plans by these: a limit that
# it does not know yet it takes for a tenth of the queue, which it would sort.
MOST, CHOICE = 100, 64

# What is frozen is looked up for each row: joined, it would be guessed to leave next to nothing, and all be sorted.
_PICK = f"""
        SELECT id FROM outbound_recipient
        WHERE {{which}} AND {_DUE} AND coalesce((SELECT false FROM frozen_destination f
                WHERE f.destination = outbound_recipient.destination AND (f.until IS NULL OR f.until > now())), true)
            AND (%(force)s::bool
                OR NOT EXISTS (SELECT FROM delivery_pause p WHERE p.name = {{lane}} AND p.until > now()))
        ORDER BY {{first}}next_attempt_at, id LIMIT {MOST} FOR UPDATE SKIP LOCKED"""

_OLDEST = f"""(SELECT id, priority, next_attempt_at FROM outbound_recipient
                WHERE destination = %(destination)s::text AND sender_domain = domain.name AND {{rank}} AND {_DUE}
                ORDER BY {{first}}next_attempt_at, id LIMIT"""

# Of a destination, the mail of some senders; that of others goes another way. From one sender's domain to the next, so
# that whoever sends in masses is not read for the others; the oldest are of those domains whose first is the oldest.
# More than are wanted, as others may be claiming the same.
_OF_SENDERS = f"""id IN (
            WITH RECURSIVE domain AS (
                (SELECT sender_domain AS name FROM outbound_recipient
                WHERE state = 'queued' AND destination = %(destination)s::text ORDER BY sender_domain LIMIT 1)
                UNION ALL
                SELECT (SELECT sender_domain FROM outbound_recipient
                    WHERE state = 'queued' AND destination = %(destination)s::text AND sender_domain > domain.name
                    ORDER BY sender_domain LIMIT 1)
                FROM domain WHERE domain.name IS NOT NULL
            )
            SELECT oldest.id FROM (
                SELECT domain.name FROM domain CROSS JOIN LATERAL {_OLDEST} 1) AS oldest
                WHERE (%(mine)s::text[] IS NULL OR domain.name LIKE ANY (%(mine)s::text[]))
                    AND NOT domain.name LIKE ANY (%(others)s::text[])
                ORDER BY {{first}}next_attempt_at, id LIMIT {CHOICE}) AS domain
            CROSS JOIN LATERAL {_OLDEST} {CHOICE}) AS oldest
            ORDER BY {{first}}next_attempt_at, id LIMIT {CHOICE})"""

# Which rows, and whose pause counts.
_LANES = {
    "destination": ("destination = %(destination)s::text AND {rank}", "%(destination)s::text"),
    "share": (_OF_SENDERS, "%(share)s::text"),
    "any": ("{rank}", "''"),
    "outbound": ("outbound_id = %(outbound)s::bigint AND {rank}", "outbound_recipient.destination"),
}


def _pick(kind: str, unreported: str, rank: str = "true", first: str = "") -> str:
    which, lane = _LANES[kind]
    which = which.format(rank=rank, first=first, unreported=unreported)
    return _PICK.format(which=which, lane=lane, first=first, unreported=unreported)


def _pick_by_priority(kind: str) -> str:
    """What is ranked above or below ordinary mail is in an index of its own, so that other mail does not pay for the
    order; each part is read only as far as those before it leave room."""
    return f"""
            SELECT id FROM ({_pick(kind, "= 0", "priority > 0", "priority DESC, ")}) AS urgent
            UNION ALL SELECT id FROM ({_pick(kind, "= 0", "priority = 0")}) AS ordinary
            UNION ALL SELECT id FROM ({_pick(kind, "= 0", "priority < 0", "priority DESC, ")}) AS unhurried"""


def claiming(pick: str) -> str:
    """The statement that claims the rows that `pick` chooses."""
    return f"""
    WITH due AS (
        SELECT id FROM ({pick}
        ) AS due LIMIT %(limit)s::int
    )
    UPDATE outbound_recipient r
    SET lease_until = now() + make_interval(secs => %(lease)s::float8), fence = fence + 1, attempts = attempts + 1,
        unreported = unreported + 1
    FROM due, outbound o WHERE r.id = due.id AND o.id = r.outbound_id
    RETURNING {COLUMNS}"""


# A worker died with these; they come one at a time, so that the innocent are not set aside with the guilty.
_SUSPECT = f"BETWEEN 1 AND {MAX_UNREPORTED - 1}"

# The oldest of what was never claimed in vain, and those that were.
CLAIMS = {kind: tuple(sql(claiming(_pick(kind, reports))) for reports in ("= 0", _SUSPECT)) for kind in _LANES}
CLAIMS_BY_PRIORITY = {kind: sql(claiming(_pick_by_priority(kind))) for kind in _LANES if kind != "outbound"}
