"""The smallest words of the IMAP grammar (RFC 9051 §9), read from the pieces of a frame by a cursor.

A method either takes its token and moves on, or raises ImapSyntaxError saying what was expected; those named try_*
return False or None instead and stay where they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TypeVar

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import Literal, Piece, StreamedLiteral
from mailcore.wire.imap.limits import MAX_FLAGS, MAX_NAME_OCTETS
from mailcore.wire.imap.mailbox_name import canonical, decode_utf7, has_control
from mailcore.wire.imap.numset import SequenceSet, parse_sequence_set

T = TypeVar("T")

MAX_NUMBER = 0xFFFF_FFFF
MAX_NUMBER64 = 0x7FFF_FFFF_FFFF_FFFF

_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_LIST_CHARS = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_QUOTED = re.compile(rb'"([^\x00\r\n"\\]*+(?:\\["\\][^\x00\r\n"\\]*+)*)"')
_QUOTED_PAIR = re.compile(rb"\\(.)")
_NUMBER = re.compile(rb"[0-9]+")
_SET = re.compile(rb"[0-9:,*]+|\$")
_FLAG = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME = re.compile(
    rb'"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.upper().encode(): number for number, name in enumerate(MONTHS, 1)}

SYSTEM_FLAGS = {flag.upper(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}

LPAREN, RPAREN = b"(", b")"


class Cursor:
    """A place in a frame's pieces: text, literal, text, ..."""

    __slots__ = ("_index", "_pieces", "pos", "quiet", "text", "utf8")

    def __init__(self, pieces: Sequence[Piece], *, utf8: bool = False) -> None:
        first = pieces[0]
        assert isinstance(first, bytes)
        self._pieces = pieces
        self._index = 0
        self.text: bytes = first
        self.pos = 0
        self.utf8 = utf8
        self.quiet = False
        """Errors do not quote the input, which may be a password."""

    # -- where we are

    def error(self, expected: str) -> ImapSyntaxError:
        """What to raise here: "Expected ..., got ..."."""
        if self.quiet:
            return ImapSyntaxError(f"Expected {expected}")
        rest = self.text[self.pos : self.pos + 21]
        if rest:
            shown = "".join(chr(c) if 32 <= c < 127 else "?" for c in rest)
            got = f"'{shown[:20]}...'" if len(rest) > 20 else f"'{shown}'"
        elif self._literal_next():
            got = "a literal"
        else:
            got = "the end of the line"
        return ImapSyntaxError(f"Expected {expected}, got {got}")

    def at_end(self) -> bool:
        """Whether the command is used up."""
        return self.pos >= len(self.text) and not self._literal_next()

    def end(self) -> None:
        """The command must be used up. Trailing spaces, which some clients send, are harmless."""
        if not self.at_end() and (self._literal_next() or self.text[self.pos :].strip(b" ")):
            raise self.error("the end of the command")

    def looking_at(self, prefix: bytes) -> bool:
        """Whether the text goes on with `prefix` (case matters: for punctuation and digits)."""
        return self.text.startswith(prefix, self.pos)

    # -- punctuation and words

    def expect(self, token: bytes, what: str) -> None:
        """Take exactly this punctuation."""
        if not self.text.startswith(token, self.pos):
            raise self.error(what)
        self.pos += len(token)

    def space(self, before: str) -> None:
        """Take the one space that stands before something."""
        if not self.text.startswith(b" ", self.pos):
            raise self.error(f"a space and {before}")
        self.pos += 1

    def try_take(self, token: bytes) -> bool:
        """Take this punctuation if it is next."""
        if self.text.startswith(token, self.pos):
            self.pos += len(token)
            return True
        return False

    def match(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        """Take what the pattern matches here; it must not be empty unless the pattern allows it."""
        found = pattern.match(self.text, self.pos)
        if found is None:
            raise self.error(what)
        self.pos = found.end()
        return found

    def word(self, what: str) -> str:
        """An atom that is a keyword of the protocol, in upper case."""
        return self.match(_ATOM, what)[0].decode("ascii").upper()

    def one_of(self, allowed: frozenset[str], what: str) -> str:
        """A keyword of this set, in upper case."""
        start = self.pos
        found = self.word(f"{what} ({', '.join(sorted(allowed))})")
        if found not in allowed:
            self.pos = start
            raise self.error(f"{what} ({', '.join(sorted(allowed))})")
        return found

    def atom(self, what: str) -> str:
        """An atom as sent."""
        return self.match(_ATOM, what)[0].decode("ascii")

    def paren_list(self, item: Callable[[], T], what: str, *, limit: int, empty: bool = False) -> list[T]:
        """`(` item *(SP item) `)`."""
        self.expect(LPAREN, f"'(' and {what}")
        items: list[T] = []
        if empty and self.try_take(RPAREN):
            return items
        while True:
            items.append(item())
            if len(items) > limit:
                raise ImapSyntaxError(f"More than {limit} of: {what}", code="LIMIT")
            if self.try_take(RPAREN):
                return items
            self.expect(b" ", "a space or ')'")

    # -- strings

    def _literal_next(self) -> bool:
        return self._index + 1 < len(self._pieces)

    def take_literal(self) -> Literal | StreamedLiteral | None:
        """The literal that stands here, of any kind, or None."""
        if self.pos < len(self.text) or not self._literal_next():
            return None
        found = self._pieces[self._index + 1]
        assert not isinstance(found, bytes)
        self._index += 2
        text = self._pieces[self._index] if self._index < len(self._pieces) else b""
        assert isinstance(text, bytes)
        self.text, self.pos = text, 0
        return found

    def try_string(self) -> bytes | None:
        """A quoted string or a literal without NUL."""
        if self.looking_at(b'"'):
            inner = self.match(_QUOTED, "a quoted string (closing quote missing, or a bad escape)")[1]
            return _QUOTED_PAIR.sub(rb"\1", inner) if b"\\" in inner else inner
        literal = self.take_literal()
        if literal is None:
            return None
        if isinstance(literal, StreamedLiteral) or literal.binary:
            raise ImapSyntaxError("A message or binary literal cannot stand here")
        if b"\0" in literal.data:
            raise ImapSyntaxError("A literal contains NUL")
        return literal.data

    def string(self, what: str) -> bytes:
        """A quoted string or literal."""
        found = self.try_string()
        if found is None:
            raise self.error(what)
        return found

    def astring(self, what: str) -> bytes:
        """Atom characters, quoted string or literal."""
        found = _ASTRING.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()
            return found[0]
        return self.string(what)

    def nstring(self, what: str) -> bytes | None:
        """String, or None for NIL."""
        found = self.try_string()
        if found is None and self.word(what) != "NIL":
            raise self.error(what)
        return found

    def unicode(self, raw: bytes, what: str) -> str:
        """Octets of a string as UTF-8, which ASCII is part of."""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ImapSyntaxError(f"{what[:1].upper()}{what[1:]} is not valid UTF-8") from None

    def mailbox(self) -> str:
        """A mailbox name, decoded and canonical."""
        return canonical(self._name(self.astring("a mailbox name")))

    def pattern(self) -> str:
        """A LIST pattern, decoded: list-mailbox may hold `*` and `%` in an atom."""
        found = _LIST_CHARS.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()
            raw = found[0]
        else:
            raw = self.string("a mailbox pattern")
        return self._name(raw)

    def reference(self) -> str:
        """LIST's reference name, decoded."""
        return self._name(self.astring("a reference name"))

    def _name(self, raw: bytes) -> str:
        if len(raw) > 4 * MAX_NAME_OCTETS:
            raise ImapSyntaxError("The mailbox name is too long", status="NO")
        name = self.unicode(raw, "the mailbox name") if self.utf8 else decode_utf7(raw)
        if has_control(name):
            raise ImapSyntaxError("The mailbox name contains control characters")
        if len(name.encode()) > MAX_NAME_OCTETS:
            raise ImapSyntaxError("The mailbox name is too long", status="NO")
        return name

    def base64(self) -> bytes:
        """Base64 characters, possibly none, not yet decoded."""
        return self.match(_BASE64, "base64")[0]

    # -- numbers, sets, dates

    def number(self, what: str, *, minimum: int = 0, maximum: int = MAX_NUMBER) -> int:
        """Decimal digits within bounds."""
        start = self.pos
        digits = self.match(_NUMBER, what)[0]
        if len(digits) <= 20 and minimum <= int(digits) <= maximum:
            return int(digits)
        self.pos = start
        raise self.error(f"{what} (from {minimum} to {maximum})")

    def modseq(self, what: str, *, minimum: int = 1) -> int:
        """A mod-sequence value: 63 bits, `minimum` 0 for mod-sequence-valzer (RFC 7162)."""
        return self.number(what, minimum=minimum, maximum=MAX_NUMBER64)

    def sequence_set(self) -> SequenceSet:
        """A sequence set, or `$`."""
        return parse_sequence_set(self.match(_SET, "a sequence set such as 1:5,7,9:*")[0])

    def known_set(self, what: str) -> SequenceSet:
        """A sequence set without `*` and `$`."""
        found = self.sequence_set()
        if found.saved or any(0 in pair for pair in found.ranges):
            raise ImapSyntaxError(f"'*' and '$' are not allowed in {what}")
        return found

    def date(self) -> date:
        """A day, quoted or not: 1-Feb-1994."""
        start = self.pos
        found = self.match(_DATE, "a date such as 1-Feb-1994")
        try:
            return date(int(found[4]), _MONTH_NUMBER[found[3].upper()], int(found[2]))
        except (KeyError, ValueError):
            self.pos = start
            raise self.error("a date such as 1-Feb-1994") from None

    def date_time(self) -> datetime:
        """INTERNALDATE's form, with its zone: "17-Jul-1996 02:44:25 -0700". A leap second becomes :59."""
        start = self.pos
        expected = 'a date and time such as "17-Jul-1996 02:44:25 -0700"'
        day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = self.match(
            _DATE_TIME, expected
        ).groups()
        try:
            if int(zone_minutes) > 59:
                raise ValueError
            offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
            when = datetime(
                int(year),
                _MONTH_NUMBER[month.upper()],
                int(day),
                int(hour),
                int(minute),
                min(int(second), 59) if second == b"60" else int(second),
                tzinfo=timezone(-offset if sign == b"-" else offset),
            )
            when.astimezone(UTC)  # overflows at either end of the calendar
        except (KeyError, ValueError, OverflowError):
            self.pos = start
            raise self.error(expected) from None
        return when

    # -- flags

    def flag(self) -> str:
        """A flag that a client may set: system flags in their usual case, keywords as sent."""
        start = self.pos
        found = self.match(_FLAG, "a flag")[0].decode("ascii")
        if found[0] != "\\":
            return found
        known = SYSTEM_FLAGS.get(found.upper())
        if known is None:
            self.pos = start
            raise self.error("a system flag that can be set (\\Answered, \\Flagged, \\Deleted, \\Seen, \\Draft)")
        return known

    def flag_list(self) -> tuple[str, ...]:
        """`(\\Seen $Junk)`, possibly empty, without repeats."""
        return tuple(dict.fromkeys(self.paren_list(self.flag, "flags", limit=MAX_FLAGS, empty=True)))
