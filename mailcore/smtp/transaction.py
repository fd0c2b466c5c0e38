"""One message: MAIL, RCPT, then DATA or BDAT (RFC 5321 §3.3, RFC 3030).

`Transaction` holds all there is about the message under way; what becomes of it when it is complete is in `taking`."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime
from typing import TYPE_CHECKING

from mailcore.inbound import sending
from mailcore.inbound.envelope import MAX_WAYS, Recipient
from mailcore.inbound.recipients import Writer, held
from mailcore.smtp import wishes
from mailcore.smtp.connection import WORK_LIMIT
from mailcore.smtp.spool import Spool
from mailcore.smtp.taking import FAULTS, TOO_BIG, finish, refusal_of
from mailcore.store import trace
from mailcore.store.limits import NO_LIMITS, Allowance
from mailcore.wire.smtp.command import no_argument, parse_bdat
from mailcore.wire.smtp.data import DotReader, Fault, OctetCheck
from mailcore.wire.smtp.params import MailParams, RcptParams, parse_mail_params, parse_rcpt_params
from mailcore.wire.smtp.path import Path, parse_forward_path, parse_reverse_path, split_path
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.session import Session

log = logging.getLogger(__name__)

TLS_PARAMETERS = frozenset({"REQUIRETLS"})
# RCPT commands of one message beyond twice the recipients that it may have.
MORE_RECIPIENTS = 100
# Pieces that a message may come in, and octets that they should have on average beyond that many.
MANY_CHUNKS, SMALL_CHUNK = 1_000, 1_024
TOO_MANY_MESSAGES = reply(421, "4.7.0", "Too many messages in one session: connect again")
OK_MAIL = reply(250, "2.1.0", "Ok")
OK_RCPT = reply(250, "2.1.5", "Ok")
GO_AHEAD = reply(354, "", "End data with <CR><LF>.<CR><LF>")
# Senders try the others again, with the same message (RFC 5321 §4.5.3.1.10).
TOO_MANY_RECIPIENTS = (452, "4.5.3", "Too many recipients")
OUT_OF_SEQUENCE = (503, "5.5.1", "Say MAIL and RCPT first")
# Octets of a BDAT without a transaction that are read to stay in sync; whoever sends more is let go.
MAX_UNWANTED = 1 << 20


class Transaction:
    """A message under way. `chunks` is there from the first BDAT on, `count` is how many there were."""

    __slots__ = (
        "allowance",
        "asked",
        "began",
        "check",
        "chunks",
        "count",
        "failed",
        "params",
        "priority",
        "receipt",
        "recipients",
        "send_after",
        "sender",
        "trace_id",
        "ways",
    )

    def __init__(
        self, sender: Path, params: MailParams, allowance: Allowance = NO_LIMITS, send_after: datetime | None = None
    ) -> None:
        self.allowance = allowance
        self.send_after = send_after
        self.trace_id = trace.new_id()
        self.sender = sender
        self.params = params
        self.recipients: list[Recipient] = []
        self.chunks: Spool | None = None
        self.count = 0
        self.asked = 0
        """RCPT commands, those that were refused included."""
        self.ways = 0
        """What the recipients lead to, in all; beyond MAX_WAYS nobody else is looked up."""
        self.began = 0.0
        """When MAIL came, by the loop's clock."""
        self.priority = 0
        self.receipt = False
        """A stranger asked for a receipt, and may have one."""
        self.check = OctetCheck()
        self.failed = False
        """A BDAT was refused: only RSET helps (RFC 3030 §2)."""

    @property
    def binary(self) -> bool:
        """BODY=BINARYMIME: its octets follow no rules for lines (RFC 3030 §3)."""
        return self.params.body == "BINARYMIME"

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
    allowed = session.policy.mail_parameters
    params = parse_mail_params(rest, allowed | TLS_PARAMETERS if session.tls is not None else allowed)
    if path.utf8 and not params.smtputf8:
        raise CommandError(550, "5.6.7", "An internationalised address needs SMTPUTF8")
    if params.size is not None and params.size > session.server.message_size:
        raise CommandError(552, "5.3.4", TOO_BIG)
    send_after = wishes.send_after(params)
    wishes.refuse_hurry(params)
    allowance = NO_LIMITS
    if session.identity is not None:
        if path.address and not await session.server.senders.allowed(session.identity.account_id, path.address):
            raise CommandError(550, "5.7.1", f"You may not send as {path.address}")
        allowance = await sending.allowance(session.identity.account_id, path.address)
    if session.messages >= session.policy.max_messages:
        session.leave(TOO_MANY_MESSAGES)
        return
    session.messages += 1
    current = Transaction(path, params, allowance, send_after)
    current.began = session.loop.time()
    account_id = session.identity.account_id if session.identity is not None else None
    current.priority = await sending.priority(account_id, params.priority)
    session.transaction = current
    lowered = current.priority != params.priority
    session.respond(wishes.lowered(current.priority) if lowered else OK_MAIL)


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
    limit = session.policy.max_recipients
    current.asked += 1
    if current.asked > 2 * limit + MORE_RECIPIENTS:
        session.leave(reply(421, "4.5.3", "Too many recipients"))
        return
    if len(current.recipients) >= limit or current.ways >= MAX_WAYS:
        raise CommandError(*TOO_MANY_RECIPIENTS)
    params = _receipts(session, current, params)
    await sending.refuse_more(current.allowance, len(current.recipients) + 1)
    directory = session.server.directory
    if path.parsed is None:
        found = await directory.postmaster(notify=params.notify, orcpt=params.orcpt)
    else:
        found = await directory.resolve(
            path.parsed,
            _writer(session, current),
            size=current.params.size or 0,
            notify=params.notify,
            orcpt=params.orcpt,
        )
    wishes.refuse_promise(session, current.params.by, found)
    current.ways += found.ways
    if current.recipients and current.ways > MAX_WAYS:
        raise CommandError(*TOO_MANY_RECIPIENTS)
    current.recipients.append(found if current.send_after is None else held(found))
    session.respond(OK_RCPT)


def _writer(session: Session, current: Transaction) -> Writer:
    """Who writes."""
    account_id = session.identity.account_id if session.identity is not None else None
    return Writer(current.sender.address, account_id, session.tls is not None, session.policy.lmtp)


def _receipts(session: Session, current: Transaction, params: RcptParams) -> RcptParams:
    """The parameters without what no sender could be told (RFC 3461 §4.1). Raises CommandError: too many receipts."""
    if not current.sender.address:
        return RcptParams(None, params.orcpt)
    if params.notify is None or "SUCCESS" not in params.notify or session.identity is not None or session.policy.lmtp:
        return params
    if not current.receipt and not session.server.receipts.take(session.source):
        raise CommandError(450, "4.7.1", "Too many receipts are asked for from your address, try again in a minute")
    current.receipt = True
    return params


async def data(session: Session, argument: bytes) -> None:
    """DATA: the message up to CRLF.CRLF, read in chunks."""
    no_argument("DATA", argument)
    current = _ready(session)
    if current.chunks is not None:
        raise CommandError(503, "5.5.1", "BDAT has begun: it must end the message")
    if current.binary:
        raise CommandError(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
    session.respond(GO_AHEAD)
    reader = DotReader()
    spool = _spool(session)
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
        await finish(session, current, spool, reader.check.finish())


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
        current.chunks = _spool(session)
    spool = current.chunks if usable and current is not None else None
    total = size + (spool.size if spool else 0)
    if total > 2 * session.server.message_size or (spool is None and size > MAX_UNWANTED):
        session.leave(reply(552, "5.3.4", TOO_BIG) if spool else reply(*OUT_OF_SEQUENCE))
        return
    await _read_chunk(session, size, spool, current)
    if spool is None or current is None:
        if current is not None and not current.failed and not current.recipients:
            raise CommandError(554, "5.5.1", "No valid recipients")
        raise CommandError(*OUT_OF_SEQUENCE)
    if last:
        current.chunks = None
        with contextlib.closing(spool):
            await finish(session, current, spool, current.check.finish())
        return
    current.count += 1
    if current.count > max(MANY_CHUNKS, spool.size // SMALL_CHUNK):
        session.leave(reply(421, "4.7.0", "Too many small pieces"))
        return
    refusal = refusal_of(spool, current.check.fault)
    if refusal is not None:
        current.close()
        current.failed = True
        session.respond(refusal)
    else:
        session.respond(reply(250, "2.0.0", f"{size} octets received"))


def _spool(session: Session) -> Spool:
    return Spool(session.server.spool, session.server.message_size, session.server.room)


def _await_mail(session: Session, until: float) -> None:
    patience = session.server.patience(session.policy, session.policy.data_timeout)
    session.allow(max(0.001, min(patience, until - session.loop.time())))


async def _read_chunk(session: Session, size: int, spool: Spool | None, current: object) -> None:
    until = session.loop.time() + session.policy.message_timeout
    left = size
    while left:
        _await_mail(session, until)
        octets = await session.read_some(left)
        left -= len(octets)
        if spool is not None and isinstance(current, Transaction):
            if not current.binary:
                current.check.feed(octets)
            spool.write(octets)
    session.allow(WORK_LIMIT)


def _ready(session: Session) -> Transaction:
    current = session.transaction
    if current is None or current.failed:
        raise CommandError(*OUT_OF_SEQUENCE)
    if not current.recipients:
        raise CommandError(503 if session.policy.lmtp else 554, "5.5.1", "No valid recipients")
    return current
