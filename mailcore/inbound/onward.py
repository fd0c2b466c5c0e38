"""Mail that goes on through the queue: to people elsewhere, and what an alias or a group here leads to elsewhere.

A forwarded copy gets a sender of ours, if its own is not (inbound.srs), and a Delivered-To field with the address that
led it on: whoever sends it back to us is told that it goes in circles. Neither changes what is stored here. A copy
tells of no other address that it was also sent to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from accounts.addresses import parse_address
from accounts.errors import AddressError
from mailcore import db
from mailcore.db import Tx
from mailcore.errors import Code, MailError
from mailcore.inbound import headers, srs
from mailcore.inbound.envelope import Envelope
from mailcore.inbound.envelope import Recipient as Written
from mailcore.mime.headers import header_values
from mailcore.store import accounts, forwards
from mailcore.store.queue import Recipient

MAX_FIELDS = 200
# Domains of authors that are looked up; honest mail names one or two.
MAX_CLAIMED = 20


@dataclass(frozen=True, slots=True)
class Leg:
    """One entry for the queue: the sender and recipients of its envelope, and what is put before the message."""

    sender: str
    recipients: tuple[Recipient, ...]
    lines: bytes = b""


async def legs(envelope: Envelope, header: bytes) -> list[Leg]:
    """What goes through the queue, each address once; `header` is the message's. Raises UNAVAILABLE."""
    served = {local.account_id for one in envelope.recipients if not one.wants_receipt for local in one.accounts}
    direct: dict[str, Recipient] = {}
    forwards: list[tuple[str, list[Recipient]]] = []
    for one in envelope.recipients:
        if one.wants_receipt:
            direct.setdefault(one.address, Recipient(one.address, one.notify, one.orcpt))
            continue
        straight = [local.address for local in one.queued if local.account_id not in served]
        straight += [address for address in one.remote if address == one.address]
        for address in straight:
            direct.setdefault(address, _recipient(one, address))
    seen = set(direct)
    for one in envelope.recipients:
        led = [each for each in one.remote if each not in seen and not one.wants_receipt]
        if led:
            seen.update(led)
            forwards.append((one.address, [_recipient(one, each) for each in led]))
    found = [Leg(envelope.sender, tuple(direct.values()))] if direct else []
    if forwards:
        known = envelope.account_id is not None or envelope.source.protocol.rstrip("S").endswith("LMTP")
        async with db.transaction() as tx:
            for address, to in forwards:
                found.append(await forwarded(tx, envelope.sender, address, to, None if known else header))
    return found


def _recipient(one: Written, address: str) -> Recipient:
    return Recipient(address, one.notify, one.orcpt, None if address == one.address else one.address)


async def forwarded(tx: Tx, sender: str, address: str, to: list[Recipient], header: bytes | None) -> Leg:
    """The entry for what an address of ours (`address`) leads on. `header`: a stranger's, None when its sender is known
    to be who he says: he has logged in, or a front end has looked."""
    if header is not None:
        sender = await _rewritten(tx, sender, address.rpartition("@")[2], header)
    return Leg(sender, tuple(to), f"Delivered-To: {address}\r\n".encode())


async def _rewritten(tx: Tx, sender: str, domain: str, header: bytes) -> str:
    """The sender that a stranger's mail goes on with.

    With one of our domains it would pass SPF, and DMARC for a From of ours, which a stranger may have forged: such mail
    goes on from the null sender, and proves nothing.
    """
    try:
        parsed = parse_address(sender) if sender else None
        if parsed is None or parsed.is_literal:
            return sender
        if await _claims_to_be_ours(tx, {parsed.domain, *headers.claimed_domains(header)}, domain):
            return ""
        if (made := srs.rewrite(sender, domain)) is not None:
            return made
        made = srs.short(sender, domain)
    except (AddressError, MailError):
        return sender  # it goes on as it came
    await forwards.remember(tx, srs.token(sender), sender)
    return made


async def _claims_to_be_ours(tx: Tx, claimed: set[str], domain: str) -> bool:
    """Whether one of the domains is ours, below one of ours, or above `domain`: DMARC takes these for the same."""
    if len(claimed) > MAX_CLAIMED or any(domain.endswith(f".{each}") for each in claimed):
        return True
    names: set[str] = set()
    for each in claimed:
        labels = each.split(".")
        names.update(".".join(labels[start:]) for start in range(max(0, len(labels) - 5), len(labels) - 1))
        names.add(each)
    return any([await accounts.is_local_domain(tx, name) for name in sorted(names)])


def without_loops(envelope: Envelope, header: bytes) -> Envelope:
    """The envelope without what would be led on to where it has been already. Raises LOOP when nothing is left."""
    been = led_on_from(header)
    if not been:
        return envelope
    kept = []
    for one in envelope.recipients:
        if one.remote and one.remote != (one.address,) and one.address.lower().encode() in been:
            one = replace(one, remote=())
        if one.accounts or one.remote or one.queued:
            kept.append(one)
    if not kept:
        raise circle()
    return replace(envelope, recipients=tuple(kept))


def led_on_from(header: bytes) -> set[bytes]:
    """The addresses that a message has been led on from."""
    if b"delivered-to:" not in header.lower():
        return set()
    return {value.strip().lower() for value in header_values(header, b"delivered-to")[:MAX_FIELDS]}


def circle() -> MailError:
    """What is said of a message that could only be led on to where it has been."""
    return MailError(Code.LOOP, "The message has been forwarded from here already: it goes in circles")
