"""SEARCH keys as a tree of frozen dataclasses (RFC 9051 §6.4.4; RFC 5032 WITHIN, 7162, 8474, 8514)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mailcore.wire.imap.numset import SequenceSet


@dataclass(frozen=True, slots=True)
class And:
    """All of the keys match; never empty."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the two matches."""

    left: SearchKey
    right: SearchKey


@dataclass(frozen=True, slots=True)
class Not:
    """The key does not match."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class Flag:
    """SEEN/UNSEEN, ..., KEYWORD/UNKEYWORD, RECENT/OLD: a system flag ("\\Seen", "\\Recent") or keyword is set or not.

    NEW is And((Flag("\\Recent", True), Flag("\\Seen", False))).
    """

    flag: str
    is_set: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """FROM TO CC BCC SUBJECT BODY TEXT: the decoded field contains `value`, ignoring case. An empty value matches all."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Header:
    """HEADER name value: such a field exists and contains `value` (empty: exists)."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Date:
    """A day without time or zone. `which`: "internal", "sent" or "saved"; `op`: "before", "on" or "since" (inclusive)."""

    which: str
    op: str
    day: date


@dataclass(frozen=True, slots=True)
class Size:
    """`op` "larger" or "smaller" (both strict), octets."""

    op: str
    size: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """A bare sequence set (`uid` False) or UID set."""

    numbers: SequenceSet
    uid: bool


@dataclass(frozen=True, slots=True)
class Modseq:
    """MODSEQ (RFC 7162): modseq >= value. Entry name and type are checked, then dropped: we keep one modseq per message."""

    modseq: int


@dataclass(frozen=True, slots=True)
class Within:
    """OLDER/YOUNGER (RFC 5032): internal date against now minus `seconds`."""

    op: str
    seconds: int


@dataclass(frozen=True, slots=True)
class ObjectId:
    """EMAILID or THREADID (RFC 8474): `kind` is that word."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class SaveDateSupported:
    """SAVEDATESUPPORTED (RFC 8514): true when the mailbox keeps saved dates."""


Leaf = All | Flag | Text | Header | Date | Size | Numbers | Modseq | Within | ObjectId | SaveDateSupported
SearchKey = And | Or | Not | Leaf


def uses_modseq(key: SearchKey) -> bool:
    """Whether MODSEQ occurs in the tree; the answer then carries the highest modseq (RFC 7162 §3.1.5)."""
    raise NotImplementedError


def uses_sequence_numbers(key: SearchKey) -> bool:
    """Whether a bare sequence set occurs in the tree."""
    raise NotImplementedError
