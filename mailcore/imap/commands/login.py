"""STARTTLS, LOGIN and AUTHENTICATE: from a stranger to an account (RFC 9051 §6.2)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NoReturn, cast

from mailcore.auth import scram
from mailcore.auth.login import Identity
from mailcore.auth.login import login as check_login
from mailcore.errors import Code, MailError
from mailcore.imap import offers
from mailcore.imap.errors import Gone, bad, no
from mailcore.imap.registry import NOT_AUTHENTICATED, Done, command
from mailcore.imap.session import Session
from mailcore.wire import sasl
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import AuthenticateArgs, Command, LoginArgs
from mailcore.wire.imap.frames import Line


@command("STARTTLS", state=NOT_AUTHENTICATED)
async def starttls(session: Session, command: Command) -> None:
    """Encrypt the connection; whatever the client sent in clear after this command is thrown away (RFC 9051 §11.1)."""
    if session.connection.tls:
        raise bad("The connection is encrypted already")
    if session.server.certificates is None:
        raise no("TLS is not set up here", "UNAVAILABLE")
    answer = response.status_line(command.tag, "OK", "Begin TLS now")
    try:
        await session.connection.start_tls(answer)
    except (OSError, TimeoutError) as error:
        raise ConnectionError("the TLS handshake failed") from error
    return None


@command("LOGIN", state=NOT_AUTHENTICATED)
async def login(session: Session, command: Command) -> Done:
    """Log in with address and password (RFC 9051 §6.2.3)."""
    args = cast(LoginArgs, command.args)
    _require_secrecy(session)
    return await _log_in(session, args.user, args.password)


@command("AUTHENTICATE", state=NOT_AUTHENTICATED)
async def authenticate(session: Session, command: Command) -> Done:
    """Log in with a SASL mechanism, with an initial response or without (RFC 9051 §6.2.2, RFC 4959)."""
    args = cast(AuthenticateArgs, command.args)
    if args.mechanism not in offers.mechanisms(session):
        raise no("That mechanism is not offered here", "CANNOT")
    _require_secrecy(session)
    source = session.connection.remote
    try:
        initial = None if args.initial is None else sasl.decode_initial(args.initial)
        exchange = sasl.start(args.mechanism, initial, offers.bindings(session))
        while isinstance(exchange.step, sasl.Challenge | sasl.KeysWanted):
            if isinstance(exchange.step, sasl.Challenge):
                exchange.respond(await _ask(session, exchange.step))
            else:
                exchange.respond(await scram.keys(exchange.step.user, protocol="imap", source=source))
        result = exchange.step
    except sasl.SaslError as error:
        raise bad(error.text) from None
    if result.authzid and result.authzid != result.authcid:
        _fail(session, MailError(Code.AUTH_FAILED, "logging in for somebody else is not possible"))
    if isinstance(result, sasl.Proven):
        return await _enter(session, scram.login(result, protocol="imap", source=source))
    return await _log_in(session, result.authcid, result.password)


def _require_secrecy(session: Session) -> None:
    if not offers.may_log_in(session):
        raise no("Use TLS first: passwords are not taken in clear text here", "PRIVACYREQUIRED")


async def _ask(session: Session, challenge: sasl.Challenge) -> bytes:
    connection = session.connection
    session.send(response.continuation_line(sasl.encode_challenge(challenge.data)))
    connection.framer.expect_line(sasl.MAX_RESPONSE)
    event = await connection.next_event()
    if event is None:
        raise Gone(connection.goodbye)
    if not isinstance(event, Line):
        raise bad(getattr(event, "text", "The authentication response cannot be read"))
    return sasl.decode_response(event.data)


async def _log_in(session: Session, address: str, secret: str) -> Done:
    return await _enter(session, check_login(address, secret, protocol="imap", source=session.connection.remote))


async def _enter(session: Session, check: Awaitable[Identity]) -> Done:
    try:
        identity = await check
    except MailError as error:
        if error.code is Code.UNAVAILABLE:
            raise
        _fail(session, error)
    session.enter(identity)
    return Done("Logged in", response.capability_code(offers.capabilities(session)))


def _fail(session: Session, error: MailError) -> NoReturn:
    """The answer to a wrong secret; after too many of them the end. auth.login has made the client wait already."""
    session.failures += 1
    if session.failures >= session.server.limits.failures:
        raise Gone("Too many failed logins", answer=error) from None
    raise error
