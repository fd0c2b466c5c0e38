"""Frame first, parse second: bytes in, complete command frames out, whatever the network did to them.

Pull style: `feed()` bytes, then call `next_event()` until it returns None. One event at a time, so that the session
can change mode (raw lines, limits, STARTTLS) between two pipelined commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailcore.wire.imap.limits import FrameLimits


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal kept in memory; `binary` for literal8 (~{n})."""

    data: bytes
    binary: bool = False


@dataclass(frozen=True, slots=True)
class StreamedLiteral:
    """A literal whose octets went to the session as LiteralData; `index` counts them from 0 within the command."""

    index: int
    size: int
    binary: bool = False


Piece = bytes | Literal | StreamedLiteral


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole command. pieces[0] is text and starts with the command's name; text pieces lack the {n} and the CRLF."""

    tag: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class LiteralOffer:
    """A message literal was announced: answer with accept_stream(), accept_in_memory() or refuse() before the next next_event().

    `pieces` is the command so far, for parse.parse_append_head(). `sync`: the client waits for our `+`.
    """

    tag: str
    pieces: tuple[Piece, ...]
    size: int
    sync: bool
    binary: bool


@dataclass(frozen=True, slots=True)
class Continue:
    """Send a continuation request now ("+ OK\\r\\n"): a synchronizing literal was accepted."""


@dataclass(frozen=True, slots=True)
class LiteralData:
    """Octets of the literal accepted as stream; `last` on the final piece (which may be empty)."""

    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A raw line without its CRLF, after expect_line()."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command (or raw line) was refused and has been skipped: answer `tag status [code] text` (`*` when tag is None).

    `fatal`: staying in sync is not worth it; say BYE and close.
    """

    tag: str | None
    status: str
    text: str
    code: str | None = None
    fatal: bool = False


Event = Frame | LiteralOffer | Continue | LiteralData | Line | Rejected


class Framer:
    """The state of one connection's input. `limits` may be replaced at any time between commands."""

    limits: FrameLimits

    def __init__(self, limits: FrameLimits, *, is_message: Callable[[Sequence[Piece]], bool] | None = None) -> None:
        """`is_message(pieces so far)` says that the literal now announced is to be offered; default: parse.is_message_literal."""
        raise NotImplementedError

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed. Never raises on input."""
        raise NotImplementedError

    def accept_stream(self) -> None:
        """Take the offered literal as LiteralData events (Continue comes first if the client waits)."""
        raise NotImplementedError

    def accept_in_memory(self) -> None:
        """Take the offered literal as a Literal piece of the frame."""
        raise NotImplementedError

    def refuse(self, text: str, *, status: str = "NO", code: str | None = None) -> None:
        """Refuse the offered literal, or what is left of the command whose literal is being streamed (disk full ...).

        The command is skipped in sync; `Rejected` with these words comes when its end is reached.
        """
        raise NotImplementedError

    def expect_line(self, limit: int) -> None:
        """The next event is one raw Line of at most `limit` octets (AUTHENTICATE, IDLE's DONE)."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget unread bytes: STARTTLS must not see what was sent in clear (RFC 9051 §11.1)."""
        raise NotImplementedError

    def take_rest(self) -> bytes:
        """Remove and return unread bytes (COMPRESS: they are already compressed)."""
        raise NotImplementedError

    @property
    def buffered(self) -> int:
        """Unread bytes."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """True between commands, with nothing unread."""
        raise NotImplementedError
