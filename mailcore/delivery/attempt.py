"""A courier carries batches of claimed mail to one destination, over one connection for as long as that works.

For each message: the open session, else the next host that answers; what a host does not take for now goes to the next
one at once, to two hosts at most; what became of each recipient is recorded before the next message begins, so that a
death in between repeats one message at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from accounts.addresses import parse_address
from mailcore import db
from mailcore.conf import Conf
from mailcore.delivery import content, local, outcome, route, session
from mailcore.delivery.backoff import HostMemory
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.keyring import Keyring
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict
from mailcore.delivery.route import Host
from mailcore.delivery.session import MAX_RECIPIENTS, Message, Session
from mailcore.delivery.settle import Recorder, Settled, Try
from mailcore.store import queue
from mailcore.store.queue import Claimed

log = logging.getLogger(__name__)

# Hosts that are talked to about one message in one attempt; hosts that do not answer are not counted.
MAX_CONVERSATIONS = 2
# Work on longer messages leaves the event loop.
INLINE_OCTETS = 512 * 1024
# Of longer messages few are in memory at a time (a copy or three each).
LARGE_OCTETS = 4 * 1024 * 1024
LARGE_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Context:
    """What all couriers of an engine share. `done` is called with claims that need no lease any more."""

    conf: Conf
    resolver: Resolver
    memory: HostMemory
    keyring: Keyring
    recorder: Recorder
    timeouts: Timeouts
    done: Callable[[Sequence[Claimed]], None]
    large: asyncio.Semaphore


@dataclass(slots=True)
class _Job:
    """One message on its way: who still waits, and what has been tried."""

    claims: Mapping[int, Claimed]
    waiting: dict[int, session.Recipient]
    started: float
    asked: set[str] = field(default_factory=set)  # addresses of hosts
    tries: dict[int, list[Try]] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)

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
            )
        )

    def give_up(self, result: Outcome | None = None) -> None:
        """No host is left: the last one's words count, or `result`."""
        for number in list(self.waiting):
            tries = self.tries.get(number, [])
            if result is not None:
                self.finish(number, result)
            elif tries:
                last = tries.pop()
                self.finish(number, last.outcome)
                self.settled[-1] = _at_host(self.settled[-1], last)
            else:
                self.finish(number, Outcome(Verdict.LATER, Stage.ROUTE, "4.4.1", "no mail host can be reached"))


def _at_host(item: Settled, last: Try) -> Settled:
    return Settled(item.claim, item.outcome, last.host, last.tls, item.tries, item.elapsed, item.relayed)


class Courier:
    """Carries mail to one destination ("" = anywhere, by the smarthost); used by one task at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._session: Session | None = None

    @property
    def has_connection(self) -> bool:
        """Another message could go over the connection that is open."""
        return self._session is not None and self._session.is_usable

    def close(self) -> None:
        """Take leave of the open connection, if any."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def abort(self) -> None:
        """Cut the open connection: in the middle of a message, the server has not taken it."""
        if self._session is not None:
            self._session.connection.abort()

    async def deliver(
        self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], *, is_local: bool, force: bool = False
    ) -> None:
        """Deliver one message to `claims`, all of one outbound id, and record what became of it.

        `blobs` may have its content already; `force` also asks hosts that were out of reach a moment ago.
        """
        try:
            if claims[0].size < LARGE_OCTETS:
                await self._deliver(claims, blobs, is_local, force)
            else:
                async with self._context.large:
                    await self._deliver(claims, blobs, is_local, force)
        except Exception as error:
            # The lease ends by itself, and the message is tried again; a bug in it sets it aside in the end.
            log.exception("%s could not be delivered: %s", claims[0].trace_id, error)
        finally:
            self._context.done(claims)

    async def _deliver(
        self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], is_local: bool, force: bool
    ) -> None:
        if is_local:
            await local.deliver(self._context.conf, claims, blobs.get(claims[0].blob))
        else:
            await self._context.recorder.record(await self._send(claims, blobs, force))

    async def _send(self, claims: Sequence[Claimed], blobs: Mapping[bytes, bytes], force: bool) -> list[Settled]:
        waiting = {
            claim.recipient_id: session.Recipient(
                claim.recipient_id, str(parse_address(claim.address)), claim.notify, claim.orcpt
            )
            for claim in claims
        }
        job = _Job({claim.recipient_id: claim for claim in claims}, waiting, time.monotonic())
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
        return job.settled

    async def _converse(self, job: _Job, claim: Claimed, blobs: Mapping[bytes, bytes], force: bool) -> None:
        message: Message | None = None
        hosts: AsyncIterator[Host] | None = None
        conversations = 0
        while job.waiting:
            current = self._session if conversations == 0 else None
            if current is not None and not current.is_usable:
                self.close()
                current = None
            reused = current is not None
            if current is None:
                hosts = hosts or route.hosts(claim.destination, self._context.conf, self._context.resolver)
                current = await self._open_next(hosts, job, force)
                if current is None:
                    job.give_up()
                    return
                if conversations == 0:
                    self._session = current
            job.asked.add(current.host.address)
            try:
                message = message or await self._prepare(claim, blobs)
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

    async def _transact(self, job: _Job, current: Session, message: Message, reused: bool) -> bool:
        """Transactions until this session has had a word on everybody; True = the reused connection had died."""
        passed: dict[int, session.Recipient] = {}
        while (batch := [to for to in job.waiting.values() if to.id not in passed][:MAX_RECIPIENTS]) and (
            current.connection.is_open
        ):
            results = await session.send(current, message, batch)
            if reused and _never_began(results.values()):
                return True
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

    async def _prepare(self, claim: Claimed, blobs: Mapping[bytes, bytes]) -> Message:
        raw = blobs.get(claim.blob)
        if raw is None:
            async with db.read() as tx:
                raw = await queue.blob(tx, claim.blob)
        keys = await self._context.keyring.for_sender(claim)
        if len(raw) <= INLINE_OCTETS:
            return content.outgoing(raw, claim, keys)
        return await asyncio.to_thread(content.outgoing, raw, claim, keys)

    async def _open_next(self, hosts: AsyncIterator[Host], job: _Job, force: bool) -> Session | None:
        """The next host that answers; None when there is none left. Raises Undeliverable when no other may be asked."""
        memory = self._context.memory
        async for host in hosts:
            if host.address in job.asked:
                continue
            job.asked.add(host.address)
            down = None if force else memory.down(host.address)
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
                memory.failed(host.address, result.text)
                continue
            memory.worked(host.address)
            return opened
        return None

    async def _open(self, host: Host, job: _Job) -> Session:
        hello, timeouts = self._context.conf.hostname, self._context.timeouts
        try:
            return await session.open_session(host, hello, timeouts)
        except Undeliverable as error:
            if error.outcome.verdict is not Verdict.PLAIN:
                raise
            if host.login is not None:
                text = f"the smarthost's TLS cannot be trusted or does not work: {error.outcome.text}"
                raise outcome.later(Stage.TLS, "4.7.5", text) from None
            # Opportunistic: better in the clear than not at all, as it would have gone to a host without STARTTLS.
            job.note(host, error.outcome)
            return await session.open_session(host, hello, timeouts, use_tls=False)


def _never_began(results: Collection[Outcome]) -> bool:
    """The server had closed an idle connection (or closes it now with 421): that says nothing about the message."""
    return bool(results) and all(
        each.stage is Stage.MAIL and each.verdict is Verdict.NEXT_HOST and each.code in (None, 421) for each in results
    )
