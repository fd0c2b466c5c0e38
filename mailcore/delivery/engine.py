"""The engine of a worker process: which destinations are at work, with how many connections, until nothing is due.

A doorbell names destinations; each gets a lane, whose couriers claim due rows in batches and carry them until none is
left. Everything runs on one event loop, so that hundreds of slow servers cost connections and not processes. Claims are
kept alive by a heartbeat; when the process dies they lapse within two minutes and somebody else delivers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mailcore import db, wake
from mailcore.conf import Conf
from mailcore.delivery.attempt import LARGE_AT_ONCE, Context, Courier
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.keyring import Keyring
from mailcore.delivery.mx import Resolver
from mailcore.delivery.settle import Recorder
from mailcore.errors import MailError
from mailcore.store import accounts, queue
from mailcore.store.queue import LEASE_SECONDS, Claimed

log = logging.getLogger(__name__)

# All mail leaves by the smarthost: one lane, whatever the destination.
ANYWHERE = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at a time. `linger`: seconds that an idle connection is kept for the next message."""

    connections: int = 200
    per_destination: int = 8
    batch: int = 16
    preload: int = 256 * 1024  # octets; longer messages are read when their turn comes
    linger: float = 1.0
    lease: float = LEASE_SECONDS
    heartbeat: float = LEASE_SECONDS / 4


@dataclass(slots=True)
class _Lane:
    """A destination at work. `rung`: somebody said that more has come since the last claim."""

    rung: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    force: bool = False


class Engine:
    """One per process, on its event loop; needs the open pool of mailcore.db."""

    def __init__(self, conf: Conf, limits: Limits | None = None, timeouts: Timeouts | None = None) -> None:
        self._conf = conf
        self._limits = limits or Limits()
        self._lanes: dict[str, _Lane] = {}
        self._slots = asyncio.Semaphore(self._limits.connections)
        self._held: dict[int, Claimed] = {}
        self._stopping = False
        self._recorder = Recorder(conf)
        self._context = Context(
            conf=conf,
            resolver=Resolver(conf.dns),
            memory=HostMemory(),
            keyring=Keyring(),
            recorder=self._recorder,
            timeouts=timeouts or Timeouts(),
            done=self._done,
            large=asyncio.Semaphore(LARGE_AT_ONCE),
        )
        self._loop = asyncio.get_running_loop()
        self._errands: set[asyncio.Task[None]] = set()
        self._heart = asyncio.create_task(self._beat())
        self._forget = wake.on_queue(self._queued)

    # --- what others call

    def ring(self, destinations: Iterable[str], *, force: bool = False) -> None:
        """Deliver what is due at these destinations; `force` also asks hosts that were out of reach a moment ago."""
        if self._stopping:
            return
        names = set(destinations)
        if names and self._conf.smarthost is not None:
            names = {ANYWHERE}
        for name in names:
            lane = self._lanes.setdefault(name, _Lane())
            lane.force = lane.force or force
            lane.rung.set()
            if not lane.tasks:
                self._staff(name, lane)

    async def ring_ids(self, outbound_ids: Sequence[int], *, force: bool = False) -> None:
        """Deliver what is due of these messages, and what else is due where they go."""
        async with db.read() as tx:
            names = await queue.destinations(tx, outbound_ids)
        self.ring(names, force=force)

    async def sweep(self) -> int:
        """Look for everything due, lapsed leases among it; returns the number of destinations rung."""
        async with db.transaction() as tx:
            if count := await queue.set_aside(tx):
                log.error("%d recipients were set aside: they killed their workers (`manage.py queue list`)", count)
        async with db.read() as tx:
            names = await queue.due(tx)
        self.ring(names)
        return len(names)

    async def idle(self) -> None:
        """Wait until no destination is at work."""
        while tasks := [task for lane in self._lanes.values() for task in lane.tasks] + list(self._errands):
            await asyncio.wait(tasks)

    async def stop(self, grace: float = 20.0) -> None:
        """Finish the messages that are on the wire (for `grace` seconds), give everything else back."""
        self._stopping = True
        self._forget()
        tasks = [task for lane in self._lanes.values() for task in lane.tasks] + list(self._errands)
        for lane in self._lanes.values():
            lane.rung.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._recorder.close()
        self._heart.cancel()
        await asyncio.gather(self._heart, return_exceptions=True)

    @property
    def at_work(self) -> int:
        """How many couriers there are now."""
        return sum(len(lane.tasks) for lane in self._lanes.values())

    # --- lanes

    def _queued(self, outbound_ids: tuple[int, ...]) -> None:
        """Mail that this process queued itself (notices, forwards) needs no doorbell."""
        if not self._stopping:
            self._loop.call_soon_threadsafe(self._errand, outbound_ids)

    def _errand(self, outbound_ids: tuple[int, ...]) -> None:
        task = asyncio.create_task(self._ring_quietly(outbound_ids))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _ring_quietly(self, outbound_ids: tuple[int, ...]) -> None:
        try:
            await self.ring_ids(outbound_ids)
        except MailError as error:
            log.warning("the sweep will find new mail: %s", error.private or error.text)

    def _staff(self, name: str, lane: _Lane) -> None:
        task = asyncio.create_task(self._work(name, lane), name=f"deliver {name}")
        lane.tasks.add(task)
        task.add_done_callback(lambda done: self._left(name, lane, done))

    def _left(self, name: str, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deliveries to %s broke off, a sweep will take them up", name or "the smarthost", exc_info=error)
        elif lane.rung.is_set() and not lane.tasks and not self._stopping:
            self._staff(name, lane)
        if not lane.tasks:
            self._lanes.pop(name, None)

    async def _work(self, name: str, lane: _Lane) -> None:
        async with self._slots:
            courier = Courier(self._context)
            try:
                while not self._stopping and await self._round(name, lane, courier):
                    pass
            except MailError as error:
                log.warning("deliveries to %s wait for the database: %s", name, error.private or error.text)
                lane.rung.clear()
            except asyncio.CancelledError:
                courier.abort()
                raise
            finally:
                courier.close()

    async def _round(self, name: str, lane: _Lane, courier: Courier) -> bool:
        """Claim and deliver a batch; False when there is nothing left to do."""
        limits = self._limits
        lane.rung.clear()
        claims, local, blobs = await self._claim(name)
        if not claims:
            if not courier.has_connection or self._slots.locked() or len(lane.tasks) > 1:
                return False
            try:
                async with asyncio.timeout(limits.linger):
                    await lane.rung.wait()
            except TimeoutError:
                return False
            return True
        if len(claims) >= limits.batch and len(lane.tasks) < limits.per_destination:
            self._staff(name, lane)  # there is more than one connection's worth
        groups: dict[tuple[int, bool], list[Claimed]] = {}
        for claim in claims:
            groups.setdefault((claim.outbound_id, claim.destination in local), []).append(claim)
        waiting = list(groups.items())
        try:
            while waiting and not self._stopping:
                (_, is_local), group = waiting.pop(0)
                await courier.deliver(group, blobs, is_local=is_local, force=lane.force)
        finally:
            await asyncio.shield(self._give_back([claim for _, group in waiting for claim in group]))
        return True

    async def _claim(self, name: str) -> tuple[list[Claimed], set[str], dict[bytes, bytes]]:
        limits = self._limits
        destination = None if name == ANYWHERE else name
        async with db.transaction() as tx:
            claims = await queue.claim(tx, destination=destination, limit=limits.batch, lease_seconds=limits.lease)
            if not claims:
                return [], set(), {}
            names = {claim.destination for claim in claims}
            local = {each for each in names if await accounts.is_local_domain(tx, each)}
            small = {claim.blob for claim in claims if claim.size <= limits.preload}
            blobs = await queue.blobs(tx, list(small)) if small else {}
        self._held.update((claim.recipient_id, claim) for claim in claims)
        return claims, local, blobs

    # --- leases

    def _done(self, claims: Sequence[Claimed]) -> None:
        for claim in claims:
            self._held.pop(claim.recipient_id, None)

    async def _give_back(self, claims: Sequence[Claimed]) -> None:
        if not claims:
            return
        self._done(claims)
        try:
            async with db.transaction() as tx:
                await queue.give_back(tx, [(claim.recipient_id, claim.fence) for claim in claims])
        except MailError as error:
            log.warning("%d claims lapse by themselves: %s", len(claims), error.private or error.text)

    async def _beat(self) -> None:
        """Prolong the leases of everything in hand, for as long as this process lives."""
        while True:
            await asyncio.sleep(self._limits.heartbeat)
            held = list(self._held.values())
            if not held:
                continue
            leases = [(claim.recipient_id, claim.fence) for claim in held]
            try:
                async with db.transaction() as tx:
                    kept = await queue.renew(tx, leases, self._limits.lease)
            except MailError as error:
                log.warning("leases could not be prolonged: %s", error.private or error.text)
                continue
            except Exception:
                log.exception("leases could not be prolonged")  # the next beat may; without any, all is delivered twice
                continue
            lost = [c for c in held if c.recipient_id not in kept and self._held.get(c.recipient_id) is c]
            if lost:
                log.warning("%d leases were lost to others", len(lost))
