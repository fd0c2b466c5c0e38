"""IMAP URLs (RFC 5092) of a message or a part of one, as CATENATE (RFC 4469) takes them: absolute or relative."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import FetchBody, parse_item
from mailcore.wire.imap.mailbox_name import canonical, has_control
from mailcore.wire.imap.tokens import MAX_NUMBER, MAX_NUMBER64, Cursor

_URL = re.compile(
    r"(?:imap://(?:(?P<user>[^@/;]*)(?:;AUTH=[^@/;]*)?@)?(?P<host>[^@/:;]+)(?::[0-9]{1,5})?)?"
    r"(?:/(?P<mailbox>[^;]+?)(?:;UIDVALIDITY=(?P<validity>[0-9]{1,10}))?/)?"
    r";UID=(?P<uid>[0-9]{1,10})"
    r"(?:/;SECTION=(?P<section>[^;]+?))?"
    r"(?:/;PARTIAL=(?P<start>[0-9]{1,19})(?:\.(?P<count>[0-9]{1,19}))?)?",
    re.IGNORECASE,
)


class UrlError(ValueError):
    """Not the URL of a message that we could know; the text says why."""


@dataclass(frozen=True, slots=True)
class MessageUrl:
    """Which octets a URL names. `user` and `host` None: this server, this login; `mailbox` None: the selected one.

    `uidvalidity` None: any. `item`: the section and the slice of it, as FETCH would ask for them.
    """

    user: str | None
    host: str | None
    mailbox: str | None
    uidvalidity: int | None
    uid: int
    item: FetchBody


def parse_url(url: str) -> MessageUrl:
    """Read the URL of a message. Raises UrlError; URLAUTH (RFC 4467) is none that we know."""
    found = _URL.fullmatch(url)
    if found is None:
        raise UrlError("this is not the URL of a message")
    host, mailbox = found["host"], found["mailbox"]
    if host is not None and mailbox is None:
        raise UrlError("the URL names no mailbox")
    uid, validity = int(found["uid"]), found["validity"]
    if not 1 <= uid <= MAX_NUMBER:
        raise UrlError("the UID is out of range")
    return MessageUrl(
        None if found["user"] is None else _decoded(found["user"]),
        host,
        None if mailbox is None else canonical(_decoded(mailbox)),
        None if validity is None else int(validity),
        uid,
        _item(found["section"], found["start"], found["count"]),
    )


def _decoded(text: str) -> str:
    try:
        value = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise UrlError("the URL is not UTF-8") from None
    if has_control(value):
        raise UrlError("the URL contains control characters")
    return value


def _item(section: str | None, start: str | None, count: str | None) -> FetchBody:
    octets = b"" if section is None else unquote_to_bytes(section)
    cut = ""
    if start is not None:
        cut = f"<{start}.{count or MAX_NUMBER64}>"
    cursor = Cursor((b"BODY.PEEK[%b]%b" % (octets, cut.encode()),))
    try:
        item = parse_item(cursor)
        cursor.end()
    except ImapSyntaxError:
        raise UrlError("the URL's section or slice cannot be read") from None
    assert isinstance(item, FetchBody)
    return item
