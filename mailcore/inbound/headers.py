"""The header of a message that comes in: the trace lines we put before it, and what must not stay in it.

Nothing else of a stored message is ever changed. The lines are the same for all recipients, so that a message to many
is stored once; `for` therefore names a recipient only when there is just one (and Bcc stays hidden)."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from accounts.addresses import hosted_domain_name, quote_local
from accounts.errors import AddressError
from mailcore.errors import Code, MailError
from mailcore.inbound.envelope import Envelope
from mailcore.mime.addresses import only_address, parse_addresses
from mailcore.mime.envelope import message_ids
from mailcore.mime.headers import header_end, header_values, unfold
from mailcore.mime.params import without_comments
from mailcore.wire.smtp.command import header_safe, is_host_name

_AUTHENTICATION_RESULTS = re.compile(rb"^authentication-results[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*)\n?", re.M | re.I)
# What a sender keeps to himself, and what only final delivery may write (RFC 5321 §4.4).
_NOT_SENT = re.compile(rb"^(?:(?:resent-)?bcc|return-path)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*\n?", re.M | re.I)
# Octets of a header that comes in: every step reads it, on the event loop. Mail has a hundredth of that.
MAX_HEADER = 1 << 20
# Authentication-Results fields that are looked at, and octets of one.
MAX_RESULTS, MAX_RESULT = 1_000, 10_000
# From fields that are looked at, and octets of one.
MAX_FROM, MAX_FROM_OCTETS = 10, 10_000
_AUTHSERV_ID = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s;]+)')
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Split(NamedTuple):
    """A message cut after its header's blank line; the body is cut out only when it is asked for."""

    header: bytes
    content: bytes

    @property
    def body(self) -> memoryview:
        return memoryview(self.content)[len(self.header) :]


def split(content: bytes) -> Split:
    """Cut a message in two; a message without a blank line is all header.

    Raises TOO_BIG for a header of more than MAX_HEADER octets, and looks no further than that.
    """
    size = header_end(content, 0, min(len(content), MAX_HEADER + 1))
    if size > MAX_HEADER:
        raise MailError(Code.TOO_BIG, "The message's header is too big")
    return Split(content[:size], content)


def date(seconds: float | None = None) -> str:
    """A moment (now) as RFC 5322 writes it, in UTC."""
    return _date(int(time.time() if seconds is None else seconds))


@lru_cache(maxsize=16)
def _date(seconds: int) -> str:
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
    )


def return_path(envelope: Envelope) -> bytes:
    """The Return-Path line, which final delivery adds (RFC 5321 §4.4)."""
    return f"Return-Path: <{envelope.sender}>\r\n".encode()


def received(envelope: Envelope, hostname: str) -> bytes:
    """Our Received line (RFC 5321 §4.4; `with` by RFC 3848 and RFC 6531), its `id` the trace id."""
    source = envelope.source
    helo = source.helo if is_host_name(source.helo) else header_safe(source.helo)
    address = f"IPv6:{source.address}" if ":" in source.address else source.address
    tls = f"\t(using {source.tls})\r\n\t(No client certificate requested)\r\n" if source.tls else ""
    to = ""
    if len(envelope.recipients) == 1:
        only = envelope.recipients[0].address
        if (only.isascii() or envelope.smtputf8) and '"' not in only:
            to = f"\r\n\tfor <{only}>"
    return (
        f"Received: from {helo} ([{address}])\r\n{tls}"
        f"\tby {hostname} with {source.protocol} id {envelope.trace_id}{to};\r\n\t{date()}\r\n"
    ).encode()


def tls_required(header: bytes) -> bool | None:
    """False when the sender says `TLS-Required: No` (RFC 8689 §3), else None."""
    if b"tls-required" not in header.lower():
        return None
    return False if any(value.strip().lower() == b"no" for value in header_values(header, b"tls-required")) else None


def hops(header: bytes) -> int:
    """How many servers have passed the message on."""
    lowered = header.lower()
    return lowered.count(b"\nreceived:") + lowered.startswith(b"received:")


def without_forged_results(header: bytes, hostname: str) -> bytes:
    """The header without Authentication-Results fields that claim to be ours (RFC 8601 §5).

    Raises TOO_BIG for more of them than any way through servers makes.
    """
    count = header.lower().count(b"authentication-results")
    if not count:
        return header
    if count > MAX_RESULTS:
        raise MailError(Code.TOO_BIG, "The message has too many Authentication-Results fields")
    name = hostname.lower().encode()

    def keep(match: re.Match[bytes]) -> bytes:
        if len(match.group(1)) > MAX_RESULT:
            return b""  # nobody's, and long to read
        value = unfold(match.group(1))
        found = _AUTHSERV_ID.match(without_comments(value).strip())
        server = (found.group(1) or found.group(2) or b"").lower().rstrip(b".") if found else b""
        # What cannot be read may be read by somebody else: it stays only when our name is nowhere in it.
        return b"" if server == name or (not server and name in value.lower()) else match.group()

    return _AUTHENTICATION_RESULTS.sub(keep, header)


def authors(header: bytes) -> list[str] | None:
    """The addresses in From as text; None when the header has no From field or several of them."""
    values = header_values(header, b"from")
    if len(values) != 1:
        return None
    if one := only_address(values[0]):
        return [f"{quote_local(one[0].decode())}@{one[1].decode()}"]
    found = []
    for mailbox in parse_addresses(values[0]):
        if mailbox.mailbox is None or mailbox.host is None:  # the ends of a group
            continue
        local = quote_local(mailbox.mailbox.decode("utf-8", "replace"))
        found.append(f"{local}@{mailbox.host.decode('utf-8', 'replace')}")
    return found


def claimed_domains(header: bytes) -> set[str]:
    """The domains that any From field names as an author's, as far as they can be read: lower case, A-labels."""
    found = set()
    for value in header_values(header, b"from")[:MAX_FROM]:
        for mailbox in parse_addresses(value[:MAX_FROM_OCTETS]):
            with suppress(AddressError, UnicodeDecodeError):
                found.add(hosted_domain_name((mailbox.host or b"").decode()))
    return found


def completed(header: bytes, envelope: Envelope, hostname: str) -> bytes:
    """A submitted header with Date and Message-ID, if it had none, without Bcc and Return-Path (RFC 6409 §8)."""
    lowered = header.lower()
    if b"bcc" in lowered or b"return-path" in lowered:
        header = _NOT_SENT.sub(b"", header)
    added = ""
    if not header_values(header, b"message-id"):
        domain = envelope.sender.rpartition("@")[2]
        if not is_host_name(domain) or domain.startswith("["):
            domain = hostname
        added += f"Message-ID: <{envelope.trace_id}.{secrets.token_hex(8)}@{domain}>\r\n"
    if not header_values(header, b"date"):
        added += f"Date: {date()}\r\n"
    return added.encode() + header


def message_id(header: bytes) -> str | None:
    """The Message-ID without its brackets."""
    values = header_values(header, b"message-id")
    found = message_ids(values[0]) if values else ()
    return found[0] if found else None
