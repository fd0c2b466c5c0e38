"""A stored message as it goes onto the wire: Bcc taken off, line ends repaired, converted for hosts that take no 8-bit
mail, then signed, and dot-stuffed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from accounts.addresses import parse_address
from mailcore.delivery import convert, dkim
from mailcore.delivery.session import Message
from mailcore.mime import headers
from mailcore.store.queue import Claimed
from mailcore.wire.smtp.data import dot_stuff, newlines_are_pairs

_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*\n?", re.M | re.I)
_NEWLINE = re.compile(rb"\r\n|\r|\n")


def outgoing(
    raw: bytes, claim: Claimed, keys: Sequence[dkim.Key], *, eight_bit: bool = True, binary: bool = False
) -> Message:
    """What is sent for a queued message. `keys` sign it; () for mail that only passes through.

    Apart from Bcc (of our own users' mail) and of line ends that SMTP cannot carry, the stored octets are not changed
    for a host that takes `eight_bit` (8BITMIME) and, where the message is such, `binary` (BINARYMIME). For others it is
    converted, before it is signed. Raises Undeliverable when it cannot be.
    """
    if claim.account_id is not None:
        raw = without_bcc(raw)
    as_it_is = claim.body == "BINARYMIME" and binary
    if not as_it_is:
        raw = crlf(convert.to_text(raw) if claim.body == "BINARYMIME" else raw)
        # A header in UTF-8 has no other form: a host that does not take it is found out by the session.
        if not eight_bit and not raw.isascii() and not (claim.smtputf8 and not _header(raw).isascii()):
            raw = convert.to_seven_bit(raw)
    data = b"".join((dkim.sign(raw, keys) if keys else b"", claim.prepend, raw))
    header = _header(data)
    sender = _sender(claim.sender)
    utf8 = not sender.isascii() or (claim.smtputf8 and not header.isascii())
    return Message(
        sender=sender,
        content=data if as_it_is else dot_stuff(data),
        size=len(data),
        utf8=utf8,
        eight_bit=not as_it_is and not data.isascii(),
        binary=as_it_is,
        requiretls=claim.requiretls is True,
        ret=claim.dsn_ret,
        envid=claim.dsn_envid,
        deadline=claim.deadline,
        by_mode=claim.by_mode,
        priority=claim.priority,
    )


def _header(raw: bytes) -> bytes:
    return raw[: headers.header_end(raw, 0, len(raw))]


def _sender(address: str) -> str:
    """In ASCII where it can be: a domain has A-labels, a local part has no other form."""
    if address.isascii():
        return address
    parsed = parse_address(address)
    return str(parsed) if parsed.is_ascii else address


def without_bcc(raw: bytes) -> bytes:
    """The message without Bcc and Resent-Bcc fields."""
    end = headers.header_end(raw, 0, len(raw))
    header = raw[:end]
    kept = _BCC.sub(b"", header)
    return raw if kept == header else kept + raw[end:]


def crlf(raw: bytes) -> bytes:
    """The message with CRLF line ends only: a bare CR or LF is refused by good servers and misread by bad ones."""
    return raw if newlines_are_pairs(raw) else _NEWLINE.sub(b"\r\n", raw)
