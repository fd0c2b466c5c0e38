"""Which mailbox a message goes to, for each recipient: INBOX, until a verdict or a person's filters say otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailcore.inbound.envelope import Envelope
from mailcore.inbound.verdict import Verdict
from mailcore.store.accounts import Local

INBOX = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """One copy of the message: whose (by number and address), in which mailbox, with which flags."""

    account_id: int
    mailbox_id: int
    owner: str
    flags: int = 0
    keywords: tuple[str, ...] = ()


def placements(envelope: Envelope, verdict: Verdict) -> list[Placement]:
    """Where the message is stored: once in each account, however many of its addresses lead there."""
    chosen: dict[int, Placement] = {}
    for recipient, local in _locals(envelope):
        chosen.setdefault(local.account_id, _place(recipient, local, verdict))
    return list(chosen.values())


def _locals(envelope: Envelope) -> Iterable[tuple[str, Local]]:
    for recipient in envelope.recipients:
        if recipient.wants_receipt:
            continue
        for local in recipient.accounts:
            yield recipient.address, local


def _place(recipient: str, local: Local, verdict: Verdict) -> Placement:
    return Placement(local.account_id, INBOX, local.address)
