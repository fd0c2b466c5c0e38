"""The part table: packing it for the store, and which parts a person reads (RFC 8621 §4.1.4)."""

from __future__ import annotations

import json
from functools import lru_cache

from mailcore.mime.mimeheader import NO_ATTACHMENTS_IN, WRAPPERS, Shape
from mailcore.mime.scanner import Node
from mailcore.mime.types import Part


def pack_parts(nodes: list[Node]) -> bytes:
    """The part table as the store keeps it: JSON, a row in the order of the fields of `Part`, what is empty at the end
    left out."""
    return ("[" + ",".join([_packed(node) for node in nodes]) + "]").encode("utf-8")


def _packed(node: Node) -> str:
    mime = node.mime
    row = (
        f'["{node.id}",{node.parent},{mime.packed},{node.header_start},{node.body_start},{node.body_end},'
        f"{node.lines},{node.size}"
    )
    if node.is_message:
        return f"{row},true{mime.packed_optional}]"
    return f"{row},false{mime.packed_optional}]" if mime.packed_optional else row + "]"


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


def has_attachment(parts: list[Part], attachments: list[int], shown: list[int]) -> bool:
    """Whether a person would say that the message has an attachment (RFC 8621 §4.1.4 hasAttachment).

    `attachments` and `shown` (text or HTML body) come from `body_parts`. Not counted: images that the HTML shows by
    their Content-ID, signatures, what belongs to reports, invitations and encryption. A picture with a file name
    counts although it is shown.
    """
    for row in attachments:
        part = parts[row]
        if part.disposition == "attachment" and part.subtype not in WRAPPERS:
            return True
        if part.disposition == "inline" and (part.type in _MEDIA or not part.filename):
            if part.cid is None and part.filename:
                return True
            continue
        if part.parent < 0 and part.type == "text":
            continue
        container = parts[part.parent].subtype if part.parent >= 0 else ""
        if container in NO_ATTACHMENTS_IN or part.subtype in WRAPPERS:
            continue
        if container == "related" and part.cid is not None:
            continue
        return True
    return any(parts[row].type in _MEDIA and parts[row].filename and parts[row].cid is None for row in shown)


Outline = tuple[tuple[int, ...], tuple[int, ...], bool]


def outline(nodes: list[Node]) -> Outline:
    """(textBody, htmlBody, whether there is an attachment) of a scanned message; see `body_parts`, `has_attachment`."""
    rows = tuple([(node.parent, node.is_message, node.mime.shape) for node in nodes])
    return _usual_outline(rows) if len(rows) <= 16 else _outline(rows)


def _outline(rows: tuple[tuple[int, bool, Shape], ...]) -> Outline:
    parts = [
        Part(
            "", parent, kind, subtype, "", 0, 0, 0, 0, 0, is_message, None,
            disposition or None, "x" if named else None, "x" if has_cid else None,
        )
        for parent, is_message, (kind, subtype, disposition, named, has_cid) in rows
    ]  # fmt: skip
    text, html, attachments = body_parts(parts)
    return tuple(text), tuple(html), has_attachment(parts, attachments, text + html)


_usual_outline = lru_cache(maxsize=1024)(_outline)  # most messages have one of few
