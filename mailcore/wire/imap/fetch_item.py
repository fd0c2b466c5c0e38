"""FETCH data items of RFC 3501, 9051, 3516 (BINARY), 7162, 8474, 8514, 8970: parse, and the label of the answer."""

from __future__ import annotations

from dataclasses import dataclass


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


def sets_seen(item: FetchItem) -> bool:
    """Whether fetching this item sets \\Seen (RFC 9051 §6.4.5)."""
    raise NotImplementedError


def label(item: FetchItem) -> bytes:
    """The item's name in the untagged FETCH answer, e.g. b'BODY[HEADER.FIELDS (FROM TO)]<0>'."""
    raise NotImplementedError
