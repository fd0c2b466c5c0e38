"""The byte-level buffer that SMTP, IMAP, POP3 and ManageSieve read from; linear time however the bytes arrive."""

from __future__ import annotations

from enum import Enum


class LineTooLong(Exception):
    """A line exceeds the limit; call discard_line() to skip it. The bytes are still unread."""


class BareNewline(Exception):
    """A line held a CR or LF that is not part of CRLF. The line has been consumed: the reader is at the next line."""

    def __init__(self, line: bytes) -> None:
        super().__init__("bare CR or LF")
        self.line = line


class BareLF(Enum):
    """What LF without CR means to take_line()."""

    ERROR = "error"  # ends the line, which is then refused with BareNewline: out of grammar, but in sync
    ACCEPT = "accept"  # ends the line
    DATA = "data"  # is an octet like any other; only CRLF ends a line


class ByteReader:
    """Unread bytes of one connection."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes (what a discard still waits for is dropped at once)."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Unread bytes."""
        raise NotImplementedError

    def take_line(self, limit: int, bare_lf: BareLF = BareLF.ERROR) -> bytes | None:
        """The next line without its end, or None if it is not complete. `limit` counts octets without the line end.

        Raises LineTooLong, BareNewline.
        """
        raise NotImplementedError

    def take(self, count: int) -> bytes | None:
        """Exactly `count` bytes, or None when there are fewer."""
        raise NotImplementedError

    def take_up_to(self, count: int) -> bytes:
        """At most `count` bytes, b"" when there are none."""
        raise NotImplementedError

    def discard(self, count: int) -> None:
        """Drop the next `count` bytes, those that have not arrived yet included."""
        raise NotImplementedError

    def discard_line(self, keep: int = 0) -> None:
        """Drop everything to the end of the current line (LF), arrived or not; `tail` then has its last `keep` octets."""
        raise NotImplementedError

    @property
    def discarding(self) -> bool:
        """True while a discard waits for more bytes."""
        raise NotImplementedError

    @property
    def tail(self) -> bytes:
        """The last octets of the line that discard_line() dropped, without its end."""
        raise NotImplementedError

    def clear(self) -> bytes:
        """Remove and return everything unread (STARTTLS: throw it away)."""
        raise NotImplementedError
