"""An SMTP session with one mail host: greeting, EHLO, STARTTLS, AUTH, then one transaction after the other (RFC 5321).

Pipelines where the host offers it (RFC 2920) and passes on what it understands: SIZE, 8BITMIME, BINARYMIME, SMTPUTF8,
DSN, REQUIRETLS, DELIVERBY, MT-PRIORITY.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailcore.delivery import connect, outcome
from mailcore.delivery.connect import Connection, Timeouts
from mailcore.delivery.outcome import Outcome, Reply, Stage, Undeliverable, Verdict
from mailcore.delivery.route import Host
from mailcore.delivery.tls.decide import OPPORTUNISTIC, Demand, Proof, no_starttls, untrusted, verify
from mailcore.wire.smtp.params import By

# Recipients of one transaction (RFC 5321 §4.5.3.1.8: at least 100 are taken) and messages of one connection.
MAX_RECIPIENTS = 100
MAX_MESSAGES = 100
# Octets per second below which a transfer is broken off.
SLOWEST = 10_000


@dataclass(frozen=True, slots=True)
class Recipient:
    """One envelope recipient, by the number of its queue row; `orcpt` in xtext, as it goes onto the wire."""

    id: int
    address: str
    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message ready to send: `content` is dot-stuffed and ends with the lone dot; `size` as SIZE counts it.

    `utf8`: it needs SMTPUTF8, because its sender or a header field is not ASCII. `binary`: it goes octet by octet, as a
    chunk (BDAT). `requiretls`: the next host must ask the same of the one behind it. `envid` in xtext. `deadline`, by
    `time.monotonic`, and `by_mode`: until when it is to be delivered (RFC 2852).
    """

    sender: str
    content: bytes
    size: int
    utf8: bool = False
    eight_bit: bool = False
    binary: bool = False
    requiretls: bool = False
    ret: str | None = None
    envid: str | None = None
    deadline: float | None = None
    by_mode: str | None = None
    priority: int = 0

    @property
    def by(self) -> By | None:
        """The time that is left now."""
        if self.deadline is None or self.by_mode is None:
            return None
        return By(int(self.deadline - time.monotonic()), self.by_mode)


@dataclass(slots=True)
class Session:
    """An open session; `greeting_name` and `tls` are facts for the trace. `wish`: for what it was opened, as in
    `decide.Transport.demand`."""

    host: Host
    timeouts: Timeouts
    connection: Connection
    extensions: dict[str, str] = field(default_factory=dict)
    greeting_name: str = ""
    tls: str | None = None
    messages: int = 0
    rset: bool = False
    wish: bool | None = None

    @property
    def is_usable(self) -> bool:
        """Another message may be tried on this connection."""
        return self.connection.is_open and self.messages < MAX_MESSAGES

    def serves(self, wish: bool | None) -> bool:
        """Whether it is secure enough for a message: "TLS-Required: No" goes anywhere, REQUIRETLS over its like."""
        return wish is False or self.wish is True or (wish is None and self.wish is None)

    def offers(self, extension: str) -> bool:
        return extension in self.extensions

    @property
    def takes_eight_bit(self) -> bool:
        """SMTPUTF8 is never without it (RFC 6531 §3.1)."""
        return self.offers("8BITMIME") or self.offers("SMTPUTF8")

    @property
    def takes_binary(self) -> bool:
        """RFC 3030 §3: BINARYMIME goes in chunks only."""
        return self.offers("BINARYMIME") and self.offers("CHUNKING")

    def takes(self, message: Message) -> bool:
        """Whether the message is in a form that this host takes."""
        return self.takes_binary if message.binary else self.takes_eight_bit or not message.eight_bit

    def close(self) -> None:
        """Say goodbye; nobody waits for the answer."""
        self.connection.leave(self.timeouts.quit)


async def open_session(host: Host, hello: str, timeouts: Timeouts, demand: Demand = OPPORTUNISTIC) -> Session:
    """Connect, greet, encrypt when offered and sign in when needed; ready for MAIL.

    Raises Undeliverable, also when the host does not do what is demanded: then nothing but EHLO was said in the clear.
    """
    stage = Stage.CONNECT
    try:
        connection = await connect.connect(host.address, host.port, timeouts.connect, host.source)
    except (OSError, TimeoutError) as error:
        raise Undeliverable(outcome.of_error(stage, error)) from error
    session = Session(host, timeouts, connection)
    try:
        if host.implicit_tls:
            stage = Stage.TLS
            await _start_tls(session, demand)
        stage = Stage.GREETING
        reply = _expect(stage, await connection.reply(timeouts.greeting), 2)
        session.greeting_name = _first_word(reply.text)
        stage = Stage.HELLO
        await _hello(session, hello)
        if demand.use_tls and session.tls is None and session.offers("STARTTLS"):
            stage = Stage.TLS
            connection.write(b"STARTTLS\r\n")
            _expect(stage, await connection.reply(timeouts.tls), 2)
            await _start_tls(session, demand)
            stage = Stage.HELLO
            await _hello(session, hello)
        if session.tls is None and demand.enforce:
            raise no_starttls()
        if demand.requiretls and not session.offers("REQUIRETLS"):
            text = f"REQUIRETLS: {host} does not promise to ask the next host for TLS"
            raise Undeliverable(Outcome(Verdict.NEXT_HOST, Stage.TLS, "5.7.30", text))
        if host.login is not None and host.login.user is not None:
            stage = Stage.AUTH
            await _sign_in(session, host.login.user, host.login.password or "")
    except BaseException as error:
        connection.abort()
        if isinstance(error, (asyncio.CancelledError, Undeliverable)):
            raise
        raise Undeliverable(outcome.of_error(stage, error)) from error
    return session


def _expect(stage: Stage, reply: Reply, first: int) -> Reply:
    if reply.code // 100 != first:
        raise Undeliverable(outcome.of_reply(stage, reply))
    return reply


def _first_word(text: str) -> str:
    return text.split(" ", 1)[0].rstrip(".").lower()


async def _hello(session: Session, name: str) -> None:
    connection, timeout = session.connection, session.timeouts.hello
    connection.write(f"EHLO {name}\r\n".encode())
    lines = await connection.lines(timeout)
    reply = outcome.parse_reply(lines)
    session.extensions = {}
    if reply.code // 100 == 5:
        connection.write(f"HELO {name}\r\n".encode())
        reply = await connection.reply(timeout)
    elif reply.code // 100 == 2:
        for line in lines[1:]:
            keyword, _, parameters = line[4:].decode("latin-1").strip().partition(" ")
            session.extensions[keyword.upper()] = parameters
    _expect(Stage.HELLO, reply, 2)
    ours = name.lower()
    if ours in (session.greeting_name, _first_word(reply.text)) and session.host.login is None:
        text = f"mail loops back to this server ({session.host} greets with our own name)"
        raise outcome.failed(Stage.HELLO, "5.4.6", text)


async def _start_tls(session: Session, demand: Demand) -> None:
    context = demand.context
    if context is None:
        # A relay that gets our password must prove its name; between mail servers encryption is opportunistic.
        context = connect.tls_context(_sends_password(session.host) and not _is_loopback(session.host.address))
    name = demand.names[0] if demand.names else session.host.name
    try:
        session.tls = await session.connection.start_tls(context, name, session.timeouts.tls)
    except ssl.SSLError as error:
        if demand.is_strict:
            raise untrusted(error) from error
        raise
    if demand.proof is Proof.DANE:
        verify(demand, session.connection.certificates())
    if demand.proved_by:
        session.tls += f", proved by {demand.proved_by}"


def _sends_password(host: Host) -> bool:
    return host.login is not None and host.login.user is not None


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


async def _sign_in(session: Session, user: str, password: str) -> None:
    """AUTH PLAIN, or LOGIN where only that is offered; never over a connection that others can read."""
    if session.tls is None and not _is_loopback(session.host.address):
        raise outcome.later(Stage.AUTH, "4.7.0", "the relay offers no TLS, and the password is not sent without it")
    connection, timeout = session.connection, session.timeouts.mail
    mechanisms = session.extensions.get("AUTH", "").upper().split()
    if "PLAIN" in mechanisms or "LOGIN" not in mechanisms:
        secret = base64.b64encode(f"\0{user}\0{password}".encode())
        connection.write(b"AUTH PLAIN " + secret + b"\r\n")
    else:
        connection.write(b"AUTH LOGIN\r\n")
        for word in (user, password):
            _expect(Stage.AUTH, await connection.reply(timeout), 3)
            connection.write(base64.b64encode(word.encode()) + b"\r\n")
    _expect(Stage.AUTH, await connection.reply(timeout), 2)


async def send(session: Session, message: Message, recipients: Sequence[Recipient]) -> dict[int, Outcome]:
    """One transaction for at most MAX_RECIPIENTS; the outcome of each recipient by its id.

    A recipient without an outcome was not taken in this transaction (too many), and goes into another at once.
    Never raises for anything the server does.
    """
    refused = _refusals(session, message, recipients)
    recipients = [to for to in recipients if to.id not in refused]
    if not recipients:
        return refused
    exchange = _Exchange(session, message, recipients)
    session.messages += 1
    try:
        # However slowly it answers, one server holds a message for so long and not longer.
        async with asyncio.timeout(session.timeouts.total + message.size / SLOWEST):
            await exchange.run()
    except (OSError, TimeoutError, outcome.ReplyError) as error:
        session.connection.abort()
        exchange.settle(_of_end(session.connection, exchange.stage, error))
    except BaseException:
        session.connection.abort()
        raise
    if any(each.code == 421 for each in exchange.outcomes.values()):
        session.connection.abort()
    return exchange.outcomes | refused


def _of_end(connection: Connection, stage: Stage, error: Exception) -> Outcome:
    """What it means that a connection died. A refusal that the server gave before is its answer, even in the middle of
    the message: it has not taken that."""
    last = None if isinstance(error, outcome.ReplyError) else connection.last_words()
    # Before MAIL was answered, 5xx may be about an idle connection, and not about this message.
    if last is not None and last.code // 100 in ((4,) if stage is Stage.MAIL else (4, 5)):
        return outcome.of_reply(stage, last)
    return outcome.of_error(stage, error)


def _refusals(session: Session, message: Message, recipients: Sequence[Recipient]) -> dict[int, Outcome]:
    """Whom this host cannot take this message for, as far as its extensions tell."""
    text = f"{session.host} does not take internationalised mail (no SMTPUTF8)"
    unable = Outcome(Verdict.FAILED, Stage.MAIL, "5.6.7", text)
    if message.utf8 and not session.offers("SMTPUTF8"):
        return dict.fromkeys((to.id for to in recipients), unable)
    if not session.takes(message):
        text = f"{session.host} does not take 8-bit mail (no 8BITMIME)"
        return dict.fromkeys((to.id for to in recipients), Outcome(Verdict.FAILED, Stage.MAIL, "5.6.3", text))
    limit = session.extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and 0 < int(limit) < message.size:
        text = f"{session.host} takes messages of at most {limit} octets, this one has {message.size}"
        return dict.fromkeys((to.id for to in recipients), Outcome(Verdict.FAILED, Stage.MAIL, "5.3.4", text))
    if (late := _too_late(session, message)) is not None:
        return dict.fromkeys((to.id for to in recipients), late)
    if session.offers("SMTPUTF8"):
        return {}
    return {to.id: unable for to in recipients if not to.address.isascii()}


def _too_late(session: Session, message: Message) -> Outcome | None:
    """Why this host may not have mail that is to come back when it is late (RFC 2852 §4.1.4); another one may."""
    by = message.by
    if by is None or not by.returns:
        return None
    if not session.offers("DELIVERBY"):
        text = f"{session.host} promises no delivery within a time (no DELIVERBY)"
        return Outcome(Verdict.NEXT_HOST, Stage.MAIL, "5.3.3", text)
    least = session.extensions["DELIVERBY"].partition(",")[0].strip()
    if by.seconds < max(1, int(least) if least.isascii() and least.isdigit() and len(least) < 10 else 0):
        text = f"{by.seconds} s are left for the delivery, and {session.host} wants {least or 1}"
        return Outcome(Verdict.NEXT_HOST, Stage.MAIL, "5.4.7", text)
    return None


class _Exchange:
    """The state of one transaction."""

    def __init__(self, session: Session, message: Message, recipients: Sequence[Recipient]) -> None:
        self.session = session
        self.message = message
        self.recipients = recipients
        self.outcomes: dict[int, Outcome] = {}
        self.accepted: list[Recipient] = []
        self.stage = Stage.MAIL

    def settle(self, result: Outcome) -> None:
        """Give everybody without an outcome this one."""
        for to in self.recipients:
            self.outcomes.setdefault(to.id, result)

    async def run(self) -> None:
        session, connection, times = self.session, self.session.connection, self.session.timeouts
        pipelining = session.offers("PIPELINING")
        utf8 = self.message.utf8 or any(not to.address.isascii() for to in self.recipients)
        commands = [_mail(session, self.message, utf8), *(_rcpt(session, self.message, to) for to in self.recipients)]
        reset, session.rset = session.rset, True
        if pipelining:
            # A chunk is not sent before there is somebody to have it.
            closing = b"" if self.message.binary else b"DATA\r\n"
            connection.write(b"".join([b"RSET\r\n" if reset else b"", *commands, closing]))
        if reset:
            if not pipelining:
                connection.write(b"RSET\r\n")
            await connection.reply(times.mail)
        if not pipelining:
            connection.write(commands[0])
        mail = await connection.reply(times.mail)
        refused = mail.code // 100 != 2
        if refused:
            self.settle(outcome.of_reply(self.stage, mail))
            if not pipelining or mail.code == 421:
                return
        self.stage = Stage.RCPT
        for command, to in zip(commands[1:], self.recipients, strict=True):
            if not pipelining:
                connection.write(command)
            reply = await connection.reply(times.rcpt)
            if not refused:
                self._answered(to, reply)
        self.stage = Stage.DATA
        if self.message.binary:
            if self.accepted:
                connection.write(f"BDAT {len(self.message.content)} LAST\r\n".encode())
                await self._content()
            return
        if not pipelining:
            if not self.accepted:
                return
            connection.write(b"DATA\r\n")
        data = await connection.reply(times.data)
        if data.code == 354:
            await self._content()
        elif self.accepted:
            # Also a 2xx: what was meant to be text would be taken for commands now.
            self._settle_accepted(outcome.of_reply(self.stage, data))
            if data.code // 100 not in (4, 5):
                connection.abort()

    def _answered(self, to: Recipient, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self.accepted.append(to)
        elif self.accepted and outcome.is_too_many(reply):
            pass  # another transaction for the rest
        else:
            self.outcomes[to.id] = outcome.of_reply(Stage.RCPT, reply)

    def _settle_accepted(self, result: Outcome) -> None:
        for to in self.accepted:
            self.outcomes[to.id] = result

    async def _content(self) -> None:
        connection, times = self.session.connection, self.session.timeouts
        if not self.accepted:
            # It waits for text although it refused everybody (RFC 2920 §3.1): nothing is sent to nobody.
            connection.write(b".\r\n")
            await connection.reply(times.content)
            return
        try:
            await connection.write_all(self.message.content, times.write)
            self.stage = Stage.CONTENT
            reply = await connection.reply(times.content)
        except (OSError, TimeoutError, outcome.ReplyError) as error:
            connection.abort()
            self._settle_accepted(_of_end(connection, self.stage, error))
            return
        self.session.rset = False
        self._settle_accepted(outcome.of_reply(Stage.CONTENT, reply))


def _mail(session: Session, message: Message, utf8: bool) -> bytes:
    words = [f"MAIL FROM:<{message.sender}>"]
    if session.offers("SIZE"):
        words.append(f"SIZE={message.size}")
    if message.binary:
        words.append("BODY=BINARYMIME")
    elif message.eight_bit:
        words.append("BODY=8BITMIME")
    if message.requiretls:
        words.append("REQUIRETLS")
    if utf8:
        words.append("SMTPUTF8")
    if session.offers("DELIVERBY") and (by := message.by) is not None:
        words.append(f"BY={by}")
    if session.offers("MT-PRIORITY") and message.priority:
        words.append(f"MT-PRIORITY={message.priority}")
    if session.offers("DSN"):
        if message.ret:
            words.append(f"RET={message.ret}")
        if message.envid:
            words.append(f"ENVID={message.envid}")
    return " ".join(words).encode() + b"\r\n"


def _rcpt(session: Session, message: Message, to: Recipient) -> bytes:
    words = [f"RCPT TO:<{to.address}>"]
    if session.offers("DSN"):
        # A bounce is never answered.
        notify = to.notify if message.sender else "NEVER"
        if notify:
            words.append(f"NOTIFY={notify}")
        if to.orcpt and (to.orcpt.isascii() or session.offers("SMTPUTF8")):
            words.append(f"ORCPT={to.orcpt}")
    return " ".join(words).encode() + b"\r\n"
