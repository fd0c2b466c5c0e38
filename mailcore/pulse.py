"""A sign of life that a role gives and its supervisor looks at: a reading of the clock in memory that both share.

It works while the database and Redis are away. Where nobody supervises (a container, a systemd unit) it does nothing.
"""

from __future__ import annotations

import mmap
import struct
import time

_FORMAT = "d"


class Pulse:
    """Made by the supervisor before it forks the role."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, struct.calcsize(_FORMAT))
        self.beat()

    def beat(self) -> None:
        """Be alive now."""
        struct.pack_into(_FORMAT, self._memory, 0, time.monotonic())

    def age(self) -> float:
        """Seconds since the last sign of life, or since the start of the role."""
        last: float = struct.unpack_from(_FORMAT, self._memory, 0)[0]
        return time.monotonic() - last


_own: Pulse | None = None


def wear(pulse: Pulse) -> None:
    """Be the role that this pulse tells of; called in the forked child."""
    global _own
    _own = pulse


def give() -> None:
    """Say that this process works: what it does all the time has been done once more."""
    if _own is not None:
        _own.beat()
