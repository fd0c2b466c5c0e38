"""The history of messages: one append-only line for each thing that happened to one, written with the thing itself."""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mailcore.arrays import Array, Int8s, Texts, Timestamps
from mailcore.db import Row, Tx, sql

# Crockford's base 32 in lower case: sorts like the number, has no letters that are mistaken for digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARS = 9  # milliseconds, enough until the year 3084
_RANDOM_CHARS = 6
ID_LENGTH = _TIME_CHARS + _RANDOM_CHARS

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Words longer than this are cut: a trace is read by people, and a hostile remote may answer with a book.
MAX_TEXT = 1000
MAX_TRACES = 100
# Steps that are read at once; the last message of so many may have more.
MAX_EVENTS = 20_000
# Characters of what is indexed: an entry of an index has room for 2,700 octets, a character needs up to four.
MAX_KEY = 600


def new_id() -> str:
    """A new trace id: 15 letters and digits that sort by time; the `id` of Received, and what people quote."""
    number = (time.time_ns() // 1_000_000) << 5 * _RANDOM_CHARS | secrets.randbits(5 * _RANDOM_CHARS)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (ID_LENGTH - 1), -1, -5))


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a message's way; `detail` holds plain JSON values. `at` None = the time of the transaction."""

    trace_id: str
    step: str
    account_id: int | None = None
    outbound_id: int | None = None
    sender: str | None = None
    recipient: str | None = None
    message_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A stored event."""

    at: datetime
    trace_id: str
    step: str
    account_id: int | None
    outbound_id: int | None
    sender: str | None
    recipient: str | None
    message_id: str | None
    detail: dict[str, Any]


ADD = sql("""
    INSERT INTO trace_event (at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail)
    SELECT coalesce(e.at, now()), e.trace_id, e.step, e.account_id, e.outbound_id, e.sender, e.recipient, e.message_id,
        e.detail::jsonb
    FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[],
        %s::text[], %s::text[]) WITH ORDINALITY
        AS e(at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail, n)
    ORDER BY e.n""")

_EVENTS = """
    SELECT e.at, e.trace_id, e.step, e.account_id, e.outbound_id, e.sender, e.recipient, e.message_id, e.detail::text
    FROM newest CROSS JOIN LATERAL (
        SELECT * FROM trace_event WHERE trace_event.trace_id = newest.trace_id ORDER BY at, id LIMIT %(steps)s::int
    ) AS e
    ORDER BY newest.trace_id DESC, e.at, e.id LIMIT %(limit)s::int"""

_BETWEEN = "at >= %(since)s::timestamptz AND at < %(until)s::timestamptz"
_NEWEST_ROWS = f"AND {_BETWEEN} ORDER BY at DESC LIMIT %(rows)s::int"
_HANDED_IN = "step IN ('accepted', 'refused', 'aborted')"  # as the index trace_event_account has it

# Every message has such a step, and hardly more than one: not so one for each of ten thousand recipients.
_BEGINNING = "step IN ('accepted', 'refused', 'aborted', 'dsn')"

# The newest traces that a word leads to; each arm walks one index. Trace ids sort by time.
# A domain's administrator does not find (`alien`) a message of others by who else got it, or where its writer sits.
FIND = sql(f"""
    WITH hit AS (
        (SELECT trace_id, at, false AS alien FROM trace_event WHERE trace_id = %(text)s::text ORDER BY at DESC LIMIT 1)
        UNION ALL
        (SELECT trace_id, at, split_part(recipient, '@', -1) <> ALL(%(domains)s::text[])
            FROM trace_event WHERE recipient = %(address)s::text {_NEWEST_ROWS})
        UNION ALL
        (SELECT trace_id, at, false FROM trace_event WHERE sender = %(address)s::text {_NEWEST_ROWS})
        UNION ALL
        (SELECT trace_id, at, true FROM trace_event
            WHERE account_id = (SELECT id FROM accounts_account WHERE address = %(address)s::text)
                AND {_HANDED_IN} {_NEWEST_ROWS})
        UNION ALL
        (SELECT trace_id, at, account_id IS NOT NULL FROM trace_event
            WHERE detail ? 'from' AND detail ->> 'from' = ANY(%(client)s::text[]) {_NEWEST_ROWS})
        UNION ALL
        (SELECT trace_id, at, false FROM trace_event
            WHERE message_id = %(message_id)s::text AND {_BETWEEN} LIMIT %(rows)s::int)
        UNION ALL
        (SELECT trace_id, at, false FROM trace_event
            WHERE outbound_id = %(outbound)s::bigint AND {_BETWEEN} LIMIT %(rows)s::int)
        UNION ALL
        (SELECT trace_id, at, false FROM trace_event
            WHERE %(all)s::bool AND trace_id < %(before)s::text AND {_BEGINNING} AND {_BETWEEN}
            ORDER BY trace_id DESC LIMIT %(rows)s::int)
    ), newest AS (
        SELECT trace_id FROM hit
        WHERE trace_id < %(before)s::text AND (%(domains)s::text[] IS NULL OR EXISTS (
            SELECT FROM trace_event e WHERE e.trace_id = hit.trace_id AND (
                NOT hit.alien AND split_part(e.recipient, '@', -1) = ANY(%(domains)s::text[])
                OR e.account_id IS NOT NULL AND (split_part(e.sender, '@', -1) = ANY(%(domains)s::text[])
                    OR split_part(e.detail ->> 'account', '@', -1) = ANY(%(domains)s::text[])))))
        GROUP BY trace_id ORDER BY trace_id DESC LIMIT %(traces)s::int
    ){_EVENTS}""")

# A person's own: what was sent to the addresses, and what the account itself sent (a sender's address can be forged).
# Only the sender finds a message by its other recipients, those that he wrote to: nobody else is to learn who they are,
# and he not who is behind an alias.
FIND_OWN = sql(f"""
    WITH mine AS (
        SELECT hit.* FROM unnest(%(addresses)s::text[]) AS own(address) CROSS JOIN LATERAL (
            (SELECT trace_id, at, false AS sent FROM trace_event WHERE recipient = own.address {_NEWEST_ROWS})
            UNION ALL
            (SELECT trace_id, at, true FROM trace_event
                WHERE sender = own.address AND account_id = %(account)s::bigint {_NEWEST_ROWS})
        ) AS hit
        UNION ALL
        (SELECT trace_id, at, true FROM trace_event
            WHERE account_id = %(account)s::bigint AND {_HANDED_IN} {_NEWEST_ROWS})
    ), own AS (
        SELECT trace_id, bool_or(sent) AS sent FROM mine WHERE trace_id < %(before)s::text GROUP BY trace_id
    ), newest AS (
        SELECT trace_id FROM own
        WHERE %(all)s::bool OR EXISTS (
            SELECT FROM trace_event e WHERE e.trace_id = own.trace_id AND (
                e.trace_id = %(text)s::text OR e.sender = %(address)s::text OR e.message_id = %(message_id)s::text
                OR e.recipient = %(address)s::text AND (e.recipient = ANY(%(addresses)s::text[])
                    OR split_part(e.recipient, '@', -1) = ANY(%(manages)s::text[])
                    OR own.sent AND e.step IN ('refused', 'aborted'))
                OR own.sent AND e.step = 'accepted' AND EXISTS (
                    SELECT FROM jsonb_array_elements_text(e.detail -> 'to') AS wrote(address)
                    WHERE lower(wrote.address) = %(address)s::text)))
        ORDER BY trace_id DESC LIMIT %(traces)s::int
    ){_EVENTS}""")

_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
_AFTER_ALL = "z" * (ID_LENGTH + 1)
# How far back a person's own messages are looked through for a word.
MAX_OWN = 5_000


async def add(tx: Tx, events: Sequence[Event]) -> None:
    """Write events, in this transaction: what did not happen leaves no trace, what happened cannot lose it."""
    if events:
        await tx.execute(*adding(events))


def adding(events: Sequence[Event]) -> tuple[str, tuple[Array, ...]]:
    """The statement of `add`, for a verb that has others to send with it."""
    return ADD, arrays(events)


def arrays(events: Sequence[Event]) -> tuple[Array, ...]:
    """Events as columns: at, trace_id, step, account_id, outbound_id, sender, recipient, message_id, detail."""
    return (
        Timestamps([event.at for event in events]),
        Texts([event.trace_id for event in events]),
        Texts([event.step for event in events]),
        Int8s([event.account_id for event in events]),
        Int8s([event.outbound_id for event in events]),
        Texts([address(event.sender) for event in events]),
        Texts([address(event.recipient) for event in events]),
        Texts([message_id(event.message_id) for event in events]),
        Texts([_json(event.detail) for event in events]),
    )


async def find(
    tx: Tx,
    text: str,
    limit: int = 20,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    before: str | None = None,
    steps: int = MAX_EVENTS,
    domains: Collection[str] | None = None,
) -> list[Found]:
    """The events of the newest `limit` messages that `text` names, message by message, each in order of time.

    `text` is a trace id, a sender's or recipient's address, a Message-ID (with or without <>), the IP address of a
    client or its network, a number of the outbound queue, or nothing: the newest of all; `before`: older than this
    trace. Of each message the first `steps`. With `domains`, only messages to these domains or from their accounts;
    which of a message's events their administrator may see, `timeline` knows.
    """
    text = text.strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
    names = _names(text, limit, since, until, before, steps) | {
        "client": _client(text),
        "outbound": number,
        "rows": min(limit, MAX_TRACES) * (20 if domains is None else 200),
        "domains": None if domains is None else sorted(domains),
    }
    return _found(await tx.fetch(FIND, names))


async def find_own(
    tx: Tx,
    account_id: int,
    addresses: Collection[str],
    text: str = "",
    limit: int = 20,
    *,
    manages: Collection[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    before: str | None = None,
    steps: int = MAX_EVENTS,
) -> list[Found]:
    """As `find`, among the messages to these addresses and those that the account itself sent, the newest 5,000.

    All events of these messages are returned: what the person may see of them, `timeline` knows. `manages`: domains
    that the person looks after, by whose addresses behind an alias a message is found as well.
    """
    names = _names(text.strip(), limit, since, until, before, steps) | {
        "account": account_id,
        "addresses": sorted({address(each) or "" for each in addresses}),
        "manages": sorted(manages),
        "rows": MAX_OWN,
    }
    return _found(await tx.fetch(FIND_OWN, names))


def _names(
    text: str, limit: int, since: datetime | None, until: datetime | None, before: str | None, steps: int
) -> dict[str, Any]:
    return {
        "before": address(before) or _AFTER_ALL,
        "text": address(text) or None,
        "address": address(text) or None,
        "message_id": message_id(text) or None,
        "all": not text,
        "since": since or _EVER[0],
        "until": until or _EVER[1],
        "traces": min(limit, MAX_TRACES),
        "steps": min(steps, MAX_EVENTS),
        "limit": MAX_EVENTS,
    }


def _found(rows: Sequence[Row]) -> list[Found]:
    return [Found(*(*row[:-1], json.loads(row[-1]))) for row in rows]


def _client(text: str) -> list[str]:
    """An IP address, or a network, as the steps have it: its own, and what is counted for its network; else nothing."""
    text = text.strip("[]")
    try:
        if "/" in text:
            return [str(ipaddress.ip_network(text, strict=False))]
        return [str(ipaddress.ip_address(text)), network(text)]
    except ValueError:
        return []


def network(client: str) -> str:
    """The network of a client's IP address, by which floods are counted; what is no address stays as it is."""
    try:
        ip = ipaddress.ip_address(client)
    except ValueError:
        return client
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 64), strict=False))


def address(address: str | None) -> str | None:
    """An address as it is stored and looked up."""
    return None if address is None else _clean(address.lower())[:MAX_KEY]


def message_id(text: str | None) -> str | None:
    """A Message-ID as it is stored and looked up: without its angle brackets."""
    return None if text is None else _clean(text.strip().removeprefix("<").removesuffix(">"))[:MAX_KEY]


def _clean(text: str) -> str:
    """Postgres keeps no NUL, and UTF-8 has no lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(detail: Mapping[str, Any]) -> str:
    try:
        text = _encode(detail)
    except (TypeError, ValueError):
        return _encode(_plain(detail))
    # Nearly always there is nothing to cut or to clean.
    return text if len(text) <= MAX_TEXT and text.isascii() and "\\u0000" not in text else _encode(_plain(detail))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value[:MAX_TEXT])
    if isinstance(value, Mapping):
        return {_clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(str(value)[:MAX_TEXT])
