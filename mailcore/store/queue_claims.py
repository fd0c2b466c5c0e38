"""The statements that claim rows of the outbound queue: by destination, by sender, by message; by age, by priority."""

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

# As rules know it; "" for the null sender.
SENDER_DOMAIN = "lower(split_part({}.sender, '@', -1))"

_PICK = """
        SELECT id FROM outbound_recipient
        WHERE state = 'queued' AND {which} AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until < now())
            AND unreported {unreported} AND NOT EXISTS (SELECT FROM frozen_destination f
                WHERE f.destination = outbound_recipient.destination AND (f.until IS NULL OR f.until > now()))
            AND (%(force)s::bool OR NOT EXISTS (SELECT FROM delivery_pause p WHERE p.name = {lane} AND p.until > now()))
        ORDER BY next_attempt_at, id LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED"""


def _ranked(condition: str) -> str:
    return _PICK.replace("{which}", "{which} AND priority " + condition)


# What is ranked above or below ordinary mail is in an index of its own, so that other mail does not pay for the order;
# each part is read only as far as those before it leave room.
_PICK_BY_PRIORITY = f"""
        SELECT id FROM (
            SELECT id FROM ({_ranked("> 0").replace("ORDER BY", "ORDER BY priority DESC,")}) AS urgent
            UNION ALL SELECT id FROM ({_ranked("= 0")}) AS ordinary
            UNION ALL SELECT id FROM ({_ranked("< 0").replace("ORDER BY", "ORDER BY priority DESC,")}) AS unhurried
        ) AS each LIMIT %(limit)s::int"""

_CLAIM = (
    """
    WITH due AS ({pick}
    )
    UPDATE outbound_recipient r
    SET lease_until = now() + make_interval(secs => %(lease)s::float8), fence = fence + 1, attempts = attempts + 1,
        unreported = unreported + 1
    FROM due, outbound o WHERE r.id = due.id AND o.id = r.outbound_id
    RETURNING """
    + COLUMNS
)
# To be filled in: which rows, which pauses count, how many claims of a row may have died.
CLAIM = _CLAIM.replace("{pick}", _PICK)
_CLAIM_BY_PRIORITY = _CLAIM.replace("{pick}", _PICK_BY_PRIORITY)

# A worker died with these; they come one at a time, so that the innocent are not set aside with the guilty.
_SUSPECT = f"BETWEEN 1 AND {MAX_UNREPORTED - 1}"
_LANES = {
    "destination": ("destination = %(destination)s::text", "%(destination)s::text"),
    # Of a destination, the mail of some senders; that of others goes another way.
    "share": (
        """destination = %(destination)s::text AND EXISTS (SELECT FROM outbound s
            WHERE s.id = outbound_recipient.outbound_id
                AND (%(mine)s::text[] IS NULL OR {domain} LIKE ANY (%(mine)s::text[]))
                AND NOT {domain} LIKE ANY (%(others)s::text[]))""".replace("{domain}", SENDER_DOMAIN.format("s")),
        "%(share)s::text",
    ),
    "any": ("true", "''"),
    "outbound": ("outbound_id = %(outbound)s::bigint", "outbound_recipient.destination"),
}
# The oldest of what was never claimed in vain, and those that were.
CLAIMS = {
    kind: tuple(sql(CLAIM.format(which=which, lane=lane, unreported=reports)) for reports in ("= 0", _SUSPECT))
    for kind, (which, lane) in _LANES.items()
}
CLAIMS_BY_PRIORITY = {
    kind: sql(_CLAIM_BY_PRIORITY.format(which=which, lane=lane, unreported="= 0"))
    for kind, (which, lane) in _LANES.items()
    if kind != "outbound"
}
