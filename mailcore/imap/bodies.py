"""The FETCH items that need a message's own octets: which slices of it, read together, turned into literals."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

from mailcore.imap.errors import no
from mailcore.imap.render import Rows
from mailcore.mime import Part, Section, pick, section_range, unpack_parts
from mailcore.mime.decode import ENCODINGS, decode_transfer
from mailcore.wire.imap import response
from mailcore.wire.imap.fetch_item import FetchAttr, FetchBinary, FetchBinarySize, FetchBody, FetchItem, label

# Beyond the row's own columns; a whole message is found with these alone.
COLUMNS = ("message_id", "size")
_IDENTITY = frozenset(("7bit", "8bit", "binary"))
_WHOLE = {"RFC822": Section(), "RFC822.HEADER": Section((), "HEADER"), "RFC822.TEXT": Section((), "TEXT")}


@dataclass(frozen=True, slots=True)
class Piece:
    """Octets start..end of a message that answer an item. `finish` makes the value of them, else they are the value."""

    label: bytes
    start: int
    end: int
    finish: Callable[[bytes], bytes] | None = None

    @property
    def size(self) -> int:
        """Octets to read."""
        return self.end - self.start

    def answer(self, octets: bytes) -> bytes:
        """`label value`, from the octets of the slice."""
        if self.finish is not None:
            octets = self.finish(octets)
            if b"\0" in octets and self.label.startswith(b"BINARY"):
                return self.label + b" " + response.literal(octets, binary=True)
        return b"%b {%d}\r\n%b" % (self.label, len(octets), octets)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the body items of one command need of one message; ready answers and slices in the order of the items."""

    message_id: int
    answers: tuple[bytes | Piece, ...]
    size: int


def columns(items: Sequence[FetchItem]) -> tuple[str, ...]:
    """The columns that `wanted` reads."""
    if needs_parts(items):
        return (*COLUMNS, "header_size", "parts")
    whole = all(
        item.name == "RFC822" if isinstance(item, FetchAttr) else isinstance(item, FetchBody) and not item.section.text
        for item in items
    )
    return COLUMNS if whole else (*COLUMNS, "header_size")


def needs_parts(items: Sequence[FetchItem]) -> bool:
    """Whether the part table is needed."""
    return any(
        isinstance(item, FetchBinary | FetchBinarySize) or (isinstance(item, FetchBody) and item.section.part)
        for item in items
    )


def may_fail(items: Sequence[FetchItem]) -> bool:
    """Whether `wanted` may refuse a message."""
    return any(isinstance(item, FetchBinary | FetchBinarySize) for item in items)


def wanted(items: Sequence[FetchItem], rows: Rows) -> Iterator[Wanted]:
    """The slices of each message. Raises Refused (UNKNOWN-CTE)."""
    with_parts = needs_parts(items)
    readers = [_reader(item) for item in items]
    tables = map(unpack_parts, rows["parts"]) if with_parts else repeat([], len(rows))
    headers = rows["header_size"] if "header_size" in rows.columns else repeat(0, len(rows))
    for message_id, size, header_size, parts in zip(rows["message_id"], rows["size"], headers, tables, strict=True):
        answers = tuple([read(size, header_size, parts) for read in readers])
        yield Wanted(message_id, answers, sum([one.size for one in answers if isinstance(one, Piece)]))


def piece(item: FetchBody, size: int, header_size: int, parts: Any) -> Piece | None:
    """What a section is in one message, from its columns; None when there is no such part."""
    answer = _reader(item)(size, header_size, unpack_parts(parts))
    return answer if isinstance(answer, Piece) else None


Reader = Callable[[int, int, list[Part]], "bytes | Piece"]


def _reader(item: FetchItem) -> Reader:
    match item:
        case FetchBody():
            names = frozenset(name.lower().encode() for name in item.section.fields)
            return partial(_body, label(item), Section(item.section.part, item.section.text, names), item.partial)
        case FetchBinary(part=part, partial=cut):
            return partial(_binary, label(item), part, cut)
        case FetchBinarySize(part=part):
            return partial(_binary_size, label(item), part)
        case FetchAttr(name=name):
            return partial(_body, name.encode(), _WHOLE[name], None)
    raise TypeError(f"not an item of a message's octets: {item!r}")


def _body(
    name: bytes, section: Section, cut: tuple[int, int] | None, size: int, header_size: int, parts: list[Part]
) -> bytes | Piece:
    found: tuple[int, int] | None
    if section.path:
        found = section_range(parts, section)
    elif section.what.startswith("HEADER"):
        found = (0, header_size)
    else:
        found = (header_size if section.what == "TEXT" else 0, size)
    if found is None:
        return name + b" NIL"
    if section.what.startswith("HEADER.FIELDS"):
        return Piece(name, *found, partial(_picked, section, cut))
    return Piece(name, *_cut(*found, cut))


def _picked(section: Section, cut: tuple[int, int] | None, octets: bytes) -> bytes:
    value = pick(octets, section)
    start, end = _cut(0, len(value), cut)
    return value[start:end]


def _cut(start: int, end: int, cut: tuple[int, int] | None) -> tuple[int, int]:
    """What `<offset.count>` leaves of a range; empty beyond its end."""
    if cut is None:
        return start, end
    start = min(start + cut[0], end)
    return start, min(start + cut[1], end)


def _decodable(name: bytes, path: tuple[int, ...], parts: list[Part]) -> Part | None:
    part = next((part for part in parts if part.id == ".".join(map(str, path))), None)
    if part is not None and part.type == "multipart":
        return part._replace(encoding="binary")  # whatever it says: its parts were read as they are (RFC 2045 §6.4)
    if part is not None and part.encoding not in _IDENTITY and part.encoding not in ENCODINGS:
        raise no(f"{name.decode()} has an unknown content transfer encoding", "UNKNOWN-CTE")
    return part


def _binary(
    name: bytes, path: tuple[int, ...], cut: tuple[int, int] | None, size: int, header_size: int, parts: list[Part]
) -> bytes | Piece:
    if not path:
        return Piece(name, *_cut(0, size, cut), _as_is)
    part = _decodable(name, path, parts)
    if part is None:
        return name + b" NIL"
    if part.encoding in _IDENTITY:
        return Piece(name, *_cut(part.body_start, part.body_end, cut), _as_is)
    return Piece(name, part.body_start, part.body_end, partial(_decoded, part.encoding, cut))


def _as_is(octets: bytes) -> bytes:
    return octets


def _decoded(encoding: str, cut: tuple[int, int] | None, octets: bytes) -> bytes:
    value = decode_transfer(octets, encoding)
    start, end = _cut(0, len(value), cut)
    return value[start:end]


def _binary_size(name: bytes, path: tuple[int, ...], size: int, header_size: int, parts: list[Part]) -> bytes | Piece:
    if not path:
        return b"%b %d" % (name, size)
    part = _decodable(name, path, parts)
    return b"%b %d" % (name, part.size if part is not None else 0)


def assembler(
    group: Sequence[tuple[bytes, Wanted]], ends: Iterator[bytes], write: Callable[[list[bytes]], None]
) -> Generator[None, bytes | None, None]:
    """Takes the octets of a group's slices in order (None: it is gone), writes whole lines; `ends` close them."""
    for head, wanted in group:
        out = [head]
        for n, answer in enumerate(wanted.answers):
            if n:
                out.append(b" ")
            if isinstance(answer, bytes):
                out.append(answer)
                continue
            octets = yield
            if octets is None:
                out.append(answer.label + b" NIL")
            elif answer.finish is None:
                out += (b"%b {%d}\r\n" % (answer.label, len(octets)), octets)
            else:
                out.append(answer.answer(octets))
        out.append(next(ends))
        write(out)
    yield


def batches(messages: Sequence[tuple[Any, Wanted]], octets: int) -> Iterator[list[tuple[Any, Wanted]]]:
    """Neighbouring messages whose slices are about `octets` together; a larger message is alone."""
    batch: list[tuple[Any, Wanted]] = []
    total = 0
    for one in messages:
        if batch and total + one[1].size > octets:
            yield batch
            batch, total = [], 0
        batch.append(one)
        total += one[1].size
    if batch:
        yield batch
