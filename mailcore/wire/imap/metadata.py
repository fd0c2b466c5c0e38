"""METADATA on the wire (RFC 5464): entries and values as arguments, the METADATA response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import StreamedLiteral
from mailcore.wire.imap.response import NIL, astring, literal, mailbox, paren, string, untagged_line
from mailcore.wire.imap.tokens import Cursor

MAX_ENTRIES = 100  # of one command
MAX_ENTRY_OCTETS = 255
_DEPTHS = {"0": 0, "1": 1, "INFINITY": None}
_ROOTS = ("/private", "/shared")


@dataclass(frozen=True, slots=True)
class GetMetadataArgs:
    """GETMETADATA; mailbox "" is the server. `depth` levels below an entry count, None = all of them."""

    mailbox: str
    entries: tuple[str, ...]
    maxsize: int | None = None
    depth: int | None = 0


@dataclass(frozen=True, slots=True)
class SetMetadataArgs:
    """SETMETADATA: values by entry, None = NIL = remove."""

    mailbox: str
    values: Mapping[str, bytes | None]


def parse_get(cursor: Cursor) -> GetMetadataArgs:
    """GETMETADATA [(MAXSIZE n DEPTH d)] mailbox entries; the options also where the RFC's examples have them."""
    cursor.space("a mailbox name")
    options: dict[str, int | None] = {}
    if cursor.looking_at(b"("):
        options = _options(cursor)
        cursor.space("a mailbox name")
    name = cursor.mailbox()
    cursor.space("entries")
    if cursor.looking_at(b"(") and not cursor.looking_at(b"(/") and not cursor.looking_at(b'("') and not options:
        options = _options(cursor)
        cursor.space("entries")
    return GetMetadataArgs(name, entries(cursor), options.get("MAXSIZE"), options.get("DEPTH", 0))


def _options(cursor: Cursor) -> dict[str, int | None]:
    found: dict[str, int | None] = {}

    def option() -> None:
        name = cursor.one_of(frozenset(("MAXSIZE", "DEPTH")) - found.keys(), "an option")
        cursor.space("its value")
        if name == "MAXSIZE":
            found[name] = cursor.number("a number of octets")
        else:
            found[name] = _DEPTHS[cursor.one_of(frozenset(_DEPTHS), "a depth")]

    cursor.paren_list(option, "options", limit=2)
    return found


def parse_set(cursor: Cursor) -> SetMetadataArgs:
    """SETMETADATA mailbox (entry value ...)."""
    cursor.space("a mailbox name")
    name = cursor.mailbox()
    cursor.space("entries and values")
    values: dict[str, bytes | None] = {}

    def pair() -> None:
        key = entry(cursor)
        if key in _ROOTS:
            raise ImapSyntaxError(f"{key} is no entry")
        cursor.space("a value or NIL")
        values[key] = _value(cursor)

    cursor.paren_list(pair, "entries and values", limit=MAX_ENTRIES)
    return SetMetadataArgs(name, values)


def entries(cursor: Cursor) -> tuple[str, ...]:
    """One entry, or several in parentheses."""
    if cursor.looking_at(b"("):
        found = cursor.paren_list(lambda: entry(cursor), "entries", limit=MAX_ENTRIES)
    else:
        found = [entry(cursor)]
    return tuple(dict.fromkeys(found))


def entry(cursor: Cursor) -> str:
    """An entry's name in lower case (RFC 5464 §3.2): /private/... or /shared/..., of printable ASCII."""
    raw = cursor.astring("an entry such as /private/comment")
    name = raw.decode("ascii", "replace").lower()
    problem = None
    if len(raw) > MAX_ENTRY_OCTETS:
        problem = f"has {MAX_ENTRY_OCTETS} octets at most"
    elif not name.startswith(tuple(f"{root}/" for root in _ROOTS)) and name not in _ROOTS:
        problem = "begins with /private/ or /shared/"
    elif name.endswith("/") or "//" in name:
        problem = "has no empty part"
    elif not all(" " <= char < "\x7f" for char in name) or "*" in name or "%" in name:
        problem = "holds neither '*', '%' nor what is not printable ASCII"
    if problem is not None:
        raise ImapSyntaxError(f"An entry's name {problem}")
    return name


def _value(cursor: Cursor) -> bytes | None:
    found = cursor.take_literal()
    if found is None:
        return cursor.nstring("a value or NIL")
    if isinstance(found, StreamedLiteral):
        raise ImapSyntaxError("A message cannot stand here")
    if b"\0" in found.data and not found.binary:
        raise ImapSyntaxError("A literal contains NUL: a value with NUL is sent as ~{size}")
    return found.data


def metadata_line(name: str, values: Mapping[str, bytes | None], *, utf8: bool = False) -> bytes:
    """* METADATA INBOX (/shared/comment "text" /private/comment NIL)."""
    pairs = paren(astring(key) + b" " + _written(value) for key, value in values.items())
    return untagged_line(b"METADATA", _name(name, utf8), pairs)


def changed_line(name: str, keys: Iterable[str], *, utf8: bool = False) -> bytes:
    """* METADATA INBOX /shared/comment: entries that have another value now (RFC 5464 §4.4.2)."""
    return untagged_line(b"METADATA", _name(name, utf8), *map(astring, keys))


def _name(name: str, utf8: bool) -> bytes:
    return mailbox(name, utf8=utf8) if name else b'""'


def _written(value: bytes | None) -> bytes:
    if value is None:
        return NIL
    return literal(value, binary=True) if b"\0" in value else string(value)
