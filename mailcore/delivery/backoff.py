"""When to try again: a schedule per message, and a short memory of hosts that cannot be reached."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

# Waits after the first, second … attempt; the last one repeats. Greylisting is passed by the second or third.
SCHEDULE = (3 * MINUTE, 7 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR)
# RFC 5321 §4.5.4.1: give up after four to five days at the earliest.
MAX_AGE = 5 * DAY
# A bounce is worth less trouble than the mail that caused it.
MAX_AGE_BOUNCE = 2 * DAY
DELAY_NOTICE_AFTER = 4 * HOUR

_JITTER = 0.1


def retry_in(attempts: int, age: float, seed: int, *, is_bounce: bool = False) -> float | None:
    """Seconds until the next attempt after `attempts` of them at the age of `age` seconds; None = time to give up.

    The jitter depends on `seed` (the queue number) alone, so that recipients of one message stay together.
    """
    left = (MAX_AGE_BOUNCE if is_bounce else MAX_AGE) - age
    if left <= 0:
        return None
    wait = SCHEDULE[min(max(attempts, 1), len(SCHEDULE)) - 1]
    wait *= 1 + _JITTER * ((seed * 2654435761 % 2**32) / 2**32)
    # One last attempt at the end of the time, rather than giving up hours before it.
    return max(min(wait, left), MINUTE)


@dataclass(frozen=True, slots=True)
class Down:
    """A host that could not be reached: until when it is left alone, how often in a row, and why."""

    until: float
    failures: int
    reason: str


class HostMemory:
    """Hosts that failed to connect lately, so that a thousand messages do not each wait for the same dead one.

    What it learns is news for the other workers; what it hears from them counts as if it had failed here. Two servers
    may share an address, behind two ports: a host is known by its place (`route.Host.place`).
    """

    FIRST, LAST = 30.0, 10 * MINUTE
    SIZE = 10_000

    def __init__(self) -> None:
        self._down: OrderedDict[str, Down] = OrderedDict()
        self._failed: dict[str, str] = {}
        self._back: set[str] = set()

    def down(self, place: str) -> Down | None:
        """Why `place` should not be tried now; None = try it."""
        entry = self._down.get(place)
        return entry if entry is not None and entry.until > time.monotonic() else None

    def failed(self, place: str, reason: str) -> None:
        """Connecting failed; the pause doubles with each failure in a row."""
        known = self._down.pop(place, None)
        failures = known.failures + 1 if known else 1
        pause = min(self.FIRST * 2 ** (failures - 1), self.LAST)
        self._keep(place, Down(time.monotonic() + pause, failures, reason))
        self._failed[place] = reason
        self._back.discard(place)

    def worked(self, place: str) -> None:
        """Connecting worked."""
        if self._down and self._down.pop(place, None) is not None:
            self._failed.pop(place, None)
            self._back.add(place)

    def heard(self, place: str, left: float, failures: int, reason: str) -> None:
        """Another worker could not connect; `left` seconds of its pause remain."""
        if left > 0 and place not in self._back and self.down(place) is None:
            self._keep(place, Down(time.monotonic() + left, failures, reason))

    def news(self) -> tuple[dict[str, str], set[str]]:
        """Who failed, and why, and who came back, since the last time that somebody asked."""
        failed, self._failed = self._failed, {}
        back, self._back = self._back, set()
        return failed, back

    def _keep(self, place: str, entry: Down) -> None:
        self._down[place] = entry
        if len(self._down) > self.SIZE:
            self._down.popitem(last=False)
