"""Queued mail whose recipient is here after all: an alias or domain that moved, a notice that found a full mailbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from accounts.addresses import AddressError, normalise
from mailcore import db, mime
from mailcore.conf import Conf
from mailcore.db import Tx
from mailcore.delivery import outcome
from mailcore.delivery.outcome import Outcome, Stage
from mailcore.delivery.settle import Settled, settle
from mailcore.errors import Code, MailError
from mailcore.store import accounts, locks, queue
from mailcore.store.accounts import Resolution
from mailcore.store.append import Incoming, Job, Results, append_jobs
from mailcore.store.queue import Claimed, Outgoing, Recipient

log = logging.getLogger(__name__)

MAX_HOPS = 50
# Longer messages are parsed beside the event loop.
INLINE_OCTETS = 200_000


class _Stale(Exception):
    """Somebody else delivers this by now: nothing of ours may stay."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message as it is stored, parsed once for all of its recipients."""

    raw: bytes
    derived: mime.Derived
    loops: bool


async def deliver(conf: Conf, claims: Sequence[Claimed], raw: bytes | None = None) -> None:
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
            outcomes = await _to_all(tx, claims, letter)
            settled = [Settled(claim, outcomes[claim.recipient_id]) for claim in claims]
            if len(await settle(tx, conf, settled)) < len(claims):
                raise _Stale
    except _Stale:
        log.warning("%s: somebody else delivers it by now", claims[0].trace_id)


def _letter(claim: Claimed, raw: bytes) -> _Letter:
    header = raw[: 64 * 1024].lower()
    hops = header.count(b"\nreceived:") + header.startswith(b"received:")
    stored = f"Return-Path: <{claim.sender}>\r\n".encode() + claim.prepend + raw
    return _Letter(stored, mime.parse(stored), hops > MAX_HOPS)


async def _to_all(tx: Tx, claims: Sequence[Claimed], letter: _Letter) -> dict[int, Outcome]:
    """What became of each claim, by recipient id."""
    outcomes: dict[int, Outcome] = {}
    found: dict[int, Resolution] = {}
    for claim in claims:
        try:
            if letter.loops:
                raise MailError(Code.LOOP, "the message has passed through too many servers")
            found[claim.recipient_id] = await accounts.resolve(tx, normalise(claim.address))
        except AddressError as error:
            outcomes[claim.recipient_id] = outcome.failed(Stage.LOCAL, "5.1.3", error.text).outcome
        except MailError as error:
            outcomes[claim.recipient_id] = _refusal(error)
    await _lock(tx, claims[0].sender, found.values())
    open_claims = [claim for claim in claims if claim.recipient_id in found]
    jobs = [
        Job(
            [
                Incoming(to.account_id, 0, letter.raw, letter.derived, trace_id=claim.trace_id, recipient=to.address)
                for to in found[claim.recipient_id].accounts
            ]
        )
        for claim in open_claims
    ]
    for claim, results in zip(open_claims, await append_jobs(tx, jobs), strict=True):
        outcomes[claim.recipient_id] = await _onwards(tx, claim, found[claim.recipient_id], results)
    return outcomes


async def _lock(tx: Tx, sender: str, found: Iterable[Resolution]) -> None:
    """Lock every account that will be written to, the sender's for a notice too, in the order everybody keeps."""
    wanted = {local.account_id for each in found for local in each.accounts}
    with suppress(AddressError, MailError):
        wanted.update(local.account_id for local in (await accounts.resolve(tx, normalise(sender))).accounts)
    for account_id in sorted(wanted):
        await tx.one(locks.LOCK_ACCOUNT, (account_id,))


async def _onwards(tx: Tx, claim: Claimed, found: Resolution, results: Results) -> Outcome:
    """Queue what leads elsewhere, and the copy of a member of an alias who has no room while others were served.

    Copies that are stored stay: whatever becomes of the rest, the sender is not told that the mail was lost.
    """
    refused = [
        (to, result) for to, result in zip(found.accounts, results, strict=True) if isinstance(result, MailError)
    ]
    stored = len(results) - len(refused)
    if refused and not stored and not found.remote:
        return _refusal(refused[0][1])
    onwards = (*found.remote, *(to.address for to, _ in refused))
    if onwards:
        try:
            await queue.enqueue(tx, _forward(claim, onwards))
        except MailError as error:
            if not stored:
                return _refusal(error)
            log.warning("%s: cannot go on from %s to %s: %s", claim.trace_id, claim.address, onwards, error.text)
            text = f"stored, but not forwarded to {', '.join(onwards)}: {error.text}"
            return outcome.delivered(Stage.LOCAL, text)
    return outcome.delivered(Stage.LOCAL, "stored" if stored else "forwarded")


def _refusal(error: MailError) -> Outcome:
    if error.code is Code.UNAVAILABLE:
        raise error
    return outcome.of_error(Stage.LOCAL, error)


def _forward(claim: Claimed, remote: Sequence[str]) -> Outgoing:
    return Outgoing(
        claim.sender,
        [Recipient(address, claim.notify, claim.orcpt) for address in remote],
        claim.trace_id,
        blob=claim.blob,
        size=claim.size - len(claim.prepend),
        account_id=claim.account_id,
        prepend=claim.prepend,
        smtputf8=claim.smtputf8,
        body_8bit=claim.body_8bit,
        dsn_ret=claim.dsn_ret,
        dsn_envid=claim.dsn_envid,
    )
