"""Header fields in the forms of RFC 8621 §4.1.2: properties `header:Name`, `header:Name:asForm`,
`header:Name:asForm:all`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mailcore import mime
from mailcore.jmap import values
from mailcore.jmap.errors import bad_arguments
from mailcore.jmap.limits import MAX_HEADERS
from mailcore.mime.headers import fields as split_fields
from mailcore.mime.headers import unfold
from mailcore.mime.types import Addr, Mailbox

Json = dict[str, Any]
Fields = list[tuple[str, bytes]]  # (name as written, value as written)

_PROPERTY = re.compile(r"header:([!-9;-~]{1,200})(?::as(\w{1,20}))?(:all)?")
_URL = re.compile(r"<([^<>\s]+)>")

# Which forms a field may be asked for in, beside Raw; fields that no RFC listed in §4.1.2 defines take any form.
_ADDRESSES = frozenset({"Addresses", "GroupedAddresses"})
_TEXT, _IDS, _DATE, _URLS = frozenset({"Text"}), frozenset({"MessageIds"}), frozenset({"Date"}), frozenset({"URLs"})
_RESENT = {f"resent-{name}": _ADDRESSES for name in ("from", "sender", "reply-to", "to", "cc", "bcc")}
ALLOWED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("from", "sender", "reply-to", "to", "cc", "bcc"), _ADDRESSES),
    **_RESENT,
    **dict.fromkeys(("subject", "comments", "keywords", "list-id"), _TEXT),
    **dict.fromkeys(("message-id", "in-reply-to", "references", "resent-message-id"), _IDS),
    **dict.fromkeys(("date", "resent-date"), _DATE),
    **dict.fromkeys(
        (f"list-{name}" for name in ("help", "unsubscribe", "subscribe", "post", "owner", "archive")), _URLS
    ),
    **dict.fromkeys(("return-path", "received"), frozenset()),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A header property: the field's name in lower case, the form, whether all instances are meant."""

    name: str
    form: str
    every: bool


def wanted(prop: str) -> Wanted:
    """The meaning of a property that begins with `header:`. Raises invalidArguments."""
    match = _PROPERTY.fullmatch(prop)
    if match is None:
        raise bad_arguments(f"{prop[:100]} is no header property")
    name, form = match.group(1).lower(), match.group(2) or "Raw"
    if form not in FORMS or (form != "Raw" and form not in ALLOWED.get(name, FORMS.keys())):
        raise bad_arguments(f"{prop[:100]}: that field has no such form")
    return Wanted(name, form, match.group(3) is not None)


def fields_of(block: bytes) -> Fields:
    """The fields of a header block, in order."""
    return [(name.decode("ascii", "replace"), value) for _, name, value in split_fields(block)[:MAX_HEADERS]]


def value_of(fields: Fields, asked: Wanted) -> Any:
    """The value of a header property: null (or an empty list) when the field is not there."""
    render = FORMS[asked.form]
    found = [value for name, value in fields if name.lower() == asked.name]
    if asked.every:
        return [render(value) for value in found]
    return render(found[-1]) if found else None


def raw(value: bytes) -> str:
    """The octets after the colon as text."""
    return value.rstrip(b"\r\n").decode("utf-8", "replace").replace("\0", "\ufffd")


def every(fields: Fields) -> list[Json]:
    """EmailHeader objects."""
    return [{"name": name, "value": raw(value)} for name, value in fields]


def person(addr: Addr) -> Json:
    """An EmailAddress object."""
    return {"name": addr.name, "email": addr.email}


def _addresses(value: bytes) -> list[Json]:
    return [person(addr) for addr in mime.people(mime.parse_addresses(value))]


def _grouped(value: bytes) -> list[Json]:
    found: list[Json] = []
    members: list[Mailbox] = []
    name: str | None = None

    def close() -> None:
        if members or name is not None:
            found.append({"name": name, "addresses": [person(addr) for addr in mime.people(members)]})
        members.clear()

    for mailbox in mime.parse_addresses(value):
        if mailbox.host is not None:
            members.append(mailbox)
            continue
        close()
        name = mime.decode_header(mailbox.mailbox) if mailbox.mailbox is not None else None
    close()
    return found


def _message_ids(value: bytes) -> list[str] | None:
    return list(mime.message_ids(unfold(value))) or None


def _date(value: bytes) -> str | None:
    moment = mime.parse_date(unfold(value))
    return values.date(moment) if moment is not None else None


def _urls(value: bytes) -> list[str] | None:
    return _URL.findall(mime.decode_header(value)) or None


FORMS: dict[str, Callable[[bytes], Any]] = {
    "Raw": raw,
    "Text": mime.decode_header,
    "Addresses": _addresses,
    "GroupedAddresses": _grouped,
    "MessageIds": _message_ids,
    "Date": _date,
    "URLs": _urls,
}
