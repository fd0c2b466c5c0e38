"""The part table: packing it for the store, and which parts a person reads (RFC 8621 §4.1.4)."""

from __future__ import annotations

import json

from mailcore.mime.scanner import Node
from mailcore.mime.types import Part

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


Row = list[str | int | bool | None]


def row_of(node: Node) -> Row:
    """A scanned part in the order of the fields of `Part`, what is empty at the end left out."""
    mime = node.mime
    row: Row = [
        node.id,
        node.parent,
        mime.type,
        mime.subtype,
        mime.encoding,
        node.header_start,
        node.body_start,
        node.body_end,
        node.lines,
        node.size,
    ]
    if node.is_message or mime.optional:
        row.append(node.is_message)
        row += mime.optional
    return row


def pack_parts(rows: list[Row]) -> bytes:
    """The part table as the store keeps it."""
    return _encode(rows).encode("utf-8")


def unpack_parts(data: bytes) -> list[Part]:
    """The part table from `Derived.parts`."""
    return [Part(*row) for row in json.loads(data)]


# --- what a person reads --------------------------------------------------------------------------------------------

_MEDIA = ("image", "audio", "video")


def body_parts(parts: list[Part]) -> tuple[list[int], list[int], list[int]]:
    """(textBody, htmlBody, attachments) as indexes into `parts`: the algorithm of RFC 8621 §4.1.4.

    Embedded messages are attachments; their own parts are not looked into.
    """
    if not parts:
        return [], [], []
    kids: list[list[int]] = [[] for _ in parts]
    for i, part in enumerate(parts):
        if part.parent >= 0 and not parts[part.parent].is_message:
            kids[part.parent].append(i)
    text: list[int] = []
    html: list[int] = []
    attachments: list[int] = []
    _walk(parts, kids, [0], "mixed", False, text, html, attachments)
    return text, html, attachments


def _walk(
    parts: list[Part],
    kids: list[list[int]],
    rows: list[int],
    multipart: str,
    in_alternative: bool,
    text: list[int] | None,
    html: list[int] | None,
    attachments: list[int],
) -> None:
    """One multipart; its depth is bounded by the scanner's. `text` or `html` is None where the other was chosen."""
    text_before = len(text) if text is not None else -1
    html_before = len(html) if html is not None else -1
    for i, row in enumerate(rows):
        part = parts[row]
        if part.type == "multipart":
            alternative = in_alternative or part.subtype == "alternative"
            _walk(parts, kids, kids[row], part.subtype, alternative, text, html, attachments)
            continue
        media = part.type in _MEDIA
        plain = part.type == "text" and part.subtype == "plain"
        is_html = part.type == "text" and part.subtype == "html"
        inline = (
            part.disposition != "attachment"
            and (plain or is_html or media)
            and (i == 0 or (multipart != "related" and (media or not part.filename)))
        )
        if not inline:
            attachments.append(row)
        elif multipart == "alternative":
            chosen = text if plain else html if is_html else attachments
            if chosen is not None:
                chosen.append(row)
        else:
            if in_alternative:
                if plain:
                    html = None
                if is_html:
                    text = None
            if text is not None:
                text.append(row)
            if html is not None:
                html.append(row)
            if (text is None or html is None) and media:
                attachments.append(row)
    if multipart == "alternative" and text is not None and html is not None:
        if len(text) == text_before and len(html) != html_before:
            text += html[html_before:]
        elif len(html) == html_before and len(text) != text_before:
            html += text[text_before:]


# Signatures and wrappers, and multiparts whose members are machinery or other forms of the same text.
_WRAPPERS = frozenset(
    ("pgp-signature", "pkcs7-signature", "x-pkcs7-signature", "pkcs7-mime", "x-pkcs7-mime", "pgp-encrypted", "pgp-keys")
)
_NO_ATTACHMENTS_IN = frozenset(("alternative", "report", "encrypted", "digest"))


def has_attachment(parts: list[Part], attachments: list[int], shown: list[int]) -> bool:
    """Whether a person would say that the message has an attachment (RFC 8621 §4.1.4 hasAttachment).

    `attachments` and `shown` (text or HTML body) come from `body_parts`. Not counted: images that the HTML shows by
    their Content-ID, signatures, what belongs to reports, invitations and encryption. A picture with a file name
    counts although it is shown.
    """
    for row in attachments:
        part = parts[row]
        if part.disposition == "attachment" and part.subtype not in _WRAPPERS:
            return True
        if part.disposition == "inline" and (part.type in _MEDIA or not part.filename):
            if part.cid is None and part.filename:
                return True
            continue
        if part.parent < 0 and part.type == "text":
            continue
        container = parts[part.parent].subtype if part.parent >= 0 else ""
        if container in _NO_ATTACHMENTS_IN or part.subtype in _WRAPPERS:
            continue
        if container == "related" and part.cid is not None:
            continue
        return True
    return any(parts[row].type in _MEDIA and parts[row].filename and parts[row].cid is None for row in shown)
