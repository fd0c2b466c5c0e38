"""Kills what runs, at random, and lets the disk and the network fail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.far import Far
from tests.ops.installation import Installation

# What may be killed, and how often. A backend is one of Postgres's own processes: all of Postgres starts again with it.
ROLES = {"mail": 6, "worker": 6, "postgres": 3, "backend": 2, "valkey": 3, "beat": 2, "web": 1, "indexer": 1}


class Killer:
    """Draws by lot from a seed; `killed` counts by role."""

    def __init__(self, made: Installation, far: Far, seed: int) -> None:
        self._made = made
        self._far = far
        self._lot = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.other: Counter[str] = Counter()

    def kill(self) -> None:
        """SIGKILL to one process, whatever it does."""
        names, weights = zip(*ROLES.items(), strict=True)
        (role,) = self._lot.choices(names, weights)
        pid = self._pid(role)
        if pid is None:  # it is not there at this moment
            role = "worker"
            pid = self._pid(role)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed[role] += 1

    def _pid(self, role: str) -> int | None:
        children = self._made.children()
        if role == "backend":
            return self._found(children.get("postgres", 0), b"postgres: mailstead")
        if role == "indexer":
            return self._found(children.get("worker", 0), b"mailcore.indexer")
        return children.get(role)

    def _found(self, parent: int, command: bytes) -> int | None:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if above == parent and command in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                    found.append(int(entry.name))
        return self._lot.choice(found) if found else None

    def stall(self, seconds: float) -> None:
        """The worker stands still for a while, as on a machine that swaps."""
        if (pid := self._pid("worker")) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(pid, signal.SIGCONT)
                self.other["worker stalled"] += 1

    def cut(self, seconds: float) -> None:
        """The network to the far servers is gone for a while."""
        self._far.cut()
        time.sleep(seconds)
        self._far.mend()
        self.other["network cut"] += 1

    def fill(self, seconds: float) -> None:
        """The disk is full for a while; only for an installation on a file system of its own."""
        ballast = self._made.data.parent / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(seconds)
        ballast.unlink()
        self.other["disk full"] += 1

    def something_else(self, disk: bool) -> None:
        """One of the faults that kill nobody."""
        faults: list[Callable[[float], None]] = [self.stall, self.cut]
        if disk:
            faults.append(self.fill)
        self._lot.choice(faults)(self._lot.uniform(2, 5))
