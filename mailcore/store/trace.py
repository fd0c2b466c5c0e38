"""The history of messages: one append-only line for each thing that happened to one, written with the thing itself."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailcore.arrays import Array, Int8s, Texts, Timestamps
from mailcore.db import Tx, sql

# Crockford's base 32 in lower case: sorts like the number, has no letters that are mistaken for digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARS = 9  # milliseconds, enough until the year 3084
_RANDOM_CHARS = 6
ID_LENGTH = _TIME_CHARS + _RANDOM_CHARS

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Words longer than this are cut: a trace is read by people, and a hostile remote may answer with a book.
MAX_TEXT = 1000
MAX_TRACES = 100
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

# The newest traces that a word leads to; each arm walks one index.
FIND = sql("""
    WITH hit AS (
        (SELECT trace_id, at FROM trace_event WHERE trace_id = %(text)s::text ORDER BY at DESC LIMIT 1)
        UNION ALL
        (SELECT trace_id, at FROM trace_event WHERE recipient = %(address)s::text ORDER BY at DESC LIMIT %(rows)s::int)
        UNION ALL
        (SELECT trace_id, at FROM trace_event WHERE sender = %(address)s::text ORDER BY at DESC LIMIT %(rows)s::int)
        UNION ALL
        (SELECT trace_id, at FROM trace_event WHERE message_id = %(message_id)s::text LIMIT %(rows)s::int)
        UNION ALL
        (SELECT trace_id, at FROM trace_event WHERE outbound_id = %(outbound)s::bigint LIMIT %(rows)s::int)
    ), newest AS (
        SELECT trace_id, max(at) AS last FROM hit GROUP BY trace_id ORDER BY last DESC LIMIT %(traces)s::int
    )
    SELECT e.at, e.trace_id, e.step, e.account_id, e.outbound_id, e.sender, e.recipient, e.message_id, e.detail::text
    FROM newest CROSS JOIN LATERAL (
        SELECT * FROM trace_event WHERE trace_event.trace_id = newest.trace_id ORDER BY at, id LIMIT %(limit)s::int
    ) AS e
    ORDER BY newest.last DESC, newest.trace_id, e.at, e.id""")


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


async def find(tx: Tx, text: str, limit: int = 20) -> list[Found]:
    """The events of the newest `limit` messages that `text` names, message by message, each in order of time.

    `text` is a trace id, a sender's or recipient's address, a Message-ID (with or without <>) or a number of the
    outbound queue.
    """
    text = text.strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
    names = {
        "text": address(text),
        "address": address(text),
        "message_id": message_id(text),
        "outbound": number,
        "traces": min(limit, MAX_TRACES),
        "rows": min(limit, MAX_TRACES) * 20,
        "limit": 2000,
    }
    rows = await tx.fetch(FIND, names)
    return [Found(*(*row[:-1], json.loads(row[-1]))) for row in rows]


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
