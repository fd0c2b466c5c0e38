"""Queued mail whose recipient is here after all: an alias or domain that moved, a notice that found a full mailbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from accounts.addresses import AddressError, normalise
from mailcore import db, mime
from mailcore.db import Tx
from mailcore.delivery import outcome
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.errors import Code, MailError
from mailcore.inbound import onward
from mailcore.inbound.onward import Leg
from mailcore.inbound.recipients import AT_ONCE, Writer, follow, willing
from mailcore.mime.report import Action
from mailcore.store import locks, queue, trace
from mailcore.store.accounts import Local, Resolution
from mailcore.store.append import Incoming, Job, Results, append_jobs
from mailcore.store.queue import Claimed, Outgoing, Recipient

log = logging.getLogger(__name__)

MAX_HOPS = 50
# Longer messages are parsed beside the event loop.
INLINE_OCTETS = 200_000


class _Stale(Exception):
    """Somebody else delivers this by now: nothing of ours may stay."""


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of a claim; `receipt`: as what its sender is told of it, if he wants to know."""

    outcome: Outcome
    receipt: Action = "delivered"


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message as it is stored, parsed once for all of its recipients."""

    raw: bytes
    derived: mime.Derived
    loops: bool
    header: bytes
    """Its beginning, in lower case."""
    been: set[bytes]
    """Addresses that it was led on from."""


async def deliver(claims: Sequence[Claimed], raw: bytes | None = None) -> None:
    """Deliver one message (`raw`, if it is at hand) to recipients of domains that are hosted here, and record it.

    All in one transaction, which begins when the message has been read and parsed.
    """
    if raw is None:
        async with db.read() as reader:
            raw = await queue.blob(reader, claims[0].blob)
    if len(raw) <= INLINE_OCTETS:
        letter = _letter(claims[0], raw)
    else:
        letter = await asyncio.to_thread(_letter, claims[0], raw)
    try:
        async with db.transaction() as tx:
            if not await queue.lock(tx, claims):
                raise _Stale
            fates = await _to_all(tx, claims, letter)
            settled = [
                Settled(claim, fate.outcome, receipt=fate.receipt)
                for claim in claims
                if (fate := fates[claim.recipient_id])
            ]
            if len(await settle(tx, settled)) < len(claims):
                raise _Stale
    except _Stale:
        log.warning("%s: somebody else delivers it by now", claims[0].trace_id)


def _letter(claim: Claimed, raw: bytes) -> _Letter:
    header = raw[: 64 * 1024].partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    hops = header.count(b"\nreceived:") + header.startswith(b"received:")
    stored = b"".join((f"Return-Path: <{claim.sender}>\r\n".encode(), claim.prepend, raw))
    return _Letter(stored, mime.parse(stored), hops > MAX_HOPS, header, onward.led_on_from(header))


async def _to_all(tx: Tx, claims: Sequence[Claimed], letter: _Letter) -> dict[int, _Fate]:
    """What became of each claim, by recipient id."""
    fates: dict[int, _Fate] = {}
    found: dict[int, Resolution] = {}
    for claim in claims:
        try:
            if letter.loops:
                raise MailError(Code.LOOP, "the message has passed through too many servers")
            found[claim.recipient_id] = await _way(tx, claim, letter)
        except AddressError as error:
            fates[claim.recipient_id] = _Fate(outcome.failed(Stage.LOCAL, "5.1.3", error.text).outcome)
        except MailError as error:
            fates[claim.recipient_id] = _refusal(error)
    await _lock(tx, found.values())
    open_claims = [claim for claim in claims if claim.recipient_id in found]
    jobs = [
        Job(
            [
                Incoming(to.account_id, 0, letter.raw, letter.derived, trace_id=claim.trace_id, recipient=to.address)
                for to in _tried(found[claim.recipient_id])
            ]
        )
        for claim in open_claims
    ]
    for claim, results in zip(open_claims, await append_jobs(tx, jobs), strict=True):
        fates[claim.recipient_id] = await _onwards(tx, claim, letter, found[claim.recipient_id], results)
    done = [claim for claim in open_claims if fates[claim.recipient_id].outcome.verdict is Verdict.DELIVERED]
    await trace.add(tx, [step for claim in done for step in _expanded(claim, found[claim.recipient_id])])
    return fates


def _expanded(claim: Claimed, found: Resolution) -> list[trace.Event]:
    """A step that says where the address led, unless it is simply an account's own."""
    to = [local.address for local in found.accounts] + list(found.remote)
    if to == [claim.address.lower()]:
        return []
    detail = {"to": to[:20], "targets": len(to)}
    return [trace.Event(claim.trace_id, "expanded", None, claim.outbound_id, claim.sender, claim.address, None, detail)]


async def _way(tx: Tx, claim: Claimed, letter: _Letter) -> Resolution:
    """Where the mail of a claim goes: not to whom it was, or who refuses it, among those that an address leads to."""
    address = normalise(claim.address)
    found = await follow(tx, address)
    if found.remote and address.encode() in letter.been:
        found = replace(found, remote=())
        if not found.accounts:
            raise onward.circle()
    return willing(found, Writer(claim.sender, claim.account_id, front_end=True), claim.size)


def _tried(found: Resolution) -> Sequence[Local]:
    """The mailboxes that get their copy now; those of a large group are left to the queue, one by one."""
    return found.accounts if len(found.accounts) <= AT_ONCE else ()


async def _lock(tx: Tx, found: Iterable[Resolution]) -> None:
    """Lock every account that will be written to, in the order everybody keeps."""
    wanted = {local.account_id for each in found for local in _tried(each)}
    for account_id in sorted(wanted):
        await tx.one(locks.LOCK_ACCOUNT, (account_id,))


async def _onwards(tx: Tx, claim: Claimed, letter: _Letter, found: Resolution, results: Results) -> _Fate:
    """Queue what leads elsewhere, and the copy of a member of an alias who has no room while others were served.

    The members of a large group were not tried: they are queued one by one. Copies that are stored stay: whatever
    becomes of the rest, the sender is not told that the mail was lost. Whoever asked for a receipt hears now that it
    went on, and no more: the next server's would say where to (RFC 3461 §5.2.7.4).
    """
    refused = [
        (to, result) for to, result in zip(found.accounts, results, strict=False) if isinstance(result, MailError)
    ]
    stored = len(results) - len(refused)
    if refused and not stored and not found.remote:
        return _refusal(refused[0][1])
    late = [local.address for local in found.accounts[len(results) :]] + [to.address for to, _ in refused]
    receipt: Action = "delivered"
    if found.remote or late:
        onwards = (*found.remote, *late)
        receipt = "expanded" if len(onwards) + stored > 1 else "relayed"
        try:
            if found.remote:
                to = _copies(claim, found.remote)
                unknown = letter.header if claim.account_id is None else None
                leg = await onward.forwarded(tx, claim.sender, claim.address, to, unknown)
                await queue.enqueue(tx, _copy(claim, leg))
            if late:
                await queue.enqueue(tx, _copy(claim, Leg(claim.sender, tuple(_copies(claim, late)))))
        except MailError as error:
            if not stored:
                return _refusal(error)
            log.warning("%s: cannot go on from %s to %s: %s", claim.trace_id, claim.address, onwards, error.text)
            text = f"stored, but not forwarded to {', '.join(onwards)}: {error.text}"
            return _Fate(outcome.delivered(Stage.LOCAL, text))
    return _Fate(outcome.delivered(Stage.LOCAL, "stored" if stored else "forwarded"), receipt)


def _copies(claim: Claimed, addresses: Iterable[str]) -> list[Recipient]:
    notify, written_to = _without_receipt(claim.notify), claim.written_to or claim.address
    return [Recipient(address, notify, claim.orcpt, written_to) for address in addresses]


def _without_receipt(notify: str | None) -> str | None:
    if notify is None:
        return None
    return ",".join(word for word in notify.upper().split(",") if word != "SUCCESS") or "NEVER"


def _refusal(error: MailError) -> _Fate:
    if error.code is Code.UNAVAILABLE:
        raise error
    return _Fate(outcome.of_error(Stage.LOCAL, error))


def _copy(claim: Claimed, leg: Leg) -> Outgoing:
    return Outgoing(
        leg.sender,
        leg.recipients,
        claim.trace_id,
        blob=claim.blob,
        size=claim.size - len(claim.prepend),
        account_id=claim.account_id,
        prepend=leg.lines + claim.prepend,
        smtputf8=claim.smtputf8,
        body=claim.body,
        requiretls=claim.requiretls,
        dsn_ret=claim.dsn_ret,
        dsn_envid=claim.dsn_envid,
        by=claim.by,
        priority=claim.priority,
        late_notified=claim.late_notified,
    )
