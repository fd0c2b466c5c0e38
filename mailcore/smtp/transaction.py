"""One message: MAIL, RCPT, then DATA or BDAT (RFC 5321 §3.3, RFC 3030), and its way into the store.

The 250 that ends it is sent after the commit, never before. `Transaction` holds all there is about the message under
way."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.auth.senders import sender_allowed
from mailcore.errors import Code, MailError
from mailcore.inbound import headers
from mailcore.inbound.envelope import Envelope, Recipient, Source
from mailcore.smtp import errors
from mailcore.smtp.connection import WORK_LIMIT
from mailcore.smtp.spool import Spool
from mailcore.store import trace
from mailcore.wire.smtp.command import no_argument, parse_bdat
from mailcore.wire.smtp.data import DotReader, Fault, OctetCheck
from mailcore.wire.smtp.params import MailParams, parse_mail_params, parse_rcpt_params
from mailcore.wire.smtp.path import Path, parse_forward_path, parse_reverse_path, split_path
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.session import Session

log = logging.getLogger(__name__)

OK_MAIL = reply(250, "2.1.0", "Ok")
OK_RCPT = reply(250, "2.1.5", "Ok")
GO_AHEAD = reply(354, "", "End data with <CR><LF>.<CR><LF>")
OUT_OF_SEQUENCE = CommandError(503, "5.5.1", "Say MAIL and RCPT first")
TOO_BIG = "The message is too big"
# Octets of a BDAT without a transaction that are read to stay in sync; whoever sends more is let go.
MAX_UNWANTED = 1 << 20

FAULTS = {
    Fault.BARE_NEWLINE: reply(550, "5.6.0", "The message has a bare CR or LF: lines end in CRLF"),
    Fault.NUL: reply(550, "5.6.0", "The message has a NUL octet"),
}


class Transaction:
    """A message under way. `chunks` and `check` are there from the first BDAT on."""

    __slots__ = ("check", "chunks", "failed", "params", "recipients", "sender")

    def __init__(self, sender: Path, params: MailParams) -> None:
        self.sender = sender
        self.params = params
        self.recipients: list[Recipient] = []
        self.chunks: Spool | None = None
        self.check = OctetCheck()
        self.failed = False
        """A BDAT was refused: only RSET helps (RFC 3030 §2)."""

    def close(self) -> None:
        """Drop what has come of the message."""
        if self.chunks is not None:
            self.chunks.close()


async def mail(session: Session, argument: bytes) -> None:
    """MAIL: begins a message; who submits mail may send as his own addresses only."""
    if session.transaction is not None:
        raise CommandError(503, "5.5.1", "A message is under way already")
    inner, rest = split_path("MAIL", argument)
    path = parse_reverse_path(inner)
    if rest and not session.extended:
        raise CommandError(555, "5.5.4", "Parameters need EHLO")
    params = parse_mail_params(rest, session.policy.mail_parameters)
    if path.utf8 and not params.smtputf8:
        raise CommandError(550, "5.6.7", "An internationalised address needs SMTPUTF8")
    if params.size is not None and params.size > session.server.message_size:
        raise CommandError(552, "5.3.4", TOO_BIG)
    if session.identity is not None and path.address:
        async with db.read() as tx:
            if not await sender_allowed(tx, session.identity.account_id, path.address):
                raise CommandError(550, "5.7.1", f"You may not send as {path.address}")
    session.transaction = Transaction(path, params)
    session.respond(OK_MAIL)


async def rcpt(session: Session, argument: bytes) -> None:
    """RCPT: whoever cannot be delivered to is refused here, before the message is sent."""
    current = session.transaction
    if current is None:
        raise CommandError(503, "5.5.1", "Say MAIL first")
    if current.chunks is not None or current.failed:
        raise CommandError(503, "5.5.1", "The message has begun already")
    inner, rest = split_path("RCPT", argument)
    path = parse_forward_path(inner)
    if rest and not session.extended:
        raise CommandError(555, "5.5.4", "Parameters need EHLO")
    params = parse_rcpt_params(rest, session.policy.rcpt_parameters)
    if path.utf8 and not current.params.smtputf8:
        raise CommandError(550, "5.6.7", "An internationalised address needs SMTPUTF8")
    if len(current.recipients) >= session.policy.max_recipients:
        raise CommandError(452, "4.5.3", "Too many recipients")
    directory = session.server.directory
    if path.parsed is None:
        found = await directory.postmaster(notify=params.notify, orcpt=params.orcpt)
    else:
        found = await directory.resolve(
            path.parsed,
            relay=session.identity is not None,
            size=current.params.size or 0,
            notify=params.notify,
            orcpt=params.orcpt,
        )
    current.recipients.append(found)
    session.respond(OK_RCPT)


async def data(session: Session, argument: bytes) -> None:
    """DATA: the message up to CRLF.CRLF, read in chunks."""
    no_argument("DATA", argument)
    current = _ready(session)
    if current.chunks is not None:
        raise CommandError(503, "5.5.1", "BDAT has begun: it must end the message")
    session.respond(GO_AHEAD)
    reader = DotReader()
    spool = Spool(session.server.spool, session.server.message_size)
    with contextlib.closing(spool):
        until = session.loop.time() + session.policy.message_timeout
        while not reader.done:
            _await_mail(session, until)
            spool.write(reader.feed(await session.read_some()))
            if reader.check.dot_line or spool.size > 2 * session.server.message_size:
                # Either the sender takes this for the end, or it never ends: there is nothing to stay in sync with.
                session.leave(FAULTS[Fault.BARE_NEWLINE] if reader.check.dot_line else reply(552, "5.3.4", TOO_BIG))
                return
        session.input.feed(reader.rest)
        session.allow(WORK_LIMIT)
        await _finish(session, current, spool, reader.check)


async def bdat(session: Session, argument: bytes) -> None:
    """BDAT: a piece of the message of known size. The octets are read whatever becomes of them, to stay in sync."""
    try:
        size, last = parse_bdat(argument)
    except CommandError as error:
        session.leave(error.reply)  # how much of what follows is mail cannot be known
        return
    current = session.transaction
    usable = current is not None and bool(current.recipients) and not current.failed
    if usable and current is not None and current.chunks is None:
        current.chunks = Spool(session.server.spool, session.server.message_size)
    spool = current.chunks if usable and current is not None else None
    total = size + (spool.size if spool else 0)
    if total > 2 * session.server.message_size or (spool is None and size > MAX_UNWANTED):
        session.leave(reply(552, "5.3.4", TOO_BIG) if spool else OUT_OF_SEQUENCE.reply)
        return
    await _read_chunk(session, size, spool, current)
    if spool is None or current is None:
        if current is not None and not current.failed and not current.recipients:
            raise CommandError(554, "5.5.1", "No valid recipients")
        raise OUT_OF_SEQUENCE
    if last:
        current.chunks = None
        with contextlib.closing(spool):
            await _finish(session, current, spool, current.check)
        return
    refusal = _refusal(spool, current.check.fault)
    if refusal is not None:
        current.close()
        current.failed = True
        session.respond(refusal)
    else:
        session.respond(reply(250, "2.0.0", f"{size} octets received"))


def _await_mail(session: Session, until: float) -> None:
    session.allow(max(0.001, min(session.policy.data_timeout, until - session.loop.time())))


async def _read_chunk(session: Session, size: int, spool: Spool | None, current: object) -> None:
    until = session.loop.time() + session.policy.message_timeout
    left = size
    while left:
        _await_mail(session, until)
        octets = await session.read_some(left)
        left -= len(octets)
        if spool is not None and isinstance(current, Transaction):
            current.check.feed(octets)
            spool.write(octets)
    session.allow(WORK_LIMIT)


def _ready(session: Session) -> Transaction:
    current = session.transaction
    if current is None or current.failed:
        raise OUT_OF_SEQUENCE
    if not current.recipients:
        raise CommandError(554, "5.5.1", "No valid recipients")
    return current


def _refusal(spool: Spool, fault: Fault | None) -> bytes | None:
    """The reply to a message that cannot be taken as it came, None when it can."""
    if spool.too_big:
        return reply(552, "5.3.4", TOO_BIG)
    if fault is not None:
        return FAULTS[fault]
    if spool.failed is not None:
        log.error("the spool cannot be written: %s", spool.failed)
        return reply(452, "4.3.1", "No room to receive the message now")
    return None


async def _finish(session: Session, current: Transaction, spool: Spool, check: OctetCheck) -> None:
    """The message is complete: take it or refuse it; in either case the transaction is over."""
    try:
        fault = check.finish()
        refusal = _refusal(spool, fault)
        if refusal is not None:
            session.respond(refusal)
            return
        trace_id = trace.new_id()
        try:
            if spool.on_disk:
                async with session.server.large:
                    await _take(session, current, trace_id, await spool.content())
            else:
                await _take(session, current, trace_id, await spool.content())
        except OSError as error:
            log.error("the spool cannot be read: %s", error)
            session.respond(reply(452, "4.3.1", "No room to receive the message now"))
        except MailError as error:
            log.info("%s: %s refused: %s %s", session.policy.name, trace_id, error.text, error.private or "")
            session.respond(errors.reply_for(error, submission=session.policy.auth))
        else:
            session.errors = 0
            session.respond(b"250 2.0.0 Ok: id %b\r\n" % trace_id.encode())
    finally:
        session.reset()


async def _take(session: Session, current: Transaction, trace_id: str, content: bytes) -> None:
    identity = session.identity
    if identity is not None:
        await _require_own_from(identity.account_id, content)
    envelope = Envelope(
        trace_id=trace_id,
        source=Source(session.source, session.helo, session.protocol, session.tls),
        sender=current.sender.address,
        recipients=tuple(current.recipients),
        account_id=identity.account_id if identity else None,
        smtputf8=current.params.smtputf8,
        ret=current.params.ret,
        envid=current.params.envid,
    )
    await session.server.receiver.receive(envelope, content)


async def _require_own_from(account_id: int, content: bytes) -> None:
    """Who submits mail may put only his own addresses into From."""
    authors = headers.authors(headers.split(content).header)
    if not authors:
        raise MailError(Code.BAD_VALUE, "The message needs exactly one From field with an address")
    async with db.read() as tx:
        for author in authors[:20]:
            if not await sender_allowed(tx, account_id, author):
                raise MailError(Code.NO_PERMISSION, f"You may not write {author} into From")
    if len(authors) > 20:
        raise MailError(Code.BAD_VALUE, "Too many addresses in From")
