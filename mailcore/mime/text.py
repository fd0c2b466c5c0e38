"""What search reads of a message (SearchText), and its preview for the message list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from mailcore.mime import charset
from mailcore.mime.decode import ENCODINGS, UUENCODE, decode_range, decode_transfer, text_of
from mailcore.mime.fold import LONE_CR, SPACES, fold
from mailcore.mime.headers import Field, decode_header
from mailcore.mime.headers import fields as field_list
from mailcore.mime.html import text_of_html, without_quotes
from mailcore.mime.limits import MAX_BODY_TEXT, MAX_HEADER_TEXT, MAX_HTML, MAX_PREVIEW, MAX_TEXT_SOURCE, MAX_UUENCODED
from mailcore.mime.scanner import Node
from mailcore.mime.types import SearchText

# Text of the parts by row: of HTML its source.
Texts = dict[int, str]

_DELETED_SPACE = re.compile(r"(?<!\n--) \r?\n")  # RFC 3676 §4.1: where the lines of DelSp text join
_HEAD = 2 * MAX_HEADER_TEXT  # octets of an embedded message's header that are looked at


def decode_texts(raw: bytes, nodes: list[Node]) -> Texts:
    """Decode the text of all parts that have any, within MAX_TEXT_SOURCE, and note every part's decoded size."""
    texts: Texts = {}
    room = MAX_TEXT_SOURCE
    for row, node in enumerate(nodes):
        mime = node.mime
        if mime.type == "multipart" or node.is_message:
            continue
        start, end = node.body_start, node.body_end
        whole = False
        if room > 0 and mime.type in ("text", "message"):
            limit = min(room, MAX_UUENCODED) if mime.encoding in UUENCODE else room
            data = decode_range(raw, start, end, mime.encoding, limit)
            if whole := len(data) < limit:
                node.size = len(data)
            room -= len(data)
            text = text_of(data, mime.charset, mime.subtype)
            if mime.flow == "delsp":
                text = _DELETED_SPACE.sub("", text)
            texts[row] = text
        if not whole and mime.encoding in ENCODINGS:
            node.size = decoded_size(raw, start, end, mime.encoding)
    return texts


def decoded_size(raw: bytes, start: int, end: int, encoding: str) -> int:
    """Octets of a part after transfer decoding; of base64 reckoned from its lines, of long uuencode about."""
    if encoding == "quoted-printable":
        return len(decode_transfer(raw[start:end], encoding))
    if encoding != "base64":
        if end - start <= MAX_UUENCODED:
            return len(decode_transfer(raw[start:end], encoding))
        return (end - start) * 45 // 63
    feed = raw.find(b"\n", start, end)
    size = end - start
    if feed < 0:
        symbols = size
    else:
        line = feed + 1 - start
        whole = size // line
        if raw[start + whole * line - 1] == 10:  # lines of equal length and a shorter rest
            symbols = whole * (line - (2 if raw[feed - 1] == 13 else 1)) + len(raw[start + whole * line : end].strip())
        else:
            symbols = size - raw.count(b"\n", start, end) - raw.count(b"\r", start, end)
    tail = raw[max(start, end - 16) : end].rstrip()
    symbols -= len(tail) - len(tail.rstrip(b"="))
    return symbols * 3 // 4


def search_text(raw: bytes, nodes: list[Node], texts: Texts, fields: list[Field]) -> SearchText:
    """Everything of a message that can be searched, folded. `fields`: those of its header, in order."""
    header, named = header_text(fields)
    return SearchText(
        ", ".join(named["from"]),
        ", ".join(named["to"]),
        ", ".join(named["cc"]),
        ", ".join(named["bcc"]),
        " ".join(named["subject"]),
        header,
        _body_text(raw, nodes, texts),
    )


_NAMED = ("from", "to", "cc", "bcc", "subject")
_NAMED_LINES = tuple([name + ": " for name in _NAMED])
# Lower case, and white space as spaces, except for line feeds.
_HEADER_FOLD = bytes(
    32 if chr(code).isspace() and code != 10 else code + 32 * (65 <= code <= 90) for code in range(256)
)
_LINES = re.compile(r"(?:[!-9;-~]++: [^\n]++(?<! )\n)*")


def header_text(fields: list[Field]) -> tuple[str, dict[str, list[str]]]:
    """A header for search, decoded and folded, each field a line `name: value`, and the values of the _NAMED fields.

    The lines are bounded at MAX_HEADER_TEXT, so that padding cannot hide the named fields.
    """
    named: dict[str, list[str]] = {name: [] for name in _NAMED}
    # All fields at once; where that does not give lines as they should be, one by one.
    block = b"".join([field for field, _, _ in fields])
    if block[-1:] != b"\n":
        block += b"\n"
    encoded = b"=?" in block or not block.isascii()
    block = block.translate(_HEADER_FOLD, b"\0" if LONE_CR.search(block) else b"\0\r").replace(b"\n ", b" ")
    header = SPACES.sub(b" ", block).decode("latin-1")
    if _LINES.fullmatch(header) or _LINES.fullmatch(header := header.replace(" \n", "\n")):
        lines = header.split("\n")
        lines.pop()
    else:
        lines = [_plain_line(name, value) for _, name, value in fields]
    if encoded:
        for at in [at for at, field in enumerate(fields) if b"=?" in field[2] or not field[2].isascii()]:
            _, name, value = fields[at]
            lines[at] = f"{name.decode('ascii').lower()}: {_decoded(value)}"
    for line in lines:
        if line.startswith(_NAMED_LINES):
            name_, _, text = line.partition(": ")
            if len(named[name_]) < 100:
                named[name_].append(text)
    header = "\n".join(lines)
    if len(header) > MAX_HEADER_TEXT:
        header = header[: header.rfind("\n", 0, MAX_HEADER_TEXT) + 1].rstrip("\n")
    return header, named


def _plain_line(name: bytes, value: bytes) -> str:
    text = value.replace(b"\0", b"").decode("latin-1").lower()
    return f"{name.decode('ascii').lower()}: {' '.join(text.split())}"


def _decoded(value: bytes) -> str:
    return _decoded_short(value) if len(value) <= 200 else fold(decode_header(value[:MAX_HEADER_TEXT]))


@lru_cache(maxsize=1024)
def _decoded_short(value: bytes) -> str:
    return fold(decode_header(value))


def _body_text(raw: bytes, nodes: list[Node], texts: Texts) -> str:
    """One line per part that has text; an embedded message begins with its header."""
    chunks: list[str] = []
    room = MAX_BODY_TEXT
    for row, node in enumerate(nodes):
        if room <= 0:
            break
        if node.parent >= 0 and nodes[node.parent].is_message:
            chunk, _ = header_text(field_list(raw[node.header_start : min(node.body_start, node.header_start + _HEAD)]))
            if chunk:
                chunks.append(chunk)
                room -= len(chunk) + 1
        text = texts.get(row)
        if not text:
            continue
        if node.mime.subtype == "html":
            text = text_of_html(text[:MAX_HTML])
        chunk = _folded(text, room)
        # The HTML form often repeats the plain text word for word: a substring search finds nothing more in it.
        if chunk and not (chunks and (chunk == chunks[-1] or chunk in chunks[-1])):
            chunks.append(chunk)
            room -= len(chunk) + 1
    return "\n".join(chunks)


_SLICE = 64 << 10


def _folded(text: str, room: int) -> str:
    """At most `room` characters of the folded text, at a cost in proportion to them: some characters fold to 18."""
    if len(text) <= _SLICE:
        return fold(text)[: max(room, 0)]
    pieces: list[str] = []
    at = 0
    while at < len(text) and room > 0:
        end = text.rfind(" ", at, at + _SLICE) + 1 or at + _SLICE  # a space: nothing folds across it
        piece = fold(text[at:end])
        pieces.append(piece)
        room -= len(piece) + 1
        at = end
    joined = " ".join(pieces)
    return joined[: len(joined) + room] if room < 0 else joined


# --- preview --------------------------------------------------------------------------------------------------------

_LOOK = 8_000  # characters of a text that a preview is made of
_LOOK_FIRST = MAX_PREVIEW + 64
_LOOK_HTML = 64_000
# Mailings fill the preview with runs of invisible characters; single ones join letters of some scripts.
_INVISIBLE = "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
_INVISIBLES = re.compile(rf"[ \xad{_INVISIBLE}]{{2,}}")
_SOFT = re.compile("[\xad\ufeff]")
_ATTRIBUTION = re.compile(
    r"^(?:on|am|le|el|il|op|den|em|w dniu|dne)\s[^\n]{4,200}(?:\n[^\n]{0,80})?"
    r"(?:wrote|schrieb[^\n:]{0,40}|a écrit|escribió|ha scritto|schreef[^\n:]{0,40}|skrev|escreveu|pisze|napsal\(?a?\)?)"
    r"\s?:\s*$",
    re.I | re.M,
)
_ORIGINAL = re.compile(r"^\s*-{2,}\s*(?:original message|ursprüngliche nachricht|forwarded message)", re.I | re.M)
_QUOTED_LINE = re.compile(r"^>[^\n]*\n?", re.M)
_SIGNATURE = re.compile(r"^-- ?$", re.M)


def preview(nodes: list[Node], texts: Texts, body: Sequence[int], html_body: Sequence[int]) -> str:
    """At most MAX_PREVIEW characters of what a person wrote: quotes and signature only when there is nothing else.

    `body`, `html_body`: the rows of textBody and htmlBody (RFC 8621 §4.1.4).
    """
    for row in (*body[:10], *html_body[:10], *list(texts)[:10]):
        text = texts.get(row)
        if not text or nodes[row].mime.type != "text":
            continue
        if nodes[row].mime.subtype == "html":
            html = text[:_LOOK_HTML]
            found = _collapsed(text_of_html(without_quotes(html))) or _collapsed(text_of_html(html))
        else:
            if ">" not in text[:_LOOK] and (found := _plainly(text)):
                return found
            plain = text[:_LOOK].replace("\r\n", "\n")
            found = _collapsed(_own_words(plain)) or _collapsed(plain)
        if found:
            return found
    return ""


def _own_words(text: str) -> str:
    """Plain text without quoted lines, what introduces them, and the signature."""
    if "--" in text:
        if match := _SIGNATURE.search(text):
            text = text[: match.start()]
        if match := _ORIGINAL.search(text):
            text = text[: match.start()]
    if ">" in text:
        text = _QUOTED_LINE.sub("", _ATTRIBUTION.sub("", text))
    return text


def _plainly(text: str) -> str:
    """The preview of a text without quotes when its first words tell it, as they mostly do, else ""."""
    text = text[:_LOOK_FIRST]
    if "--" in text or "\xad" in text or "\0" in text:
        return ""
    head = " ".join(text.split())
    if len(head) < MAX_PREVIEW:
        return ""
    try:
        head.encode("latin-1")
    except UnicodeEncodeError:  # it may hold invisible characters
        return ""
    return head[:MAX_PREVIEW].rstrip()


def _collapsed(text: str) -> str:
    """The beginning of `text`, white space and invisible characters collapsed."""
    head = " ".join(text[: 2 * MAX_PREVIEW].split())
    if len(head) < MAX_PREVIEW:
        head = " ".join(text.split())
    if not head.isascii() and (not head.isprintable() or "\u034f" in head):
        head = _SOFT.sub("", _INVISIBLES.sub(" ", head)).strip()
    return charset.clean(head[:MAX_PREVIEW]).rstrip()
