"""A courier carries batches of claimed mail to one destination, over one connection for as long as that works.

For each message: the open session, else the next host that answers; what a host does not take for now goes to the next
one at once, to two hosts at most. What became of a message is recorded while the next ones go, a few at most, so that a
death in between repeats those of the last moment; what did not end well is recorded before anything else is tried.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from accounts.addresses import parse_address
from mailcore import db
from mailcore.conf import Conf
from mailcore.delivery import classify, content, local, outcome, route, session
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.keyring import Keyring
from mailcore.delivery.late import expired, is_expired
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict
from mailcore.delivery.pacing import Window
from mailcore.delivery.plan import Plan, Plans
from mailcore.delivery.route import Host
from mailcore.delivery.session import MAX_RECIPIENTS, Message, Session
from mailcore.delivery.settle import Recorder, Settled, Try
from mailcore.delivery.tls.decide import Transport
from mailcore.delivery.tls.opening import open_host
from mailcore.store import queue
from mailcore.store.queue import Claimed
from mailcore.store.transport import Count

log = logging.getLogger(__name__)

# Hosts that are talked to about one message in one attempt; hosts that do not answer are not counted.
MAX_CONVERSATIONS = 2
# Work on longer messages leaves the event loop.
INLINE_OCTETS = 512 * 1024
# Of longer messages few are in memory at a time (a copy or three each).
LARGE_OCTETS = 4 * 1024 * 1024
LARGE_AT_ONCE = 3
# Where a delivery ends that reached nobody: what it says holds for all mail that takes this way, not for one message.
_OUT_OF_REACH = frozenset({Stage.ROUTE, Stage.CONNECT, Stage.GREETING, Stage.HELLO, Stage.TLS, Stage.AUTH})


@dataclass(frozen=True, slots=True)
class Context:
    """What all couriers of an engine share. `done` is called with claims that need no lease any more; `plans` tells the
    rules as they are now."""

    conf: Conf
    resolver: Resolver
    transport: Transport
    memory: HostMemory
    keyring: Keyring
    recorder: Recorder
    timeouts: Timeouts
    done: Callable[[Sequence[Claimed]], None]
    large: asyncio.Semaphore
    plans: Callable[[], Plans]


@dataclass(slots=True)
class _Job:
    """One message on its way: who still waits, and what has been tried."""

    claims: Mapping[int, Claimed]
    waiting: dict[int, session.Recipient]
    plan: Plan
    started: float
    asked: set[str] = field(default_factory=set)  # places of hosts
    tries: dict[int, list[Try]] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)  # sessions, for TLS reports
    knocked: bool = False  # a host was called that did not answer as a mail server
    reached: bool = False  # somebody answered
    strained: bool = False  # and had too much of us

    @property
    def wish(self) -> bool | None:
        """What the sender says of TLS (RFC 8689), the same for all recipients of a message."""
        return next(iter(self.claims.values())).requiretls

    def count(self) -> None:
        """Have the sessions that were opened counted for TLS reports, in the transaction that records the first
        recipient's result."""
        if self.settled and self.counts:
            self.settled[0] = replace(self.settled[0], sessions=tuple(self.counts))

    def note(self, host: Host, result: Outcome, tls: str | None = None) -> None:
        """A host that was of no use to all who still wait."""
        for number in self.waiting:
            self.tries.setdefault(number, []).append(Try(str(host), result, tls))

    def finish(self, number: int, result: Outcome, at: Session | None = None) -> None:
        to = self.waiting.pop(number)
        self.settled.append(
            Settled(
                self.claims[number],
                result,
                str(at.host) if at else None,
                at.tls if at else None,
                tuple(self.tries.get(number, ())),
                time.monotonic() - self.started,
                relayed=at is not None and not at.offers("DSN") and bool(to.notify),
                keeps_time=at is not None and at.offers("DELIVERBY"),
                rule=self.plan.rule,
            )
        )

    def give_up(self, result: Outcome | None = None) -> None:
        """No host is left: the last one's words count, or `result`."""
        for number in list(self.waiting):
            tries = self.tries.get(number, [])
            if result is not None:
                self.finish(number, result)
            elif tries:
                ended = outcome.after_all([each.outcome for each in tries])
                last = tries.pop()
                self.finish(number, ended)
                self.settled[-1] = _at_host(self.settled[-1], last)
            else:
                self.finish(number, Outcome(Verdict.LATER, Stage.ROUTE, "4.4.1", "no mail host can be reached"))


def _at_host(item: Settled, last: Try) -> Settled:
    return replace(item, host=last.host, tls=last.tls)


class Courier:
    """Carries mail to one destination ("" = anywhere, by the smarthost); used by one task at a time.

    `window` hears how it goes.
    """

    def __init__(self, context: Context, window: Window) -> None:
        self._context = context
        self._window = window
        self._session: Session | None = None
        self._way: tuple[Plan, str] | None = None  # that the session was opened for
        self._is_connected = False
        self._unrecorded: deque[asyncio.Future[None]] = deque()

    @property
    def has_connection(self) -> bool:
        """Another message could go over the connection that is open."""
        return self._session is not None and self._session.is_usable

    def close(self) -> None:
        """Take leave of the open connection, if any."""
        if self._session is not None:
            self._session.close()
            self._keep(None, None)

    def _keep(self, opened: Session | None, way: tuple[Plan, str] | None) -> None:
        self._session, self._way = opened, way
        self._window.connected += (opened is not None) - self._is_connected
        self._is_connected = opened is not None

    def abort(self) -> None:
        """Cut the open connection: in the middle of a message, the server has not taken it."""
        if self._session is not None:
            self._session.connection.abort()

    async def deliver(
        self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], *, is_local: bool, force: bool = False
    ) -> str | None:
        """Deliver one message to `claims`, all of one outbound id, and have it recorded what became of it (`recorded`).

        `blobs` may have its content already; `force` also asks hosts that were out of reach a moment ago. Returns why
        nobody can be reached, when that holds for all mail to this destination.
        """
        recording: asyncio.Future[None] | None = None
        try:
            if claims[0].size < LARGE_OCTETS:
                reason, recording = await self._deliver(claims, blobs, is_local, force)
            else:
                async with self._context.large:
                    reason, recording = await self._deliver(claims, blobs, is_local, force)
            return reason
        except Exception as error:
            # The lease ends by itself, and the message is tried again; a bug in it sets it aside in the end.
            log.exception("%s could not be delivered: %s", claims[0].trace_id, error)
            return None
        finally:
            if recording is None:
                self._context.done(claims)
            else:
                recording.add_done_callback(lambda _: self._context.done(claims))

    async def recorded(self, besides: int = 0) -> None:
        """Wait until what was delivered is recorded, but for the latest messages `besides`."""
        while len(self._unrecorded) > besides:
            await asyncio.shield(self._unrecorded[0])
            self._unrecorded.popleft()

    async def _deliver(
        self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], is_local: bool, force: bool
    ) -> tuple[str | None, asyncio.Future[None] | None]:
        if is_expired(claims[0]):
            await self._context.recorder.record([Settled(claim, expired(claim)) for claim in claims])
            return None, None
        if is_local:
            await local.deliver(claims, blobs.get(claims[0].blob))
            return None, None
        recorder, plans = self._context.recorder, self._context.plans()
        plan = plans.of(claims[0].sender, claims[0].destination, released=claims[0].released)
        if not plan.sends:
            result = _by_rule(plan)
            await recorder.record([Settled(claim, result, rule=plan.rule) for claim in claims])
            return None, None
        job = await self._send(claims, blobs, plan, force)
        if all(each.outcome.verdict is Verdict.DELIVERED for each in job.settled):
            recording = recorder.soon(job.settled)
            self._unrecorded.append(recording)
            return None, recording
        await recorder.record(job.settled)
        if job.reached or job.wish is not None:
            return None, None
        reasons = {item.outcome.text for item in job.settled if _is_out_of_reach(item.outcome)}
        of_all = plan == plans.of(claims[0].sender, claims[0].destination) and len(reasons) == 1
        return (reasons.pop() if of_all else None), None

    async def _send(self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], plan: Plan, force: bool) -> _Job:
        waiting = {
            claim.recipient_id: session.Recipient(
                claim.recipient_id, str(parse_address(claim.address)), claim.notify, claim.orcpt
            )
            for claim in claims
        }
        job = _Job({claim.recipient_id: claim for claim in claims}, waiting, plan, time.monotonic())
        try:
            await self._converse(job, claims[0], blobs, force)
        except Undeliverable as error:
            job.give_up(error.outcome)
        except asyncio.CancelledError:
            # Said now, rather than left to the lease: a worker that is stopped did not die of this message.
            job.give_up(Outcome(Verdict.LATER, Stage.CONNECT, "4.3.2", "this server was stopped during the delivery"))
            await self._context.recorder.record(job.settled)
            raise
        except Exception as error:
            # What is settled stays settled: a recipient who has it must not get it again.
            log.exception("delivery of %s broke off", claims[0].trace_id)
            job.give_up(outcome.of_error(Stage.CONNECT, error))
        job.count()
        if job.strained or (job.knocked and not job.reached):
            self._window.strained()
        elif job.reached:
            self._window.succeeded(time.monotonic() - job.started)
        return job

    async def _converse(self, job: _Job, claim: Claimed, blobs: Mapping[bytes, bytes], force: bool) -> None:
        message: Message | None = None
        hosts: AsyncIterator[Host] | None = None
        conversations = 0
        while job.waiting:
            current = self._session if conversations == 0 else None
            way = _way(job.plan, claim.destination)
            if current is not None and not (self._goes_on(current, way) and current.serves(job.wish)):
                self.close()
                current = None
            reused = current is not None
            if current is None:
                hosts = hosts or route.hosts(claim.destination, self._context.conf, self._context.resolver, job.plan)
                current = await self._open_next(hosts, job, force)
                if current is None:
                    job.give_up()
                    return
                if conversations == 0:
                    self._keep(current, way)
            job.reached = True
            job.asked.add(current.host.address)
            try:
                if message is None or not current.takes(message):
                    message = await self._prepare(claim, blobs, current)
                stale = await self._transact(job, current, message, reused)
            finally:
                if current is not self._session:
                    current.close()
            if stale:
                job.asked.discard(current.host.address)
                continue
            conversations += 1
            if conversations == MAX_CONVERSATIONS:
                job.give_up()

    def _goes_on(self, current: Session, way: tuple[Plan, str]) -> bool:
        """Another message that goes this way may go over the open connection."""
        limit = way[0].per_connection
        return current.is_usable and self._way == way and (limit is None or current.messages < limit)

    async def _transact(self, job: _Job, current: Session, message: Message, reused: bool) -> bool:
        """Transactions until this session has had a word on everybody; True = the reused connection had died."""
        passed: dict[int, session.Recipient] = {}
        while (batch := [to for to in job.waiting.values() if to.id not in passed][:MAX_RECIPIENTS]) and (
            current.connection.is_open
        ):
            results = await session.send(current, message, batch)
            if reused and _never_began(results.values()):
                return True
            if any(classify.is_strain(each) for each in results.values()):
                job.strained = True
            for number, result in results.items():
                if result.is_final or result.verdict is Verdict.LATER:
                    job.finish(number, result, current)
                else:
                    passed[number] = job.waiting[number]
                    job.tries.setdefault(number, []).append(Try(str(current.host), result, current.tls))
            reused = False
            if not results:
                break
        return False

    async def _prepare(self, claim: Claimed, blobs: Mapping[bytes, bytes], current: Session) -> Message:
        """The message in a form that this host takes. Raises Undeliverable when there is none."""
        raw = blobs.get(claim.blob)
        if raw is None:
            async with db.read() as tx:
                raw = await queue.blob(tx, claim.blob)
        keys = await self._context.keyring.for_sender(claim)
        prepare = partial(content.outgoing, eight_bit=current.takes_eight_bit, binary=current.takes_binary)
        if len(raw) <= INLINE_OCTETS:
            return prepare(raw, claim, keys)
        return await asyncio.to_thread(prepare, raw, claim, keys)

    async def _open_next(self, hosts: AsyncIterator[Host], job: _Job, force: bool) -> Session | None:
        """The next host that answers; None when there is none left. Raises Undeliverable when no other may be asked."""
        memory = self._context.memory
        async for host in hosts:
            place = host.place(self._context.conf.smtp_out_port)
            if place in job.asked:
                continue
            job.asked.add(place)
            down = None if force else memory.down(place)
            if down is not None:
                text = f"{down.reason}; tried a moment ago"
                job.note(host, Outcome(Verdict.NEXT_HOST, Stage.CONNECT, "4.4.1", text))
                continue
            try:
                opened = await self._open(host, job)
            except Undeliverable as error:
                result = error.outcome
                job.note(host, result)
                if result.verdict in (Verdict.FAILED, Verdict.LATER):
                    raise
                if result.stage is not Stage.TLS:  # what one domain demands of a host says nothing to another
                    job.knocked = True
                    memory.failed(place, result.text)
                continue
            memory.worked(place)
            return opened
        return None

    async def _open(self, host: Host, job: _Job) -> Session:
        hello, timeouts = host.hello or self._context.conf.hostname, self._context.timeouts
        return await open_host(
            self._context.transport, host, hello, timeouts, job.wish, partial(job.note, host), job.counts
        )


def _way(plan: Plan, destination: str) -> tuple[Plan, str]:
    """What leads to the same hosts: a plan, and the destination when that is what decides. A smarthost's lane is still
    at work when a rule comes that sends some of its mail elsewhere."""
    return plan, "" if plan.relay is not None else destination


def _by_rule(plan: Plan) -> Outcome:
    """What a rule decides that sends mail nowhere."""
    if plan.action == "unusable":
        return Outcome(Verdict.LATER, Stage.ROUTE, "4.3.5", plan.text)
    if plan.action == "hold":
        return Outcome(Verdict.HELD, Stage.ROUTE, "4.7.1", plan.text or f"held by rule {plan.rule}")
    if plan.action == "discard":
        return Outcome(Verdict.DISCARDED, Stage.ROUTE, "2.0.0", plan.text or f"discarded by rule {plan.rule}")
    text = plan.text or "mail between these domains is not sent from this server"
    return Outcome(Verdict.FAILED, Stage.QUEUE, "5.7.1", text)


def _is_out_of_reach(result: Outcome) -> bool:
    # What a host demands of us (x.7.x) may be one message's affair; what a domain's policy demands of hosts is not.
    return (
        not result.is_final
        and result.stage in _OUT_OF_REACH
        and result.status != "4.3.2"
        and (result.stage in (Stage.AUTH, Stage.TLS) or ".7." not in result.status)
    )


def _never_began(results: Collection[Outcome]) -> bool:
    """The server had closed an idle connection (or closes it now with 421): that says nothing about the message."""
    return bool(results) and all(
        each.stage is Stage.MAIL
        and each.verdict is Verdict.NEXT_HOST
        and each.code in (None, 421)
        and each.status.startswith("4")  # what we think that the host lacks is no end of the connection
        for each in results
    )
