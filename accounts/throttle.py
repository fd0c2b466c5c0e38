"""Slows down guessing: failed sign-ins are counted by source, by account and by both together, in a sliding window.

Successes cost nothing and are not counted, nor is the same wrong secret twice: that is a forgotten mail program, not
somebody guessing. The counts live in each process's memory, so that asking costs nothing; what one counts it tells the
others (`share`, through Redis), which count it too. Without Redis each counts its own: guessing has to be slow, not
counted to the last attempt, and a dead Redis must neither lock anybody out nor let anybody in.

- One source against one account: after PAIR_LIMIT failures in the window, refused.
- One source against many accounts: after SOURCE_LIMIT failures, refused, except to accounts that it has signed in to
  lately (an office behind one address is not locked out by one broken phone).
- Many sources against one account: after ACCOUNT_LIMIT failures, refused, with the same exception, so that a stranger
  cannot lock the owner out.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

WINDOW = 600.0  # seconds
PAIR_LIMIT = 10
SOURCE_LIMIT = 40
ACCOUNT_LIMIT = 100
KNOWN_FOR = 24 * 3600.0  # seconds that a successful source stays known to an account; at least half of it
MAX_KEYS = 50_000

# Failures that are answered at once before answers begin to wait, and the longest wait in seconds.
FREE_FAILURES = 2
LONGEST_DELAY = 3.0

Key = tuple[str, ...]


class Throttle:
    """Failure counts of one process, shared by its event loop and its threads. Times are seconds of `clock`.

    `share(content)` sends JSON to the other processes' `hear`, without waiting; from any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.share: Callable[[list[str]], None] | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[Key, deque[tuple[float, bytes | None]]] = OrderedDict()
        self._known_until: OrderedDict[Key, float] = OrderedDict()

    def refusal(self, source: str, address: str) -> float | None:
        """Seconds until a sign-in may be tried again, or None when it may be tried now."""
        with self._lock:
            pair = _pair(source, address)
            now = self._clock()
            waits = [self._wait(pair, PAIR_LIMIT, now)]
            if self._known_until.get(pair, -math.inf) < now:
                waits.append(self._wait(("source", pair[1]), SOURCE_LIMIT, now))
                waits.append(self._wait(("account", pair[2]), ACCOUNT_LIMIT, now))
            longest = max(waits)
            return longest if longest > 0 else None

    def failed(self, source: str, address: str, token: bytes | None = None) -> float:
        """Count a failure; returns the seconds that its answer should wait. `token` stands for address and secret."""
        with self._lock:
            pair = _pair(source, address)
            counted = self._add(pair, token)
            count = self._count(pair, self._clock())
        if counted and self.share is not None:
            self.share(["failed", pair[1], pair[2], token.hex() if token is not None else ""])
        return 0.0 if count <= FREE_FAILURES else min(LONGEST_DELAY, 0.25 * 2 ** (count - FREE_FAILURES - 1))

    def succeeded(self, source: str, address: str) -> None:
        """The owner is at that source: forget its failures for this account and remember it."""
        with self._lock:
            pair = _pair(source, address)
            news = self._welcome(pair)
        if news and self.share is not None:
            self.share(["succeeded", pair[1], pair[2]])

    def hear(self, content: object) -> None:
        """What another process has shared; anything else is ignored."""
        if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
            return
        with self._lock, suppress(ValueError):
            match content:
                case ["failed", source, address, token]:
                    self._add(_pair(source, address), bytes.fromhex(token) or None)
                case ["succeeded", source, address]:
                    self._welcome(_pair(source, address))

    def _add(self, pair: Key, token: bytes | None) -> bool:
        """Count a failure under its three keys; whether it is a new one."""
        now = self._clock()
        by_source, by_account = ("source", pair[1]), ("account", pair[2])
        counted = False
        for key, limit in ((pair, PAIR_LIMIT), (by_source, SOURCE_LIMIT), (by_account, ACCOUNT_LIMIT)):
            self._count(key, now)  # lets go of what is too old to be compared with
            failures = self._failures.setdefault(key, deque(maxlen=limit))
            if token is None or all(token != seen for _, seen in failures):
                failures.append((now, token))
                counted = True
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)
        return counted

    def _welcome(self, pair: Key) -> bool:
        """Note a success; whether the others should know, which is so now and then only."""
        now = self._clock()
        failed = self._failures.pop(pair, None) is not None
        news = failed or self._known_until.get(pair, -math.inf) < now + KNOWN_FOR / 2
        if news:
            self._known_until[pair] = now + KNOWN_FOR
        self._known_until.move_to_end(pair)
        if len(self._known_until) > MAX_KEYS:
            self._known_until.popitem(last=False)
        return news

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._failures.clear()
            self._known_until.clear()

    def _count(self, key: Key, now: float) -> int:
        failures = self._failures.get(key)
        if failures is None:
            return 0
        while failures and failures[0][0] <= now - WINDOW:
            failures.popleft()
        return len(failures)

    def _wait(self, key: Key, limit: int, now: float) -> float:
        if self._count(key, now) < limit:
            return 0.0
        return self._failures[key][0][0] + WINDOW - now


def _pair(source: str, address: str) -> Key:
    return ("pair", network(source), address.lower()[:320])


@lru_cache(maxsize=4096)
def network(source: str) -> str:
    """What counts as one source: an IPv4 address, an IPv6 /64, or any other text as it is."""
    try:
        ip = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source[:100]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)


# This process's throttle, shared by every way to sign in.
sign_ins = Throttle()
