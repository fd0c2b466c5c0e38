"""Queued mail whose recipient is here after all: an alias or domain that moved, a notice that found a full mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from accounts.addresses import AddressError, normalise
from mailcore import db, mime
from mailcore.conf import Conf
from mailcore.db import Tx
from mailcore.delivery import outcome
from mailcore.delivery.outcome import Outcome, Stage
from mailcore.delivery.settle import Settled, settle
from mailcore.errors import Code, MailError
from mailcore.store import accounts, locks, queue
from mailcore.store.append import Incoming, Job, append_jobs
from mailcore.store.queue import Claimed, Outgoing, Recipient

MAX_HOPS = 50


class _Stale(Exception):
    """Somebody else delivers this by now: nothing of ours may stay."""


async def deliver(conf: Conf, claims: Sequence[Claimed]) -> None:
    """Deliver one message to recipients of domains that are hosted here, and record it, in one transaction."""
    try:
        async with db.transaction() as tx:
            raw = await queue.blob(tx, claims[0].blob)
            await _lock(tx, claims)
            settled = [Settled(claim, await _to(tx, claim, raw)) for claim in claims]
            if len(await settle(tx, conf, settled)) < len(claims):
                raise _Stale
    except _Stale:
        pass


async def _lock(tx: Tx, claims: Sequence[Claimed]) -> None:
    """Lock every account that will be written to, the sender's for a notice too, in the order everybody keeps."""
    wanted: set[int] = set()
    for address in {claims[0].sender, *(claim.address for claim in claims)}:
        with suppress(AddressError, MailError):
            wanted.update(local.account_id for local in (await accounts.resolve(tx, normalise(address))).accounts)
    for account_id in sorted(wanted):
        await tx.one(locks.LOCK_ACCOUNT, (account_id,))


async def _to(tx: Tx, claim: Claimed, raw: bytes) -> Outcome:
    try:
        resolution = await accounts.resolve(tx, normalise(claim.address))
        header = raw[: 64 * 1024].lower()
        if header.count(b"\nreceived:") + header.startswith(b"received:") > MAX_HOPS:
            raise MailError(Code.LOOP, "the message has passed through too many servers")
        if resolution.accounts:
            stored = f"Return-Path: <{claim.sender}>\r\n".encode() + claim.prepend + raw
            derived = mime.parse(stored)
            items = [
                Incoming(to.account_id, 0, stored, derived, trace_id=claim.trace_id, recipient=to.address)
                for to in resolution.accounts
            ]
            for result in (await append_jobs(tx, [Job(items, atomic=True)]))[0]:
                if isinstance(result, MailError):
                    raise result
        if resolution.remote:
            await queue.enqueue(tx, _forward(claim, resolution.remote))
    except AddressError as error:
        return outcome.failed(Stage.LOCAL, "5.1.3", error.text).outcome
    except MailError as error:
        if error.code is Code.UNAVAILABLE:
            raise
        return outcome.of_error(Stage.LOCAL, error)
    return outcome.delivered(Stage.LOCAL, "stored" if resolution.accounts else "forwarded")


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
