"""The envelope of a message on its way in: where it comes from, who sends it, whom it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mailcore.store.accounts import Local


@dataclass(frozen=True, slots=True)
class Source:
    """The connection that brought the message. `protocol` is the word of RFC 3848 or RFC 6531 (ESMTPS, UTF8SMTPA)."""

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

    @property
    def wants_receipt(self) -> bool:
        """NOTIFY=SUCCESS: delivered by way of the queue, which writes the notice (RFC 3461 §5.2.3)."""
        return self.notify is not None and "SUCCESS" in self.notify and "@" in self.address


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
    send_after: datetime | None = None
    """When what is queued may leave; None = at once (undo send, schedule send)."""
    note: Mapping[str, object] = field(default_factory=dict)
    """What the trace is to say beside what is known here."""
