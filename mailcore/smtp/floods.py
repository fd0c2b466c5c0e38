"""Refusals of a kind that come in floods are counted: the first in full, then one line a minute that says how many.

Of a kind are those of one client, or of clients of one network, with the same reply to the same thing. Whatever comes,
the history grows by a bounded number of lines a second, and what is not in it is in one of its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mailcore.store import trace
from mailcore.store.trace import Event

# Refusals of one kind that have lines of their own in a minute: as many as a person mistypes.
FEW = 20
MINUTE = 60.0
# Lines of their own that all kinds share: so many at once, then so many a second.
BURST, PER_SECOND = 300.0, 10.0
# Kinds that are told apart; what is beyond is one kind. With MINUTE it bounds the numbers written a second.
MAX_KINDS = 1200

_Kind = tuple[object, ...]
_OTHERS: _Kind = ("others",)


@dataclass(slots=True)
class _Count:
    began: float
    full: int = 0
    more: int = 0
    first: datetime | None = None
    senders: set[str | None] = field(default_factory=set)
    recipients: set[str | None] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    last: Event | None = None


class Floods:
    """What is written in full and what is counted. `now` is the time of a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._kinds: dict[_Kind, _Count] = {}
        self._tokens = BURST
        self._filled: float | None = None

    @property
    def counting(self) -> bool:
        """Whether there are numbers that have to be written."""
        return any(each.more for each in self._kinds.values())

    def admit(self, event: Event, now: float, at: datetime, *, room: bool = True) -> bool:
        """Whether this refusal gets a line of its own; if not (or without `room`), it is counted."""
        kind = _kind(event)
        count = self._kinds.get(kind)
        if count is None:
            if len(self._kinds) >= MAX_KINDS:
                self._forget(now)
            if len(self._kinds) >= MAX_KINDS:
                kind = _OTHERS
            count = self._kinds.setdefault(kind, _Count(now))
        elif now - count.began >= MINUTE and not count.more:
            count.began, count.full = now, 0
        if room and count.full < FEW and kind is not _OTHERS and self._token(now):
            count.full += 1
            return True
        count.more += 1
        count.first = count.first or at
        count.last = event
        count.senders.add(event.sender)
        count.recipients.add(event.recipient)
        count.sources.add(str(event.detail.get("from") or ""))
        count.domains.add((event.recipient or "").rpartition("@")[2])
        for each in (count.senders, count.recipients, count.domains, count.sources):
            while len(each) > 2:  # more than one is all that has to be known
                each.pop()
        return False

    def due(self, now: float, *, all: bool = False) -> list[Event]:
        """The lines that say how many there were, of the kinds whose minute is over."""
        ready = [
            (kind, count) for kind, count in self._kinds.items() if count.more and (all or now - count.began >= MINUTE)
        ]
        for kind, _ in ready:
            # The next minute of a flood that goes on begins with its number.
            self._kinds[kind] = _Count(now, full=FEW)
        return [_line(kind, count) for kind, count in ready]

    def _forget(self, now: float) -> None:
        for kind in [kind for kind, each in self._kinds.items() if not each.more and now - each.began >= MINUTE]:
            del self._kinds[kind]

    def _token(self, now: float) -> bool:
        if self._filled is not None:
            self._tokens = min(BURST, self._tokens + (now - self._filled) * PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _kind(event: Event) -> _Kind:
    detail = event.detail
    who = event.account_id if event.account_id is not None else trace.network(str(detail.get("from") or ""))
    # The code and the enhanced code; the rest of the words may name the recipient.
    reply = " ".join(str(detail.get("reply") or "").split()[:2])
    return (who, event.step, detail.get("at"), reply)


def _line(kind: _Kind, count: _Count) -> Event:
    last = count.last
    assert last is not None and count.first is not None
    detail: dict[str, object] = {"more": count.more, "since": count.first.isoformat(timespec="seconds")}
    if kind is _OTHERS:
        return Event(trace.new_id(), last.step, detail=detail | {"of": "many kinds"})
    if len(count.sources) == 1:
        detail["from"] = next(iter(count.sources))
    elif last.account_id is None:
        detail["from"] = str(kind[0])
    kept = ("reply", "reason", "at") if len(count.recipients) == 1 else ("at",)
    detail |= {"reply": kind[-1]} | {name: last.detail[name] for name in kept if name in last.detail}
    recipient = _only(count.recipients)
    if recipient is None and len(count.domains) == 1 and (domain := next(iter(count.domains))):
        recipient = f"*@{domain}"  # so that whoever looks after the domain finds it
    return Event(
        trace.new_id(), last.step, last.account_id, sender=_only(count.senders), recipient=recipient, detail=detail
    )


def _only(values: set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
