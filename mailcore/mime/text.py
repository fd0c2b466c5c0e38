"""What search reads of a message (SearchText), and its preview for the message list."""

from __future__ import annotations

import re
from functools import lru_cache

from mailcore.mime import charset
from mailcore.mime.decode import ENCODINGS, decode_range, decode_transfer, text_of
from mailcore.mime.envelope import Fields
from mailcore.mime.fold import fold, fold_keeping_space
from mailcore.mime.headers import decode_header
from mailcore.mime.html import text_of_html, without_quotes
from mailcore.mime.limits import MAX_ADDRESS_VALUE, MAX_BODY_TEXT, MAX_HEADER_TEXT, MAX_PREVIEW, MAX_VALUE
from mailcore.mime.scanner import Node
from mailcore.mime.types import SearchText

# Text of the parts by row: of HTML its source.
Texts = dict[int, str]

_UNFOLD = re.compile(rb"\r*\n(?=[ \t])")
_SPACE_IN_LINE = re.compile(r"[^\S\n]+")


def decode_texts(raw: bytes, nodes: list[Node]) -> Texts:
    """Decode the text of all parts that have any, within MAX_BODY_TEXT, and note every part's decoded size."""
    texts: Texts = {}
    room = MAX_BODY_TEXT
    for row, node in enumerate(nodes):
        mime = node.mime
        if mime.type == "multipart" or node.is_message:
            continue
        start, end = node.body_start, node.body_end
        if room > 0 and mime.type in ("text", "message"):
            data = decode_range(raw, start, end, mime.encoding, 4 * room)
            if len(data) < 4 * room:
                node.size = len(data)
            elif mime.encoding in ENCODINGS:
                node.size = decoded_size(raw, start, end, mime.encoding)
            text = text_of(data, mime.charset, mime.subtype)
            room -= len(text)
            texts[row] = text
        elif mime.encoding in ENCODINGS:
            node.size = decoded_size(raw, start, end, mime.encoding)
    return texts


def decoded_size(raw: bytes, start: int, end: int, encoding: str) -> int:
    """Octets of a part after transfer decoding; of base64 reckoned from its lines, without decoding it."""
    if encoding != "base64":
        return len(decode_transfer(raw[start:end], encoding))
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


def search_text(raw: bytes, nodes: list[Node], texts: Texts, fields: Fields) -> SearchText:
    """Everything of a message that can be searched, folded."""
    subject = fields.get(b"subject")
    return SearchText(
        _addresses(fields.get(b"from")),
        _addresses(fields.get(b"to")),
        _addresses(fields.get(b"cc")),
        _addresses(fields.get(b"bcc")),
        fold(decode_header(subject[0][:MAX_VALUE])) if subject else "",
        header_text(raw[: nodes[0].body_start]),
        _body_text(raw, nodes, texts),
    )


def _addresses(values: list[bytes] | None) -> str:
    if not values:
        return ""
    if len(values) == 1 and len(values[0]) <= 160:
        return _short_addresses(values[0])
    return fold(", ".join([decode_header(value[:MAX_ADDRESS_VALUE]) for value in values[:100]]))


@lru_cache(maxsize=2048)
def _short_addresses(value: bytes) -> str:
    return fold(decode_header(value))


def header_text(block: bytes) -> str:
    """A header block for search: decoded and folded, one field per line as `name: value`."""
    block = _UNFOLD.sub(b"", block[:MAX_HEADER_TEXT]).replace(b"\r", b"")
    if b"=?" in block or not block.isascii():
        lines = [
            decode_header(line) if b"=?" in line or not line.isascii() else line.decode("ascii")
            for line in block.split(b"\n")
        ]
        text = "\n".join(lines)
    else:
        text = block.decode("ascii")
    return _SPACE_IN_LINE.sub(" ", fold_keeping_space(text)).strip()[:MAX_HEADER_TEXT]


def _body_text(raw: bytes, nodes: list[Node], texts: Texts) -> str:
    """One line per part that has text; an embedded message begins with its header."""
    chunks: list[str] = []
    room = MAX_BODY_TEXT
    for row, node in enumerate(nodes):
        if room <= 0:
            break
        if node.parent >= 0 and nodes[node.parent].is_message:
            chunk = header_text(raw[node.header_start : node.body_start])
            chunks.append(chunk)
            room -= len(chunk) + 1
        text = texts.get(row)
        if not text:
            continue
        if node.mime.subtype == "html":
            text = text_of_html(text)
        chunk = fold(text)[: max(room, 0)]
        # The HTML form often repeats the plain text word for word: a substring search finds nothing more in it.
        if chunk and not (chunks and chunk in chunks[-1]):
            chunks.append(chunk)
            room -= len(chunk) + 1
    return "\n".join(chunks)


# --- preview --------------------------------------------------------------------------------------------------------

_LOOK = 8_000  # characters of a text that a preview is made of
_LOOK_HTML = 64_000
_INVISIBLE = "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
# Mailings fill the preview with runs of invisible characters; single ones join letters of some scripts.
_SPACE = re.compile(rf"[\s{_INVISIBLE}]{{2,}}|[\s\xad\ufeff]")
_ATTRIBUTION = re.compile(
    r"^(?:on|am|le|el|il|op|den|em|w dniu|dne|le)\s[^\n]{4,200}(?:\n[^\n]{0,80})?"
    r"(?:wrote|schrieb[^\n:]{0,40}|a écrit|escribió|ha scritto|schreef[^\n:]{0,40}|skrev|escreveu|pisze|napsal\(?a?\)?)"
    r"\s?:\s*$",
    re.I | re.M,
)
_ORIGINAL = re.compile(r"^\s*-{2,}\s*(?:original message|ursprüngliche nachricht|forwarded message)", re.I | re.M)
_QUOTED_LINE = re.compile(r"^>[^\n]*\n?", re.M)
_SIGNATURE = re.compile(r"^-- ?$", re.M)


def preview(nodes: list[Node], texts: Texts, body: list[int], html_body: list[int]) -> str:
    """At most MAX_PREVIEW characters of what a person wrote: quotes and signature only when there is nothing else.

    `body`, `html_body`: the rows of textBody and htmlBody (RFC 8621 §4.1.4).
    """
    for row in (*body[:10], *html_body[:10], *list(texts)[:10]):
        text = texts.get(row)
        if not text:
            continue
        if nodes[row].mime.subtype == "html":
            html = text[:_LOOK_HTML]
            found = _collapsed(text_of_html(without_quotes(html))) or _collapsed(text_of_html(html))
        else:
            plain = text[:_LOOK].replace("\r\n", "\n")
            found = _collapsed(_own_words(plain)) or _collapsed(plain)
        if found:
            return found
    return ""


def _own_words(text: str) -> str:
    """Plain text without quoted lines, what introduces them, and the signature."""
    if match := _SIGNATURE.search(text):
        text = text[: match.start()]
    if match := _ORIGINAL.search(text):
        text = text[: match.start()]
    if ">" in text:
        text = _ATTRIBUTION.sub("", text)
        text = _QUOTED_LINE.sub("", text)
    return text


def _collapsed(text: str) -> str:
    return charset.clean(_SPACE.sub(" ", text[:_LOOK]).strip()[:MAX_PREVIEW].rstrip())
