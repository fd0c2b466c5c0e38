"""Replies: code, enhanced status code (RFC 2034, RFC 3463) and text to the octets of one reply; errors as such.

`CommandError` carries a complete reply, so that the grammar says itself what is wrong with a line.
"""

from __future__ import annotations

import re

MAX_TEXT = 400
"""Characters of text on one reply line (RFC 5321 §4.5.3.1.5 allows 512 octets in all)."""

_UNSAFE = re.compile(r"[^\x20-\x7e]")


def clean(text: str) -> str:
    """Text that may stand in a reply or a log line: printable ASCII, bounded."""
    return _UNSAFE.sub("?", text[:MAX_TEXT])


def reply(code: int, status: str, *lines: str) -> bytes:
    """The octets of a reply, one reply line for each of `lines`; `status` is "" where none belongs (greeting, EHLO)."""
    prefix = f"{status} " if status else ""
    texts = [f"{prefix}{clean(line)}" for line in lines]
    head = "".join(f"{code}-{text}\r\n" for text in texts[:-1])
    return f"{head}{code} {texts[-1]}\r\n".encode("ascii")


class CommandError(Exception):
    """A command that cannot be carried out; `reply` is what the client is told."""

    def __init__(self, code: int, status: str, text: str) -> None:
        super().__init__(f"{code} {status} {text}")
        self.code = code
        self.status = status
        self.text = text

    @property
    def reply(self) -> bytes:
        return reply(self.code, self.status, self.text)
