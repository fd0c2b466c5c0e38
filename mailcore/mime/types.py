"""The values that the MIME scanner hands to the rest of Mailstead.

Every `str` here may be stored in a Postgres text column: no NUL, no lone surrogates.
Every offset is in octets from the start of the raw message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring as _json
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Addr:
    """One address for people (RFC 8621 EmailAddress): decoded display name, address as it was written."""

    name: str | None
    email: str


class Mailbox(NamedTuple):
    """One element of an address list (RFC 5322 §3.4) in raw, still RFC 2047 encoded octets.

    `mailbox=None, host=None` closes a group, `host=None` with a mailbox opens the group of that name
    (the convention of IMAP's ENVELOPE). A lone word without `@` has `host=b""`.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


class Summary(NamedTuple):
    """The header fields that lists of messages show, decoded. Stored as JSON in the message row."""

    subject: str | None = None
    from_: tuple[Addr, ...] = ()
    to: tuple[Addr, ...] = ()
    cc: tuple[Addr, ...] = ()
    bcc: tuple[Addr, ...] = ()
    sender: tuple[Addr, ...] = ()
    reply_to: tuple[Addr, ...] = ()
    message_id: tuple[str, ...] = ()
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sent_at: datetime | None = None
    base_subject: str = ""
    list_id: str | None = None

    def to_json(self) -> str:
        """Compact JSON: an array in field order, addresses as [name, email]."""
        people = (self.from_, self.to, self.cc, self.bcc, self.sender, self.reply_to)
        ids = (self.message_id, self.in_reply_to, self.references)
        return (
            f"[{_nullable(self.subject)},{','.join([_addrs(one) for one in people])},"
            f"{','.join([_strings(one) for one in ids])},"
            f"{_json(self.sent_at.isoformat()) if self.sent_at else 'null'},"
            f"{_json(self.base_subject)},{_nullable(self.list_id)}]"
        )

    @staticmethod
    def from_json(text: str) -> Summary:
        """The inverse of `to_json`."""
        subject, from_, to, cc, bcc, sender, reply_to, message_id, in_reply_to, references, sent_at, base, list_id = (
            json.loads(text)
        )
        return Summary(
            subject,
            _people(from_),
            _people(to),
            _people(cc),
            _people(bcc),
            _people(sender),
            _people(reply_to),
            tuple(message_id),
            tuple(in_reply_to),
            tuple(references),
            datetime.fromisoformat(sent_at) if sent_at else None,
            base,
            list_id,
        )


def _nullable(text: str | None) -> str:
    return "null" if text is None else _json(text)


def _addrs(people: Sequence[Addr]) -> str:
    if not people:
        return "[]"
    return f"[{','.join([f'[{_nullable(one.name)},{_json(one.email)}]' for one in people])}]"


def _strings(values: Sequence[str]) -> str:
    return f"[{','.join(map(_json, values))}]" if values else "[]"


def _people(rows: list[list[Any]]) -> tuple[Addr, ...]:
    return tuple([Addr(name, email) for name, email in rows])


class SearchText(NamedTuple):
    """What SEARCH reads, all of it folded (see `fold`). `header` has one field per line, `body` one line per part."""

    from_: str
    to: str
    cc: str
    bcc: str
    subject: str
    header: str
    body: str


class Part(NamedTuple):
    """One row of the part table. Rows are in the order of the message; a parent precedes its children.

    `header_start:body_start` is the part's MIME header with its blank line, `body_start:body_end` its encoded body.
    An embedded message (`is_message`) has one child row, which stands for that message: its `header_start` is this
    part's `body_start`.
    """

    id: str  # IMAP section number "1", "2.1"; "" for a multipart that is the whole body of a message
    parent: int  # index of the parent row, -1 for the root
    type: str  # lower case
    subtype: str  # lower case
    encoding: str  # content transfer encoding, lower case, "7bit" when not given
    header_start: int
    body_start: int
    body_end: int
    lines: int  # of the encoded body; counted for text and message parts, else 0
    size: int  # octets after transfer decoding (exact for well-formed parts)
    is_message: bool = False  # message/rfc822 or message/global whose embedded message follows as child
    charset: str | None = None  # as declared, lower case
    disposition: str | None = None  # lower case
    filename: str | None = None  # decoded (RFC 2231, RFC 2047), otherwise as written: clean it before use as a path
    cid: str | None = None  # Content-ID without <>
    location: str | None = None
    language: str | None = None
    flow: str | None = None  # "flowed" or "delsp" (RFC 3676 format=flowed without and with DelSp)


class Section(NamedTuple):
    """An IMAP section specifier (RFC 9051 §6.4.5.1): BODY[2.1.HEADER.FIELDS (SUBJECT)] is
    `Section((2, 1), "HEADER.FIELDS", frozenset({b"subject"}))`. A plain tuple does as well."""

    path: tuple[int, ...] = ()
    what: str = ""  # "" HEADER TEXT MIME HEADER.FIELDS HEADER.FIELDS.NOT
    names: frozenset[bytes] = frozenset()  # lower case


class Derived(NamedTuple):
    """Everything the store keeps beside the raw message; can be rebuilt from the raw octets at any time."""

    size: int  # octets of the message
    header_size: int  # octets of the header block with its blank line
    envelope: bytes  # IMAP ENVELOPE "(...)", RFC 9051 §7.5.2
    bodystructure: bytes  # IMAP BODYSTRUCTURE "(...)" with extension data
    parts: bytes  # packed part table, see `unpack_parts`
    field_index: bytes  # stored before `headers`: where each of its fields is, see `cached`
    headers: bytes  # raw lines of CACHED_FIELDS in order, without a blank line
    has_attachment: bool  # what a person would call an attachment
    summary: Summary
    text: SearchText
    preview: str  # at most 256 characters for the message list
