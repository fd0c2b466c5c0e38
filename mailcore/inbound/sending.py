"""How much our own people may send: asked at MAIL and RCPT, counted when a message is taken (see store.limits)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from accounts.addresses import normalise, parse_address
from accounts.errors import AddressError
from mailcore import db
from mailcore.conf import conf
from mailcore.errors import MailError
from mailcore.inbound.envelope import Envelope
from mailcore.store import limits
from mailcore.store.limits import NO_LIMITS, Allowance

log = logging.getLogger(__name__)

# The shortest time, in seconds, that mail can be returned after (RFC 2852): a sweep of the queue every three finds what
# is late.
MIN_BY = 10


async def allowance(account_id: int, sender: str) -> Allowance:
    """What an account may send as `sender` now. Raises TOO_MANY when that is nothing."""
    if not conf.send_limits:
        return NO_LIMITS
    async with db.read() as tx:
        allowed = await limits.allowance(tx, account_id, _plain(sender))
        await limits.require(tx, allowed, 1)
    return allowed


async def refuse_more(allowed: Allowance, recipients: int) -> None:
    """Raises TOO_MANY, with what is wrong, when a message cannot have so many recipients."""
    if allowed.recipients is not None and recipients > allowed.recipients:
        async with db.read() as tx:
            await limits.require(tx, allowed, recipients)


async def priority(account_id: int | None, wanted: int) -> int:
    """The priority that a message gets: what is urgent for strangers is urgent for them (RFC 6710 §5.1), and for our
    own people as far as the policy `max-priority` goes."""
    if wanted <= 0:
        return wanted
    if account_id is None:
        return 0
    async with db.read() as tx:
        return min(wanted, await limits.max_priority(tx, account_id))


@asynccontextmanager
async def counted(envelope: Envelope) -> AsyncIterator[None]:
    """Count a message of our own people while it is stored; what is refused was not sent. Raises TOO_MANY."""
    if envelope.account_id is None or not conf.send_limits:
        yield
        return
    async with db.transaction() as tx:
        taken = await limits.take(tx, envelope.account_id, _plain(envelope.sender), len(envelope.recipients))
    try:
        yield
    except BaseException:
        if taken is not None:
            await _give_back(taken, envelope.trace_id)
        raise


async def _give_back(taken: limits.Taken, trace_id: str) -> None:
    try:
        async with db.transaction() as tx:
            await limits.give_back(tx, taken)
    except MailError as error:
        log.warning("%s was refused, and stays counted: %s", trace_id, error.private or error.text)


def _plain(address: str) -> str:
    try:
        return str(parse_address(normalise(address)).without_tag())
    except AddressError:
        return address
