"""Writing messages: header values encoded and folded, bodies encoded so that every relay carries them unchanged.

What is written parses back to what was meant. Nothing given can end its line: controls in text become spaces, and where
that would change a meaning (addresses, ids, types) ValueError is raised.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mailcore.mime.types import Addr

LINE = 76  # where lines are folded
MAX_LINE = 998  # RFC 5322 §2.1.1

_ATOM = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_PLAIN_PHRASE = re.compile(rf"[{_ATOM}]+(?: [{_ATOM}]+)*")
_ADDRESS = re.compile(
    rf"(?:[{_ATOM}\u0080-\U0010ffff]+(?:\.[{_ATOM}\u0080-\U0010ffff]+)*|\"(?:[ !#-\[\]-~]|\\[ -~])*\")"
    r"@(?:[A-Za-z0-9._\u0080-\U0010ffff-]+|\[[A-Za-z0-9.:]+\])"
)
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_MESSAGE_ID = re.compile(r"[!-;=?-~\u00a0-\U0010ffff]{1,900}")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_SPECIAL_WORD = "=?"
_PARAMETER_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts. `content` is text (it becomes UTF-8) or octets, which are kept exactly."""

    type: str
    content: str | bytes
    charset: str | None = None
    disposition: str | None = None
    filename: str | None = None
    cid: str | None = None
    language: Sequence[str] = ()
    location: str | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Multipart:
    """Parts under one roof; `subtype` is mixed, alternative, related …"""

    subtype: str
    parts: Sequence[Leaf | Multipart] = field(default_factory=tuple)
    headers: Sequence[tuple[str, bytes]] = ()


Body = Leaf | Multipart


def compose(fields: Iterable[tuple[str, bytes]], body: Body) -> bytes:
    """A message from its header fields (values as the functions below write them) and its body.

    Raises ValueError for a field name or a type that is none.
    """
    out: list[bytes] = [_field(name, value) for name, value in fields]
    out.append(b"MIME-Version: 1.0\r\n")
    _write(out, body)
    return b"".join(out)


# --- header values --------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Text on one line: runs of control characters become one space."""
    return _CONTROLS.sub(" ", text)


def text_value(text: str) -> bytes:
    """Unstructured text (Subject)."""
    text = clean(text).strip()
    if text.isascii() and _SPECIAL_WORD not in text and max(map(len, text.split(" "))) < MAX_LINE - LINE:
        return _fold(re.findall(r"\s*\S+", text))
    return _fold(_encoded_words(text))


def raw_value(text: str) -> bytes:
    """A value that is written as it is given, folds included. Raises ValueError when it would end the field."""
    octets = text.encode("utf-8")
    lines = octets.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > MAX_LINE - 80 for line in lines):
        raise ValueError("a header value has no bare line breaks and no overlong lines")
    if any(line[:1] not in (b" ", b"\t") or not line.strip() for line in lines[1:]):
        raise ValueError("a header value goes on only in lines that begin with a space")
    return octets.strip()


def addresses_value(people: Sequence[Addr]) -> bytes:
    """An address list. What is no address (in a draft) is written as a word, so that it reads back as it was given."""
    return _fold(_address_tokens(people, ","))


def groups_value(groups: Sequence[tuple[str | None, Sequence[Addr]]]) -> bytes:
    """An address list with groups; a group without a name is a plain list (RFC 8621 §4.1.2.4)."""
    tokens: list[str] = []
    for at, (name, people) in enumerate(groups):
        last = at == len(groups) - 1
        if name is None:
            tokens.extend(_address_tokens(people, "," if not last else "", every=True))
            continue
        words = _phrase(name) or ['""']
        words[-1] += ":"
        members = _address_tokens(people, ",")
        (members or words)[-1] += ";" if last else ";,"
        tokens.extend([*words, *members])
    if tokens:
        tokens[-1] = tokens[-1].rstrip(",")
    return _fold(tokens)


def message_ids_value(ids: Sequence[str]) -> bytes:
    """Message-IDs, given without angle brackets. Raises ValueError for what cannot be one."""
    for one in ids:
        if not _MESSAGE_ID.fullmatch(one):
            raise ValueError(f"{one[:60]!r} is no message id")
    return _fold([f"<{one}>" for one in ids])


def urls_value(urls: Sequence[str]) -> bytes:
    """URLs as List-Unsubscribe and its kin have them. Raises ValueError."""
    for url in urls:
        if not re.fullmatch(r"[!-;=?-~]{1,900}", url) or "," in url:
            raise ValueError(f"{url[:60]!r} is no URL")
    return _fold([f"<{url}>{',' if at < len(urls) - 1 else ''}" for at, url in enumerate(urls)])


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_value(moment: datetime) -> bytes:
    """A date with its own offset (RFC 5322 §3.3)."""
    offset = moment.utcoffset()
    minutes = int(offset.total_seconds()) // 60 if offset else 0
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year:04} "
        f"{moment.hour:02}:{moment.minute:02}:{moment.second:02} {sign}{minutes // 60:02}{minutes % 60:02}"
    ).encode()


def new_message_id(domain: str) -> str:
    """A fresh Message-ID without its brackets."""
    return f"{secrets.token_hex(16)}@{domain}"


def _address_tokens(people: Sequence[Addr], separator: str, *, every: bool = False) -> list[str]:
    """Tokens of an address list; `every`: the separator follows the last one too."""
    tokens: list[str] = []
    for at, one in enumerate(people):
        words = _address(one)
        if words:
            if at < len(people) - 1:
                words[-1] += ","
            elif every:
                words[-1] += separator
            tokens.extend(words)
    if tokens and not every:
        tokens[-1] = tokens[-1].rstrip(",")
    return tokens


def _address(one: Addr) -> list[str]:
    email = clean(one.email).strip()
    name = clean(one.name or "").strip()
    if not email and not name:
        return []
    if len(email) > 900 or not _ADDRESS.fullmatch(email):
        return _phrase(f"{name} <{email}>" if name and email else name or email, quoted=True)
    if not name:
        return [email]
    return [*_phrase(name), f"<{email}>"]


def _phrase(text: str, *, quoted: bool = False) -> list[str]:
    """A display name as tokens: atoms, a quoted string, encoded words. `quoted`: it must not look like an address."""
    text = clean(text).strip()
    if not text:
        return []
    if text.isascii() and _SPECIAL_WORD not in text:
        words = text.split(" ")
        if not quoted and _PLAIN_PHRASE.fullmatch(text) and max(map(len, words)) < LINE:
            return words
        if len(text) < 200:
            return ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"']
    return _encoded_words(text)


def _encoded_words(text: str) -> list[str]:
    """RFC 2047 encoded words of at most 75 characters, cut between characters; B or Q, whichever is shorter."""
    octets = text.encode("utf-8")
    plain = sum(1 for c in octets if _q_safe(c))
    as_q = plain + 3 * (len(octets) - plain) <= (len(octets) + 2) // 3 * 4
    room = 75 - len("=?utf-8?q??=")
    words: list[str] = []
    piece, length = b"", 0
    for char in text:
        octets = char.encode("utf-8")
        cost = sum(1 if _q_safe(c) else 3 for c in octets) if as_q else len(octets)
        if length + cost > (room if as_q else room // 4 * 3):
            words.append(_word(piece, as_q))
            piece, length = b"", 0
        piece += octets
        length += cost
    words.append(_word(piece, as_q))
    # White space between encoded words is no part of the text.
    return words


def _q_safe(c: int) -> bool:
    return c == 0x20 or 0x30 <= c <= 0x39 or 0x41 <= c <= 0x5A or 0x61 <= c <= 0x7A


def _word(octets: bytes, as_q: bool) -> str:
    if as_q:
        text = "".join("_" if c == 0x20 else chr(c) if _q_safe(c) else f"={c:02X}" for c in octets)
        return f"=?utf-8?q?{text}?="
    return "=?utf-8?b?" + base64.b64encode(octets).decode() + "?="


def _fold(tokens: Sequence[str], first: int = 20) -> bytes:
    """Tokens with a space between them (those that bring one keep it), in lines of LINE characters where possible."""
    out: list[str] = []
    length = first
    for token in tokens:
        piece = token if not out or token[:1] in (" ", "\t") else " " + token
        if out and length + len(piece) > LINE and piece.strip():
            out.append("\r\n")
            length = 0
        out.append(piece)
        length += len(piece)
    return "".join(out).strip().encode("utf-8")


def _field(name: str, value: bytes) -> bytes:
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name[:60]!r} is no name of a header field")
    return name.encode("ascii") + b": " + value + b"\r\n"


# --- bodies ---------------------------------------------------------------------------------------------------------


def _write(out: list[bytes], body: Body) -> None:
    if isinstance(body, Leaf):
        _write_leaf(out, body)
        return
    if not _TOKEN.fullmatch(body.subtype):
        raise ValueError(f"{body.subtype[:60]!r} is no subtype")
    # "=_" occurs in neither base64 nor quoted-printable.
    boundary = f"=_{secrets.token_hex(16)}"
    out.extend(_field(name, value) for name, value in body.headers)
    out.append(_field("Content-Type", f'multipart/{body.subtype};\r\n boundary="{boundary}"'.encode()))
    out.append(b"\r\n")
    for part in body.parts:
        out.append(f"--{boundary}\r\n".encode())
        _write(out, part)
        out.append(b"\r\n")
    out.append(f"--{boundary}--\r\n".encode())


def _write_leaf(out: list[bytes], leaf: Leaf) -> None:
    if not _TYPE.fullmatch(leaf.type):
        raise ValueError(f"{leaf.type[:60]!r} is no media type")
    kind = leaf.type.lower()
    charset = "utf-8" if isinstance(leaf.content, str) else leaf.charset
    params = []
    if charset and kind.startswith("text/"):
        if not _TOKEN.fullmatch(charset):
            raise ValueError(f"{charset[:60]!r} is no charset")
        params.append(f"charset={charset}")
    encoding, content = _encoded(leaf.content, kind)
    out.append(_field("Content-Type", "; ".join([kind, *params]).encode()))
    if encoding != "7bit":
        out.append(_field("Content-Transfer-Encoding", encoding.encode()))
    disposition = leaf.disposition or ("attachment" if leaf.filename else None)
    if disposition:
        if not _TOKEN.fullmatch(disposition):
            raise ValueError(f"{disposition[:60]!r} is no disposition")
        out.append(_field("Content-Disposition", (disposition + _filename(leaf.filename)).encode()))
    if leaf.cid:
        out.append(_field("Content-ID", message_ids_value([leaf.cid])))
    if leaf.language:
        if not all(_TOKEN.fullmatch(tag) for tag in leaf.language):
            raise ValueError("a language is a tag such as en or de-CH")
        out.append(_field("Content-Language", ", ".join(leaf.language).encode()))
    if leaf.location:
        if not re.fullmatch(r"[!-~]{1,900}", leaf.location):
            raise ValueError("a Content-Location is a URI")
        out.append(_field("Content-Location", leaf.location.encode()))
    out.extend(_field(name, value) for name, value in leaf.headers)
    out.append(b"\r\n")
    out.append(content)


def _filename(name: str | None) -> str:
    """The filename parameter: quoted, and beyond ASCII by RFC 2231, in pieces when it is long."""
    name = clean(name or "").strip()[:500]
    if not name:
        return ""
    if name.isascii() and len(name) < 60:
        return ';\r\n filename="' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    escaped = [chr(c) if c in _PARAMETER_CHARS else f"%{c:02X}" for c in name.encode("utf-8")]
    pieces = [escaped[at : at + 20] for at in range(0, len(escaped), 20)]
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{''.join(pieces[0])}"
    pieces[0].insert(0, "utf-8''")
    return "".join(f";\r\n filename*{n}*={''.join(piece)}" for n, piece in enumerate(pieces))


def _encoded(content: str | bytes, kind: str) -> tuple[str, bytes]:
    """(content transfer encoding, encoded content)."""
    if isinstance(content, str):
        return _encoded_text(_NEWLINE.sub("\r\n", content.replace("\0", "")).encode("utf-8", "replace"))
    if kind in ("message/rfc822", "message/global") and _sendable(content):
        # RFC 2046 §5.2.1: these are never encoded.
        return ("7bit" if content.isascii() else "8bit"), content
    if kind.startswith("text/") and content.isascii() and _sendable(content):
        return "7bit", content
    return "base64", _base64(content)


def _encoded_text(octets: bytes) -> tuple[str, bytes]:
    if octets.isascii() and _sendable(octets):
        return "7bit", octets
    high = len(octets) - len(octets.translate(None, bytes(range(128, 256))))
    if high * 5 < len(octets):
        # The line ends are CRLF already, and it keeps them.
        return "quoted-printable", _quoted_printable(octets)
    return "base64", _base64(octets)


def _quoted_printable(octets: bytes) -> bytes:
    lines = octets.split(b"\r\n")
    return b"\r\n".join([binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in lines])


def _sendable(octets: bytes) -> bool:
    """Whether it can travel as it is: CRLF line ends, no NUL, no overlong lines."""
    count = octets.count(b"\r\n")
    return (
        octets.count(b"\r") == count
        and octets.count(b"\n") == count
        and b"\0" not in octets
        and max(map(len, octets.split(b"\r\n"))) <= MAX_LINE
    )


def _base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
