"""Content transfer encodings (RFC 2045 §6): octets of a part as they were meant, from whatever is there."""

from __future__ import annotations

import binascii
import re

from mailcore.mime import charset
from mailcore.mime.types import Part

_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\r\n]*\r?\n", re.M)
_LINE = re.compile(rb"([^\r\n]*+)\r?\n?")
_MAX_DAMAGED_LINES = 1_000
_META_CHARSET = re.compile(rb"<meta\s[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_:.-]{1,40})", re.I)


def base64_octets(data: bytes) -> bytes:
    """Decoded base64, tolerant: junk is skipped, missing padding supplied, text after the padding ignored."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        kept = data.translate(None, _NOT_BASE64)
        kept = kept[: len(kept) - (len(kept) % 4 == 1)]
        return binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))


def uudecoded(data: bytes, limit: int | None = None) -> bytes:
    """The file between `begin` and `end`, not much more than `limit` octets; without a `begin` line the data itself."""
    begin = _UU_BEGIN.search(data)
    if not begin:
        return data
    out: list[bytes] = []
    room = len(data) if limit is None else limit
    damaged = 0
    for match in _LINE.finditer(data, begin.end()):
        line = match.group(1)
        if line == b"end" or not line or room <= 0:
            break
        # The length says how much counts: some encoders append a check character or drop spaces at the end.
        octets = (line[0] - 32) & 63
        if not octets:
            break
        room -= octets
        needed = (octets + 2) // 3 * 4
        try:
            out.append(binascii.a2b_uu(line[: 1 + needed].ljust(1 + needed)))
        except binascii.Error:
            damaged += 1
            if damaged > _MAX_DAMAGED_LINES:
                break
    return b"".join(out)


UUENCODE = frozenset(("x-uuencode", "uuencode", "x-uue", "uue"))
ENCODINGS = UUENCODE | {"base64", "quoted-printable"}


def decode_transfer(data: bytes, encoding: str) -> bytes:
    """`data` without its content transfer encoding; unknown encodings are the identity. Never raises."""
    if encoding == "base64":
        return base64_octets(data)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(data)
    return uudecoded(data) if encoding in UUENCODE else data


def decode_range(raw: bytes, start: int, end: int, encoding: str, limit: int) -> bytes:
    """The first `limit` decoded octets of `raw[start:end]`, at a cost in proportion to them."""
    if encoding in ENCODINGS:
        if encoding in UUENCODE:
            return uudecoded(raw[start:end], limit)[:limit]
        most = 3 * limit + 1024  # line breaks and junk aside, an encoding takes at most three octets for one
        if end - start > most:
            end = start + most
            if encoding == "quoted-printable" and (cut := raw.rfind(b"=", end - 2, end)) >= 0:
                end = cut
        return decode_transfer(raw[start:end], encoding)[:limit]
    return raw[start : min(end, start + limit)]


def decode_part(raw: bytes, part: Part, limit: int) -> bytes:
    """The first `limit` octets of a part's body without its transfer encoding. Works around damage, never raises."""
    return decode_range(raw, part.body_start, part.body_end, part.encoding, limit)


def decode_text(raw: bytes, part: Part, limit: int) -> str:
    """The first `limit` characters of a text part, without transfer encoding and charset. Never raises.

    Lines end as in the message. An HTML part without a charset may declare it in a <meta> element.
    """
    return text_of(decode_part(raw, part, 4 * limit), part.charset, part.subtype)[:limit]


def text_of(data: bytes, label: str | None, subtype: str) -> str:
    """Text of the decoded octets of a text part with the declared charset `label`."""
    if label is None and subtype == "html" and (match := _META_CHARSET.search(data, 0, 2048)):
        label = match.group(1).decode("ascii")
        if label.lower().startswith("utf-16"):  # it could not have been read then
            label = None
    return charset.decode(data, label)
