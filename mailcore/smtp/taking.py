"""A message whose octets are all here: taken or refused; the client is told after the commit, never before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailcore.auth.senders import Senders
from mailcore.errors import Code, MailError
from mailcore.inbound import headers
from mailcore.inbound.envelope import Envelope, Recipient, Source
from mailcore.smtp import errors, refusals, wishes
from mailcore.smtp.spool import Spool
from mailcore.wire.smtp.data import Fault, OctetCheck
from mailcore.wire.smtp.reply import reply

if TYPE_CHECKING:
    from mailcore.auth.login import Identity
    from mailcore.smtp.session import Session
    from mailcore.smtp.transaction import Transaction

log = logging.getLogger(__name__)

TOO_BIG = "The message is too big"
NO_ROOM = reply(452, "4.3.1", "No room to receive the message now")
FAULTS = {
    Fault.BARE_NEWLINE: reply(550, "5.6.0", "The message has a bare CR or LF: lines end in CRLF"),
    Fault.NUL: reply(550, "5.6.0", "The message has a NUL octet"),
}
BAD_HEADER = "The message's header has a bare CR or LF, or NUL"
# What is wrong with one recipient alone: LMTP can say so and take the message for the others.
ONES_OWN = frozenset({Code.OVER_QUOTA, Code.NO_SUCH_USER, Code.NOT_FOUND, Code.DISABLED, Code.TOO_BIG, Code.LOOP})


def refusal_of(spool: Spool, fault: Fault | None) -> bytes | None:
    """The reply to a message that cannot be taken as it came, None when it can."""
    if spool.too_big:
        return reply(552, "5.3.4", TOO_BIG)
    if fault is not None:
        return FAULTS[fault]
    if spool.failed is not None:
        log.error("the spool cannot be written: %s", spool.failed)
        return NO_ROOM
    return None


async def finish(session: Session, current: Transaction, spool: Spool, fault: Fault | None) -> None:
    """The message is complete: take it or refuse it; in either case the transaction is over.

    SMTP gets one reply, LMTP one for each recipient (RFC 2033 §4.2).
    """
    try:
        answer = refusal_of(spool, fault)
        if answer is None and (by := wishes.by_left(session, current)) and by.returns and by.seconds <= 0:
            answer = wishes.TOO_LATE
        if answer is not None:
            refusals.note(session, "the message", answer, recipients=current.recipients)
            answers = [answer]
        else:
            answers = await _take_in_turn(session, current, spool)
        if session.policy.lmtp and len(answers) < len(current.recipients):
            answers *= len(current.recipients)
        if any(each.startswith(b"2") for each in answers):
            session.progress()
        for each in answers:
            session.respond(each)
    finally:
        session.reset()


async def _take_in_turn(session: Session, current: Transaction, spool: Spool) -> list[bytes]:
    """As `_take`; large messages come into memory a few at a time."""
    budget, held = session.server.large, 0
    try:
        if spool.on_disk:
            held = await budget.acquire(spool.size)
        return await _take(session, current, await spool.content())
    except MailError as error:
        return [errors.reply_for(error, submission=session.policy.auth)]
    except OSError as error:
        log.error("the spool cannot be read: %s", error)
        return [NO_ROOM]
    finally:
        budget.release(held)


async def _take(session: Session, current: Transaction, content: bytes) -> list[bytes]:
    """The replies: one for all recipients, or for each of them one."""
    recipients = current.recipients
    error = await _receive(session, current, recipients, content)
    if error is None or not session.policy.lmtp or len(recipients) == 1 or error.code not in ONES_OWN:
        return [_answer(session, current, recipients, content, error)]
    answers = []
    for each in recipients:
        error = await _receive(session, current, [each], content)
        answers.append(_answer(session, current, [each], content, error))
    return answers


def _answer(
    session: Session, current: Transaction, recipients: Sequence[Recipient], content: bytes, error: MailError | None
) -> bytes:
    """The reply to what became of the message for these recipients; a refusal is noted."""
    if error is None:
        return b"250 2.0.0 Ok: id %b\r\n" % current.trace_id.encode()
    answer = errors.reply_for(error, submission=session.policy.auth)
    refusals.note(session, "the message", answer, error.private, recipients=recipients, message_id=_message_id(content))
    return answer


def _message_id(content: bytes) -> str | None:
    try:
        return headers.message_id(headers.split(content).header)
    except MailError:  # a header without measure
        return None


async def _receive(
    session: Session, current: Transaction, recipients: Sequence[Recipient], content: bytes
) -> MailError | None:
    """Take the message for these recipients; the error, None when it is committed."""
    identity = session.identity
    envelope = Envelope(
        trace_id=current.trace_id,
        source=Source(session.source, session.helo, session.protocol, session.tls),
        sender=current.sender.address,
        recipients=tuple(recipients),
        account_id=identity.account_id if identity else None,
        smtputf8=current.params.smtputf8,
        binary=current.binary,
        requiretls=current.params.requiretls,
        ret=current.params.ret,
        envid=current.params.envid,
        by=wishes.by_left(session, current),
        priority=current.priority,
        send_after=current.send_after,
        note=_note(identity, current),
    )
    try:
        if current.binary:
            _require_lines(headers.split(content).header)
        if identity is not None:
            await _require_own_from(session.server.senders, identity.account_id, content)
        await session.server.receiver.receive(envelope, content)
    except MailError as error:
        return error
    return None


def _note(identity: Identity | None, current: Transaction) -> dict[str, object]:
    """What the history says besides: who handed it in, and when it is to leave."""
    note: dict[str, object] = {}
    if identity is not None:
        note = {"account": identity.address, "login": identity.how}
    if current.send_after is not None:
        note["held"] = current.send_after.isoformat()
    return note


def _require_lines(header: bytes) -> None:
    """Whatever the body may hold, the header is lines (RFC 3030 §3 speaks of the body)."""
    check = OctetCheck()
    check.feed(header)
    if check.finish() is not None:
        raise MailError(Code.BAD_VALUE, BAD_HEADER)


async def _require_own_from(senders: Senders, account_id: int, content: bytes) -> None:
    """Who submits mail may put only his own addresses into From."""
    authors = headers.authors(headers.split(content).header)
    if not authors:
        raise MailError(Code.BAD_VALUE, "The message needs exactly one From field with an address")
    for author in authors[:20]:
        if not await senders.allowed(account_id, author):
            raise MailError(Code.NO_PERMISSION, f"You may not write {author} into From")
    if len(authors) > 20:
        raise MailError(Code.BAD_VALUE, "Too many addresses in From")
