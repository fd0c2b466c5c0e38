"""Mailboxes in an order other than their own: what SORT and THREAD found, kept a while for the next time.

Nothing that messages are sorted or threaded by ever changes. So an order stays right until a message comes; those that
leave are simply missing from it, and a search for some messages takes them from it in passing.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

Key = tuple[int, int, object]  # account, mailbox, sort criteria or threading algorithm

_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class Order:
    """`uids` in order, complete up to the UID `top`. `form`: how threads write them, with a %d for each.

    `of`: the list of UIDs (a session's view) that these are, all of them and no others, when that is known.
    """

    top: int
    uids: array[int]
    form: bytes = b""
    of: array[int] | None = None


class Orders:
    """Orders by mailbox and criteria: bounded, and gone after a while without use."""

    def __init__(self, octets: int, seconds: float) -> None:
        self._limit = octets
        self._seconds = seconds
        self._octets = 0
        self._known: OrderedDict[Key, tuple[float, Order]] = OrderedDict()
        self.turn = asyncio.Lock()
        """Held by whoever puts many messages into order in memory: one session at a time."""

    def get(self, key: Key, top: int, now: float) -> Order | None:
        """The order, if it knows every message up to the UID `top`."""
        known = self._known.get(key)
        if known is None or known[1].top < top:
            return None
        self._known[key] = (now, known[1])
        self._known.move_to_end(key)
        return known[1]

    def put(self, key: Key, order: Order, now: float) -> None:
        """Remember an order; those that were not used for longest make room."""
        self._drop(key)
        if _octets(order) > self._limit:
            return
        self._known[key] = (now, order)
        self._octets += _octets(order)
        while self._octets > self._limit:
            self._drop(next(iter(self._known)))

    def expire(self, now: float) -> None:
        """Forget what nobody used for a while."""
        for key in [key for key, (used, _) in self._known.items() if now - used > self._seconds]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._octets -= _octets(known[1])


def _octets(order: Order) -> int:
    held = 0 if order.of is None else len(order.of)
    return 4 * (len(order.uids) + held) + len(order.form) + _OVERHEAD


def only(uids: array[int], wanted: Collection[int]) -> array[int]:
    """Those of `uids` that are wanted, in their order."""
    members = frozenset(wanted)
    return array("I", [uid for uid in uids if uid in members])
