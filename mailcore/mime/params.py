"""Parameters of Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2231), read leniently."""

from __future__ import annotations

import re

from mailcore.mime import charset
from mailcore.mime.headers import decode_header, tidy
from mailcore.mime.limits import MAX_PARAM, MAX_PARAMS

# A value without quotes may hold spaces (`name=My file.pdf`), but not the next `name=` when its `;` is missing.
_PARAM = re.compile(
    rb"(?<![^\s;])([^\s=;\"()]++)\s*+=\s*+"
    rb"(?:\"([^\"\\]*(?:\\.[^\"\\]*)*)\\?(?:\"|\Z)|([^\s;\"]*+(?:\s++(?![^\s=;\"]++\s*+=)[^\s;\"]++)*))",
    re.S,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.S)
_QUOTED_OR_COMMENT = re.compile(rb"\"[^\"\\]*(?:\\.[^\"\\]*)*\\?(?:\"|\Z)|\\.|[()]|[^\"\\()]+|\\", re.S)
_CONTINUED = re.compile(rb"(.+?)\*(?:(\d{1,4})(\*)?)?\Z", re.S)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_NOT_ATTRIBUTE = re.compile(rb"[^!#$&+\-.0-9A-Z^_`a-z{|}~]")


def without_comments(value: bytes) -> bytes:
    """A structured field value without its comments (RFC 5322 §3.2.2); quoted strings are kept."""
    if b"(" not in value:
        return value
    out: list[bytes] = []
    depth = 0
    for token in _QUOTED_OR_COMMENT.findall(value):
        if token == b"(":
            depth += 1
        elif token == b")" and depth:
            depth -= 1
        elif not depth:
            out.append(token)
    return b"".join(out)


def parse_params(text: bytes) -> list[tuple[bytes, bytes]]:
    """(lower-case name, value) of every parameter, in order, continuations joined (RFC 2231 §3 and §6).

    `text` is what follows the type, from its first `;` or white space. A name keeps its `*` when the value is in
    extended notation (`charset'language'%41...`); the first of equal names wins.
    """
    found: dict[bytes, bytes] = {}
    pieces: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for match in _PARAM.finditer(text):
        name, quoted, plain = match.groups()
        name = name.lower()
        value = _plain(name, plain) if quoted is None else _unquote(quoted)
        if b"*" in name and (continued := _CONTINUED.match(name)) and continued.group(2):
            base, number, extended = continued.groups()
            if base not in pieces:
                found.setdefault(base, b"")  # keeps the place of the parameter
            pieces.setdefault(base, {}).setdefault(int(number), (value, extended is not None))
        else:
            found.setdefault(name, value[:MAX_PARAM])
        if len(found) + sum(map(len, pieces.values())) >= MAX_PARAMS:
            break
    if not pieces:
        return list(found.items())
    return [
        _join(name, pieces[name]) if name in pieces and not value else (name, value) for name, value in found.items()
    ]


def _plain(name: bytes, value: bytes) -> bytes:
    """A value without quotes. Parentheses are a comment, except in file names, where they are meant."""
    if b"(" in value and not name.startswith((b"name", b"filename")):
        value = without_comments(value)
    return value.strip()


def _unquote(quoted: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted


def _join(name: bytes, pieces: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    """The value of `name*0`, `name*1*`, ...; pieces after a gap do not count."""
    values = []
    for number in range(len(pieces)):
        if number not in pieces:
            break
        values.append(pieces[number])
    if not any(extended for _, extended in values):
        return name, b"".join([value for value, _ in values])[:MAX_PARAM]
    escaped = [value if extended else _escape(value) for value, extended in values]
    if not values[0][1]:
        escaped.insert(0, b"''")
    return name + b"*", b"".join(escaped)[:MAX_PARAM]


def _escape(value: bytes) -> bytes:
    return _NOT_ATTRIBUTE.sub(lambda m: b"%%%02X" % m.group()[0], value)


def decoded_param(params: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a parameter for people: extended notation, RFC 2047 words (common though forbidden) or raw 8-bit."""
    plain = None
    for key, value in params:
        if key == name + b"*":
            return decode_extended(value) or None
        if key == name:
            plain = value
    return decode_header(plain) or None if plain is not None else None


def decode_extended(value: bytes) -> str:
    """RFC 2231 §4: `charset'language'text` with %XX octets."""
    label, quote, rest = value.partition(b"'")
    _, quote2, text = rest.partition(b"'")
    if not quote or not quote2:
        label, text = b"", value
    octets = _PERCENT.sub(lambda m: bytes([int(m.group(1), 16)]), text)
    return tidy(charset.decode(octets, label.decode("latin-1")))
