"""The envelope of a message on its way in: where it comes from, who sends it, whom it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mailcore.store.accounts import Local
from mailcore.wire.smtp.params import By

# Mailboxes and addresses elsewhere that the recipients of one message may lead to in all: what a large group leads to
# would be kept once for each of its +tags.
MAX_WAYS = 20_000


@dataclass(frozen=True, slots=True)
class Source:
    """The connection that brought the message. `protocol` is the word of RFC 3848 or RFC 6531 (ESMTPS, UTF8LMTP)."""

    address: str
    helo: str
    protocol: str
    tls: str | None = None
    """Version, cipher, bits, and the name that was asked for; None without TLS."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient as accepted at RCPT, and where it leads: mailboxes here, addresses elsewhere, and mailboxes here that
    are served by way of the queue."""

    address: str
    accounts: tuple[Local, ...] = ()
    remote: tuple[str, ...] = ()
    notify: str | None = None
    orcpt: str | None = None
    queued: tuple[Local, ...] = ()
    max_size: int | None = None
    """Octets of a message that are taken for it."""
    smaller: tuple[tuple[int, int], ...] = ()
    """Accounts behind an alias or group that take so many octets at most: they are left out of what is larger."""

    @property
    def ways(self) -> int:
        """How many mailboxes here and addresses elsewhere it leads to."""
        return len(self.accounts) + len(self.remote) + len(self.queued)

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
    binary: bool = False
    """BODY=BINARYMIME (RFC 3030): its octets follow no rules for lines."""
    requiretls: bool = False
    """REQUIRETLS (RFC 8689): it is passed on over verified TLS or not at all."""
    ret: str | None = None
    envid: str | None = None
    send_after: datetime | None = None
    """When what is queued may leave; None = at once (undo send, schedule send)."""
    by: By | None = None
    """The time for the delivery, from when it may leave (RFC 2852)."""
    priority: int = 0
    """-9 to 9 (RFC 6710)."""
    note: Mapping[str, object] = field(default_factory=dict)
    """What the trace is to say beside what is known here."""
