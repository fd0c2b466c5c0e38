"""TLS reports that others send us (RFC 8460): found in a message, read within limits, said in a few rows.

Anybody can send one: what is read is a stranger's JSON, packed by a stranger. Whether the domain that it is said to be
from has signed it is noted with the figures (§3); those of others are kept too, and marked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from accounts.addresses import parse_address
from accounts.errors import AddressError
from mailcore import db, mime
from mailcore.conf import conf
from mailcore.inbound import signature
from mailcore.inbound.envelope import Envelope
from mailcore.mime import addresses
from mailcore.mime.decode import decode_part
from mailcore.mime.parts import unpack_parts
from mailcore.store import accounts, transport
from mailcore.store.transport import Report

log = logging.getLogger(__name__)

MAX_PACKED = 1 << 20
MAX_JSON = 1 << 20
MAX_POLICIES = 100
MAX_DETAILS = 200
MAX_TEXT = 300
MAX_COUNT = 1 << 53
# Octets of a message whose signature is checked, signatures looked at, seconds for the DNS.
MAX_SIGNED = 4 << 20
MAX_SIGNATURES = 3
DNS_SECONDS = 5.0
# Keys need not be for TLS reports alone (RFC 8460 §3: "SHOULD"), and those of mail do.
SERVICES = frozenset({"tlsrpt", "email"})

_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")


class ReportError(Exception):
    """It is none, or not within the limits."""


def find(raw: bytes, trace_id: str) -> list[Report]:
    """What the TLS report in a message says, one for each policy; [] = there is none in it. Raises ReportError."""
    for part in unpack_parts(mime.parse(raw).parts):
        if part.type == "application" and part.subtype in ("tlsrpt+gzip", "tlsrpt+json"):
            data = decode_part(raw, part, MAX_PACKED + 1)
            if len(data) > MAX_PACKED:
                raise ReportError(f"the report is longer than {MAX_PACKED} octets")
            return parse(unpacked(data) if part.subtype == "tlsrpt+gzip" else data, trace_id)
    return []


def unpacked(data: bytes) -> bytes:
    """Undo gzip up to MAX_JSON octets. Raises ReportError."""
    engine = zlib.decompressobj(wbits=31)
    try:
        text = engine.decompress(data, MAX_JSON + 1)
    except zlib.error as error:
        raise ReportError("the report is not what gzip writes") from error
    if len(text) > MAX_JSON:
        raise ReportError(f"the report is longer than {MAX_JSON} octets when it is unpacked")
    return text


def parse(text: bytes, trace_id: str) -> list[Report]:
    """Read a report. Raises ReportError."""
    if len(text) > MAX_JSON:
        raise ReportError(f"the report is longer than {MAX_JSON} octets")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReportError("the report is no JSON") from error
    span = _dict(_dict(found).get("date-range"))
    begins, ends = _moment(span.get("start-datetime")), _moment(span.get("end-datetime"))
    reports = []
    for item in _list(found.get("policies"))[:MAX_POLICIES]:
        policy, summary = _dict(_dict(item).get("policy")), _dict(_dict(item).get("summary"))
        reports.append(
            Report(
                domain=_text(policy.get("policy-domain")).lower().rstrip("."),
                organization=_text(found.get("organization-name")) or "?",
                report_id=_text(found.get("report-id")) or "?",
                begins_at=begins,
                ends_at=ends,
                policy_type=_text(policy.get("policy-type")) or "?",
                successes=_count(summary.get("total-successful-session-count")),
                failures=_count(summary.get("total-failure-session-count")),
                details=[_detail(_dict(each)) for each in _list(item.get("failure-details"))[:MAX_DETAILS]],
                contact=_text(found.get("contact-info")),
                trace_id=trace_id,
            )
        )
    if not reports:
        raise ReportError("the report tells of no policy")
    return reports


_FIELDS = {
    "result-type": "result",
    "receiving-mx-hostname": "host",
    "receiving-ip": "ip",
    "sending-mta-ip": "from",
    "failure-reason-code": "reason",
    "additional-information": "more",
}


def _detail(found: dict[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = {ours: text for theirs, ours in _FIELDS.items() if (text := _text(found.get(theirs)))}
    detail["sessions"] = _count(found.get("failed-session-count"))
    return detail


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReportError("the report is not built as RFC 8460 says")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return _CONTROLS.sub(" ", value[:MAX_TEXT]).strip() if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return min(max(value, 0), MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) else 0


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        raise ReportError("the report's dates cannot be read") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not 2015 <= moment.year <= 2200:
        raise ReportError("the report's dates cannot be right")
    return moment


def awaited(envelope: Envelope) -> bool:
    """Whether the message came to an address for TLS reports."""
    return bool(conf.tls_reports) and any(_is_for_reports(one.address) for one in envelope.recipients if one.accounts)


async def keep(envelope: Envelope, raw: bytes) -> None:
    """Store what a TLS report tells of our domains.

    Once, however often it comes. The message itself is delivered as any other, readable or not.
    """
    try:
        found = await asyncio.to_thread(find, raw, envelope.trace_id)
    except ReportError as error:
        log.info("%s is no TLS report that can be read: %s", envelope.trace_id, error)
        return
    async with db.read() as tx:
        found = [each for each in found if each.domain and await accounts.is_local_domain(tx, each.domain)]
    if not found:
        return
    signed_by, doubt = await signer(raw)
    if doubt:
        log.info("%s is a TLS report that nobody vouches for: %s", envelope.trace_id, doubt)
    async with db.transaction() as tx:
        for report in found:
            await transport.keep_report(tx, replace(report, signed_by=signed_by, doubt=doubt))


async def signer(raw: bytes) -> tuple[str, str]:
    """The domain whose DKIM signature vouches for a report, and "", else "" and why there is none (RFC 8460 §3).

    It must be the domain of From, or one above it, and that of the field TLS-Report-Submitter where there is one.
    """
    if len(raw) > MAX_SIGNED:
        return "", "the message is too large"
    message = await asyncio.to_thread(signature.split, raw)
    try:
        author = _author(message)
    except (AddressError, ValueError):
        return "", "its From field does not name one sender"
    submitters = [each.decode("ascii", "replace").lower() for each in message.values(b"tls-report-submitter")]
    signed = signature.signatures(message)
    ours = [each for each in signed if all(_is_below(name, each.domain) for name in (author, *submitters))]
    if not ours:
        return "", f"no signature is by {author}" if signed else "it is not signed"
    doubt = ""
    for each in ours[:MAX_SIGNATURES]:
        records = await _texts(each.key_name)
        if len(records) != 1:
            doubt = f"the key {each.key_name} cannot be had"
            continue
        wrong = await asyncio.to_thread(signature.trouble, message, each, records[0], SERVICES)
        if not wrong:
            return each.domain, ""
        doubt = f"the signature of {each.domain} does not count: {wrong}"
    return "", doubt


def _author(message: signature.Message) -> str:
    """The domain of From. Raises AddressError, ValueError."""
    (value,) = message.values(b"from")
    found = addresses.only_address(value)
    if found is None:
        raise ValueError("not one address")
    return parse_address(b"@".join(found).decode("ascii"), literal=False).domain.lower()


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


async def _texts(name: str) -> list[str]:
    """The TXT records of a name; none as well when the DNS fails."""
    import dns.asyncresolver  # 5 MB that few processes need
    import dns.exception
    import dns.nameserver

    try:
        resolver = dns.asyncresolver.Resolver(configure=not conf.dns)  # which finds none on some machines
        if conf.dns:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in conf.dns]
        answer = await resolver.resolve(name, "TXT", lifetime=DNS_SECONDS, search=False)
    except (dns.exception.DNSException, OSError):
        return []
    return [b"".join(record.strings).decode("ascii", "replace") for record in answer]


def _is_for_reports(address: str) -> bool:
    return address.rpartition("@")[0].partition("+")[0].lower() == conf.tls_reports.lower()
