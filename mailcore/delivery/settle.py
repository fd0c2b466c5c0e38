"""Recording what became of deliveries: result, trace and what the sender is to be told in one transaction.

Results share commits, so that many connections cost few of them: the first of a quiet time is written at once, those
that come while it is, and in the moment after it, together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailcore import db
from mailcore.db import Tx
from mailcore.delivery import backoff, bounce, classify
from mailcore.delivery.bounce import Notice
from mailcore.delivery.outcome import Outcome, Verdict
from mailcore.errors import Code, MailError
from mailcore.mime.report import Action
from mailcore.store import queue, suppression, trace, transport
from mailcore.store.queue import Claimed, Result
from mailcore.store.suppression import Strike
from mailcore.store.transport import Count

log = logging.getLogger(__name__)

MAX_GROUP = 200
# Seconds from one commit to the next, unless somebody waits for it or so many results are there.
BREATH = 0.05
ENOUGH = 32
# How long a result is kept while the database is away; then the lease is long over, and the delivery is repeated.
KEEP_TRYING = 900.0


@dataclass(frozen=True, slots=True)
class Try:
    """One host that was asked in vain before the last one."""

    host: str
    outcome: Outcome
    tls: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of one claim. `elapsed`: seconds since it was claimed; `relayed`: to a host that sends no receipts;
    `receipt`: what became of it here;
    `keeps_time`: to a host that knows of DELIVERBY; `sessions`: those opened for it, for TLS reports."""

    claim: Claimed
    outcome: Outcome
    host: str | None = None
    tls: str | None = None
    tries: tuple[Try, ...] = ()
    elapsed: float = 0.0
    relayed: bool = False
    receipt: Action = "delivered"
    keeps_time: bool = False
    sessions: tuple[Count, ...] = ()
    rule: int = 0
    """The number of the rule that the mail went by (`manage.py route`); 0: none."""


@dataclass(frozen=True, slots=True)
class _Decision:
    """What is written for a settled claim."""

    settled: Settled
    result: Result
    notice: Notice | None
    event: trace.Event


class Recorder:
    """One per engine; `noted` is called when somebody is to be told something."""

    def __init__(self, noted: Callable[[], None]) -> None:
        self._noted = noted
        self._waiting: deque[tuple[Sequence[Settled], asyncio.Future[None]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def record(self, items: Sequence[Settled]) -> None:
        """Record; returns after the commit. What cannot be recorded is logged: its lease ends, and it is done again."""
        if items:
            future = self.soon(items)
            self._hurry.set()
            await asyncio.shield(future)

    def soon(self, items: Sequence[Settled]) -> asyncio.Future[None]:
        """Record, together with what comes in the next moment; done after the commit, and never fails."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if len(self._waiting) >= ENOUGH:
            self._hurry.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return future

    async def close(self) -> None:
        """Wait until everything is recorded."""
        while self._worker is not None:
            self._hurry.set()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._hurry.clear()
                group: list[tuple[Sequence[Settled], asyncio.Future[None]]] = []
                while self._waiting and len(group) < MAX_GROUP:
                    group.append(self._waiting.popleft())
                await self._group(group)
                if len(self._waiting) < ENOUGH:
                    timer = asyncio.get_running_loop().call_later(BREATH, self._hurry.set)
                    await self._hurry.wait()
                    timer.cancel()
        finally:
            self._worker = None

    async def _group(self, group: Sequence[tuple[Sequence[Settled], asyncio.Future[None]]]) -> None:
        try:
            await self._write([item for items, _ in group for item in items])
        except Exception as error:
            if len(group) > 1:
                log.warning("%d results could not be recorded together (%s), trying one by one", len(group), error)
                for single in group:
                    await self._group([single])
                return
            names = ", ".join(sorted({item.claim.trace_id for item in group[0][0]}))
            log.exception("the result of %s could not be recorded, it will be delivered again", names)
        for _, future in group:
            if not future.done():
                future.set_result(None)

    async def _write(self, items: Sequence[Settled]) -> None:
        pause, deadline = 0.2, asyncio.get_running_loop().time() + KEEP_TRYING
        decisions = [decide(item) for item in items]
        one = all(map(_needs_one_statement, decisions))
        while True:
            try:
                async with db.single() if one else db.transaction() as tx:
                    await _settle(tx, decisions)
                if any(decision.notice is not None for decision in decisions):
                    self._noted()
                return
            except MailError as error:
                if error.code is not Code.UNAVAILABLE or asyncio.get_running_loop().time() > deadline:
                    raise
                log.warning("%d results wait for the database: %s", len(items), error.private or error.text)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)


async def settle(tx: Tx, items: Sequence[Settled]) -> set[int]:
    """Record results, with trace and what is to be told (`bounce.tell_noted`), in this transaction; returns the
    recipients whose fence was right."""
    return await _settle(tx, [decide(item) for item in items])


async def _settle(tx: Tx, decisions: Sequence[_Decision]) -> set[int]:
    events, forgiven = [], []
    for decision in decisions:
        item = decision.settled
        number = item.claim.recipient_id
        events += [(number, event) for event in (*_attempts(item), decision.event)]
        if item.host is not None and item.outcome.verdict is Verdict.DELIVERED:
            forgiven.append((number, item.claim.address))
    kept = await queue.record(tx, [decision.result for decision in decisions], events, forgiven)
    valid = [decision for decision in decisions if decision.result.recipient_id in kept]
    for decision in decisions:
        if decision.result.recipient_id not in kept:
            late = decision.settled.claim
            log.warning("%s: a late result for %s was dropped (%s)", late.trace_id, late.address, decision.result.state)
    if strikes := [strike for decision in valid if (strike := _strike(decision.settled)) is not None]:
        await suppression.strike(tx, strikes)
    await bounce.note(tx, [decision.notice for decision in valid if decision.notice is not None])
    # Last: all workers lock the same rows of busy domains, until they commit.
    await transport.count(tx, [each for decision in decisions for each in decision.settled.sessions])
    return kept


def _needs_one_statement(decision: _Decision) -> bool:
    return decision.notice is None and not decision.settled.sessions and _strike(decision.settled) is None


def _strike(item: Settled) -> Strike | None:
    """A refusal that says "nobody of this name"; a delivery wipes strikes out."""
    if item.host is None or not classify.is_nobody(item.outcome):
        return None
    return Strike(item.claim.address, classify.category(item.outcome), item.outcome.text)


def decide(item: Settled) -> _Decision:
    """From an outcome to the row's next state, the trace and the notice."""
    claim, outcome = item.claim, item.outcome
    if outcome.verdict is Verdict.DELIVERED:
        return _Decision(item, _result(item, "delivered"), _receipt(item), _event(item, "delivered"))
    if outcome.verdict is Verdict.FAILED:
        return _failed(item)
    if outcome.verdict is Verdict.HELD:
        return _Decision(item, _result(item, "held"), None, _event(item, "held", reason=outcome.text))
    if outcome.verdict is Verdict.DISCARDED:
        return _Decision(item, _result(item, "delivered"), None, _event(item, "discarded"))
    age = claim.age + item.elapsed
    wait = backoff.retry_in(claim.attempts, age, claim.outbound_id, is_bounce=not claim.sender)
    if wait is None:
        return _failed(item, expired=True)
    delayed = age >= backoff.DELAY_NOTICE_AFTER and not claim.delay_notified
    notice = Notice(claim, "delayed", outcome, item.host) if delayed else None
    result = _result(item, "queued", retry_in=wait, delay_notified=delayed)
    return _Decision(item, result, notice, _event(item, "deferred", retry_in=round(wait)))


def _receipt(item: Settled) -> Notice | None:
    """What there is to tell of a delivery, if the sender wants to know."""
    claim = item.claim
    if item.host is None:
        # Without our words, which may say where the address leads.
        return Notice(claim, item.receipt, replace(item.outcome, text=""))
    if item.relayed and "SUCCESS" in (claim.notify or ""):
        return Notice(claim, "relayed", item.outcome, item.host)
    # A server that took our NOTIFY sends the receipt itself; of what was to be delivered by a certain time each server
    # that passes it on tells, when it is asked to, or the next one makes no promise (RFC 2852 §4.1.4).
    by = claim.by
    if by is None or (item.keeps_time and not by.traces):
        return None
    text = "passed on within the time that was given" if item.keeps_time else "the next server keeps to no time"
    return Notice(claim, "relayed", replace(item.outcome, text=text, remote=False), item.host, unless_never=True)


def _failed(item: Settled, *, expired: bool = False) -> _Decision:
    notice = Notice(item.claim, "failed", item.outcome, item.host)
    detail: dict[str, object] = {}
    if expired:
        detail["expired"] = True
    if not bounce.is_wanted(item.claim, "failed"):
        detail["untold"] = _untold(item.claim)
    return _Decision(item, _result(item, "failed"), notice, _event(item, "failed", **detail))


def _untold(claim: Claimed) -> str:
    if not claim.sender:
        return "it was a bounce itself"
    return "it only passed through" if claim.account_id is None else "the sender did not want to know"


def _result(item: Settled, state: queue.State, retry_in: float | None = None, delay_notified: bool = False) -> Result:
    claim, outcome = item.claim, item.outcome
    return Result(
        claim.recipient_id, claim.fence, state, outcome.code, outcome.text, item.host, retry_in, delay_notified
    )


def _event(item: Settled, step: str, **more: object) -> trace.Event:
    detail = _detail(item.host, item.outcome, item.tls) | {"attempt": item.claim.attempts} | more
    if item.rule:
        detail["rule"] = item.rule
    return _trace(item.claim, step, detail)


def _attempts(item: Settled) -> list[trace.Event]:
    return [_trace(item.claim, "attempt", _detail(one.host, one.outcome, one.tls)) for one in item.tries]


def _detail(host: str | None, outcome: Outcome, tls: str | None) -> dict[str, object]:
    detail: dict[str, object] = {"status": outcome.status, "reply": outcome.text}
    if host is not None:
        detail["host"] = host
    if tls is not None:
        detail["tls"] = tls
    if outcome.verdict is not Verdict.DELIVERED:
        detail["stage"] = outcome.stage.value
        detail["class"] = classify.category(outcome)
    return detail


def _trace(claim: Claimed, step: str, detail: dict[str, object]) -> trace.Event:
    return trace.Event(
        claim.trace_id, step, claim.account_id, claim.outbound_id, claim.sender, claim.address, None, detail
    )
