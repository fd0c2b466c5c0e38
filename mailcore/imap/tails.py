"""What FETCH said of messages before: the parts of its lines that never change, kept a while for the next client.

ENVELOPE, BODYSTRUCTURE, header fields and PREVIEW of a message are the same for ever. A person's phone and laptop ask
for them one after the other, and asking the database again costs more than remembering: 38 of 63 ms for 10,000.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Key = tuple[int, tuple[bytes, ...]]

_OVERHEAD = 150  # octets of objects around each value


class _Group:
    __slots__ = ("octets", "used", "values")

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.octets = 0
        self.used = 0.0


class Tails:
    """Rendered items by account and FETCH items, then by message; bounded, and empty again after a quiet while."""

    def __init__(self, octets: int, seconds: float) -> None:
        self._limit = octets
        self._seconds = seconds
        self._octets = 0
        self._groups: OrderedDict[Key, _Group] = OrderedDict()

    def get(self, key: Key, message_ids: Sequence[int], now: float) -> list[bytes | None]:
        """The values of messages, None for those that are not known."""
        group = self._groups.get(key)
        if group is None:
            return [None] * len(message_ids)
        group.used = now
        self._groups.move_to_end(key)
        return list(map(group.values.get, message_ids))

    def put(self, key: Key, message_ids: Sequence[int], values: Sequence[bytes], now: float) -> None:
        """Remember values; the groups that were not used for longest make room. What is too much is left out."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        group.used = now
        size = sum(map(len, values)) + _OVERHEAD * len(values)
        if group.octets + size > self._limit:
            return
        before = len(group.values)
        group.values.update(zip(message_ids, values, strict=True))
        if len(group.values) - before < len(values):
            # Some were there: count what came by its share.
            size = size * (len(group.values) - before) // len(values)
        group.octets += size
        self._octets += size
        while self._octets > self._limit:
            self._drop(next(iter(self._groups)))

    def expire(self, now: float) -> None:
        """Forget the groups that nobody used for a while."""
        for key in [key for key, group in self._groups.items() if now - group.used > self._seconds]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._octets -= self._groups.pop(key).octets
