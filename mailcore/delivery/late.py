"""Mail that was to be delivered by a certain time (DELIVERBY, RFC 2852): what comes back, what its sender is told."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.db import Tx
from mailcore.delivery import bounce
from mailcore.delivery.bounce import Notice
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.store.queue import Claimed


def is_expired(claim: Claimed) -> bool:
    """The sender wants it back rather than delivered now (§4.1.3)."""
    return claim.is_late and claim.by is not None and claim.by.returns


def expired(claim: Claimed) -> Outcome:
    """Why it comes back."""
    return Outcome(Verdict.FAILED, Stage.QUEUE, "5.4.7", _words("not delivered within the time that was given", claim))


async def note_late(tx: Tx, late: Sequence[Claimed]) -> None:
    """Note that senders are to be told, once, that the time they gave is over and that delivery goes on."""
    text = "not delivered yet, and the time that was given is over"
    await bounce.note(
        tx,
        [Notice(each, "delayed", Outcome(Verdict.LATER, Stage.ROUTE, "4.4.7", _words(text, each))) for each in late],
    )


def _words(text: str, claim: Claimed) -> str:
    return f"{text}; last answer: {claim.last_reply}" if claim.last_reply else text
