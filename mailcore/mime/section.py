"""Pieces of a message by IMAP section specifier (RFC 9051 §6.4.5.1), as byte ranges of the raw message."""

from __future__ import annotations

from mailcore.mime.headers import header_fields
from mailcore.mime.types import Part, Section

_Spec = Section | tuple[tuple[int, ...], str, frozenset[bytes]]


def section_range(parts: list[Part], spec: _Spec) -> tuple[int, int] | None:
    """(start, end) of the octets that `spec` names, so that only this slice need be read. None: there is no such part.

    For HEADER.FIELDS and HEADER.FIELDS.NOT the range of the header that they are picked from.
    """
    path, what, _ = spec
    if not parts:
        return None
    if not path:
        holder = parts[0]
        message = holder
    else:
        row = _find(parts, path)
        if row is None:
            return None
        holder = parts[row]
        if what == "":
            return holder.body_start, holder.body_end
        if what == "MIME":
            return holder.header_start, holder.body_start
        if not holder.is_message:
            return None
        message = parts[row + 1]  # the embedded message
    if what == "":
        return message.header_start, message.body_end
    if what == "TEXT":
        return message.body_start, message.body_end
    if what.startswith("HEADER"):
        return message.header_start, message.body_start
    return None


def _find(parts: list[Part], path: tuple[int, ...]) -> int | None:
    wanted = ".".join(map(str, path))
    for row, part in enumerate(parts):
        if part.id == wanted:
            return row
    return None


def section(raw: bytes, parts: list[Part], spec: _Spec) -> bytes | None:
    """The octets of IMAP's BODY[spec]; None when there is no such part (IMAP answers NIL)."""
    found = section_range(parts, spec)
    if found is None:
        return None
    return pick(raw[found[0] : found[1]], spec)


def pick(piece: bytes, spec: _Spec) -> bytes:
    """The answer to `spec` from the octets of its `section_range`: picks the fields of HEADER.FIELDS[.NOT]."""
    _, what, names = spec
    if what == "HEADER.FIELDS":
        return header_fields(piece, names)
    if what == "HEADER.FIELDS.NOT":
        return header_fields(piece, names, exclude=True)
    return piece
