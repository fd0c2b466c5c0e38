"""From the Email object of a create (RFC 8621 §4.6) to the octets of a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from accounts.addresses import domain_name, parse_address
from accounts.errors import AddressError
from mailcore.jmap import headers, limits, values
from mailcore.jmap.errors import MethodError, SetError, invalid
from mailcore.mime import compose
from mailcore.mime.compose import Body, Leaf, Multipart
from mailcore.mime.types import Addr

Json = dict[str, Any]

ADDRESS_FIELDS = {
    "from": "From",
    "sender": "Sender",
    "replyTo": "Reply-To",
    "to": "To",
    "cc": "Cc",
    "bcc": "Bcc",
}
ORDER = (
    *("date", "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "message-id", "in-reply-to"),
    "references",
)
ID_FIELDS = {"messageId": "Message-ID", "inReplyTo": "In-Reply-To", "references": "References"}
CONTENT = frozenset({"subject", "sentAt", "bodyStructure", "bodyValues", "textBody", "htmlBody", "attachments"})
PROPERTIES = frozenset({"mailboxIds", "keywords", "receivedAt"}) | CONTENT | ADDRESS_FIELDS.keys() | ID_FIELDS.keys()
PART_PROPERTIES = frozenset(
    {"partId", "blobId", "size", "name", "type", "charset", "disposition", "cid", "language", "location", "subParts"}
)
MAX_PARTS = 500
MAX_DEPTH = 20

Blobs = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Reader:
    """What parts draw upon: the texts and the blobs that they name."""

    texts: Mapping[str, str]
    blobs: Blobs


def blob_ids(email: Json) -> list[str]:
    """The blobs that an Email object to be created names; looks no further than create() will."""
    found: list[str] = []

    def walk(part: Any, depth: int) -> None:
        if not isinstance(part, dict) or depth > MAX_DEPTH or len(found) > MAX_PARTS:
            return
        if isinstance(part.get("blobId"), str):
            found.append(part["blobId"])
        for child in part.get("subParts") or () if isinstance(part.get("subParts"), list) else ():
            walk(child, depth + 1)

    walk(email.get("bodyStructure"), 0)
    for name in ("textBody", "htmlBody", "attachments"):
        for part in email.get(name) or () if isinstance(email.get(name), list) else ():
            walk(part, 0)
    return list(dict.fromkeys(found))


def create(email: Json, blobs: Blobs, hostname: str) -> bytes:
    """The message. Raises SetError invalidProperties with the properties that are wrong."""
    for name in email:
        if name not in PROPERTIES and not name.startswith("header:"):
            raise invalid(f"{name[:100]} cannot be set", name[:100])
    fields = _fields(email, hostname)
    body = _body(email, blobs)
    try:
        return compose.compose(fields, body)
    except ValueError as error:
        raise invalid(str(error), "bodyStructure") from None


# --- header


def _fields(email: Json, hostname: str) -> list[tuple[str, bytes]]:
    found: dict[str, tuple[str, bytes]] = {}
    extra: list[tuple[str, bytes]] = []
    for prop in email:
        if prop.startswith("header:"):
            name, rendered = _header_property(prop, email[prop])
            if name.lower() in found or any(name.lower() == other.lower() for other, _ in extra):
                raise invalid("a header field is given twice", prop)
            extra.extend((name, value) for value in rendered)
    given = {name.lower() for name, _ in extra}

    def put(prop: str, name: str, value: bytes) -> None:
        if name.lower() in given:
            raise invalid("a header field is given twice", prop)
        found[name.lower()] = (name, value)

    moment = datetime.now(UTC)
    if email.get("sentAt") is not None:
        try:
            moment = values.parse_date(email["sentAt"], "sentAt")
        except MethodError:
            raise invalid("sentAt must be a date", "sentAt") from None
    if email.get("sentAt") is not None or "date" not in given:
        put("sentAt", "Date", compose.date_value(moment))
    for prop, name in ADDRESS_FIELDS.items():
        if email.get(prop) is not None:
            rendered_people = compose.addresses_value(people(email[prop], prop))
            if rendered_people:
                put(prop, name, rendered_people)
    if email.get("subject") is not None:
        if not isinstance(email["subject"], str):
            raise invalid("subject must be a string", "subject")
        put("subject", "Subject", compose.text_value(email["subject"]))
    for prop, name in ID_FIELDS.items():
        if email.get(prop) is not None:
            put(prop, name, _rendered(prop, compose.message_ids_value, _strings(email[prop], prop)))
    if email.get("messageId") is None and "message-id" not in given:
        put("messageId", "Message-ID", compose.message_ids_value([compose.new_message_id(_domain(email, hostname))]))
    return [found[name] for name in ORDER if name in found and found[name][1]] + extra


def _domain(email: Json, hostname: str) -> str:
    """The writer's domain, which names the message; ours when there is none that could."""
    try:
        domain = parse_address(email["from"][0]["email"]).domain
    except (AddressError, LookupError, TypeError):
        return hostname
    return hostname if domain.startswith("[") else domain


def people(value: Any, prop: str) -> list[Addr]:
    """EmailAddress objects; raises invalidProperties."""
    if not isinstance(value, list) or len(value) > limits.MAX_RECIPIENTS:
        raise invalid(f"{prop} must be a list of addresses", prop)
    found = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("email"), str):
            raise invalid(f"{prop}: an address has an email", prop)
        name = item.get("name")
        if name is not None and not isinstance(name, str):
            raise invalid(f"{prop}: a name is a string", prop)
        found.append(Addr(name, _sendable(item["email"])))
    return found


def _sendable(email: str) -> str:
    """An internationalised domain as A-labels, so that no relay need know SMTPUTF8 for its sake alone."""
    local, _, domain = email.rpartition("@")
    if not local.isascii() or domain.isascii():
        return email
    try:
        return f"{local}@{domain_name(domain.strip())}"
    except AddressError:
        return email


def _groups(value: Any, prop: str) -> list[tuple[str | None, list[Addr]]]:
    if not isinstance(value, list):
        raise invalid(f"{prop} must be a list of groups", prop)
    found = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str | None):
            raise invalid(f"{prop}: a group has a name or null", prop)
        found.append((item.get("name"), people(item.get("addresses"), prop)))
    return found


def _strings(value: Any, prop: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(f"{prop} must be a list of strings", prop)
    return value


def _string(value: Any, prop: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{prop} must be a string", prop)
    return value


def _moment(value: Any, prop: str) -> datetime:
    try:
        return values.parse_date(value, prop)
    except MethodError:
        raise invalid(f"{prop} must be a date", prop) from None


def _rendered(prop: str, render: Callable[[Any], bytes], value: Any) -> bytes:
    try:
        return render(value)
    except ValueError as error:
        raise invalid(f"{prop}: {error}", prop) from None


# form -> how its value is read, how it is written
FORMS: dict[str, tuple[Callable[[Any, str], Any], Callable[[Any], bytes]]] = {
    "Raw": (_string, compose.raw_value),
    "Text": (_string, compose.text_value),
    "Addresses": (people, compose.addresses_value),
    "GroupedAddresses": (_groups, compose.groups_value),
    "MessageIds": (_strings, compose.message_ids_value),
    "Date": (_moment, compose.date_value),
    "URLs": (_strings, compose.urls_value),
}


def _header_property(prop: str, value: Any) -> tuple[str, list[bytes]]:
    """The field's name as it was written, and its value or values."""
    try:
        wanted = headers.wanted(prop)
    except MethodError as error:
        raise invalid(str(error), prop[:100]) from None
    if wanted.name.startswith("content-") or wanted.name == "mime-version":
        raise invalid("that field follows from the body", prop)
    name = prop.split(":", 2)[1]
    read, write = FORMS[wanted.form]
    if wanted.every and not isinstance(value, list):
        raise invalid(f"{prop} must be a list", prop)
    items = value if wanted.every else [value]
    return name, [_rendered(prop, write, read(item, prop)) for item in items if item is not None]


# --- body


def _body(email: Json, blobs: Blobs) -> Body:
    reader = _Reader(_texts(email.get("bodyValues")), blobs)
    if email.get("bodyStructure") is not None:
        for name in ("textBody", "htmlBody", "attachments"):
            if email.get(name):
                raise invalid("give either bodyStructure or the lists of parts", "bodyStructure", name)
        return _part(email["bodyStructure"], "bodyStructure", reader, 0)
    text = _only(email, "textBody", "text/plain", reader)
    html = _only(email, "htmlBody", "text/html", reader)
    given = email.get("attachments") or []
    if not isinstance(given, list) or len(given) > MAX_PARTS:
        raise invalid("attachments must be a list of parts", "attachments")
    attachments = [_part(item, "attachments", reader, 0, "attachment") for item in given]
    inline = [part for part in attachments if html is not None and _is_shown(part)]
    rest = [part for part in attachments if html is None or not _is_shown(part)]
    body: Body | None = html
    if html is not None and inline:
        body = Multipart("related", (html, *inline))
    if text is not None:
        body = Multipart("alternative", (text, body)) if body is not None else text
    if body is None:
        body = rest[0] if len(rest) == 1 else Multipart("mixed", rest) if rest else Leaf("text/plain", "")
        return body
    return Multipart("mixed", (body, *rest)) if rest else body


def _is_shown(part: Body) -> bool:
    """Whether HTML shows the part by its Content-ID."""
    return isinstance(part, Leaf) and bool(part.cid) and part.disposition == "inline"


def _texts(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid("bodyValues must be a map of values", "bodyValues")
    found = {}
    for part_id, item in value.items():
        if not isinstance(item, dict) or not isinstance(item.get("value"), str):
            raise invalid("a body value has a value", "bodyValues")
        if item.get("isTruncated") or item.get("isEncodingProblem"):
            raise invalid("a body value to be sent is whole and right", "bodyValues")
        found[part_id] = item["value"]
    return found


def _only(email: Json, name: str, kind: str, reader: _Reader) -> Body | None:
    given = email.get(name)
    if not given:
        return None
    if not isinstance(given, list) or len(given) != 1:
        raise invalid(f"{name} has exactly one part", name)
    part = _part(given[0], name, reader, 0, kind=kind)
    if not isinstance(part, Leaf) or part.type.lower() != kind:
        raise invalid(f"{name} has one part of type {kind}", name)
    return part


def _part(given: Any, prop: str, reader: _Reader, depth: int, disposition: str | None = None, kind: str = "") -> Body:
    """One part; `disposition` is what it has when it says nothing of it."""
    if not isinstance(given, dict) or depth > MAX_DEPTH:
        raise invalid(f"{prop} must be made of parts", prop)
    extra: list[tuple[str, bytes]] = []
    for name in given:
        if name.startswith("header:"):
            field_name, rendered = _header_property(name, given[name])
            extra.extend((field_name, value) for value in rendered)
        elif name not in PART_PROPERTIES:
            raise invalid(f"a part has no {name[:100]}", prop)
    declared = given.get("type")
    children = given.get("subParts")
    if children or (isinstance(declared, str) and declared.lower().startswith("multipart/")):
        if not isinstance(children, list) or len(children) > MAX_PARTS or given.get("partId") or given.get("blobId"):
            raise invalid("a multipart has parts and nothing else", prop)
        subtype = _string(declared or "multipart/mixed", prop).lower().removeprefix("multipart/")
        return Multipart(subtype, [_part(child, prop, reader, depth + 1) for child in children], extra)
    return Leaf(
        type=_optional(given, "type", prop)
        or kind
        or ("text/plain" if given.get("partId") else "application/octet-stream"),
        content=_content(given, prop, reader),
        charset=_optional(given, "charset", prop),
        disposition=_optional(given, "disposition", prop) or disposition,
        filename=_optional(given, "name", prop),
        cid=_optional(given, "cid", prop),
        language=_strings(given["language"], prop) if given.get("language") else (),
        location=_optional(given, "location", prop),
        headers=extra,
    )


def _optional(given: Json, name: str, prop: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{prop}: {name} must be a string", prop)
    return value


def _content(given: Json, prop: str, reader: _Reader) -> str | bytes:
    part_id, blob_id = given.get("partId"), given.get("blobId")
    if (part_id is None) == (blob_id is None):
        raise invalid("a part has either a partId or a blobId", prop)
    if part_id is not None:
        if not isinstance(part_id, str) or part_id not in reader.texts:
            raise invalid("a partId names one of bodyValues", prop, "bodyValues")
        return reader.texts[part_id]
    if not isinstance(blob_id, str) or blob_id not in reader.blobs:
        raise SetError("blobNotFound", "a file is not there any more", notFound=[str(blob_id)[:255]])
    return reader.blobs[blob_id]
