"""IMAP strings for the answers that are computed once per message (RFC 9051 §4.3)."""

from __future__ import annotations

import re

from mailcore.mime import charset

_NOT_QUOTABLE = re.compile(rb"[^ !#-\[\]-~]")
_NEVER = re.compile(rb"[\x00\r\n]+")
_NEEDS_LITERAL = re.compile(rb"[^\x20-\x7e\t]")


def string(value: bytes) -> bytes:
    """A quoted string, or a literal when `value` has octets that a quoted string must not have (8-bit, controls).

    NUL, CR and LF are dropped: they are never part of a header value, and NUL may not occur in any IMAP string.
    8-bit octets are always UTF-8 (RFC 9051 §4.3): text in another charset, which headers must not have, is guessed.
    """
    if not _NOT_QUOTABLE.search(value):
        return b'"' + value + b'"'
    value = _NEVER.sub(b"", value)
    if not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            value = charset.decode(value).encode("utf-8")
    if _NEEDS_LITERAL.search(value):
        return b"{%d}\r\n%b" % (len(value), value)
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def nstring(value: bytes | None) -> bytes:
    """`string`, or NIL for None."""
    return b"NIL" if value is None else string(value)
