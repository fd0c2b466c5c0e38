"""What is searched for, and in which order: values that IMAP, JMAP and the webmail make and `store.search` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class Not:
    term: Criterion


@dataclass(frozen=True, slots=True)
class Flag:
    """All bits of `mask` are set, or with `on=False` not all of them."""

    mask: int
    on: bool = True


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword, compared case-insensitively."""

    word: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class Uids:
    """UIDs in any of the ranges (both ends included)."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """`words` occurs in a field: from, to, cc, bcc, subject, body, text (header and body) or header:NAME.

    An empty `words` finds the messages that have the field (header:NAME) or all messages.
    """

    field: str
    words: str


@dataclass(frozen=True, slots=True)
class Date:
    """Compare a date. A `date` compares days (internal and saved: in UTC; sent: as written), a `datetime` instants."""

    kind: Literal["internal", "sent", "saved"]
    op: Literal["<", ">=", "="]
    value: date | datetime


@dataclass(frozen=True, slots=True)
class Size:
    """Octets larger or smaller than `value`."""

    op: Literal["<", ">", ">="]
    value: int


@dataclass(frozen=True, slots=True)
class Modseq:
    """Changed at or after this modseq (RFC 7162 §3.1.5)."""

    value: int


@dataclass(frozen=True, slots=True)
class Emails:
    """Emails by id."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What the index has told: emails by number; instead of many of them a bit for each number that there is."""

    ids: tuple[int, ...]
    bits: bytes = b""


@dataclass(frozen=True, slots=True)
class Before:
    """Emails with a lower number."""

    id: int


@dataclass(frozen=True, slots=True)
class InThreads:
    """Emails of threads."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InMailbox:
    """Emails that are in at least one of these mailboxes; with `other`, in at least one that is not among them."""

    ids: tuple[int, ...]
    other: bool = False


@dataclass(frozen=True, slots=True)
class HasAttachment:
    on: bool = True


@dataclass(frozen=True, slots=True)
class ThreadKeyword:
    """Some (or with `every` all) emails of the thread have the flag bits or, if `word` is given, the keyword."""

    mask: int
    word: str | None = None
    every: bool = False


Criterion = (
    All
    | And
    | Or
    | Not
    | Flag
    | Keyword
    | Uids
    | Text
    | Date
    | Size
    | Modseq
    | Emails
    | Found
    | Before
    | InThreads
    | InMailbox
    | HasAttachment
    | ThreadKeyword
)


@dataclass(frozen=True, slots=True)
class Relevance:
    """Sort by how many of these texts a message has."""

    texts: tuple[Text, ...]


Sort = Sequence[tuple[str | Relevance, bool]]  # (key of search_sql.SORT_KEYS or Relevance, descending)
