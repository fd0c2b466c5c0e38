"""FETCH data items of RFC 3501, 9051, 3516 (BINARY), 7162, 8474, 8514, 8970: parse, and the label of the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailcore.wire.imap import response
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_FETCH_ITEMS, MAX_HEADER_FIELDS, MAX_PART_DEPTH
from mailcore.wire.imap.tokens import MAX_NUMBER64, Cursor


@dataclass(frozen=True, slots=True)
class Section:
    """What is between the brackets of BODY[...].

    `part` is () for the whole message. `text` is "" (everything), "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT",
    "TEXT" or "MIME" (only with a part). `fields` are header names as sent, for the two FIELDS forms.
    """

    part: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FetchAttr:
    """An item without parameters, its name in upper case.

    UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE RFC822 RFC822.HEADER RFC822.TEXT MODSEQ EMAILID
    THREADID SAVEDATE. RFC822 and RFC822.TEXT set \\Seen.
    """

    name: str


@dataclass(frozen=True, slots=True)
class FetchBody:
    """BODY[section]<offset.count> or BODY.PEEK[...]; without `peek` it sets \\Seen. `partial` is (offset, count)."""

    section: Section
    peek: bool = False
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FetchBinary:
    """BINARY[part]<offset.count> or BINARY.PEEK[...] (RFC 3516, 9051): the decoded content of a part."""

    part: tuple[int, ...]
    peek: bool = False
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FetchBinarySize:
    """BINARY.SIZE[part]: the decoded size."""

    part: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FetchPreview:
    """PREVIEW or PREVIEW (LAZY) (RFC 8970)."""

    lazy: bool = False


FetchItem = FetchAttr | FetchBody | FetchBinary | FetchBinarySize | FetchPreview

_ATTRS: dict[bytes, FetchItem] = {
    name: FetchAttr(name.decode())
    for name in (
        b"UID",
        b"FLAGS",
        b"INTERNALDATE",
        b"RFC822.SIZE",
        b"ENVELOPE",
        b"BODY",
        b"BODYSTRUCTURE",
        b"RFC822",
        b"RFC822.HEADER",
        b"RFC822.TEXT",
        b"MODSEQ",
        b"EMAILID",
        b"THREADID",
        b"SAVEDATE",
    )
}
_FAST = (FetchAttr("FLAGS"), FetchAttr("INTERNALDATE"), FetchAttr("RFC822.SIZE"))
_MACROS: dict[bytes, tuple[FetchItem, ...]] = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, FetchAttr("ENVELOPE")),
    b"FULL": (*_FAST, FetchAttr("ENVELOPE"), FetchAttr("BODY")),
}
_NAME = re.compile(rb"[A-Za-z0-9.]+")
_LAZY = re.compile(rb" \(LAZY\)", re.IGNORECASE)
_PART = re.compile(rb"[0-9]+(?:\.[0-9]+)*")
_SECTION_TEXT = re.compile(rb"(HEADER(?:\.FIELDS(?:\.NOT)?)?|TEXT|MIME)(?=[\] ])", re.IGNORECASE)
_HEADER_NAME = re.compile(rb"[\x20-\x7e]+")
_EXPECTED = "a FETCH item (FLAGS, UID, ENVELOPE, BODY[...], ...)"


def parse_items(cursor: Cursor) -> tuple[FetchItem, ...]:
    """FETCH's items: a macro, one item, or a parenthesised list. Without repeats. Raises ImapSyntaxError."""
    if cursor.looking_at(b"("):
        items = cursor.paren_list(lambda: parse_item(cursor), "FETCH items", limit=MAX_FETCH_ITEMS)
        return tuple(dict.fromkeys(items))
    start = cursor.pos
    macro = _MACROS.get(cursor.match(_NAME, _EXPECTED)[0].upper())
    if macro is not None:
        return macro
    cursor.pos = start
    return (parse_item(cursor),)


def parse_item(cursor: Cursor) -> FetchItem:
    """One item. Raises ImapSyntaxError."""
    start = cursor.pos
    name = cursor.match(_NAME, _EXPECTED)[0].upper()
    bracket = cursor.looking_at(b"[")
    if not bracket:
        attr = _ATTRS.get(name)
        if attr is not None:
            return attr
        if name == b"PREVIEW":
            lazy = _LAZY.match(cursor.text, cursor.pos)
            cursor.pos = lazy.end() if lazy else cursor.pos
            return FetchPreview(lazy is not None)
    elif name in (b"BODY", b"BODY.PEEK"):
        return FetchBody(_section(cursor), name == b"BODY.PEEK", _partial(cursor))
    elif name in (b"BINARY", b"BINARY.PEEK"):
        return FetchBinary(_part_only(cursor), name == b"BINARY.PEEK", _partial(cursor))
    elif name == b"BINARY.SIZE":
        return FetchBinarySize(_part_only(cursor))
    cursor.pos = start
    raise cursor.error(_EXPECTED)


def _part_numbers(cursor: Cursor) -> tuple[int, ...]:
    """1.2.3, or () when no digit stands here."""
    found = _PART.match(cursor.text, cursor.pos)
    if found is None:
        return ()
    numbers = found[0].split(b".", MAX_PART_DEPTH)
    if len(numbers) > MAX_PART_DEPTH or any(len(number) > 9 or number[0] == 48 for number in numbers):
        raise cursor.error("a part number such as 1.2")
    cursor.pos = found.end()
    return tuple(map(int, numbers))


def _part_only(cursor: Cursor) -> tuple[int, ...]:
    cursor.expect(b"[", "'['")
    part = _part_numbers(cursor)
    cursor.expect(b"]", "a part number and ']'")
    return part


def _section(cursor: Cursor) -> Section:
    cursor.expect(b"[", "'['")
    part = _part_numbers(cursor)
    if cursor.try_take(b"]"):
        return Section(part)
    expected = "']' or one of HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT, MIME"
    if part:
        cursor.expect(b".", expected)
    text = cursor.match(_SECTION_TEXT, expected)[1].decode("ascii").upper()
    if text == "MIME" and not part:
        raise ImapSyntaxError("MIME needs a part number: BODY[1.MIME]")
    fields: tuple[str, ...] = ()
    if text.startswith("HEADER.FIELDS"):
        cursor.space("a list of header names")
        fields = tuple(cursor.paren_list(lambda: _header_name(cursor), "header names", limit=MAX_HEADER_FIELDS))
    cursor.expect(b"]", "']'")
    return Section(part, text, fields)


def _header_name(cursor: Cursor) -> str:
    name = cursor.astring("a header name")
    if not _HEADER_NAME.fullmatch(name):
        raise ImapSyntaxError("A header name is printable ASCII")
    return name.decode("ascii")


def _partial(cursor: Cursor) -> tuple[int, int] | None:
    if not cursor.try_take(b"<"):
        return None
    offset = cursor.number("an offset", maximum=MAX_NUMBER64)
    cursor.expect(b".", "'.' and a count")
    count = cursor.number("a count", minimum=1, maximum=MAX_NUMBER64)
    cursor.expect(b">", "'>'")
    return offset, count


def sets_seen(item: FetchItem) -> bool:
    """Whether fetching this item sets \\Seen (RFC 9051 §6.4.5)."""
    match item:
        case FetchBody(peek=peek) | FetchBinary(peek=peek):
            return not peek
        case FetchAttr(name="RFC822" | "RFC822.TEXT"):
            return True
    return False


def label(item: FetchItem) -> bytes:
    """The item's name in the untagged FETCH answer, e.g. b'BODY[HEADER.FIELDS (FROM TO)]<0>'."""
    match item:
        case FetchAttr(name=name):
            return name.encode()
        case FetchPreview():
            return b"PREVIEW"
        case FetchBinarySize(part=part):
            return b"BINARY.SIZE[%b]" % _dotted(part)
        case FetchBinary(part=part, partial=partial):
            return b"BINARY[%b]%b" % (_dotted(part), _origin(partial))
        case FetchBody(section=section, partial=partial):
            words = [_dotted(section.part)] if section.part else []
            if section.text:
                names = b" ".join(response.astring(field) for field in section.fields)
                words.append(section.text.encode() + (b" (%b)" % names if names else b""))
            return b"BODY[%b]%b" % (b".".join(words), _origin(partial))


def _dotted(part: tuple[int, ...]) -> bytes:
    return ".".join(map(str, part)).encode()


def _origin(partial: tuple[int, int] | None) -> bytes:
    return b"<%d>" % partial[0] if partial else b""
