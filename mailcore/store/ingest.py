"""The batcher: deliveries that arrive while the last transaction commits share the next one; an idle one waits for
nobody."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from psycopg.errors import DeadlockDetected

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.store.append import Incoming, Job, Results, append_jobs, is_one_statement, kind
from mailcore.store.queue import Outgoing
from mailcore.store.trace import Event

log = logging.getLogger(__name__)

# Groups of 16 to 64 messages gain all there is to gain; more would only lengthen the wait of the first.
MAX_MESSAGES = 64
MAX_OCTETS = 8 * 1024 * 1024
# One transaction at a time makes the largest groups (measured: 2 at a time cost a third more CPU and won nothing).
# Only a full group, or one that has waited behind a slow transaction (someone else's lock), may overtake.
FLIGHTS = 4
PATIENCE = 0.03  # seconds
LARGE = 1024 * 1024  # octets; hashing more takes long enough for others to notice

Batch = list[tuple[Job, asyncio.Future[Results]]]


class Ingest:
    """Stores what the protocols of one async process accept."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Job, asyncio.Future[Results]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._overtake: asyncio.TimerHandle | None = None

    async def add(
        self,
        items: Sequence[Incoming],
        queue: Sequence[Outgoing] = (),
        events: Sequence[Event] = (),
        *,
        atomic: bool = False,
    ) -> Results:
        """Store `items`, queue and trace the rest, all in one transaction; returns after its commit.

        The result has one entry per item: where it went, or why it was refused (OVER_QUOTA, NOT_FOUND, BAD_VALUE). With
        `atomic`, one refused item refuses all, and nothing is queued or traced. Raises MailError(UNAVAILABLE).
        """
        if any(len(item.raw) > LARGE for item in items):
            items = await asyncio.to_thread(_hashed, items)
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self._waiting.append((Job(items, queue, events, atomic), future))
        self._pump()
        return await future  # whoever gives up waiting takes nothing back: the transaction is others' as well

    async def close(self) -> None:
        """Wait until everything that was added is committed or refused."""
        while self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)

    def _pump(self, impatient: bool = False) -> None:
        while self._waiting and len(self._flights) < FLIGHTS:
            if self._flights and not impatient and len(self._waiting) < MAX_MESSAGES:
                if self._overtake is None:
                    self._overtake = asyncio.get_running_loop().call_later(PATIENCE, self._patience_ended)
                return
            impatient = False
            batch: Batch = []
            messages = octets = 0
            while self._waiting and messages < MAX_MESSAGES and octets < MAX_OCTETS:
                job, future = self._waiting.popleft()
                batch.append((job, future))
                messages += len(job.items) + len(job.outgoing)
                octets += _octets((job,))
            for part in _alike(batch):
                flight = asyncio.create_task(self._fly(part))
                self._flights.add(flight)
                flight.add_done_callback(self._landed)

    def _patience_ended(self) -> None:
        self._overtake = None
        self._pump(impatient=True)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._overtake is not None:
            self._overtake.cancel()
            self._overtake = None
        self._pump()

    async def _fly(self, batch: Batch) -> None:
        try:
            jobs = [job for job, _ in batch]
            async with db.single() if is_one_statement(jobs) else db.transaction() as tx:
                if _octets(jobs) > MAX_OCTETS + LARGE:
                    tx.let_go()
                results = await append_jobs(tx, jobs)
        except Exception as error:
            away = isinstance(error, MailError) and error.code is Code.UNAVAILABLE
            if isinstance(error.__cause__, DeadlockDetected):
                away = False  # the other one has won and is done soon
            if isinstance(error, MailError) and (len(batch) == 1 or away):
                self._fail(batch, error)
            elif len(batch) > 1:
                # One of them is at fault: each on its own, so that the others get in.
                log.warning("a batch of %d failed (%s), trying one by one", len(batch), error)
                for single in batch:
                    await self._fly([single])
            else:
                log.exception("a message could not be stored")
                self._fail(batch, MailError(Code.INTERNAL, "the message could not be stored", str(error)))
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    @staticmethod
    def _fail(batch: Batch, error: MailError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


def _alike(batch: Batch) -> list[Batch]:
    """The batch in parts that take one statement each; what is stored as well as queued needs a transaction."""
    parts: dict[str, Batch] = {}
    for each in batch:
        parts.setdefault(kind(each[0]), []).append(each)
    return list(parts.values())


def _octets(jobs: Sequence[Job]) -> int:
    stored = sum(len(item.raw) for job in jobs for item in job.items)
    return stored + sum(len(one.raw) for job in jobs for one in job.outgoing if one.raw is not None)


def _hashed(items: Sequence[Incoming]) -> list[Incoming]:
    raws = {id(item.raw): item.raw for item in items}  # one for a message to many
    digests = {key: hashlib.sha256(raw).digest() for key, raw in raws.items()}
    return [replace(item, digest=digests[id(item.raw)]) for item in items]
