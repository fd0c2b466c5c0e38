"""A session's handling of framer events, small enough to see through, for the framer's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mailcore.wire.imap.frames import (
    Continue,
    Event,
    Frame,
    Framer,
    Line,
    Literal,
    LiteralData,
    LiteralOffer,
    Rejected,
    StreamedLiteral,
)
from mailcore.wire.imap.limits import FrameLimits, after_login

ROOMY = after_login(1_000_000)
TIGHT = FrameLimits(line=60, literal=20, command=70, message=30, nonsync=25, discard=120)

Answer = Callable[[Framer, LiteralOffer], None]


def stream(framer: Framer, offer: LiteralOffer) -> None:
    framer.accept_stream()


def keep(framer: Framer, offer: LiteralOffer) -> None:
    framer.accept_in_memory()


def refuse(framer: Framer, offer: LiteralOffer) -> None:
    framer.refuse("no such mailbox", code="TRYCREATE")


def by_size(framer: Framer, offer: LiteralOffer) -> None:
    (stream, keep, refuse)[offer.size % 3](framer, offer)


def events_of(chunks: Iterable[bytes], limits: FrameLimits = ROOMY, answer: Answer = stream) -> list[Event]:
    """All events of these bytes; the octets of one streamed literal joined; IDLE and AUTHENTICATE take a raw line."""
    framer = Framer(limits)
    seen: list[Event] = []
    for chunk in chunks:
        framer.feed(chunk)
        while (event := framer.next_event()) is not None:
            if isinstance(event, LiteralData) and seen and isinstance(seen[-1], LiteralData) and not seen[-1].last:
                seen[-1] = LiteralData(seen[-1].data + event.data, event.last)
            else:
                seen.append(event)
            if isinstance(event, LiteralOffer):
                answer(framer, event)
            elif isinstance(event, Frame) and event.pieces[0] in (b"IDLE", b"AUTHENTICATE"):
                framer.expect_line(10)
    return seen


def bytewise(data: bytes) -> list[bytes]:
    return [bytes((octet,)) for octet in data]


def frame_of(data: bytes, limits: FrameLimits = ROOMY) -> Frame:
    """The one frame of a command that is sent whole, its message literals kept in memory."""
    frames = [event for event in events_of([data], limits, keep) if not isinstance(event, Continue | LiteralOffer)]
    assert len(frames) == 1 and isinstance(frames[0], Frame), frames
    return frames[0]


__all__ = [
    "ROOMY",
    "TIGHT",
    "Continue",
    "Frame",
    "Framer",
    "Line",
    "Literal",
    "LiteralData",
    "LiteralOffer",
    "Rejected",
    "StreamedLiteral",
    "by_size",
    "bytewise",
    "events_of",
    "frame_of",
    "keep",
    "refuse",
    "stream",
]
