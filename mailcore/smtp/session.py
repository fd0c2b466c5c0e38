"""One SMTP session: the greeting, the command table, and the loop that carries commands out.

A command is a function `(session, argument)` and a row of COMMANDS. It answers with `session.respond`, or raises
CommandError or MailError, which become replies here; what belongs to one message lives in `session.transaction`,
which is replaced, never patched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailcore.auth import standing
from mailcore.auth.login import Identity
from mailcore.errors import MailError
from mailcore.smtp import errors, extensions, refusals, transaction
from mailcore.smtp.connection import WORK_LIMIT, Connection, Disconnected, Dismissed, ShuttingDown
from mailcore.smtp.policy import Policy
from mailcore.smtp.transaction import Transaction
from mailcore.wire.smtp.command import no_argument, parse_command
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.server import Server

log = logging.getLogger(__name__)

GREETINGS = frozenset({"HELO", "EHLO", "LHLO"})
# Known and not done here (RFC 5321 §4.2.4): to start a queue, to turn the connection round, to write on a terminal.
NOT_OFFERED = frozenset({"ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML"})
# A browser that was made to talk to us (cross-protocol scripting): nothing it says is meant for us.
HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE"})


class Session(Connection):
    """A connection with what is known of its client."""

    def __init__(
        self, server: Server, policy: Policy, loop: asyncio.AbstractEventLoop, source: str | None = None
    ) -> None:
        super().__init__(server, policy, loop, source)
        self.identity: Identity | None = None
        self.helo = ""
        self.extended = False
        self.transaction: Transaction | None = None
        self.admitted = False
        self.messages = 0
        """Transactions that were begun."""
        self._unwatch: Callable[[], None] | None = None

    def enter(self, identity: Identity) -> None:
        """The client has logged in, and stays for as long as what it logged in with is good."""
        self.identity = identity
        self._unwatch = standing.watch(identity.credential, self.dismiss)

    @property
    def protocol(self) -> str:
        """The word for `with` in Received (RFC 3848); RFC 6531 has its own for internationalised mail."""
        if not self.extended:
            return "SMTP"
        utf8 = self.transaction is not None and self.transaction.params.smtputf8
        word = ("UTF8LMTP" if utf8 else "LMTP") if self.policy.lmtp else "UTF8SMTP" if utf8 else "ESMTP"
        return word + ("S" if self.tls else "") + ("A" if self.identity else "")

    def reset(self) -> None:
        """End the mail transaction, if there is one."""
        if self.transaction is not None:
            self.transaction.close()
            self.transaction = None

    def forget_client(self) -> None:
        """After STARTTLS nothing that was said before counts (RFC 3207 §4.2)."""
        self.reset()
        self.helo = ""
        self.extended = False
        self.identity = None
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    async def _handle_client(self) -> None:  # the task that aiosmtpd starts for each connection
        try:
            await self._converse()
        except ShuttingDown:
            self.leave(reply(421, "4.3.2", "The server is shutting down"))
        except Dismissed:
            log.info("%s: a session of %s ends: its login is no longer good", self.policy.name, self.source)
            self.leave(reply(421, "4.7.0", "Your password or account has changed: log in again"))
        except (Disconnected, ConnectionError):
            refusals.broken_off(self)
        except Exception:
            log.exception("%s: the session of %s failed", self.policy.name, self.source)
            self.leave(reply(421, "4.3.0", "Something went wrong here, try again later"))
        finally:
            self._stop_watching()
            self.reset()
            self.hang_up()
            self.server.left(self)

    async def _converse(self) -> None:
        if refusal := self.server.admit(self):
            refusals.note(self, "the connection", refusal)
            self.leave(refusal)
            return
        await asyncio.sleep(0)
        if self.spoke_too_soon():
            self.leave(reply(554, "5.5.0", "You spoke before the greeting"))
            return
        self.respond(reply(220, "", f"{self.server.hostname} {'LMTP' if self.policy.lmtp else 'ESMTP'} Mailstead"))
        while not self.leaving:
            self.allow(self.server.patience(self.policy, self.policy.command_timeout))
            verb, argument = "", b""
            try:
                command = parse_command(await self.read_line())
                verb = command.verb
                self.require_welcome()
                argument = command.argument
                self.allow(WORK_LIMIT)
                await self._carry_out(verb, argument)
            except CommandError as error:
                self._refuse(verb, argument, error.reply)
            except MailError as error:
                self._refuse(verb, argument, errors.reply_for(error, submission=self.policy.auth), error.private)
            if verb in COMMANDS and COMMANDS[verb].idle and not self.leaving:
                self.spend()

    def _refuse(self, verb: str, argument: bytes, answer: bytes, private: str | None = None) -> None:
        if verb in ("MAIL", "RCPT"):
            refusals.note(self, verb, answer, private, argument=argument)
        self.respond(answer)

    async def _carry_out(self, verb: str, argument: bytes) -> None:
        command = COMMANDS.get(verb)
        if command is None:
            if verb in HTTP:
                self.leave(reply(554, "5.5.0", "This is SMTP"))
                return
            if verb in NOT_OFFERED:
                raise CommandError(502, "5.5.1", f"{verb} is not offered")
            raise CommandError(500, "5.5.1", "Command not known")
        if verb in GREETINGS and (verb == "LHLO") is not self.policy.lmtp:
            raise CommandError(500, "5.5.1", "Say LHLO: this is LMTP" if self.policy.lmtp else "This is not LMTP")
        if command.needs_helo and not self.helo:
            raise CommandError(503, "5.5.1", "Say EHLO first")
        if command.needs_login and self.policy.auth and self.identity is None:
            if self.tls is None and not extensions.auth_offered(self):
                raise CommandError(530, "5.7.0", "Issue STARTTLS and log in first")
            raise CommandError(530, "5.7.0", "Authentication required")
        await command.run(self, argument)


async def helo(session: Session, argument: bytes) -> None:
    """HELO: a client without extensions."""
    extensions.introduce(session, argument, extended=False)
    session.respond(reply(250, "", session.server.hostname))


async def noop(session: Session, argument: bytes) -> None:
    """NOOP, with any argument (RFC 5321 §4.1.1.9)."""
    session.respond(reply(250, "2.0.0", "Ok"))


async def rset(session: Session, argument: bytes) -> None:
    """RSET: forget the message under way."""
    no_argument("RSET", argument)
    session.reset()
    session.respond(reply(250, "2.0.0", "Ok"))


async def quit_(session: Session, argument: bytes) -> None:
    """QUIT."""
    no_argument("QUIT", argument)
    session.leave(reply(221, "2.0.0", "Bye"))


async def vrfy(session: Session, argument: bytes) -> None:
    """VRFY: who is here is nobody's business; RCPT tells (RFC 5321 §7.3)."""
    if not argument:
        raise CommandError(501, "5.5.4", "Syntax: VRFY address")
    session.respond(reply(252, "2.1.5", "Send mail to find out"))


async def expn(session: Session, argument: bytes) -> None:
    """EXPN: neither is who reads a list."""
    raise CommandError(502, "5.5.1", "EXPN is not offered")


async def help_(session: Session, argument: bytes) -> None:
    """HELP: the commands there are."""
    session.respond(reply(214, "2.0.0", "Commands: " + " ".join(sorted(COMMANDS))))


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the command table."""

    run: Callable[[Session, bytes], Awaitable[None]]
    needs_helo: bool = False
    needs_login: bool = False
    """On listeners whose policy asks for AUTH."""
    idle: bool = False
    """It brings no mail any nearer: a session may have `Policy.max_idle_commands` of them before it brings some."""


COMMANDS: dict[str, Command] = {
    "HELO": Command(helo, idle=True),
    "EHLO": Command(extensions.ehlo, idle=True),
    "LHLO": Command(extensions.ehlo, idle=True),
    "STARTTLS": Command(extensions.starttls, needs_helo=True),
    "AUTH": Command(extensions.auth, needs_helo=True, idle=True),
    "MAIL": Command(transaction.mail, needs_helo=True, needs_login=True),
    "RCPT": Command(transaction.rcpt, needs_helo=True, needs_login=True),
    "DATA": Command(transaction.data, needs_helo=True, needs_login=True),
    "BDAT": Command(transaction.bdat),
    "RSET": Command(rset, idle=True),
    "NOOP": Command(noop, idle=True),
    "VRFY": Command(vrfy, idle=True),
    "EXPN": Command(expn, idle=True),
    "HELP": Command(help_, idle=True),
    "QUIT": Command(quit_),
}
