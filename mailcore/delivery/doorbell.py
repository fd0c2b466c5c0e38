"""Tells the workers that something was queued, without making whoever queued it wait.

A thread gathers what is rung while it speaks to Redis, and for a moment after that: the first message of a quiet time
is told of at once, and a thousand messages cost a handful of tasks. When Redis is away nothing is told, and beat's
sweep finds the messages a few seconds later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)

MAX_IDS = 500  # in one task
MAX_WAITING = 100_000  # more than that, and a sweep is as good
PAUSE_AFTER_ERROR = 2.0
# Seconds between two tasks: one costs 2 ms of CPU here and as much in a worker, which is more than a delivery.
BREATH = 0.1


class Doorbell:
    """One per process, used through `ring`."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._waiting: list[int] = []
        self._pid = 0

    def ring(self, outbound_ids: Sequence[int]) -> None:
        """Have these messages looked at soon; returns at once, from any thread or event loop."""
        with self._ready:
            if self._pid != os.getpid():  # first use, or a fork that took no threads along
                self._pid = os.getpid()
                self._waiting = []
                threading.Thread(target=self._run, name="doorbell", daemon=True).start()
            if len(self._waiting) < MAX_WAITING:
                self._waiting.extend(outbound_ids)
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting:
                    self._ready.wait()
                ids, self._waiting = self._waiting[:MAX_IDS], self._waiting[MAX_IDS:]
            try:
                ring_now(ids)
            except Exception as error:
                log.warning("the workers could not be told of new mail, a sweep will find it: %s", error)
                time.sleep(PAUSE_AFTER_ERROR)
            else:
                time.sleep(BREATH)


def ring_now(outbound_ids: Sequence[int], *, force: bool = False) -> None:
    """Send the task and wait until Redis has it; raises what the client raises. `force`: as an administrator asks."""
    from mailcore.celery import app  # only a process that queues mail needs Celery

    app.send_task(
        "mailcore.deliver_ids", args=[list(outbound_ids)], kwargs={"force": force}, retry=False, ignore_result=True
    )


_doorbell = Doorbell()
ring = _doorbell.ring
