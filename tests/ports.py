"""Ports for servers that are started in a moment, by programs that cannot say themselves which one they took."""

from __future__ import annotations

import os
import random
import socket

# Below those that the kernel gives to connections and to listeners on port 0 (net.ipv4.ip_local_port_range): a port
# that was free a second ago still is. Of n workers of pytest-xdist, each has every n-th of them.
FIRST, LAST = 10_240, 32_000
_chance = random.SystemRandom()
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, neither TCP nor UDP; none is given twice."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    found: list[int] = []
    while len(found) < count:
        port = _chance.randrange((LAST - FIRST) // workers) * workers + FIRST + mine
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
