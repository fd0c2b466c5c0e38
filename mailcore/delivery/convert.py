"""Messages in eight bits or in binary for hosts that take neither (RFC 6152 §3, RFC 3030 §3).

Only what has to change does: the bodies of single parts are encoded, quoted-printable or base64, and the fields that
say so. What is signed (multipart/signed) must not be touched, and a header that is not ASCII cannot be said otherwise:
such mail is returned.
"""

from __future__ import annotations

import base64
import binascii
import re

from mailcore import mime
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict
from mailcore.mime.headers import fields
from mailcore.mime.parts import unpack_parts
from mailcore.mime.types import Part

_NEWLINE = re.compile(rb"\r\n|\r|\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_IDENTITY = frozenset(("7bit", "8bit", "binary"))
_Piece = tuple[int, int, bytes]


def to_seven_bit(raw: bytes) -> bytes:
    """The message in ASCII with CRLF line ends. Raises Undeliverable (5.6.3) where that would change what is signed
    or cannot be done."""
    converted = _convert(raw, eight_bit=False)
    if not converted.isascii() or _BARE.search(converted):
        raise _impossible("a header field, or what stands outside of its parts, is not ASCII")
    return converted


def to_text(raw: bytes) -> bytes:
    """The message as 8-bit text with CRLF line ends: binary parts are encoded. Raises Undeliverable (5.6.3)."""
    converted = _convert(raw, eight_bit=True)
    if _BARE.search(converted):
        raise _impossible("what stands outside of its parts is binary")
    return converted


def _convert(raw: bytes, *, eight_bit: bool) -> bytes:
    parts = unpack_parts(mime.parse(raw).parts)
    parents = {part.parent for part in parts}
    clean = _BARE.search(raw) is None  # as it mostly is: then no part is searched again
    pieces: list[_Piece] = []
    for row, part in enumerate(parts):
        body = raw[part.body_start : part.body_end]
        if not _must_change(part, body, eight_bit, clean):
            continue
        if _is_signed(parts, row):
            raise _impossible("a part that is signed would have to be changed")
        if row in parents:
            # It holds others, which are encoded by themselves; itself it may only be called what they are then.
            pieces += _relabelled(raw, parts, row, "8bit" if eight_bit else "7bit")
            continue
        if part.type == "multipart" or part.type == "message":
            raise _impossible(f"a part of type {part.type}/{part.subtype} cannot be encoded")
        encoding = _encoding_for(part, body)
        pieces += _relabelled(raw, parts, row, encoding)
        pieces.append((part.body_start, part.body_end, _encoded(body, encoding, part.body_end == len(raw))))
    return _spliced(raw, pieces)


def _must_change(part: Part, body: bytes, eight_bit: bool, clean: bool) -> bool:
    if part.encoding not in _IDENTITY:
        return False
    if part.encoding == "binary" or not (clean or _BARE.search(body) is None):
        return True
    return not eight_bit and (part.encoding == "8bit" or not body.isascii())


def _is_signed(parts: list[Part], row: int) -> bool:
    at = parts[row].parent
    while at >= 0:
        if parts[at].type == "multipart" and parts[at].subtype == "signed":
            return True
        at = parts[at].parent
    return parts[row].type == "multipart" and parts[row].subtype == "signed"


def _encoding_for(part: Part, body: bytes) -> str:
    """Quoted-printable for what a person may have to read as it stands, base64 for everything else."""
    foreign = sum(byte > 126 for byte in body[:65536])
    readable = part.type == "text" and foreign * 5 < min(len(body), 65536) + 1
    return "quoted-printable" if readable and not _BARE.search(body) else "base64"


def _encoded(body: bytes, encoding: str, is_last: bool) -> bytes:
    if encoding == "base64":
        # The CRLF behind the last line is the delimiter's, if there is one.
        text = base64.encodebytes(body).replace(b"\n", b"\r\n")
        return text if is_last else text.removesuffix(b"\r\n")
    return _NEWLINE.sub(b"\r\n", binascii.b2a_qp(body, istext=True))


def _relabelled(raw: bytes, parts: list[Part], row: int, encoding: str) -> list[_Piece]:
    """The part's header with another Content-Transfer-Encoding; a message that is none of MIME's becomes one."""
    part = parts[row]
    start, end = part.header_start, part.body_start
    block = raw[start:end]
    kept, names = [], set()
    for field, name, _ in fields(block):
        names.add(name.lower())
        if name.lower() != b"content-transfer-encoding":
            kept.append(field)
    is_message = part.parent < 0 or parts[part.parent].is_message
    if is_message and b"mime-version" not in names:
        kept.append(b"MIME-Version: 1.0\r\n")
    if b"content-type" not in names and not part.is_message and part.type == "text":
        kept.append(b"Content-Type: text/plain; charset=unknown-8bit\r\n")
    kept.append(b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n")
    return [(start, end, b"".join(kept) + b"\r\n")]


def _spliced(raw: bytes, pieces: list[_Piece]) -> bytes:
    result, at = [], 0
    for start, end, new in sorted(pieces):
        result += [raw[at:start], new]
        at = end
    return b"".join([*result, raw[at:]])


def _impossible(why: str) -> Undeliverable:
    text = f"the next host takes no 8-bit or binary mail, and the message cannot be converted: {why}"
    return Undeliverable(Outcome(Verdict.FAILED, Stage.MAIL, "5.6.3", text))
