"""What a client may use in the state it is in: capabilities, SASL mechanisms, and whether a password may be sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mailcore import tls
from mailcore.conf import conf
from mailcore.entrance import is_here
from mailcore.imap.capabilities import after_login, before_login
from mailcore.wire import sasl

if TYPE_CHECKING:
    from mailcore.imap.session import Session


def capabilities(session: Session) -> list[str]:
    """What to announce now."""
    server = session.server
    if session.identity is not None:
        return after_login(server.message_size, server.limits.messages, jmap=server.jmap_url is not None)
    can_start_tls = server.certificates is not None and not session.connection.tls
    return before_login(can_start_tls=can_start_tls, mechanisms=mechanisms(session) if may_log_in(session) else ())


def bindings(session: Session) -> Mapping[str, bytes]:
    """What a login can be bound to: nothing without TLS."""
    transport = session.connection.transport
    return tls.bindings(transport.get_extra_info("ssl_object") if transport is not None else None)


def mechanisms(session: Session) -> list[str]:
    """The SASL mechanisms of this connection, if anybody may log in on it."""
    return sasl.offered(bindings(session), scram=conf.scram)


def may_log_in(session: Session) -> bool:
    """Whether a password may cross this connection (MAILSTEAD_PLAINTEXT_AUTH)."""
    if session.connection.tls or conf.plaintext_auth == "always":
        return True
    return conf.plaintext_auth == "loopback" and is_here(session.connection.remote)
