"""Delivery status notifications: what a sender is told about mail that failed, waits or arrived.

multipart/report of RFC 6522 with RFC 3464's fields; for internationalised mail the message/global types of RFC 6533.
Values come from remote servers and strangers' mail: none of them can start a new line or header field here.
"""

from __future__ import annotations

import base64
import re
import secrets
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from mailcore.mime import headers

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]

MAX_VALUE = 800
MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Fate:
    """One recipient's. `diagnostic`: the remote's words; `reason`: ours; `orcpt`: type;address, decoded."""

    address: str
    action: Action
    status: str
    reason: str
    diagnostic: str | None = None
    remote: str | None = None  # the server that spoke last: name, address, or `name [address]`
    orcpt: str | None = None
    at: datetime | None = None
    retry_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A notification about one message. `original`: its octets, returned whole when `full`, else only its header."""

    sender: str  # who sent the message, and gets this
    hostname: str  # this system
    fates: Sequence[Fate]
    original: bytes
    full: bool
    arrived: datetime
    now: datetime
    envid: str | None = None
    utf8: bool = False
    deliver_by: datetime | None = None  # RFC 2852


# What people can make of a status code, by its class-less end (RFC 3463) or the beginning of that.
_HINTS = (
    ("1.1", "There is no such mailbox. Please check the spelling of the address."),
    ("1.2", "There is no such domain. Please check what stands behind the @."),
    ("1.10", "This domain takes no mail."),
    ("2.1", "The mailbox is switched off."),
    ("2.2", "The mailbox is full. Ask its owner in another way, or try again later."),
    ("3.4", "The message is too big for the receiving server. Send a link instead, or smaller attachments."),
    ("4.6", "The message would go round in circles. Please tell your administrator."),
    ("4.7", "The receiving server could not be reached for too long."),
    ("6.7", "The receiving server cannot handle addresses with letters beyond ASCII."),
    ("7.", "A mail server on the way refuses this mail by its own rules."),
    ("4.", "The receiving server could not be reached."),
    ("5.", "The receiving server did not behave as it should."),
)

_SUBJECTS: dict[Action, str] = {
    "failed": "Not delivered",
    "delayed": "Not delivered yet",
    "delivered": "Delivered",
    "relayed": "Passed on",
    "expanded": "Passed on to several",
}

_OPENINGS: dict[Action, str] = {
    "failed": "Your message could not be delivered. It will not be tried again.",
    "delayed": "Your message has not been delivered yet. You need not do anything: it is tried again until {until}.",
    "delivered": "Your message was delivered. You had asked to be told.",
    "relayed": "Your message was passed on to a server that sends no receipts. You had asked to be told.",
    "expanded": "Your message was passed on to those for whom this address stands. You had asked to be told.",
}

# Where no receipt was asked for (RFC 2852).
_PASSED_ON = "Your message was passed on to another server."

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]+")


def compose(report: Report) -> bytes:
    """The notification as a complete message with CRLF line ends. All fates of one report have the same action."""
    action = report.fates[0].action
    header = report.original[: headers.header_end(report.original, 0, len(report.original))]
    subject = _decoded(header, b"subject")
    ids = headers.header_values(header, b"message-id")
    boundary = f"report-{secrets.token_hex(12)}"
    utf8 = report.utf8
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{_value(report.sender)}>",
        f"Subject: {_subject(_SUBJECTS[action] + (f': {subject}' if subject else ''))}",
        f"Date: {format_datetime(report.now)}",
        f"Message-ID: <{secrets.token_hex(16)}@{report.hostname}>",
        # RFC 3464 §2 wants no answer to it; RFC 3834 §5 says so to machines.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f"Content-Type: multipart/report; report-type={'global-' if utf8 else ''}delivery-status;",
        f'\tboundary="{boundary}"',
    ]
    if len(ids) == 1 and len(ids[0]) < 900 and ids[0].isascii() and ids[0].startswith(b"<"):
        reference = _value(ids[0].decode())
        lines[5:5] = [f"In-Reply-To: {reference}", f"References: {reference}"]
    parts = [
        _text_part(_human(report, subject)),
        _status_part(report),
        _original_part(report, header),
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    dash = f"--{boundary}".encode()
    body = b"".join(dash + b"\r\n" + part + (b"" if part.endswith(b"\r\n") else b"\r\n") for part in parts)
    return head + body + dash + b"--\r\n"


def _text_part(text: str) -> bytes:
    octets = text.replace("\n", "\r\n").encode()
    if octets.isascii():
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + octets
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded


def _human(report: Report, subject: str) -> str:
    fates = report.fates
    relayed = fates[0].action == "relayed" and fates[0].reason
    opening = _PASSED_ON if relayed else _OPENINGS[fates[0].action].format(until=_date(fates[0].retry_until))
    text = [f"This is the mail system of {report.hostname}.", "", textwrap.fill(opening, 76), ""]
    for fate in fates[:MAX_LISTED]:
        text.append(f"  {_value(fate.address)}")
        text += _indented(_hint(fate, report))
        if fate.diagnostic:
            text += [f"    {_value(fate.remote or 'The server')} said:", *_indented(_value(fate.diagnostic), 6)]
        elif fate.reason:
            text += _indented(_value(fate.reason))
        text.append("")
    if len(fates) > MAX_LISTED:
        text += [f"  and {len(fates) - MAX_LISTED} more", ""]
    text.append("The message was:")
    text += _indented(f"Subject: {_value(subject) or '(none)'}", 2)
    text += [f"  Sent: {_date(report.arrived)}", ""]
    if not report.full:
        text.append("Only its header is attached.")
    return "\n".join(text)


def _hint(fate: Fate, report: Report) -> str:
    if fate.action not in ("failed", "delayed"):
        return ""
    end = fate.status[2:]
    if report.deliver_by and end == "4.7":
        is_late = report.deliver_by <= report.now
        return f"The time that you gave for the delivery is {'over' if is_late else 'too short'}."
    return next((hint for key, hint in _HINTS if end == key or (key.endswith(".") and end.startswith(key))), "")


def _indented(text: str, by: int = 4) -> list[str]:
    return textwrap.wrap(text, 76 - by, initial_indent=" " * by, subsequent_indent=" " * by)


def _date(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%d %B %Y %H:%M UTC") if moment else "later"


def _status_part(report: Report) -> bytes:
    utf8 = report.utf8
    fields = [f"Reporting-MTA: dns; {report.hostname}", f"Arrival-Date: {format_datetime(report.arrived)}"]
    if report.deliver_by:
        fields.append(f"Deliver-By-Date: {format_datetime(report.deliver_by)}")
    if report.envid:
        fields.insert(0, f"Original-Envelope-Id: {_plain(report.envid, utf8)}")
    blocks = [fields]
    for fate in report.fates:
        kind = "rfc822" if fate.address.isascii() else "utf-8"
        block = [f"Final-Recipient: {kind}; {_plain(fate.address, utf8)}", f"Action: {fate.action}"]
        if fate.orcpt and ";" in fate.orcpt:
            original_kind, _, address = fate.orcpt.partition(";")
            block.insert(0, f"Original-Recipient: {_plain(original_kind, utf8)}; {_plain(address, utf8)}")
        block.append(f"Status: {fate.status}")
        if fate.remote:
            block.append(f"Remote-MTA: dns; {_plain(_mta_name(fate.remote), utf8)}")
        if fate.diagnostic:
            block.append(_folded(f"Diagnostic-Code: smtp; {_plain(fate.diagnostic, utf8)}"))
        elif fate.reason:
            block.append(_folded(f"Diagnostic-Code: x-mailstead; {_plain(fate.reason, utf8)}"))
        if fate.at:
            block.append(f"Last-Attempt-Date: {format_datetime(fate.at)}")
        if fate.retry_until:
            block.append(f"Will-Retry-Until: {format_datetime(fate.retry_until)}")
        blocks.append(block)
    kind = "global-delivery-status" if utf8 else "delivery-status"
    text = "".join("\r\n".join(block) + "\r\n\r\n" for block in blocks)
    encoding = "" if text.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
    return f"Content-Type: message/{kind}\r\n{encoding}\r\n{text}".encode()


def _mta_name(remote: str) -> str:
    """A name, or an address literal (RFC 3464 §2.1.2)."""
    name = remote.partition(" ")[0]
    if ":" in name:
        return f"[IPv6:{name}]"
    return f"[{name}]" if name.replace(".", "").isdecimal() else name


def _original_part(report: Report, header: bytes) -> bytes:
    octets = report.original if report.full else header
    if report.full:
        kind = "message/global" if report.utf8 else "message/rfc822"
    else:
        kind = "message/global-headers" if report.utf8 else "text/rfc822-headers"
    encoding = "" if octets.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
    return f"Content-Type: {kind}\r\n{encoding}\r\n".encode() + octets


def _decoded(header: bytes, name: bytes) -> str:
    values = headers.header_values(header, name)
    return _value(headers.decode_header(values[0][:MAX_VALUE])) if values else ""


def _value(text: str) -> str:
    """One line of bounded length."""
    return _UNSAFE.sub(" ", text)[:MAX_VALUE].strip()


def _plain(text: str, utf8: bool) -> str:
    """A field value of the machine-readable part, which is ASCII unless the whole report is internationalised."""
    text = _value(text)
    return text if utf8 else text.encode("ascii", "replace").decode()


def _subject(text: str) -> str:
    """An unstructured field: as it is, or in encoded words (RFC 2047) of whole characters."""
    text = _value(text)[:200]
    if text.isascii() and "=?" not in text:
        return _folded(text, 66)
    words, word = [], ""
    for char in text:
        if len((word + char).encode()) > 42:
            words.append(word)
            word = ""
        word += char
    words.append(word)
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(each.encode()).decode()}?=" for each in words)


def _folded(text: str, width: int = 76) -> str:
    return "\r\n ".join(textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False))
