"""The tree of MIME parts of a raw message, by byte offsets (RFC 2046 §5.1, RFC 9051 §6.4.5.1).

A delimiter line is `--boundary`, optionally `--`, then only white space; the CRLF before it belongs to it. Every
multipart is searched only inside its parent's piece, so an outer delimiter always ends what is inside. Within the
bounds of `limits` the cost is linear in the size of the message.
"""

from __future__ import annotations

import re

from mailcore.mime.decode import ENCODINGS
from mailcore.mime.headers import header_end
from mailcore.mime.limits import MAX_DEPTH, MAX_FALSE_DELIMITERS, MAX_PARTS
from mailcore.mime.mimeheader import Mime, mime_header, mime_of

_DELIMITER_END = re.compile(rb"(--)?[ \t]*+(?:\r?\n|\r?\Z)")
_HOLDERS = frozenset(("multipart", "message"))
_MESSAGES = frozenset(("rfc822", "global"))

# From this size on, a piece is first searched for "-" alone behind each part's header: base64 has none, and a search
# for one octet is many times faster than one for a long delimiter.
_LARGE = 16 << 10
_USUAL_HEADER = 2 << 10


class Node:
    """A part while the message is being read."""

    __slots__ = (
        "body_end", "body_start", "header_start", "id", "is_message", "lines", "mime", "parent", "size",
    )  # fmt: skip

    def __init__(self, id: str, parent: int, mime: Mime, header_start: int, body_start: int, body_end: int) -> None:
        self.id = id
        self.parent = parent
        self.mime = mime
        self.header_start = header_start
        self.body_start = body_start
        self.body_end = body_end
        self.is_message = False
        self.lines = 0
        self.size = body_end - body_start


# A piece that becomes a row: start, end of its lines, end of its content, parent row, prefix of its id, own number
# (0 for what is the whole body of a message), whether in a digest, depth
_Piece = tuple[int, int, int, int, str, int, bool, int]

_OPAQUE = mime_of({b"content-type": b"application/octet-stream"}, False)
_UNDIVIDED = mime_of({}, False)


def scan(raw: bytes, header_size: int, root: Mime) -> list[Node]:
    """The rows of the part table in the order of the message; row 0 is the message itself, with the header `root`."""
    nodes: list[Node] = []
    false_delimiters = MAX_FALSE_DELIMITERS
    stack: list[_Piece] = [(0, len(raw), len(raw), -1, "", 0, False, 0)]
    while stack:
        start, line_end, content_end, parent, prefix, number, in_digest, depth = stack.pop()
        if parent < 0:
            body_start, mime = header_size, root
        else:
            body_start = header_end(raw, start, line_end)
            mime = mime_header(raw[start:body_start], in_digest)
            if number and not mime.has_fields and body_start - start > 2:
                body_start = start  # text at once, without the blank line that should come before it
        body_end = content_end if content_end > body_start else body_start
        row = len(nodes)
        room = MAX_PARTS - row - len(stack) - 1
        major = mime.type
        if major in _HOLDERS and (depth >= MAX_DEPTH or room < 1):
            mime = _OPAQUE
            major = "application"
        multipart = major == "multipart"
        if not number and not multipart:
            number = 1
        id = prefix + str(number) if number else ""
        node = Node(id, parent, mime, start, body_start, body_end)
        nodes.append(node)
        if multipart:
            pieces: list[tuple[int, int, int]] = []
            if mime.boundary:
                pieces, false_delimiters = _split(raw, body_start, body_end, mime.boundary, room, false_delimiters)
            if not pieces:
                nodes.append(_undivided(raw, (id + "." if id else prefix) + "1", row, body_start, body_end))
                continue
            if number:
                prefix = id + "."
            digest = mime.subtype == "digest"
            count = len(pieces)
            for i in range(count - 1, -1, -1):
                start, line_end, content_end = pieces[i]
                stack.append((start, line_end, content_end, row, prefix, i + 1, digest, depth + 1))
        elif major == "text":
            node.lines = raw.count(b"\n", body_start, body_end)
        elif major == "message" and mime.subtype in _MESSAGES and mime.encoding not in ENCODINGS:
            node.is_message = True
            node.lines = raw.count(b"\n", body_start, body_end)
            stack.append((body_start, body_end, body_end, row, id + ".", 0, False, depth + 1))
    return nodes


def _undivided(raw: bytes, id: str, row: int, start: int, end: int) -> Node:
    """The one child of a multipart without any delimiter: its body as plain text, so that nobody loses it from view.
    A multipart without a child could not be told in BODYSTRUCTURE either."""
    node = Node(id, row, _UNDIVIDED, start, start, end)
    node.lines = raw.count(b"\n", start, end)
    return node


def _split(
    raw: bytes, start: int, end: int, boundary: bytes, room: int, false_delimiters: int
) -> tuple[list[tuple[int, int, int]], int]:
    """The pieces between the delimiters in `raw[start:end]` as (start, end of lines, end of content), at most `room`;
    the last one takes what remains. And how many false delimiters may still be met."""
    needle = b"\n--" + boundary
    size = len(needle)
    large = end - start > _LARGE
    pieces: list[tuple[int, int, int]] = []
    begin = -1
    pos = start - 1  # the line feed that ends the header: a delimiter may follow at once
    while (pos := raw.find(needle, pos, end)) >= 0:
        after = pos + size
        if raw.startswith(b"\r\n", after, end):  # nearly always; else the pattern tells
            last, after = False, after + 2
        elif match := _DELIMITER_END.match(raw, after, end):
            last, after = match.group(1) is not None, match.end()
        else:
            false_delimiters -= 1
            if false_delimiters <= 0:
                break
            pos = after
            continue
        if begin >= 0:
            pieces.append((begin, pos + 1, pos - 1 if raw[pos - 1] == 13 else pos))
        if last:
            return pieces, false_delimiters
        begin = after
        if len(pieces) + 1 >= room:
            break
        pos = begin - 1
        if large:
            pos = _behind_header(raw, begin, pos, end, needle)
    if begin >= 0 and (begin < end or not pieces):
        pieces.append((begin, end, end))
    return pieces, false_delimiters


def _behind_header(raw: bytes, begin: int, pos: int, end: int, needle: bytes) -> int:
    """Where the search for the next delimiter may go on: at the first "-" behind the header of the part at `begin`."""
    header = raw.find(b"\r\n\r\n", begin, min(end, begin + _USUAL_HEADER))
    if header < 0 or raw.find(needle, pos, header + 3 + len(needle)) >= 0:
        return pos
    dash = raw.find(b"-", header + 4, end)
    return dash - 1 if dash >= 0 else end
