"""Recording what became of deliveries: result, trace and notice to the sender in one transaction.

Results that are ready while another transaction commits share the next one, so that many connections cost few commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mailcore import db
from mailcore.conf import Conf
from mailcore.db import Tx
from mailcore.delivery import backoff, bounce
from mailcore.delivery.bounce import Notice
from mailcore.delivery.outcome import Outcome, Verdict
from mailcore.errors import Code, MailError
from mailcore.store import queue, trace
from mailcore.store.queue import Claimed, Result

log = logging.getLogger(__name__)

MAX_GROUP = 200
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
    """The end of one claim. `elapsed`: seconds since it was claimed; `relayed`: to a host that sends no receipts."""

    claim: Claimed
    outcome: Outcome
    host: str | None = None
    tls: str | None = None
    tries: tuple[Try, ...] = ()
    elapsed: float = 0.0
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class _Decision:
    """What is written for a settled claim."""

    settled: Settled
    result: Result
    notice: Notice | None
    event: trace.Event


class Recorder:
    """One per engine."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._waiting: deque[tuple[Sequence[Settled], asyncio.Future[None]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def record(self, items: Sequence[Settled]) -> None:
        """Record; returns after the commit. What cannot be recorded is logged: its lease ends, and it is done again."""
        if not items:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        await asyncio.shield(future)

    async def close(self) -> None:
        """Wait until everything is recorded."""
        while self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                group: list[tuple[Sequence[Settled], asyncio.Future[None]]] = []
                while self._waiting and len(group) < MAX_GROUP:
                    group.append(self._waiting.popleft())
                await self._group(group)
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
        while True:
            try:
                async with db.transaction() as tx:
                    await settle(tx, self._conf, items)
                return
            except MailError as error:
                if error.code is not Code.UNAVAILABLE or asyncio.get_running_loop().time() > deadline:
                    raise
                log.warning("%d results wait for the database: %s", len(items), error.private or error.text)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)


async def settle(tx: Tx, conf: Conf, items: Sequence[Settled]) -> set[int]:
    """Record results, with trace and notices, in this transaction; returns the recipients whose fence was right."""
    decisions = [decide(item) for item in items]
    kept = await queue.record(tx, [decision.result for decision in decisions])
    valid = [decision for decision in decisions if decision.result.recipient_id in kept]
    for decision in decisions:
        if decision.result.recipient_id not in kept:
            late = decision.settled.claim
            log.warning("%s: a late result for %s was dropped (%s)", late.trace_id, late.address, decision.result.state)
    events = [event for decision in valid for event in (*_attempts(decision.settled), decision.event)]
    await trace.add(tx, events)
    await bounce.tell(tx, conf, [decision.notice for decision in valid if decision.notice is not None])
    return kept


def decide(item: Settled) -> _Decision:
    """From an outcome to the row's next state, the trace and the notice."""
    claim, outcome = item.claim, item.outcome
    if outcome.verdict is Verdict.DELIVERED:
        action: bounce.Action = "relayed" if item.relayed else "delivered"
        # A server that took our NOTIFY sends the receipt itself.
        tell = item.relayed or item.host is None
        notice = Notice(claim, action, outcome, item.host) if tell else None
        return _Decision(item, _result(item, "delivered"), notice, _event(item, "delivered"))
    if outcome.verdict is Verdict.FAILED:
        return _failed(item)
    age = claim.age + item.elapsed
    wait = backoff.retry_in(claim.attempts, age, claim.outbound_id, is_bounce=not claim.sender)
    if wait is None:
        return _failed(item, expired=True)
    delayed = age >= backoff.DELAY_NOTICE_AFTER and not claim.delay_notified
    notice = Notice(claim, "delayed", outcome, item.host) if delayed else None
    result = _result(item, "queued", retry_in=wait, delay_notified=delayed)
    return _Decision(item, result, notice, _event(item, "deferred", retry_in=round(wait)))


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
    return detail


def _trace(claim: Claimed, step: str, detail: dict[str, object]) -> trace.Event:
    return trace.Event(
        claim.trace_id, step, claim.account_id, claim.outbound_id, claim.sender, claim.address, None, detail
    )
