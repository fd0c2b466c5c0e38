"""What a sender wishes for a message beside its delivery: a later start (RFC 4865), a time by which it is there
(RFC 2852), a priority (RFC 6710)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailcore.inbound.envelope import Recipient
from mailcore.inbound.sending import MIN_BY
from mailcore.wire.smtp.params import By, MailParams
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.session import Session
    from mailcore.smtp.transaction import Transaction

# Seconds that mail can be held back for.
MAX_HOLD = 31 * 86_400
TOO_LATE = reply(554, "5.4.7", "The time that was given for its delivery is over")


def send_after(params: MailParams) -> datetime | None:
    """When the message may leave; None = at once. Raises CommandError."""
    if params.hold_for is None and params.hold_until is None:
        return None
    if params.hold_for is not None and params.hold_until is not None:
        raise CommandError(501, "5.5.4", "HOLDFOR or HOLDUNTIL, not both")
    now = time.time()
    at = now + params.hold_for if params.hold_for is not None else float(params.hold_until or 0)
    # A minute more: EHLO told the client the latest moment some time ago.
    if at > now + MAX_HOLD + 60:
        raise CommandError(501, "5.5.4", f"Mail can be held back for {MAX_HOLD} seconds at most")
    return datetime.fromtimestamp(at, UTC) if at > now else None


def refuse_hurry(params: MailParams) -> None:
    """Raises CommandError for a time that EHLO did not offer."""
    if params.by is not None and params.by.returns and params.by.seconds < MIN_BY:
        raise CommandError(555, "5.5.4", f"BY: mail can be returned after {MIN_BY} seconds at the earliest")


def lowered(priority: int) -> bytes:
    """The reply to MAIL with a priority that is too high."""
    return reply(250, "2.3.6", f"{priority} is as urgent as your mail may be")


def refuse_promise(session: Session, by: By | None, found: Recipient) -> None:
    """Raises CommandError for mail of a stranger that would have to come back to him when it is late, and may go on to
    another server: he may be forged. His own server can tell him now."""
    if by is not None and by.returns and session.identity is None and (found.remote or found.queued):
        raise CommandError(550, "5.3.3", "Mail for it is passed on, and no time can be promised")


def by_left(session: Session, current: Transaction) -> By | None:
    """The time that is left when the message is here; mail that is held back has all of it from when it may leave."""
    by = current.params.by
    if by is None or current.send_after is not None:
        return by
    return By(by.seconds - int(session.loop.time() - current.began), by.mode)
