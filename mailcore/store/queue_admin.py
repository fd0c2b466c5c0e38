"""What people do to the outbound queue: look, retry, hold, release, return, remove, send elsewhere.

A verb works on recipients, not on messages: whoever holds the mail of one domain does not hold it for the others. It
takes the numbers that `rows` found, locks them in their order, as everybody does, and does what it can to those that no
worker has in hand; what is on the wire is never touched, its result has to be recorded somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.addresses import parse_address
from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import housekeeping, trace
from mailcore.store.queue import Claimed, claimed
from mailcore.store.queue_claims import COLUMNS
from mailcore.wake import Change

MAX_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recipients: those that fit everything given.

    `sender` and `recipient` are addresses, `sender_domain` and `destination` domains (A-labels); sender "" is the null
    sender. `after`: only those with a larger number, for the next piece of a long list.
    """

    ids: Sequence[int] | None = None
    states: Sequence[str] | None = None
    recipient: str | None = None
    destination: str | None = None
    sender: str | None = None
    sender_domain: str | None = None
    account_id: int | None = None
    after: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient in the queue; `queue_id` is its message. `at_work`: a worker has it in hand now.

    `waits`: why nobody tries although it is due (the destination is frozen); then `next_attempt_at` is when that ends,
    None = when somebody thaws it. `deliver_by`, `by_mode`: what the sender asked for (RFC 2852). `written_to`: what he
    wrote to, if that led on to this recipient.
    """

    queue_id: int
    trace_id: str
    state: str
    sender: str
    recipient: str
    destination: str
    size: int
    attempts: int
    queued_at: datetime
    next_attempt_at: datetime | None
    at_work: bool
    code: int | None
    reply: str | None
    host: str | None
    held_reason: str | None
    account_id: int | None
    finished_at: datetime | None
    waits: str | None
    recipient_id: int
    priority: int
    deliver_by: datetime | None
    by_mode: str | None
    written_to: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """How many recipients (and whole messages, where that matters) it was done to, and how many are on the wire."""

    recipients: int
    at_work: int = 0
    messages: int = 0


# An argument that is NULL asks for nothing.
LIST = sql("""
    SELECT o.id, o.trace_id, r.state, o.sender, r.address, r.destination, o.size, r.attempts, o.created_at,
        CASE WHEN f.destination IS NULL OR r.state <> 'queued' THEN r.next_attempt_at
            WHEN f.until IS NOT NULL THEN greatest(r.next_attempt_at, f.until) END,
        coalesce(r.lease_until > now(), false), r.last_code, r.last_reply, r.last_host,
        r.held_reason, o.account_id, r.finished_at,
        CASE WHEN r.state = 'queued' THEN trim('frozen: ' || f.reason, ': ') END, r.id,
        r.priority, r.deliver_by, o.by_mode, r.written_to
    FROM outbound_recipient r JOIN outbound o ON o.id = r.outbound_id LEFT JOIN frozen_destination f
        ON f.destination = r.destination AND (f.until IS NULL OR f.until > now())
    WHERE r.id > %(after)s::bigint AND (%(states)s::text[] IS NULL OR r.state = ANY(%(states)s::text[]))
        AND (%(destination)s::text IS NULL OR r.destination = %(destination)s::text)
        AND (%(recipient)s::text IS NULL OR lower(r.address) = lower(%(recipient)s::text))
        AND (%(sender)s::text IS NULL OR lower(o.sender) = lower(%(sender)s::text))
        AND (%(sender_domain)s::text IS NULL OR lower(split_part(o.sender, '@', -1)) = %(sender_domain)s::text)
        AND (%(account)s::bigint IS NULL OR o.account_id = %(account)s::bigint)
        AND (%(ids)s::bigint[] IS NULL OR o.id = ANY(%(ids)s::bigint[]))
    ORDER BY r.id LIMIT %(limit)s::int""")

NUMBERS = sql("""
    SELECT id, trace_id FROM outbound WHERE id = ANY(%s::bigint[]) OR trace_id = ANY(%s::text[])""")

LOCK_RECIPIENTS = sql("""
    SELECT id, coalesce(lease_until > now(), false) FROM outbound_recipient
    WHERE id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE""")

_TOLD = """FROM outbound o WHERE r.id = ANY(%(rows)s::bigint[]) AND o.id = r.outbound_id AND {which}
    RETURNING o.id, o.trace_id, o.account_id, o.sender, r.address, r.destination"""
_IDLE = "(r.lease_until IS NULL OR r.lease_until < now())"

RETRY = sql(f"""
    UPDATE outbound_recipient r SET next_attempt_at = now()
    {_TOLD.format(which=f"r.state = 'queued' AND {_IDLE}")}""")

HOLD = sql(f"""
    UPDATE outbound_recipient r SET state = 'held', held_reason = %(reason)s::text
    {_TOLD.format(which="r.state = 'queued'")}""")

# An empty reason says that a person has released it: a rule that holds mail lets it pass.
RELEASE = sql(f"""
    UPDATE outbound_recipient r SET state = 'queued', held_reason = '', unreported = 0, next_attempt_at = now()
    {_TOLD.format(which="r.state = 'held'")}""")

# What is chosen, and what of the same messages goes to that address anyway; locked in the order that everybody keeps.
TWINS = sql("""
    SELECT r.id, r.outbound_id, r.address, r.notify, r.state, coalesce(r.lease_until > now(), false)
    FROM outbound_recipient r
    WHERE r.outbound_id IN (SELECT outbound_id FROM outbound_recipient WHERE id = ANY(%(rows)s::bigint[]))
        AND (r.id = ANY(%(rows)s::bigint[]) OR lower(r.address) = lower(%(address)s::text))
    ORDER BY r.id FOR UPDATE""")

# A new fence: a worker whose lease has ended must not record its result for another address.
REDIRECT = sql(f"""
    UPDATE outbound_recipient r SET address = %(address)s::text, destination = %(destination)s::text,
        written_to = nullif(coalesce(r.written_to, r.address), %(address)s::text),
        orcpt = coalesce(r.orcpt, v.orcpt), notify = v.notify, fence = fence + 1, lease_until = NULL, unreported = 0,
        state = 'queued', held_reason = NULL, attempts = 0, next_attempt_at = now()
    FROM unnest(%(rows)s::bigint[], %(orcpts)s::text[], %(notify)s::text[]) AS v(id, orcpt, notify), outbound o
    WHERE r.id = v.id AND o.id = r.outbound_id AND r.state IN ('queued', 'held') AND {_IDLE}
    RETURNING o.id, o.trace_id, o.account_id, o.sender, r.id, r.destination""")

REMOVE_RECIPIENTS = sql(f"""
    DELETE FROM outbound_recipient r USING outbound o
    WHERE r.id = ANY(%s::bigint[]) AND o.id = r.outbound_id AND {_IDLE}
    RETURNING o.id, o.trace_id, o.account_id, o.sender, r.address, r.destination""")
REMOVE = sql("""
    DELETE FROM outbound o WHERE o.id = ANY(%s::bigint[])
        AND NOT EXISTS (SELECT FROM outbound_recipient r WHERE r.outbound_id = o.id)
    RETURNING blob""")

# With a new fence and a short lease, as a worker claims; but held rows too, and whenever they are due.
SEIZE = sql(f"""
    UPDATE outbound_recipient r SET fence = fence + 1, lease_until = now() + interval '1 minute'
    FROM outbound o
    WHERE r.id = ANY(%s::bigint[]) AND r.state IN ('queued', 'held') AND o.id = r.outbound_id AND {_IDLE}
    RETURNING {COLUMNS}""")


async def rows(tx: Tx, wanted: Selection | None = None, limit: int = MAX_ROWS) -> list[Row]:
    """Recipients in the queue, oldest first, that fit."""
    wanted = wanted or Selection()
    names = {
        "ids": None if wanted.ids is None else list(wanted.ids),
        "states": None if wanted.states is None else list(wanted.states),
        "destination": wanted.destination,
        "sender": wanted.sender,
        "sender_domain": wanted.sender_domain,
        "recipient": wanted.recipient,
        "account": wanted.account_id,
        "after": wanted.after,
        "limit": min(limit, MAX_ROWS),
    }
    return [Row(*row) for row in await tx.fetch(LIST, names)]


async def numbers(tx: Tx, names: Sequence[str]) -> list[int]:
    """Queue numbers for what people type: queue numbers and trace ids. Raises NOT_FOUND for one that is neither."""
    wanted = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 18]
    found = await tx.fetch(NUMBERS, (wanted, [name.lower() for name in names]))
    known = {str(row[0]) for row in found} | {row[1] for row in found}
    for name in names:
        if name.lower() not in known:
            raise MailError(Code.NOT_FOUND, f"{name} is not in the queue")
    return sorted({int(row[0]) for row in found})


async def retry(tx: Tx, recipients: Sequence[int]) -> Done:
    """Make queued recipients due now."""
    at_work = await _lock(tx, recipients)
    told = await tx.fetch(RETRY, {"rows": list(recipients)})
    await _note(tx, told, "retry")
    _wake(tx, told)
    return _done(told, at_work)


async def hold(tx: Tx, recipients: Sequence[int], reason: str) -> Done:
    """Set queued recipients aside until they are released; a delivery under way is not broken off, and counts."""
    at_work = await _lock(tx, recipients)
    told = await tx.fetch(HOLD, {"rows": list(recipients), "reason": reason})
    await _note(tx, told, "held", reason=reason)
    return _done(told, at_work)


async def release(tx: Tx, recipients: Sequence[int]) -> Done:
    """Queue held recipients again, due now."""
    at_work = await _lock(tx, recipients)
    told = await tx.fetch(RELEASE, {"rows": list(recipients)})
    await _note(tx, told, "released")
    _wake(tx, told)
    return _done(told, at_work)


async def redirect(tx: Tx, chosen: Sequence[Row], address: str) -> Done:
    """Send to another address instead, from now on and as if it were new: queued and held recipients.

    To the sender's notices, and as the original recipient (ORCPT) to the next server, the first address stays known. Of
    several recipients of one message one copy goes there, and none when it goes there anyway: the others leave the
    queue. Raises AddressError.
    """
    parsed = parse_address(address)
    old = {row.recipient_id: row for row in chosen}
    messages: dict[int, list[tuple[Any, ...]]] = {}
    for twin in await tx.fetch(TWINS, {"rows": list(old), "address": address}):
        messages.setdefault(twin[1], []).append(twin)
    keep: dict[int, str | None] = {}
    merged: list[int] = []
    at_work = 0
    for twins in messages.values():
        at_work += sum(busy for number, *_, busy in twins if number in old)
        moving = [each for each in twins if each[0] in old and each[4] in ("queued", "held") and not each[5]]
        goes_there = [each for each in twins if each not in moving and each[2].lower() == address.lower()]
        moving.sort(key=lambda each: each[2].lower() != address.lower())
        if moving and not any(each[4] != "failed" for each in goes_there):
            keep[moving[0][0]] = _all_wishes([each[3] for each in moving])
            del moving[0]
        merged += [each[0] for each in moving]
    orcpts = [_orcpt(old[number].written_to or old[number].recipient) for number in keep]
    names = {"rows": list(keep), "notify": list(keep.values()), "orcpts": orcpts}
    told = await tx.fetch(REDIRECT, names | {"address": address, "destination": parsed.domain})
    gone = await tx.fetch(REMOVE_RECIPIENTS, (sorted(merged),)) if merged else []
    events = [
        trace.Event(name, "redirected", account, number, sender, old[row_id].recipient, None, {"to": address})
        for number, name, account, sender, row_id, _ in told
    ]
    await trace.add(tx, events)
    await _note(tx, gone, "redirected", to=address, merged=True)
    _wake(tx, told)
    return Done(len(told) + len(gone), at_work, len({row[0] for row in (*told, *gone)}))


async def remove(tx: Tx, recipients: Sequence[int]) -> Done:
    """Take recipients out of the queue without telling anybody; a message goes with its last one, octets and all.

    What a worker has in hand stays: it is on the wire, and what becomes of it has to be recorded somewhere.
    """
    at_work = await _lock(tx, recipients)
    told = await tx.fetch(REMOVE_RECIPIENTS, (list(recipients),))
    await _note(tx, told, "removed")
    gone = await tx.fetch(REMOVE, (sorted({row[0] for row in told}),))
    await housekeeping.remove_blobs(tx, [bytes(row[0]) for row in gone])
    return Done(len(told), len(at_work), len(gone))


async def seize(tx: Tx, recipients: Sequence[int]) -> list[Claimed]:
    """Claim open recipients, held ones too, to settle them in this transaction (return to sender)."""
    await _lock(tx, recipients)
    return [claimed(row) for row in await tx.fetch(SEIZE, (list(recipients),))]


async def _lock(tx: Tx, recipients: Sequence[int]) -> set[int]:
    """Lock recipients in the order of their numbers; returns those that a worker has in hand. An UPDATE by itself would
    lock them as its plan happens to find them."""
    return {int(row[0]) for row in await tx.fetch(LOCK_RECIPIENTS, (list(recipients),)) if row[1]}


def _done(told: Sequence[tuple[object, ...]], at_work: set[int]) -> Done:
    return Done(len(told), len(at_work), len({row[0] for row in told}))


async def _note(tx: Tx, told: Sequence[tuple[object, ...]], step: str, **detail: object) -> None:
    events = [
        trace.Event(name, step, account, number, sender, address, None, detail)  # type: ignore[arg-type]  # a row
        for number, name, account, sender, address, _ in told
    ]
    await trace.add(tx, events)


def _wake(tx: Tx, told: Sequence[tuple[object, ...]]) -> None:
    for number in {row[0] for row in told}:
        tx.changed(Change(0, 0, number, "queue"))  # type: ignore[arg-type]  # a row's first column


def _all_wishes(notify: Sequence[str | None]) -> str | None:
    """NOTIFY for the one copy of several recipients: whatever one of them is to be told of."""
    if all(each is None for each in notify):
        return None
    wanted = {word for each in notify for word in (each or "FAILURE,DELAY").upper().split(",")}
    return ",".join(word for word in ("SUCCESS", "FAILURE", "DELAY") if word in wanted) or "NEVER"


def _orcpt(address: str) -> str:
    """An address as the original recipient of RFC 3461 §4.2 (xtext), or of RFC 6533 §3 when it is not ASCII."""
    kind = "rfc822" if address.isascii() else "utf-8"
    return f"{kind};" + "".join(_xtext(each) for each in address)


def _xtext(each: str) -> str:
    if not each.isascii():
        return each
    return each if "!" <= each <= "~" and each not in "+=" else f"+{ord(each):02X}"
