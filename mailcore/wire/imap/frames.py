"""Frame first, parse second: bytes in, complete command frames out, whatever the network did to them.

Pull style: `feed()` bytes, then call `next_event()` until it returns None. One event at a time, so that the session
can change mode (raw lines, limits, STARTTLS) between two pipelined commands.

Lines end with CRLF. A bare LF ends a line too, but its command is answered BAD: out of grammar, yet in sync. A refused
command is skipped to its end, literals included, before its Rejected event comes, so what follows is read rightly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailcore.wire.imap.limits import MAX_TAG, FrameLimits
from mailcore.wire.reader import BareNewline, ByteReader, LineTooLong


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
    """One whole command. Text and literals alternate, text first and last; text lacks the {n} and the CRLF.

    pieces[0] starts with the command's name.
    """

    tag: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class LiteralOffer:
    """A message literal within the limits was announced.

    Answer with accept_stream(), accept_in_memory() or refuse() before the next next_event(). `pieces` is the command
    so far, for parse.parse_append_head(). `sync`: the client waits for our `+`.
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

    `fatal`: staying in sync is not worth it; say BYE and close. Nothing comes after it.
    """

    tag: str | None
    status: str
    text: str
    code: str | bytes | None = None
    fatal: bool = False


Event = Frame | LiteralOffer | Continue | LiteralData | Line | Rejected

_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
_LITERAL = re.compile(rb"(~?)\{([0-9]+)(\+?)\}\Z")
_MESSAGE_COMMAND = re.compile(rb"(?:APPEND|(?:UID )?REPLACE [^ ]+) ", re.IGNORECASE)
_UNBOUNDED = 1 << 64
_TAIL = 64  # of a skipped line: room for any literal header that could be honoured


class _Again:
    """A state did something without an event: run the next state."""


_AGAIN = _Again()


def is_message_literal(pieces: Sequence[Piece]) -> bool:
    """Whether the literal announced after these pieces is a message of APPEND or REPLACE (not its mailbox name)."""
    text = pieces[0]
    assert isinstance(text, bytes)
    found = _MESSAGE_COMMAND.match(text)
    return found is not None and (found.end() < len(text) or len(pieces) > 1)


class Framer:
    """The state of one connection's input. `limits` may be replaced at any time between commands."""

    __slots__ = (
        "_binary",
        "_is_message",
        "_line_limit",
        "_pieces",
        "_reader",
        "_rejected",
        "_remaining",
        "_state",
        "_streams",
        "_sync",
        "_tag",
        "_text_octets",
        "limits",
        "literal_octets",
        "memory",
    )

    def __init__(
        self, limits: FrameLimits, *, is_message: Callable[[Sequence[Piece]], bool] = is_message_literal
    ) -> None:
        """`is_message(pieces so far)` says that the literal now announced is to be offered to the session."""
        self.limits = limits
        self._is_message = is_message
        self._reader = ByteReader()
        # A function, not a bound method: that would be a reference cycle in every connection.
        self._state: Callable[[Framer], Event | _Again | None] = Framer._read_command
        self._line_limit = 0
        self._rejected: Rejected | None = None
        self._reset()

    # -- for the session

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        self._reader.feed(data)

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed. Never raises on input.

        RuntimeError: the last LiteralOffer was not answered.
        """
        while True:
            event = self._state(self)
            if not isinstance(event, _Again):
                return event

    def accept_stream(self) -> None:
        """Take the offered literal as LiteralData events (Continue comes first if the client waits)."""
        self._require_offer()
        self._pieces.append(StreamedLiteral(self._streams, self._remaining, self._binary))
        self._streams += 1
        self._state = Framer._send_continue_then_stream if self._sync else Framer._stream

    def accept_in_memory(self) -> None:
        """Take the offered literal as a Literal piece of the frame. `limits.command` does not apply: see `memory`."""
        self._require_offer()
        self._state = Framer._send_continue_then_collect if self._sync else Framer._collect

    def refuse(self, text: str, *, status: str = "NO", code: str | bytes | None = None) -> None:
        """Refuse the offered literal, or what is left of the command whose literal is being streamed (disk full ...).

        The command is skipped in sync; `Rejected` with these words comes when its end is reached.
        """
        if not self._pieces:
            raise RuntimeError("no command is being read")
        rejected = Rejected(self._tag, status, text, code)
        if self._state is Framer._wait_for_answer:
            self._reject_literal(rejected, self._remaining, sync=self._sync)
        elif self._state in (Framer._send_continue_then_stream, Framer._send_continue_then_collect):
            self._reject_literal(rejected, 0, sync=True)
        elif self._state in (Framer._stream, Framer._collect):
            self._skip(rejected, self._remaining)
        else:
            self._skip(rejected, 0)

    def expect_line(self, limit: int) -> None:
        """The next event is one raw Line of at most `limit` octets (AUTHENTICATE, IDLE's DONE), or Rejected."""
        if self._pieces:
            raise RuntimeError("a command is being read")
        self._line_limit = limit
        self._state = Framer._read_raw

    def clear(self) -> None:
        """Forget unread bytes: STARTTLS must not see what was sent in clear (RFC 9051 §11.1)."""
        self.take_rest()

    def take_rest(self) -> bytes:
        """Remove and return unread bytes (COMPRESS: they are already compressed). Between commands only."""
        if self._pieces:
            raise RuntimeError("a command is being read")
        return self._reader.clear()

    @property
    def buffered(self) -> int:
        """Unread bytes."""
        return len(self._reader)

    @property
    def discarding(self) -> bool:
        """What comes now is skipped and not kept."""
        return self._reader.discarding

    @property
    def idle(self) -> bool:
        """True between commands, with nothing unread."""
        return self._state in (Framer._read_command, Framer._read_raw) and not len(self._reader)

    # -- states: each returns an event, None (more bytes needed) or _AGAIN

    def _reset(self) -> None:
        self._tag = ""
        self._pieces: list[Piece] = []
        self._text_octets = 0
        self.memory = 0
        """Octets of the current command's literals that are kept in memory."""
        self.literal_octets = 0
        """Octets of all literals of the current command so far, the offered one included (MULTIAPPEND has no end)."""
        self._streams = 0
        self._remaining = 0
        self._sync = False
        self._binary = False

    def _read_command(self) -> Event | _Again | None:
        """The first line of a command."""
        try:
            line = self._reader.take_line(self.limits.line)
        except LineTooLong:
            return self._skip(Rejected(self._guess_tag(), "BAD", "The command line is too long", "LIMIT"), 0)
        except BareNewline as error:
            tag = _valid_tag(error.line.partition(b" ")[0])
            return self._reject_line(Rejected(tag, "BAD", "Lines must end with CRLF"), error.line)
        if line is None:
            return None
        tag_octets, _, text = line.partition(b" ")
        tag = _valid_tag(tag_octets)
        if tag is None:
            return self._reject_line(Rejected(None, "BAD", "A command starts with a tag"), line)
        if not text:
            return self._reject_line(Rejected(tag, "BAD", "The command is missing after the tag"), line)
        if text.endswith(b"}"):
            self._tag = tag
            self._text_octets = len(line)
            return self._take_text(text)
        return Frame(tag, (text,))

    def _read_more(self) -> Event | _Again | None:
        """The text after a literal, up to the next one or the end of the command."""
        try:
            line = self._reader.take_line(self.limits.line - self._text_octets)
        except LineTooLong:
            return self._skip(Rejected(self._tag, "BAD", "The command is too long", "LIMIT"), 0)
        except BareNewline as error:
            return self._reject_line(Rejected(self._tag, "BAD", "Lines must end with CRLF"), error.line)
        if line is None:
            return None
        self._text_octets += len(line)
        return self._take_text(line)

    def _take_text(self, text: bytes) -> Event | _Again | None:
        """Text of the command: its end, or what stands before a literal."""
        header = _literal_header(text)
        if header is None:
            self._pieces.append(text)
            frame = Frame(self._tag, tuple(self._pieces))
            self._finish()
            return frame
        start, size, sync, binary = header
        self._pieces.append(text[:start])
        self._remaining, self._sync, self._binary = size, sync, binary
        self.literal_octets += size
        limits = self.limits
        if not sync and size > limits.nonsync:
            rejected = Rejected(
                self._tag, "BAD", f"Non-synchronizing literals are limited to {limits.nonsync} octets", "TOOBIG"
            )
        elif limits.message and self._is_message(self._pieces):
            if size <= limits.message:
                self._state = Framer._wait_for_answer
                return LiteralOffer(self._tag, tuple(self._pieces), size, sync, binary)
            rejected = Rejected(self._tag, "NO", f"Messages are limited to {limits.message} octets", "TOOBIG")
        elif size <= limits.literal and self.memory + self._text_octets + size <= limits.command:
            self._state = Framer._send_continue_then_collect if sync else Framer._collect
            return _AGAIN
        else:
            rejected = Rejected(self._tag, "BAD", "The literal is too long", "TOOBIG")
        return self._reject_literal(rejected, size, sync=sync)

    def _wait_for_answer(self) -> Event | _Again | None:
        raise RuntimeError("the offered literal was neither accepted nor refused")

    def _send_continue_then_collect(self) -> Event | _Again | None:
        self._state = Framer._collect
        return Continue()

    def _send_continue_then_stream(self) -> Event | _Again | None:
        self._state = Framer._stream
        return Continue()

    def _collect(self) -> Event | _Again | None:
        """Wait until the whole literal has arrived."""
        data = self._reader.take(self._remaining)
        if data is None:
            return None
        self.memory += len(data)
        self._pieces.append(Literal(data, self._binary))
        self._remaining = 0
        self._state = Framer._read_more
        return _AGAIN

    def _stream(self) -> Event | _Again | None:
        """Pass on what has arrived of the literal."""
        data = self._reader.take_up_to(self._remaining)
        if not data and self._remaining:
            return None
        self._remaining -= len(data)
        if not self._remaining:
            self._state = Framer._read_more
        return LiteralData(data, last=not self._remaining)

    def _read_raw(self) -> Event | _Again | None:
        """One line outside the command grammar."""
        try:
            line = self._reader.take_line(self._line_limit)
        except LineTooLong:
            self._rejected = Rejected(None, "BAD", "The line is too long", "LIMIT")
            self._reader.discarded = 0
            self._reader.discard_line()
            self._state = Framer._skip_raw_line
            return _AGAIN
        except BareNewline:
            self._finish()
            return Rejected(None, "BAD", "Lines must end with CRLF")
        if line is None:
            return None
        self._finish()
        return Line(line)

    # -- refusing

    def _skip_raw_line(self) -> Event | _Again | None:
        if self._reader.discarded > self.limits.discard:
            return self._give_up()
        return None if self._reader.discarding else self._finish_rejected()

    def _reject_line(self, rejected: Rejected, line: bytes) -> Event | _Again | None:
        """Refuse a command whose line has been read: it may end in a literal that is coming anyway."""
        header = _literal_header(line)
        if header is not None:
            return self._reject_literal(rejected, header[1], sync=header[2])
        self._rejected = rejected
        return self._finish_rejected()

    def _reject_literal(self, rejected: Rejected, size: int, *, sync: bool) -> Event | _Again | None:
        """Refuse a command at a literal: a client that waits for `+` takes the tagged answer as the command's end."""
        if not sync:
            return self._skip(rejected, size)
        self._rejected = rejected
        self._state = Framer._finish_rejected
        return _AGAIN

    def _skip(self, rejected: Rejected, octets: int) -> _Again:
        """Skip so many octets and then the rest of the command."""
        self._rejected = rejected
        self._reader.discarded = 0
        return self._skip_octets(octets)

    def _skip_octets(self, octets: int) -> _Again:
        if octets + self._reader.discarded > self.limits.discard:
            self._state = Framer._give_up
            return _AGAIN
        if octets:
            self._reader.discard(octets)
        self._reader.discard_line(keep=_TAIL)
        self._state = Framer._skip_text
        return _AGAIN

    def _skip_text(self) -> Event | _Again | None:
        """Wait for the end of a line that is being skipped, and for the literal at its end."""
        if self._reader.discarded > self.limits.discard:
            return self._give_up()
        if self._reader.discarding:
            return None
        header = _literal_header(self._reader.tail)
        if header is None or header[2]:
            return self._finish_rejected()
        return self._skip_octets(header[1])

    def _give_up(self) -> Event | _Again | None:
        assert self._rejected is not None
        self._state = Framer._dead
        refused = self._rejected
        return Rejected(refused.tag, refused.status, refused.text, refused.code, fatal=True)

    def _dead(self) -> Event | _Again | None:
        self._reader.clear()
        return None

    def _finish_rejected(self) -> Event | _Again | None:
        rejected = self._rejected
        self._finish()
        return rejected

    def _finish(self) -> None:
        self._rejected = None
        self._reset()
        self._state = Framer._read_command

    def _guess_tag(self) -> str | None:
        """The tag of a line that is too long to be taken."""
        tag, space, _ = self._reader.peek(min(MAX_TAG, self.limits.line) + 1).partition(b" ")
        return _valid_tag(tag) if space else None

    def _require_offer(self) -> None:
        if self._state is not Framer._wait_for_answer:
            raise RuntimeError("no literal is on offer")


def _valid_tag(octets: bytes) -> str | None:
    return octets.decode("ascii") if len(octets) <= MAX_TAG and _TAG.fullmatch(octets) else None


def _literal_header(line: bytes) -> tuple[int, int, bool, bool] | None:
    """The literal that a line ends with: (where its header starts, size, synchronizing, literal8)."""
    if not line.endswith(b"}"):
        return None
    found = _LITERAL.search(line, max(0, len(line) - _TAIL))
    if found is None:
        return None
    size = int(found[2]) if len(found[2]) <= 19 else _UNBOUNDED
    return found.start(), size, not found[3], bool(found[1])
