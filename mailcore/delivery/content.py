"""A stored message as it goes onto the wire: Bcc taken off, line ends repaired, signed, dot-stuffed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailcore.delivery import dkim
from mailcore.delivery.session import Message
from mailcore.mime import headers
from mailcore.store.queue import Claimed
from mailcore.wire.smtp.data import dot_stuff

_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*\n?", re.M | re.I)
_NEWLINE = re.compile(rb"\r\n|\r|\n")


def outgoing(raw: bytes, claim: Claimed, keys: Sequence[dkim.Key]) -> Message:
    """What is sent for a queued message. `keys` sign it; () for mail that only passes through.

    Apart from Bcc (of our own users' mail) and of line ends that SMTP cannot carry, the stored octets are not changed.
    """
    if claim.account_id is not None:
        raw = without_bcc(raw)
    raw = crlf(raw)
    data = (dkim.sign(raw, keys) if keys else b"") + claim.prepend + raw
    header = data[: headers.header_end(data, 0, len(data))]
    utf8 = not claim.sender.isascii() or (claim.smtputf8 and not header.isascii())
    return Message(
        sender=claim.sender,
        content=dot_stuff(data),
        size=len(data),
        utf8=utf8,
        eight_bit=not data.isascii(),
        ret=claim.dsn_ret,
        envid=claim.dsn_envid,
    )


def without_bcc(raw: bytes) -> bytes:
    """The message without Bcc and Resent-Bcc fields."""
    end = headers.header_end(raw, 0, len(raw))
    header = raw[:end]
    kept = _BCC.sub(b"", header)
    return raw if kept == header else kept + raw[end:]


def crlf(raw: bytes) -> bytes:
    """The message with CRLF line ends only: a bare CR or LF is refused by good servers and misread by bad ones."""
    pairs = raw.count(b"\r\n")
    if raw.count(b"\n") == pairs and raw.count(b"\r") == pairs:
        return raw
    return _NEWLINE.sub(b"\r\n", raw)
