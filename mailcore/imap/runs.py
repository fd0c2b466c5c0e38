"""FETCHes of one message each that wait in the pipe, answered together from one read of the store.

Programs that collect mail (mbsync, offlineimap) send hundreds of them without waiting. One by one, each would cost two
statements and two turns of the loop. What the client gets is octet for octet what it gets one by one: every line in
order, each followed by its own tagged answer. Changes by others wait for the end of the run: they may have come then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from mailcore.imap import bodies
from mailcore.imap.errors import Refused, no
from mailcore.wire.imap import parse, response
from mailcore.wire.imap.commands import Command, FetchArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import Event, Frame
from mailcore.wire.imap.numset import MAX_NUMBER

if TYPE_CHECKING:
    from mailcore.imap.session import Session

# Commands in one run: no more than FETCH reads of a large set at a time.
MOST = 100
COMPLETED = "FETCH completed"

_ONE = re.compile(rb"((?:UID )?FETCH) ([1-9][0-9]{0,9}) (.{1,400})", re.IGNORECASE)
_NEVER = MAX_NUMBER + 1


class Run:
    """Commands that differ in their number alone, ascending; the last one's tagged answer is left to the session."""

    def __init__(self, session: Session, tags: list[str], numbers: list[int], *, uid: bool) -> None:
        self._session = session
        self._tags = tags
        self.numbers = numbers
        self.uid = uid
        self._answered = 0

    def known(self) -> tuple[list[int], list[int]]:
        """The UIDs and sequence numbers of those messages that the client knows."""
        view = self._session.view
        if not self.uid:
            return [view.uids[seq - 1] for seq in self.numbers], self.numbers
        pairs = [(uid, seq) for uid in self.numbers if (seq := view.seq(uid))]
        return [uid for uid, _ in pairs], [seq for _, seq in pairs]

    def begin(self) -> None:
        """From here on the session owes all answers: the events behind the commands are dealt with."""
        self._session.connection.skip(len(self._tags) - 1)
        self._session.tag = self._tags[-1]
        self._session.owed = self._tags[:-1]

    def ends(self, found: Sequence[int]) -> Iterator[bytes]:
        """First the answers before any message, then what follows the line of each that was found; exactly when one is
        taken its commands are no longer owed."""
        there = set(found)
        yield self._answers(there, found[0] if found else _NEVER)
        for following in (*found[1:], _NEVER):
            yield b")\r\n" + self._answers(there, following)

    def _answers(self, there: set[int], before: int) -> bytes:
        session, lines = self._session, []
        while session.owed and (number := self.numbers[self._answered]) < before:
            tag = session.owed.pop(0)
            self._answered += 1
            if number in there or self.uid:
                lines.append(response.status_line(tag, "OK", COMPLETED))
            else:
                refused = expunged(1)
                lines.append(response.status_line(tag, refused.status, refused.text, refused.code))
        return b"".join(lines)


def expunged(count: int) -> Refused:
    """The answer to a command by sequence numbers, of which some are not there any more."""
    return no(f"{count} of the messages have been expunged meanwhile", "EXPUNGEISSUED")


def waiting(session: Session, command: Command) -> Run | None:
    """The run that a FETCH begins, None when it is alone; nothing may have to be told to the client in between."""
    args, view = cast(FetchArgs, command.args), session.view
    number = _single(args)
    if not number or view.dirty or not view.quiet or args.changedsince is not None or args.partial is not None:
        return None
    if bodies.may_fail(args.items):
        return None
    event = session.connection.peek()
    found = _match(event)
    if found is None or not _alike(session, command, cast(Frame, event)):
        return None
    most = MAX_NUMBER if command.uid else len(view.uids)
    same, tags, numbers = found.group(1, 3), [command.tag], [number]
    while found is not None and found.group(1, 3) == same and numbers[-1] < int(found[2]) <= most:
        tags.append(cast(Frame, event).tag)
        numbers.append(int(found[2]))
        if len(tags) == MOST:
            break
        event = session.connection.peek(len(tags) - 1)
        found = _match(event)
    return Run(session, tags, numbers, uid=command.uid) if len(tags) > 1 else None


def _single(args: FetchArgs) -> int:
    """The only number of a FETCH, 0 if there are more or it is `*` or `$`."""
    ranges = args.numbers.ranges
    return ranges[0][0] if not args.numbers.saved and len(ranges) == 1 and ranges[0][0] == ranges[0][1] else 0


def _match(event: Event | None) -> re.Match[bytes] | None:
    if not isinstance(event, Frame) or len(event.pieces) != 1:
        return None
    return _ONE.fullmatch(cast(bytes, event.pieces[0]))


def _alike(session: Session, command: Command, frame: Frame) -> bool:
    """Whether a command asks for the same of its message."""
    try:
        other = parse.parse_command(frame, utf8=session.utf8)
    except ImapSyntaxError:
        return False
    if other.name != command.name:
        return False
    return replace(cast(FetchArgs, other.args), numbers=cast(FetchArgs, command.args).numbers) == command.args
