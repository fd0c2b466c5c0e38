"""The engine of a worker process: which destinations are at work, with how many connections, until nothing is due.

A doorbell names destinations; each gets a lane, and one more for each rule that certain senders have (`plan.Way`). A
lane's couriers claim due rows in batches and carry them until none is left. Everything runs on one event loop, so that
hundreds of slow servers cost connections and not processes. A courier begins when its next hop has room for another and
the process has a place (`pacing`); until then it has claimed nothing. When nobody answers, all workers pause the lane
(`knowledge`), and its mail waits unclaimed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mailcore import db, wake
from mailcore.conf import Conf
from mailcore.delivery import backoff, route
from mailcore.delivery.attempt import LARGE_AT_ONCE, Context, Courier
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.keyring import Keyring
from mailcore.delivery.knowledge import Knowledge
from mailcore.delivery.late import expired, is_expired, note_late
from mailcore.delivery.leases import Leases
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.pacing import KEEP, Pace, Places, Window, Windows
from mailcore.delivery.plan import Way
from mailcore.delivery.settle import Recorder, Settled
from mailcore.delivery.teller import Teller
from mailcore.delivery.tls.decide import Transport
from mailcore.errors import MailError
from mailcore.store import accounts, destinations, queue, queue_due, routes, suppression
from mailcore.store.queue import LEASE_SECONDS, Claimed

log = logging.getLogger(__name__)

# Looked for that often: mail behind a pause whose sender has to be told of the delay, or that is too old.
OVERDUE_SECONDS = 60.0
# Times 200 recipients whose time is over, in one sweep: the others are for the next, which must not be kept waiting.
LATE_ROUNDS = 5
# For so long a destination is taken not to be hosted here, as far as its connections are concerned.
ELSEWHERE_SECONDS = 60.0
# What rules for certain senders have due is looked for that often, unless the look is quick.
SENDERS_SECONDS = 9.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at a time. `linger`: seconds that an idle connection is kept for the next message."""

    connections: int = 500
    per_destination: int = 20
    lookups: int = 200  # of mail hosts, before there is a connection
    batch: int = 16
    by_age: float = 0.25  # share of the claims that go by age alone: what is not urgent goes on too
    preload: int = 256 * 1024  # octets; longer messages are read when their turn comes
    preload_all: int = 1024 * 1024  # octets of a batch that are in memory while it is carried
    ahead: int = 8  # messages that went over a connection and whose record is on its way
    together: float = 1.5  # seconds for which a sender's notice waits for others of its message
    turn: int = 64  # messages after which others who wait for the same hop have their turn
    linger: float = 1.0
    lease: float = LEASE_SECONDS
    heartbeat: float = LEASE_SECONDS / 4


@dataclass(slots=True)
class _Lane:
    """A destination, or a share of its mail, at work. `rung`: somebody said that more has come since the last claim."""

    way: Way
    rung: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    force: bool = False


@dataclass(slots=True)
class _Turn:
    """One courier at work."""

    name: str
    lane: _Lane
    window: Window
    courier: Courier
    carried: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """Claims, by message; those to hosted domains are `local`. `blobs` holds what is small and will be wanted soon."""

    groups: list[list[Claimed]]
    local: set[str]
    blobs: Mapping[bytes, bytes]
    suppressed: list[Settled]

    def __bool__(self) -> bool:
        return bool(self.groups or self.suppressed)


class Engine:
    """One per process, on its event loop; needs the open pool of mailcore.db."""

    def __init__(self, conf: Conf, limits: Limits | None = None, timeouts: Timeouts | None = None) -> None:
        self._conf = conf
        self._limits = limits or Limits()
        self._lanes: dict[str, _Lane] = {}
        self._resting: dict[str, float] = {}  # lanes that have used up a minute's messages, until when
        self._elsewhere: dict[str, float] = {}  # destinations that were not hosted here a moment ago
        self._windows = Windows()
        self._places = Places(self._limits.connections)
        # Names that failed the last time wait for each other, and not the others for them.
        lookups = self._limits.lookups
        self._lookups = {False: asyncio.Semaphore(lookups), True: asyncio.Semaphore(max(1, lookups // 4))}
        self._stopping = False
        self._is_ranked = False  # something in the queue has a priority of its own
        self._overdue_at = 0.0
        self._senders_at = 0.0
        self._teller = Teller(conf, self._limits.together)
        self._recorder = Recorder(self._teller.soon)
        self._leases = Leases(self._limits.lease, self._limits.heartbeat)
        memory = HostMemory()
        self._knowledge = Knowledge(conf, memory)
        resolver = Resolver(conf.dns, conf.dnssec)
        self._context = Context(
            conf=conf,
            resolver=resolver,
            transport=Transport(conf, resolver),
            memory=memory,
            keyring=Keyring(),
            recorder=self._recorder,
            timeouts=timeouts or Timeouts(),
            done=self._leases.done,
            large=asyncio.Semaphore(LARGE_AT_ONCE),
            plans=self._knowledge.plans,
        )
        self._loop = asyncio.get_running_loop()
        self._errands: set[asyncio.Task[None]] = set()
        self._forget = wake.on_queue(self._queued)

    # --- what others call

    def ring(self, destinations: Iterable[str], *, force: bool = False) -> None:
        """Deliver what is due at these destinations; `force` also asks hosts that were out of reach a moment ago."""
        plans = self._knowledge.plans()
        self._ring([way for name in destinations for way in plans.ways(name)], force)

    def _ring(self, ways: Iterable[Way], force: bool = False) -> None:
        now = time.monotonic()
        for way in () if self._stopping else dict.fromkeys(ways):
            if not force and self._resting.get(way.name, 0.0) > now:
                continue
            lane = self._lanes.setdefault(way.name, _Lane(way))
            lane.way = way
            lane.force = lane.force or force
            lane.rung.set()
            if not lane.tasks:
                self._staff(way.name, lane)

    async def ring_ids(self, outbound_ids: Sequence[int], *, force: bool = False) -> None:
        """Deliver what is due of these messages, and what else is due where they go."""
        await self._knowledge.ready()
        async with db.read() as tx:
            names = await queue_due.destinations(tx, outbound_ids)
            plans = self._knowledge.plans()
            own = await queue_due.senders(tx, outbound_ids, plans.sender_patterns) if plans.sender_patterns else []
        self._is_ranked = self._is_ranked or any(names.values())
        ways = [plans.way(sender, name) for name, sender in own if name in names]
        self._ring([*ways, *(plans.ways(name)[0] for name in names)], force)

    async def sweep(self) -> int:
        """Look for everything due, lapsed leases among it; returns the number of destinations rung."""
        await self._knowledge.ready()
        if (now := time.monotonic()) >= self._overdue_at:
            self._overdue_at = now + OVERDUE_SECONDS
            async with db.transaction() as tx:
                if count := await queue_due.set_aside(tx):  # reads all that is queued
                    log.error("%d recipients were set aside: they killed their workers (`manage.py queue list`)", count)
            await self._tell_overdue()
        await self._tell_late()
        self._teller.soon()  # and nobody waits for it: a hundred thousand bounces take minutes
        async with db.read() as tx:
            names = await queue_due.due(tx)
            self._is_ranked = await queue_due.is_ranked(tx)
            plans = self._knowledge.plans()
            own: Sequence[tuple[str, str]] = ()
            if plans.sender_patterns and (now := time.monotonic()) >= self._senders_at:
                own = await queue_due.due_of_senders(tx, plans.sender_patterns)
                self._senders_at = now + (SENDERS_SECONDS if time.monotonic() - now > 0.02 else 0.0)
        ways = dict.fromkeys(plans.ways(name)[0] for name in names)
        ways |= dict.fromkeys(plans.way(sender, name) for name, sender in own)
        self._ring(ways)
        return len(ways)

    async def tell(self) -> None:
        """Have senders told what they are to be told by now."""
        await self._teller.tell()

    async def refresh(self) -> None:
        """Know the rules and pauses as they are at this moment."""
        await self._knowledge.refresh()

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
        await self._teller.close()
        await self._knowledge.close()
        await self._leases.close()

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
        courier: Courier | None = None
        try:
            await self._knowledge.ready()
            window = await self._window(lane.way)
            courier = Courier(self._context, window)
            async with window.place():
                pace = self._pace(name, window)
                async with self._places.place(pace):
                    await self._carry(_Turn(name, lane, window, courier), pace)
        except MailError as error:
            log.warning("deliveries to %s wait for the database: %s", name, error.private or error.text)
            lane.rung.clear()
        if courier is not None:
            await courier.recorded()

    async def _window(self, way: Way) -> Window:
        """The next hop of a destination, as far as its connections are concerned; a rule that limits them has one of
        its own."""
        name, plan = way.destination, way.plan
        limit = plan.connections or self._limits.per_destination
        if not plan.sends:
            return self._windows.of(way.name, limit)
        async with self._lookups[self._knowledge.is_suspect(way.name)]:
            if self._elsewhere.get(name, 0.0) < (now := time.monotonic()):
                async with db.read() as tx:
                    if await accounts.is_local_domain(tx, name):
                        return self._windows.of(name, self._limits.per_destination)
                if len(self._elsewhere) > KEEP:
                    self._elsewhere.clear()
                self._elsewhere[name] = now + ELSEWHERE_SECONDS
            key = await route.hop(name, self._context.resolver, plan)
        return self._windows.of(f"{key} by rule {plan.rule}" if plan.connections else key, limit)

    def _pace(self, name: str, window: Window) -> Pace:
        if self._knowledge.is_suspect(name):
            return Pace.SUSPECT
        return Pace.SLOW if window.is_slow else Pace.QUICK

    async def _carry(self, turn: _Turn, pace: Pace) -> None:
        """Rounds, until nothing is left, or others have their turn."""
        courier = turn.courier
        try:
            while not self._stopping and await self._round(turn):
                # Who turns out to be slow goes back to where the slow ones wait.
                if pace is not self._pace(turn.name, turn.window) or (
                    turn.window.is_wanted and turn.carried >= self._limits.turn
                ):
                    turn.lane.rung.set()
                    break
        except asyncio.CancelledError:
            courier.abort()
            raise
        finally:
            courier.close()

    async def _round(self, turn: _Turn) -> bool:
        """Claim and deliver a batch; False when there is nothing left to do."""
        limits, lane, courier = self._limits, turn.lane, turn.courier
        lane.rung.clear()
        batch = await self._claim(turn)
        if not batch:
            if not courier.has_connection or self._places.are_scarce or len(lane.tasks) > 1 or turn.window.is_wanted:
                return False
            try:
                async with asyncio.timeout(limits.linger):
                    await lane.rung.wait()
            except TimeoutError:
                return False
            return True
        await self._recorder.record(batch.suppressed)
        self._leases.done([item.claim for item in batch.suppressed])
        self._reinforce(turn, sum(map(len, batch.groups)))
        waiting, blobs, soon = batch.groups, batch.blobs, len(batch.blobs) > 1
        try:
            while waiting and not self._stopping:
                await courier.recorded(besides=limits.ahead)
                is_local = waiting[0][0].destination in batch.local
                if not is_local and await self._must_rest(turn, waiting[0][0]):
                    return False
                group = waiting.pop(0)
                reason = await courier.deliver(group, blobs, is_local=is_local, force=lane.force)
                turn.carried += 1
                if reason is not None:
                    way = self._knowledge.plans().way(group[0].sender, group[0].destination)
                    if not turn.window.connected and way.name == turn.name:  # rules may have changed meanwhile
                        await self._knowledge.unreachable(turn.name, reason)
                    return False
                if self._knowledge.is_suspect(turn.name):
                    await self._knowledge.recovered(turn.name)
                if not soon and len(waiting) > 1 and courier.has_connection and not turn.window.is_slow:
                    soon = True
                    async with db.read() as tx:
                        blobs = await queue.blobs(tx, self._wanted(group[0] for group in waiting))
        finally:
            await asyncio.shield(self._leases.give_back([claim for group in waiting for claim in group]))
        return True

    def _reinforce(self, turn: _Turn, claimed: int) -> None:
        """Another courier, when there is more than one connection's worth, and somebody has answered already."""
        lane, window = turn.lane, turn.window
        if claimed < self._limits.batch or not turn.courier.has_connection:
            return
        if window.has_room and len(lane.tasks) < int(window.size) and not self._places.are_scarce:
            self._staff(turn.name, lane)

    async def _claim(self, turn: _Turn) -> _Batch:
        """What is due: blobs come along when there is a connection that they can go over at once."""
        limits, way = self._limits, turn.lane.way
        claims: list[Claimed] = []
        try:
            async with db.single() as tx:
                claims = await queue.claim(
                    tx,
                    destination=way.destination or None,
                    share=way.share,
                    limit=limits.batch,
                    lease_seconds=limits.lease,
                    force=turn.lane.force,
                    by_priority=self._is_ranked and random.random() >= limits.by_age,
                )
                if not claims:
                    return _Batch([], set(), {}, [])
                self._leases.take(claims)
                # The first message goes as soon as somebody answers, the others when a connection can take them.
                soon = turn.courier.has_connection and not turn.window.is_slow
                local, listed, blobs = await queue.facts(tx, claims, self._wanted(claims if soon else claims[:1]))
        except BaseException:
            await asyncio.shield(self._leases.give_back(claims))
            raise
        settled = [
            Settled(claim, _suppressed(hit))
            for claim in claims
            if (hit := listed.get(suppression.key(claim.address))) is not None
        ]
        unwanted = {item.claim.recipient_id for item in settled}
        groups: dict[tuple[int, bool, bool], list[Claimed]] = {}
        for claim in claims:
            if claim.recipient_id not in unwanted:
                key = (claim.outbound_id, claim.destination in local, claim.released)
                groups.setdefault(key, []).append(claim)
        return _Batch(list(groups.values()), local, blobs, settled)

    def _wanted(self, claims: Iterable[Claimed]) -> list[bytes]:
        """Contents that may be in memory together."""
        wanted: dict[bytes, None] = {}
        room = self._limits.preload_all
        for claim in claims:
            if claim.size <= self._limits.preload and claim.blob not in wanted:
                room -= claim.size
                if room < 0:
                    break
                wanted[claim.blob] = None
        return list(wanted)

    async def _must_rest(self, turn: _Turn, claim: Claimed) -> bool:
        """Count a message where a rule limits them; True = the minute is used up, and the lane rests until the next."""
        plan = self._knowledge.plans().of(claim.sender, claim.destination, released=claim.released)
        if plan.per_minute is None:
            return False
        async with db.transaction() as tx:
            wait = await routes.take(tx, plan.rule)
        if wait <= 0:
            return False
        self._resting[turn.name] = time.monotonic() + wait
        self._loop.call_later(wait, self._rested, turn.lane.way)
        return True

    def _rested(self, way: Way) -> None:
        self._resting.pop(way.name, None)
        self._ring([way])

    async def _tell_overdue(self) -> None:
        """Senders of mail behind a pause hear of the delay, and get back what is too old, as if it had been tried."""
        while True:
            async with db.transaction() as tx:
                claims = await queue_due.claim_overdue(
                    tx,
                    delay=backoff.DELAY_NOTICE_AFTER,
                    max_age=backoff.MAX_AGE,
                    max_age_bounce=backoff.MAX_AGE_BOUNCE,
                )
                plans = self._knowledge.plans()
                ways = {claim.recipient_id: plans.way(claim.sender, claim.destination).name for claim in claims}
                pauses = await destinations.pauses_of(tx, sorted(set(ways.values()))) if claims else []
            reasons = {each.name: each.reason for each in pauses if each.left > 0}
            self._leases.take(claims)
            # What goes another way than the paused one is not behind the pause: it may be tried now.
            await self._leases.give_back([claim for claim in claims if ways[claim.recipient_id] not in reasons])
            late = [claim for claim in claims if ways[claim.recipient_id] in reasons]
            if not late:
                return
            await self._recorder.record(
                [
                    Settled(claim, Outcome(Verdict.LATER, Stage.CONNECT, "4.4.1", reasons[ways[claim.recipient_id]]))
                    for claim in late
                ]
            )
            self._leases.done(late)

    async def _tell_late(self) -> None:
        """What was to be delivered by now comes back, or its sender is told (RFC 2852), also behind a pause."""
        for _ in range(LATE_ROUNDS):
            async with db.transaction() as tx:
                late = await queue_due.late(tx)
                await note_late(tx, [claim for claim in late if not is_expired(claim)])
            if not late:
                break
            claims = [claim for claim in late if is_expired(claim)]
            self._leases.take(claims)
            await self._recorder.record([Settled(claim, expired(claim)) for claim in claims])
            self._leases.done(claims)


def _suppressed(hit: suppression.Suppressed) -> Outcome:
    until = f" until {hit.until:%Y-%m-%d}" if hit.until else ""
    text = f"not sent: this server writes to {hit.address} no more{until}: {hit.reason or hit.category}"
    status = "5.7.1" if hit.source != "bounce" else "5.1.1" if "@" in hit.address else "5.1.2"
    return Outcome(Verdict.FAILED, Stage.QUEUE, status, text)
