"""The envelope of a message on its way in: where it comes from, who sends it, whom it is for."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.store.accounts import Local


@dataclass(frozen=True, slots=True)
class Source:
    """The connection that brought the message. `protocol` is the word of RFC 3848 and RFC 6531 (ESMTPS, UTF8SMTPSA …)."""

    address: str
    helo: str
    protocol: str
    tls: str | None = None
    """Version and cipher, None without TLS."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient as accepted at RCPT, and where it leads: mailboxes here, addresses elsewhere."""

    address: str
    accounts: tuple[Local, ...] = ()
    remote: tuple[str, ...] = ()
    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What SMTP knows of a message besides its octets; `sender` is "" for a bounce."""

    trace_id: str
    source: Source
    sender: str
    recipients: tuple[Recipient, ...]
    account_id: int | None = None
    """Who submitted it; None when it came from another server."""
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
