"""The one entry to the reader: everything that is kept beside a raw message, from one pass over it."""

from __future__ import annotations

from mailcore.mime import cached, headers
from mailcore.mime.cached import CACHED_FIELDS
from mailcore.mime.envelope import FIELDS, Fields, envelope
from mailcore.mime.limits import MAX_HEADER_SCAN
from mailcore.mime.mimeheader import FIELDS as MIME_FIELDS
from mailcore.mime.mimeheader import mime_of
from mailcore.mime.parts import outline, pack_parts
from mailcore.mime.scanner import scan
from mailcore.mime.structure import bodystructure
from mailcore.mime.text import decode_texts, preview, search_text
from mailcore.mime.types import Derived


def parse(raw: bytes) -> Derived:
    """Everything that Mailstead keeps beside the raw octets of a message. Never raises; linear in `len(raw)`."""
    size = len(raw)
    header_size = headers.header_end(raw, 0, size)
    block = raw[:header_size]
    scanned = block if header_size <= MAX_HEADER_SCAN else block[:MAX_HEADER_SCAN]
    fields: Fields = {}
    mime_fields: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    numbers = bytearray()
    found = headers.fields(scanned)
    for field, name, value in found:
        name = name.lower()
        number = cached.NUMBERS.get(name)
        if number is not None:
            kept.append(field)
            numbers.append(number)
        if name in FIELDS:
            fields.setdefault(name, []).append(value)
        elif name in MIME_FIELDS:
            mime_fields.setdefault(name, value)
    if scanned is block:
        index, lines = cached.index(numbers, kept), b"".join(kept)
    else:
        index, lines = b"", headers.header_fields(block, CACHED_FIELDS)[:-2]

    nodes = scan(raw, header_size, mime_of(mime_fields, False))
    texts = decode_texts(raw, nodes)
    text_body, html_body, attached = outline(nodes)
    imap_envelope, summary, _ = envelope(fields)
    return Derived(
        size,
        header_size,
        imap_envelope,
        bodystructure(raw, nodes),
        pack_parts(nodes),
        index,
        lines,
        attached,
        summary,
        search_text(raw, nodes, texts, found),
        preview(nodes, texts, text_body, html_body),
    )
