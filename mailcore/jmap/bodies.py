"""EmailBodyPart and EmailBodyValue objects (RFC 8621 §4.1.4) from the part table and slices of the raw message."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from mailcore.jmap import headers
from mailcore.jmap.headers import Fields, Wanted
from mailcore.mime import Part, body_parts
from mailcore.mime.decode import decode_range, text_of

Json = dict[str, Any]

PROPERTIES = frozenset(
    {
        "partId",
        "blobId",
        "size",
        "name",
        "type",
        "charset",
        "disposition",
        "cid",
        "language",
        "location",
        "headers",
        "subParts",
    }
)
DEFAULT = PROPERTIES - {"headers", "subParts"}
NEEDS_HEADER = frozenset({"headers"})

# A value of so many octets may need four times as many in the charset it comes from.
_WIDEST = 4


def is_multipart(part: Part) -> bool:
    return part.type == "multipart"


def outer_rows(parts: Sequence[Part]) -> list[int]:
    """The rows of the message itself: those of embedded messages are not looked into."""
    inside: set[int] = set()
    for row, part in enumerate(parts):
        if part.parent >= 0 and (part.parent in inside or parts[part.parent].is_message):
            inside.add(row)
    return [row for row in range(len(parts)) if row not in inside]


def blob_id(email_id: int, part: Part) -> str:
    return f"P{email_id}-{part.id.replace('.', '_')}"


def shown(
    email_id: int, part: Part, properties: frozenset[str], asked: dict[str, Wanted], fields: Fields | None
) -> Json:
    """One part with the properties asked for; `fields` are its MIME header's, when something of it is asked."""
    leaf = not is_multipart(part)
    found: Json = {
        "partId": part.id if leaf else None,
        "blobId": blob_id(email_id, part) if leaf else None,
        "size": part.size if leaf else 0,
        "name": part.filename,
        "type": f"{part.type}/{part.subtype}",
        "charset": part.charset or ("us-ascii" if part.type == "text" else None),
        "disposition": part.disposition,
        "cid": part.cid,
        "language": [tag.strip() for tag in part.language.split(",")] if part.language else None,
        "location": part.location,
    }
    answer = {name: found[name] for name in found if name in properties}
    if "headers" in properties:
        answer["headers"] = headers.every(fields or [])
    for prop, wanted in asked.items():
        answer[prop] = headers.value_of(fields or [], wanted)
    return answer


Show = Callable[[int], Json]


def structure(parts: Sequence[Part], show: Show, with_children: bool) -> Json:
    """`bodyStructure`: the tree of parts, multiparts with their `subParts`."""
    shown_rows: dict[int, Json] = {}
    for row in outer_rows(parts):
        part = parts[row]
        item = show(row)
        if is_multipart(part) and with_children:
            item["subParts"] = []
        shown_rows[row] = item
        if part.parent >= 0 and with_children:
            shown_rows[part.parent]["subParts"].append(item)
    return shown_rows[0] if shown_rows else {}


def lists(parts: list[Part]) -> dict[str, list[int]]:
    """Rows of textBody, htmlBody and attachments."""
    text, html, attachments = body_parts(parts)
    return {"textBody": text, "htmlBody": html, "attachments": attachments}


def value_rows(parts: list[Part], args: Json) -> list[int]:
    """Rows whose text is asked for by the fetch…BodyValues arguments."""
    found: dict[int, None] = {}
    if args.get("fetchAllBodyValues"):
        found.update(dict.fromkeys(row for row in outer_rows(parts) if parts[row].type == "text"))
    else:
        which = lists(parts)
        for name, key in (("fetchTextBodyValues", "textBody"), ("fetchHTMLBodyValues", "htmlBody")):
            if args.get(name):
                found.update(dict.fromkeys(row for row in which[key] if parts[row].type == "text"))
    return list(found)


def octets_for(part: Part, limit: int) -> int:
    """How many encoded octets of a part give `limit` octets of text."""
    return min(part.body_end - part.body_start, 3 * _WIDEST * limit + 1024)


def value(part: Part, piece: bytes, limit: int) -> Json:
    """EmailBodyValue of a text part from the first octets of its body; at most `limit` octets of UTF-8."""
    data = decode_range(piece, 0, len(piece), part.encoding, _WIDEST * limit)
    text = text_of(data, part.charset, part.subtype).replace("\r\n", "\n")
    cut = len(piece) < part.body_end - part.body_start or len(data) >= _WIDEST * limit
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > limit or cut:
        cut = True
        text = encoded[:limit].decode("utf-8", "ignore")
        if part.subtype == "html" and text.rfind("<") > text.rfind(">"):
            text = text[: text.rfind("<")]
    return {"value": text, "isEncodingProblem": "\ufffd" in text or not _known(part.charset), "isTruncated": cut}


def _known(charset: str | None) -> bool:
    if charset is None:
        return True
    try:
        codecs.lookup(charset)
    except (LookupError, ValueError):
        return False
    return True
