"""EHLO and what it offers: STARTTLS (RFC 3207) and AUTH (RFC 4954); DATA's companions are in `transaction`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mailcore import tls
from mailcore.auth import scram
from mailcore.auth.login import login
from mailcore.entrance import is_here
from mailcore.errors import MailError
from mailcore.inbound.sending import MIN_BY
from mailcore.smtp import errors
from mailcore.smtp.wishes import MAX_HOLD
from mailcore.wire import sasl
from mailcore.wire.smtp.command import LINE_AUTH, no_argument, parse_helo
from mailcore.wire.smtp.reply import CommandError, reply

if TYPE_CHECKING:
    from mailcore.smtp.session import Session

log = logging.getLogger(__name__)


def introduce(session: Session, argument: bytes, *, extended: bool) -> None:
    """HELO and EHLO: who the client says it is; ends a mail transaction (RFC 5321 §4.1.4)."""
    name = parse_helo(argument)
    session.reset()
    session.helo = name
    session.extended = extended


def auth_offered(session: Session) -> bool:
    """Whether the client may log in now: on a submission port, over TLS or where plain text is allowed."""
    if not session.policy.auth:
        return False
    if session.tls is not None:
        return True
    allowed = session.server.plaintext_auth
    return allowed == "always" or (allowed == "loopback" and is_here(session.source))


async def ehlo(session: Session, argument: bytes) -> None:
    """EHLO and LHLO: everything we can do for this client, now."""
    introduce(session, argument, extended=True)
    policy = session.policy
    keywords = [
        session.server.hostname,
        "PIPELINING",
        f"SIZE {session.server.message_size}",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "BINARYMIME",
        "DSN",
        f"DELIVERBY {MIN_BY}",
        "MT-PRIORITY",
        f"LIMITS RCPTMAX={policy.max_recipients} MAILMAX={policy.max_messages}",
    ]
    if policy.auth:
        latest = datetime.now(UTC) + timedelta(seconds=MAX_HOLD)
        keywords.append(f"FUTURERELEASE {MAX_HOLD} {latest:%Y-%m-%dT%H:%M:%SZ}")
    if session.tls is not None:
        keywords.append("REQUIRETLS")
    elif session.server.certificates is not None:
        keywords.append("STARTTLS")
    if auth_offered(session) and session.identity is None:
        keywords.append("AUTH " + " ".join(_mechanisms(session)))
    session.respond(reply(250, "", *keywords))


async def starttls(session: Session, argument: bytes) -> None:
    """STARTTLS: what was sent in plain text after it is thrown away, and its sender with it (CVE-2011-0411)."""
    no_argument("STARTTLS", argument)
    if session.tls is not None:
        raise CommandError(503, "5.5.1", "TLS is active already")
    if session.server.certificates is None:
        raise CommandError(454, "4.7.0", "TLS is not available")
    if session.input.clear():
        log.warning("%s: %s sent commands behind STARTTLS", session.policy.name, session.source)
        session.leave(reply(554, "5.5.0", "Nothing may follow STARTTLS before TLS is active"))
        return
    session.respond(reply(220, "2.0.0", "Ready to start TLS"))
    await session.flush()
    session.forget_client()
    await session.start_tls()


async def auth(session: Session, argument: bytes) -> None:
    """AUTH: a SASL exchange, then the one path from a secret to an account."""
    if not session.policy.auth:
        raise CommandError(502, "5.5.1", "AUTH is not offered here")
    if not auth_offered(session):
        raise CommandError(538, "5.7.11", "Encryption required: issue STARTTLS first")
    if session.identity is not None:
        raise CommandError(503, "5.5.1", "You are logged in already")
    if session.transaction is not None:
        raise CommandError(503, "5.5.1", "Not during a mail transaction")
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise CommandError(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
    mechanism = words[0].decode("latin-1").upper()
    if mechanism not in _mechanisms(session):
        raise CommandError(504, "5.5.4", "That mechanism is not offered")
    try:
        result = await _exchange(session, mechanism, words[1] if len(words) == 2 else None)
        if result.authzid and result.authzid.lower() != result.authcid.lower():
            raise CommandError(535, "5.7.8", "You cannot act for somebody else")
        if isinstance(result, sasl.Proven):
            identity = await scram.login(result, protocol="submission", source=session.source)
        else:
            identity = await login(result.authcid, result.password, protocol="submission", source=session.source)
    except sasl.SaslError as error:
        raise CommandError(501, "5.7.0" if error.cancelled else "5.5.2", error.text) from None
    except MailError as error:
        session.respond(errors.auth_reply(error))
        return
    session.enter(identity)
    session.respond(reply(235, "2.7.0", "You are logged in"))


def _bindings(session: Session) -> Mapping[str, bytes]:
    transport = session.transport
    return tls.bindings(transport.get_extra_info("ssl_object") if transport is not None else None)


def _mechanisms(session: Session) -> list[str]:
    return sasl.offered(_bindings(session), scram=session.server.scram)


async def _exchange(session: Session, mechanism: str, initial: bytes | None) -> sasl.Credentials | sasl.Proven:
    decoded = None if initial is None else sasl.decode_initial(initial)
    exchange = sasl.start(mechanism, decoded, _bindings(session))
    while isinstance(exchange.step, sasl.Challenge | sasl.KeysWanted):
        if isinstance(exchange.step, sasl.KeysWanted):
            exchange.respond(await scram.keys(exchange.step.user, protocol="submission", source=session.source))
            continue
        session.respond(b"334 " + sasl.encode_challenge(exchange.step.data) + b"\r\n")
        session.allow(session.policy.command_timeout)
        exchange.respond(sasl.decode_response(await session.read_line(LINE_AUTH)))
    return exchange.step
