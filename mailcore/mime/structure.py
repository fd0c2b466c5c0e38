"""IMAP's BODYSTRUCTURE, and BODY from it (RFC 9051 §7.5.2)."""

from __future__ import annotations

import re

from mailcore.mime.envelope import EMPTY_ENVELOPE, FIELDS, Fields, envelope
from mailcore.mime.headers import fields
from mailcore.mime.limits import MAX_ADDRESSES, MAX_HEADER_SCAN, MAX_STRUCTURE
from mailcore.mime.scanner import Node

_MESSAGE = re.compile(rb'"message" "(?:rfc822|global)"')
_OCTET_STREAM = b'"application" "octet-stream"'


def bodystructure(raw: bytes, nodes: list[Node]) -> bytes:
    """BODYSTRUCTURE with extension data of the message whose rows are `nodes`."""
    if len(nodes) == 1:
        return _leaf(nodes[0])
    envelopes = _envelopes(raw, nodes) if any([node.is_message for node in nodes]) else {}
    children: list[list[bytes]] = [[] for _ in nodes]  # last child first
    built = b""
    for row in range(len(nodes) - 1, -1, -1):
        node = nodes[row]
        mime = node.mime
        if mime.type == "multipart":
            kids = children[row]
            kids.reverse()
            built = b"(%b %b)" % (b"".join(kids), mime.multi_head)
        elif node.is_message:
            inner = children[row][0]
            size = node.body_end - node.body_start
            built = b"(%b %d %b %b %d %b)" % (mime.head, size, envelopes[row], inner, node.lines, mime.extension)
        else:
            built = _leaf(node)
        if node.parent >= 0:
            children[node.parent].append(built)
    return built


def _leaf(node: Node) -> bytes:
    mime = node.mime
    size = node.body_end - node.body_start
    if mime.type == "text":
        return b"(%b %d %d %b)" % (mime.head, size, node.lines, mime.extension)
    head = mime.head
    if mime.type == "message":
        # One that cannot be opened (encoded, too deep) must not promise an ENVELOPE and a body.
        head = _MESSAGE.sub(_OCTET_STREAM, head, count=1)
    return b"(%b %d %b)" % (head, size, mime.extension)


def _envelopes(raw: bytes, nodes: list[Node]) -> dict[int, bytes]:
    """ENVELOPE of every embedded message by the row of its container, within a budget for all of them together."""
    found: dict[int, bytes] = {}
    budget = MAX_ADDRESSES
    room = MAX_STRUCTURE
    scan = MAX_HEADER_SCAN
    for node in nodes:
        if node.parent < 0 or not nodes[node.parent].is_message:
            continue
        if room <= 0 or scan <= 0:
            found[node.parent] = EMPTY_ENVELOPE
            continue
        block = raw[node.header_start : min(node.body_start, node.header_start + scan)]
        scan -= len(block)
        imap, _, budget = envelope(envelope_fields(block), budget)
        room -= len(imap)
        found[node.parent] = imap
    return found


def envelope_fields(block: bytes) -> Fields:
    """The fields of a header block that ENVELOPE and Summary need."""
    found: Fields = {}
    for _, name, value in fields(block):
        name = name.lower()
        if name in FIELDS:
            found.setdefault(name, []).append(value)
    return found


# --- BODY -----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(rb' ?(?:[()]|"[^"\\]*(?:\\.[^"\\]*)*"|\{(\d+)\}\r\n|[^\s()"{]+)')
_OPENED = (b'"rfc822"', b'"global"')


class _List:
    """A parenthesised list that is being read. `is_body`: it is a body, and not parameters or an envelope."""

    __slots__ = ("children", "is_body", "items")

    def __init__(self, is_body: bool) -> None:
        self.items: list[bytes] = []
        self.is_body = is_body
        self.children = 0  # bodies at its head: it is a multipart

    def opens_body(self) -> bool:
        """Is the list that begins now a body?"""
        if not self.is_body:
            return False
        items = self.items
        if len(items) == self.children:
            return True
        return len(items) == 8 and items[0] == b'"message"' and items[1] in _OPENED

    def rendered(self) -> bytes:
        items = self.items
        if not self.is_body:
            return b"(" + b" ".join(items) + b")"
        if self.children:
            return b"(" + b"".join(items[: self.children]) + b" " + items[self.children] + b")"
        if items[0] == b'"text"':
            return b"(" + b" ".join(items[:8]) + b")"
        opened = items[0] == b'"message"' and items[1] in _OPENED
        return b"(" + b" ".join(items[: 10 if opened else 7]) + b")"


def body_from(structure: bytes) -> bytes:
    """The non-extensible BODY form of a BODYSTRUCTURE that `bodystructure` made."""
    stack: list[_List] = []
    pos = 0
    while match := _TOKEN.match(structure, pos):
        pos = match.end()
        token = match.group().lstrip(b" ")
        if token == b"(":
            stack.append(_List(stack[-1].opens_body() if stack else True))
            continue
        if token == b")":
            closed = stack.pop()
            token = closed.rendered()
            if not stack:
                return token
            if closed.is_body and len(stack[-1].items) == stack[-1].children:
                stack[-1].children += 1
        elif match.group(1):
            pos += int(match.group(1))
            token += structure[match.end() : pos]
        stack[-1].items.append(token)
    return structure
