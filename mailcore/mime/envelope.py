"""IMAP's ENVELOPE (RFC 9051 §7.5.2) and the Summary, from one reading of a message's header fields."""

from __future__ import annotations

import re

from mailcore.mime import charset
from mailcore.mime.addresses import NO_ADDRESSES, AddressList, address_list, parse_addresses, render
from mailcore.mime.dates import parse_date
from mailcore.mime.headers import decode_header, tidy, unfold
from mailcore.mime.imaplex import nstring
from mailcore.mime.limits import MAX_ADDRESSES, MAX_MESSAGE_IDS, MAX_VALUE
from mailcore.mime.subject import base_subject
from mailcore.mime.types import Mailbox, Summary

EMPTY_ENVELOPE = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"

Fields = dict[bytes, list[bytes]]  # lower-case name -> raw values

_ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
# What ENVELOPE and Summary need of a header.
FIELDS = frozenset((*_ADDRESS_FIELDS, b"date", b"subject", b"in-reply-to", b"message-id", b"references", b"list-id"))


def envelope(fields: Fields, budget: int = MAX_ADDRESSES) -> tuple[bytes, Summary, int]:
    """ENVELOPE and Summary of a header, and what remains of the `budget` of addresses."""
    lists: list[AddressList] = []
    for name in _ADDRESS_FIELDS:
        values = fields.get(name)
        if not values or budget <= 0:
            lists.append(NO_ADDRESSES)
            continue
        found = _addresses(values, budget)
        budget -= found.size
        lists.append(found)
    from_, sender, reply_to, to, cc, bcc = lists
    date = _last(fields, b"date")
    subject = _last(fields, b"subject")
    in_reply_to = _last(fields, b"in-reply-to")
    message_id = _last(fields, b"message-id")
    imap = b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(date),
        nstring(subject),
        from_.imap,
        sender.imap if sender.size else from_.imap,
        reply_to.imap if reply_to.size else from_.imap,
        to.imap,
        cc.imap,
        bcc.imap,
        nstring(in_reply_to),
        nstring(message_id),
    )
    decoded = decode_header(subject) if subject is not None else None
    list_id = _last(fields, b"list-id")
    summary = Summary(
        decoded,
        from_.people,
        to.people,
        cc.people,
        bcc.people,
        sender.people,
        reply_to.people,
        message_ids(message_id) if message_id else (),
        message_ids(in_reply_to) if in_reply_to else (),
        message_ids(b" ".join(fields[b"references"])) if b"references" in fields else (),
        parse_date(date) if date else None,
        base_subject(decoded) if decoded else "",
        _list_id(list_id) if list_id else None,
    )
    return imap, summary, budget


def _last(fields: Fields, name: bytes) -> bytes | None:
    """A field that should occur once; of several the last counts, as in RFC 8621 §4.1.3."""
    values = fields.get(name)
    if not values:
        return None
    value = values[-1][:MAX_VALUE].strip()
    return unfold(value) if b"\n" in value or b"\r" in value else value


def _addresses(values: list[bytes], budget: int) -> AddressList:
    if len(values) == 1:
        return address_list(values[0], budget)
    found: list[Mailbox] = []
    for value in values:
        found += parse_addresses(value, budget - len(found))
        if len(found) >= budget:
            break
    return render(found)


_ANGLED = re.compile(rb"<([^<>]{1,1000})>")
_ONE_ID = re.compile(rb"\s*+<([!-;=?-~]{1,1000})>\s*+")
_BARE_ID = re.compile(rb"(?<![^\s<>,;()\"])[^\s<>,;()\"@]++@[^\s<>,;()\"]++")


def message_ids(value: bytes) -> tuple[str, ...]:
    """The message identifiers of a field, without <>, the last MAX_MESSAGE_IDS of them (RFC 5322 §3.6.4).

    A value without any <...> is searched for words with an @, which some mailers write.
    """
    if (one := _ONE_ID.fullmatch(value)) is not None:
        return (one.group(1).decode("ascii"),)
    found = _ANGLED.findall(b"".join(value.split())) or _BARE_ID.findall(value[:MAX_VALUE])
    if len(found) > MAX_MESSAGE_IDS:
        del found[:-MAX_MESSAGE_IDS]
    text = charset.decode(b"\n".join(found))
    if not text.isascii() or not text.replace("\n", "").isprintable():
        text = "\n".join([tidy(line) for line in text.split("\n")])
    return tuple([line for line in text.split("\n") if line])


def _list_id(value: bytes) -> str | None:
    """The identifier of a List-Id field (RFC 2919): what is in <>, else the whole value."""
    angled = _ANGLED.findall(value)
    return decode_header(angled[-1] if angled else value)[:500] or None
