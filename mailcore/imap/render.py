"""FETCH answers from rows of the store, a whole chunk of messages at a time.

Items that one or two columns answer are rendered column by column: one template per command, filled by `map` over the
columns, so that ten thousand lines cost milliseconds. Sections of messages are added by `bodies`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache, partial
from itertools import compress, repeat
from typing import Any

from mailcore.db import Row
from mailcore.imap.selected import Selected
from mailcore.mime import CACHED_FIELDS, body_from, picker
from mailcore.store.flags import SYSTEM_FLAGS, FlagRow
from mailcore.wire.imap import response
from mailcore.wire.imap.fetch_item import FetchAttr, FetchBody, FetchItem, FetchPreview, label

_SYSTEM = tuple(
    " ".join(name for name, bit in SYSTEM_FLAGS.items() if mask & bit).encode()
    for mask in range(2 ** len(SYSTEM_FLAGS))
)


def flags(mask: int, keywords: Sequence[str] | None = None, *, recent: bool = False) -> bytes:
    """What stands between the parentheses of FLAGS."""
    names = _SYSTEM[mask]
    if not keywords and not recent:
        return names
    words = [names] if names else []
    if recent:
        words.append(b"\\Recent")
    words += [word.encode("ascii", "replace") for word in keywords or ()]
    return b" ".join(words)


def flag_lines(rows: Iterable[tuple[int, FlagRow]], view: Selected, *, uid: bool, modseq: bool) -> bytes:
    """* n FETCH (FLAGS (...)), or UIDFETCH, for (sequence number, (uid, modseq, flags, keywords)) rows."""
    recent = view.is_recent if view.recent else _never
    uid = uid and not view.uid_only
    name, rest = b"UIDFETCH" if view.uid_only else b"FETCH", b" MODSEQ (%d)" if modseq else b""
    template = b"* %%d %b (%bFLAGS (%%b)%b)\r\n" % (name, b"UID %d " if uid else b"", rest)
    lines = []
    for seq, (number, changed, mask, keywords) in rows:
        values: tuple[Any, ...] = (seq, number) if uid else (number if view.uid_only else seq,)
        values += (flags(mask, keywords, recent=recent(number)),)
        lines.append(template % (values + (changed,) if modseq else values))
    return b"".join(lines)


def _never(uid: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of messages: sequence numbers and columns."""

    columns: Mapping[str, Sequence[Any]]
    seqs: Sequence[int]
    view: Selected

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Row], seqs: Sequence[int], view: Selected) -> Rows:
        """Rows of the store, with their sequence numbers."""
        columns = zip(*rows, strict=True) if rows else repeat(())
        return cls(dict(zip(names, columns, strict=False)), seqs, view)

    def pieces(self, first: int, size: int) -> Iterator[Rows]:
        """The messages in order, at most `size` at a time (`first` the first time)."""
        at = 0
        while at < len(self):
            piece = slice(at, at + (size if at else first))
            columns = {name: column[piece] for name, column in self.columns.items()}
            yield Rows(columns, self.seqs[piece], self.view)
            at = piece.stop

    def only(self, keep: Sequence[bool]) -> Rows:
        """The messages to keep."""
        columns = {name: tuple(compress(column, keep)) for name, column in self.columns.items()}
        return Rows(columns, tuple(compress(self.seqs, keep)), self.view)

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.seqs)


Values = tuple[Iterable[Any], ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A FETCH item that columns answer: its text with one placeholder for each of `values(rows)`.

    `fixed`: the answer is the same for ever, in every mailbox that holds the message.
    """

    text: bytes
    columns: tuple[str, ...]
    values: Callable[[Rows], Values]
    fixed: bool = False


def _column(text: bytes, name: str, convert: Callable[[Any], Any] | None = None, *, fixed: bool = False) -> Item:
    if convert is None:
        return Item(text, (name,), lambda rows: (rows[name],), fixed)
    return Item(text, (name,), lambda rows: (map(convert, rows[name]),), fixed)


def _flag_values(rows: Rows) -> Values:
    masks, keywords, view = rows["flags"], rows["keywords"], rows.view
    if view.recent:
        return ([flags(m, k, recent=view.is_recent(u)) for m, k, u in zip(masks, keywords, rows["uid"], strict=True)],)
    if any(keywords):
        return (map(flags, masks, keywords),)
    return (map(_SYSTEM.__getitem__, masks),)


@lru_cache(maxsize=4096)
def _day(ordinal: int) -> bytes:
    midnight = datetime.combine(date.fromordinal(ordinal), time(), UTC)
    return response.internaldate(midnight)[:12]


_MINUTES = tuple(b" %02d:%02d:" % divmod(minute, 60) for minute in range(24 * 60))
_SECONDS = tuple(b'%02d +0000"' % second for second in range(60))


def _internaldate(when: datetime) -> bytes:
    """response.internaldate for the store's dates, which are in UTC, at a fifth of its cost."""
    return _day(when.toordinal()) + _MINUTES[when.hour * 60 + when.minute] + _SECONDS[when.second]


def _saved(when: datetime | None) -> bytes:
    return b"NIL" if when is None else _internaldate(when)


def _object_ids(template: bytes, name: str, rows: Rows) -> Values:
    return (map((template + rows.view.id_end).__mod__, rows[name]),)


_COLUMN_ITEMS: dict[str, Item] = {
    "UID": _column(b"UID %d", "uid"),
    "FLAGS": Item(b"FLAGS (%b)", ("flags", "keywords"), _flag_values),
    "INTERNALDATE": _column(b"INTERNALDATE %b", "internal_date", _internaldate),
    "RFC822.SIZE": _column(b"RFC822.SIZE %d", "size"),
    "ENVELOPE": _column(b"ENVELOPE %b", "envelope", fixed=True),
    "BODYSTRUCTURE": _column(b"BODYSTRUCTURE %b", "bodystructure", fixed=True),
    "BODY": _column(b"BODY %b", "bodystructure", body_from, fixed=True),
    "MODSEQ": _column(b"MODSEQ (%d)", "modseq"),
    "EMAILID": Item(b"EMAILID (%b)", ("message_id",), partial(_object_ids, b"M%d", "message_id")),
    "THREADID": Item(b"THREADID (%b)", ("thread_id",), partial(_object_ids, b"T%d", "thread_id")),
    "SAVEDATE": _column(b"SAVEDATE %b", "saved_at", _saved),
}


def column_item(item: FetchItem, *, utf8: bool) -> Item | None:
    """How columns answer an item; None for one that needs the message itself."""
    match item:
        case FetchAttr(name=name):
            return _COLUMN_ITEMS.get(name)
        case FetchPreview():
            return _column(b"PREVIEW %b", "preview", partial(response.string, utf8=utf8), fixed=True)
        case FetchBody(section=section, partial=None) if not section.part and section.text == "HEADER.FIELDS":
            names = frozenset(name.lower().encode() for name in section.fields)
            if names <= CACHED_FIELDS:
                values = partial(_header_values, picker(names))
                return Item(percent(label(item)) + b" {%d}\r\n%b", ("headers",), values, True)
    return None


def _header_values(pick: Callable[[bytes], bytes], rows: Rows) -> Values:
    picked = list(map(pick, rows["headers"]))
    return map(len, picked), picked


def percent(text: bytes) -> bytes:
    """Text as part of a template."""
    return text.replace(b"%", b"%%")


@lru_cache(maxsize=256)
def _template(start: bytes, texts: tuple[bytes, ...], end: bytes) -> bytes:
    return start + b" ".join(texts) + end


def lines(
    items: Sequence[Item], rows: Rows, tails: Sequence[bytes] | None = None, end: bytes = b")\r\n"
) -> list[bytes]:
    """One `* n FETCH (...` per message: items, then its tail; `end` closes the line, or is b" " when more follows."""
    if not len(rows):
        return []
    values = [column for item in items for column in item.values(rows)]
    if tails is not None:
        values.append(tails)
        end = (b" %b" if items else b"%b") + end
    start, numbers = (b"* %d UIDFETCH (", rows["uid"]) if rows.view.uid_only else (b"* %d FETCH (", rows.seqs)
    template = _template(start, tuple(item.text for item in items), end)
    return list(map(template.__mod__, zip(numbers, *values, strict=True)))


def tails(items: Sequence[Item], rows: Rows) -> list[bytes]:
    """What fixed items say of each message."""
    if not len(rows):
        return []
    values = [column for item in items for column in item.values(rows)]
    return list(map(_template(b"", tuple(item.text for item in items), b"").__mod__, zip(*values, strict=True)))
