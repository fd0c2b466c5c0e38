"""The byte-level buffer that SMTP, IMAP, POP3 and ManageSieve read from; linear time however the bytes arrive."""

from __future__ import annotations

from enum import Enum

CR, LF = 13, 10


class LineTooLong(Exception):
    """A line exceeds the limit; call discard_line() to skip it. Its bytes are still unread."""


class BareNewline(Exception):
    """A line held a CR or LF that is not part of CRLF. The line has been consumed: the reader is at the next line."""

    def __init__(self, line: bytes) -> None:
        super().__init__("bare CR or LF")
        self.line = line


class BareLF(Enum):
    """What LF without CR means to take_line()."""

    ERROR = "error"  # ends the line, which is then refused with BareNewline: out of grammar, but in sync
    ACCEPT = "accept"  # ends the line; a CR elsewhere in the line is left to the grammar
    DATA = "data"  # is an octet like any other, as CR is; only CRLF ends a line


class ByteReader:
    """Unread bytes of one connection.

    A bytearray serves: deleting from its front moves a pointer, not the bytes. What has been searched for a line
    end is not searched again.
    """

    __slots__ = ("_buffer", "_in_line", "_keep", "_scanned", "_skip", "_tail", "discarded")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._skip = 0
        self._in_line = False
        self._keep = 0
        self._tail = b""
        self.discarded = 0
        """Octets dropped by discard() and discard_line() so far; the owner may reset it."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes (what a discard still waits for is dropped at once)."""
        if self._skip or self._in_line:
            data = self._drop(bytes(data))
        self._buffer += data

    def __len__(self) -> int:
        """Unread bytes."""
        return len(self._buffer)

    def take_line(self, limit: int, bare_lf: BareLF = BareLF.ERROR) -> bytes | None:
        """The next line without its end, or None if it is not complete. `limit` counts octets without the line end.

        Raises LineTooLong, and BareNewline with BareLF.ERROR.
        """
        buffer = self._buffer
        if bare_lf is BareLF.DATA:
            crlf = buffer.find(b"\r\n", max(self._scanned - 1, 0))
            end, after = crlf, crlf + 2
        else:
            newline = buffer.find(b"\n", self._scanned)
            end, after = (newline - 1 if newline > 0 and buffer[newline - 1] == CR else newline), newline + 1
        if end < 0:
            self._scanned = size = len(buffer)
            if size > limit and size - (buffer[-1] == CR) > limit:
                raise LineTooLong
            return None
        if end > limit:
            raise LineTooLong
        line = bytes(buffer[:end])
        del buffer[:after]
        self._scanned = 0
        if bare_lf is BareLF.ERROR and (after - end == 1 or CR in line):
            raise BareNewline(line)
        return line

    def peek(self, count: int) -> bytes:
        """The first unread bytes, at most `count`, left unread."""
        return bytes(self._buffer[:count])

    def take(self, count: int) -> bytes | None:
        """Exactly `count` bytes, or None when there are fewer."""
        return self.take_up_to(count) if len(self._buffer) >= count else None

    def take_up_to(self, count: int) -> bytes:
        """At most `count` bytes, b"" when there are none. Costs one copy."""
        buffer = self._buffer
        self._scanned = 0
        if count >= len(buffer):
            data = bytes(buffer)
            self._buffer = bytearray()
            return data
        with memoryview(buffer) as view, view[:count] as part:
            data = bytes(part)
        del buffer[:count]
        return data

    def discard(self, count: int) -> None:
        """Drop the next `count` bytes, those that have not arrived yet included."""
        self._skip += count
        self._drop_buffered()

    def discard_line(self, keep: int = 0) -> None:
        """Drop all up to the end of the current line (LF), arrived or not; `tail` then has its last `keep` octets."""
        self._in_line, self._keep, self._tail = True, keep, b""
        self._drop_buffered()

    @property
    def discarding(self) -> bool:
        """True while a discard waits for more bytes."""
        return self._in_line or self._skip > 0

    @property
    def tail(self) -> bytes:
        """The last octets of the line that discard_line() dropped, without its end."""
        return self._tail

    def clear(self) -> bytes:
        """Remove and return everything unread (STARTTLS: throw it away)."""
        data = bytes(self._buffer)
        self._buffer = bytearray()
        self._scanned = 0
        return data

    def _drop_buffered(self) -> None:
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            self._buffer += self._drop(data)
        self._scanned = 0

    def _drop(self, data: bytes) -> bytes:
        """Apply the pending discards to `data` and return what is left of it."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            self.discarded += dropped
            data = data[dropped:]
        if self._in_line and not self._skip and data:
            end = data.find(b"\n")
            dropped = len(data) if end < 0 else end + 1
            self.discarded += dropped
            if self._keep:
                # Two octets more than asked for: the line end is among them.
                self._tail = (self._tail + data[max(0, dropped - self._keep - 2) : dropped])[-self._keep - 2 :]
            data = data[dropped:]
            if end >= 0:
                self._in_line = False
                if self._keep:
                    self._tail = self._tail.removesuffix(b"\n").removesuffix(b"\r")[-self._keep :]
        return data
