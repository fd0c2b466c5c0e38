"""Email/get (RFC 8621 §4.2): from the columns of the message row, and from slices of the raw message where these
do not do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mailcore import db, mime
from mailcore.jmap import bodies, headers, ids, limits, queries, values
from mailcore.jmap.blob_ids import message_blob_id
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import MethodError, bad_arguments
from mailcore.jmap.headers import Fields, Wanted
from mailcore.jmap.methods.common import wanted_ids
from mailcore.jmap.queries import Presence
from mailcore.mime import Part, Summary
from mailcore.store import fetch

METADATA = frozenset({"id", "blobId", "threadId", "mailboxIds", "keywords", "size", "receivedAt"})
PEOPLE = {"from": "from_", "to": "to", "cc": "cc", "bcc": "bcc", "sender": "sender", "replyTo": "reply_to"}
MESSAGE_IDS = {"messageId": "message_id", "inReplyTo": "in_reply_to", "references": "references"}
SUMMARY = frozenset(PEOPLE) | frozenset(MESSAGE_IDS) | {"subject", "sentAt"}
BODY_LISTS = frozenset({"textBody", "htmlBody", "attachments"})
STRUCTURE = BODY_LISTS | {"bodyStructure", "bodyValues"}
PROPERTIES = METADATA | SUMMARY | STRUCTURE | {"headers", "hasAttachment", "preview"}
DEFAULT = PROPERTIES - {"headers", "bodyStructure"}
# Rendering more text than this leaves the event loop.
INLINE_OCTETS = 300_000
INLINE_EMAILS = 500

FETCH = ("fetchTextBodyValues", "fetchHTMLBodyValues", "fetchAllBodyValues")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of each email."""

    properties: frozenset[str]
    headers: dict[str, Wanted]
    part_properties: frozenset[str]
    part_headers: dict[str, Wanted]
    fetch: Json
    max_value: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the message row that answer it."""
        wanted = ["id", "thread_id", "size", "received_at"]
        if self.properties & SUMMARY:
            wanted.append("summary")
        if self.properties & STRUCTURE:
            wanted.append("parts")
        if "preview" in self.properties:
            wanted.append("preview")
        if "hasAttachment" in self.properties:
            wanted.append("has_attachment")
        if self.header:
            wanted.append("header_size")
        return tuple(wanted)

    @property
    def header(self) -> bool:
        """Whether the message's header is needed beyond what the row knows of it."""
        return bool(self.headers) or "headers" in self.properties

    @property
    def part_header(self) -> bool:
        """Whether the MIME headers of parts are needed."""
        return bool(self.part_headers) or "headers" in self.part_properties


@dataclass(slots=True)
class Found:
    """An email's row, and what was read of its raw octets."""

    row: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    fields: Fields = field(default_factory=list)
    part_fields: dict[int, Fields] = field(default_factory=dict)
    pieces: dict[int, bytes] = field(default_factory=dict)


def question(args: Json) -> Question:
    """Read the arguments; raises invalidArguments."""
    names, asked = _split(values.strings(args, "properties"), PROPERTIES, DEFAULT)
    part_names, part_asked = _split(values.strings(args, "bodyProperties"), bodies.PROPERTIES, bodies.DEFAULT)
    # Without it a tree would be a leaf; the RFC has it always there.
    part_names |= {"subParts"}
    most = values.integer(args, "maxBodyValueBytes", 0) or limits.MAX_BODY_VALUE
    return Question(
        names | {"id"},
        asked,
        part_names,
        part_asked,
        {name: values.boolean(args, name) for name in FETCH},
        min(most, limits.MAX_BODY_VALUE),
    )


def _split(
    given: list[str] | None, known: frozenset[str], default: frozenset[str]
) -> tuple[frozenset[str], dict[str, Wanted]]:
    if given is None:
        return default, {}
    names, asked = [], {}
    for name in given:
        if name.startswith("header:"):
            asked[name] = headers.wanted(name)
        elif name in known:
            names.append(name)
        else:
            raise bad_arguments(f"there is no property {name[:100]}")
    if len(asked) > 100:
        raise MethodError("requestTooLarge", "too many header properties")
    return frozenset(names), asked


@method("Email/get", MAIL, "ids", "properties", "bodyProperties", "maxBodyValueBytes", *FETCH)
async def get(context: Context, args: Json) -> Json:
    """Emails by id with the properties asked for."""
    wanted = wanted_ids(args)
    if wanted is None:
        raise MethodError("requestTooLarge", "name the emails by their ids")
    asked = question(args)
    numbers, missing = ids.numbers_of(wanted, "M")
    async with db.read() as tx:
        state = await context.state(tx)
        present = await queries.presences(tx, context.account_id, list(numbers))
        found = await _rows(tx, context.account_id, present, asked)
        octets = await _read(tx, context.account_id, found, asked) if found else 0
    if octets > INLINE_OCTETS or len(found) > INLINE_EMAILS:
        emails = await asyncio.to_thread(_render, found, present, asked)
    else:
        emails = _render(found, present, asked)
    return {
        "state": state,
        "list": [emails[number] for number in numbers if number in emails],
        "notFound": missing + [given for number, given in numbers.items() if number not in emails],
    }


async def _rows(tx: db.Tx, account_id: int, present: Iterable[int], asked: Question) -> dict[int, Found]:
    wanted = list(present)
    if not wanted:
        return {}
    columns = asked.columns
    rows = await fetch.messages(tx, account_id, wanted, columns)
    found = {row[0]: Found(dict(zip(columns, row, strict=True))) for row in rows}
    if "parts" in columns:
        for one in found.values():
            one.parts = mime.unpack_parts(bytes(one.row["parts"]))
    return found


async def _read(tx: db.Tx, account_id: int, found: dict[int, Found], asked: Question) -> int:
    """Fill in headers and bodies from the raw messages, a slice for each; returns how many octets that were."""
    pieces: list[tuple[int, int, int]] = []
    takers: list[Callable[[bytes], None]] = []
    for number, one in found.items():
        if asked.header:
            pieces.append((number, 0, min(int(one.row["header_size"]), limits.MAX_HEADER)))
            takers.append(_header_taker(one))
        for row in _header_rows(one, asked):
            part = one.parts[row]
            pieces.append((number, part.header_start, min(part.body_start - part.header_start, limits.MAX_HEADER)))
            takers.append(_fields_taker(one, row))
        if "bodyValues" in asked.properties:
            for row in bodies.value_rows(one.parts, asked.fetch):
                part = one.parts[row]
                pieces.append((number, part.body_start, bodies.octets_for(part, asked.max_value)))
                takers.append(_piece_taker(one, row))
    total = sum(length for _, _, length in pieces)
    if total > limits.MAX_BODY_OCTETS:
        raise MethodError("requestTooLarge", "so many bodies do not fit into one answer: ask for fewer emails")
    if pieces:
        for take, octets in zip(takers, await fetch.slices(tx, account_id, pieces), strict=True):
            take(bytes(octets or b""))
    return total


def _header_rows(one: Found, asked: Question) -> Iterable[int]:
    if not asked.part_header or not asked.properties & (BODY_LISTS | {"bodyStructure"}):
        return ()
    return bodies.outer_rows(one.parts)


def _header_taker(one: Found) -> Callable[[bytes], None]:
    def take(block: bytes) -> None:
        one.fields = headers.fields_of(block)

    return take


def _fields_taker(one: Found, row: int) -> Callable[[bytes], None]:
    def take(block: bytes) -> None:
        one.part_fields[row] = headers.fields_of(block)

    return take


def _piece_taker(one: Found, row: int) -> Callable[[bytes], None]:
    def take(piece: bytes) -> None:
        one.pieces[row] = piece

    return take


def _render(found: dict[int, Found], present: dict[int, Presence], asked: Question) -> dict[int, Json]:
    return {number: _email(number, one, present[number], asked) for number, one in found.items()}


def _email(number: int, one: Found, presence: Presence, asked: Question) -> Json:
    names, row = asked.properties, one.row
    email: Json = {"id": ids.email(number)}
    if "blobId" in names:
        email["blobId"] = message_blob_id(number)
    if "threadId" in names:
        email["threadId"] = ids.thread(row["thread_id"])
    if "mailboxIds" in names:
        email["mailboxIds"] = {ids.mailbox(mailbox): True for mailbox in presence.mailboxes}
    if "keywords" in names:
        email["keywords"] = presence.keywords
    if "size" in names:
        email["size"] = row["size"]
    if "receivedAt" in names:
        email["receivedAt"] = values.utc(row["received_at"])
    if "summary" in row:
        _summary(email, Summary.from_json(row["summary"]), names)
    for name, column in (("hasAttachment", "has_attachment"), ("preview", "preview")):
        if name in names:
            email[name] = row[column]
    if "headers" in names:
        email["headers"] = headers.every(one.fields)
    for prop, wanted in asked.headers.items():
        email[prop] = headers.value_of(one.fields, wanted)
    if names & STRUCTURE:
        _bodies(email, number, one, asked)
    return email


def _summary(email: Json, summary: Summary, names: frozenset[str]) -> None:
    for prop, attribute in PEOPLE.items():
        if prop in names:
            email[prop] = [headers.person(addr) for addr in getattr(summary, attribute)] or None
    for prop, attribute in MESSAGE_IDS.items():
        if prop in names:
            email[prop] = list(getattr(summary, attribute)) or None
    if "subject" in names:
        email["subject"] = summary.subject
    if "sentAt" in names:
        email["sentAt"] = values.date(summary.sent_at) if summary.sent_at else None


def _bodies(email: Json, number: int, one: Found, asked: Question) -> None:
    def show(row: int) -> Json:
        return bodies.shown(number, one.parts[row], asked.part_properties, asked.part_headers, one.part_fields.get(row))

    if "bodyStructure" in asked.properties:
        email["bodyStructure"] = bodies.structure(one.parts, show, "subParts" in asked.part_properties)
    if asked.properties & BODY_LISTS:
        for name, rows in bodies.lists(one.parts).items():
            if name in asked.properties:
                email[name] = [show(row) for row in rows]
    if "bodyValues" in asked.properties:
        email["bodyValues"] = {
            one.parts[row].id: bodies.value(one.parts[row], piece, asked.max_value) for row, piece in one.pieces.items()
        }
