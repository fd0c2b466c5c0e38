"""TLS reports to others (RFC 8460): once a day a domain that asks for it hears how our sessions with its hosts went.

What is counted stands in Postgres, written with the results of deliveries. A day's report goes out in the hours after
midnight (UTC), by mail or by HTTPS, as the domain's record says; for a domain without a record the counts are dropped.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import unquote

import dns.exception

from accounts.addresses import AddressError, parse_address
from accounts.secrets import SealError
from mailcore import db
from mailcore.conf import Conf
from mailcore.db import Tx
from mailcore.delivery import dkim, fetch
from mailcore.delivery.fetch import FetchError
from mailcore.delivery.mx import Resolver
from mailcore.mime import compose
from mailcore.store import queue, trace, transport
from mailcore.store.queue import Outgoing, Recipient
from mailcore.store.transport import Counted

log = logging.getLogger(__name__)

MAX_ADDRESSES = 4
MAX_DETAILS = 1000
# Reports leave in the first hours of the day, each domain at its own moment (RFC 8460 §4.1).
SPREAD = timedelta(hours=4)
TXT_LIFETIME, POST_SECONDS = 5.0, 20.0
_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a round did: reports sent, domains that want none, and those that are tried again."""

    sent: int = 0
    unwanted: int = 0
    later: int = 0


def addresses(texts: Sequence[str]) -> list[str]:
    """Where a domain wants its reports: mailto: and https: URIs of its record; [] = it wants none (§3)."""
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        return []
    for part in records[0].split(";")[1:]:
        name, _, value = part.strip(" \t").partition("=")
        if name == "rua":
            uris = [each.strip() for each in value.split(",")]
            return [each for each in uris if each.lower().startswith(("mailto:", "https://"))][:MAX_ADDRESSES]
    return []


def is_due(day: date, domain: str, now: datetime) -> bool:
    """Whether the moment has come for a domain's report of a day."""
    share = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:4], "big") / 2**32
    return now >= datetime.combine(day, time(), UTC) + timedelta(days=1) + share * SPREAD


def report(ours: str, domain: str, day: date, counted: Sequence[Counted]) -> dict[str, object]:
    """The report as RFC 8460 §4.4 has it."""
    policies: dict[str, list[Counted]] = {}
    for each in counted:
        policies.setdefault(each.count.policy, []).append(each)
    return {
        "organization-name": ours,
        "date-range": {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"},
        "contact-info": f"postmaster@{ours}",
        "report-id": report_id(ours, domain, day),
        "policies": [
            {
                "policy": {**json.loads(policy), "policy-domain": domain},
                "summary": {
                    "total-successful-session-count": sum(each.sessions for each in group if not each.count.result),
                    "total-failure-session-count": sum(each.sessions for each in group if each.count.result),
                },
                "failure-details": [_detail(each) for each in group if each.count.result][:MAX_DETAILS],
            }
            for policy, group in policies.items()
        ],
    }


def report_id(ours: str, domain: str, day: date) -> str:
    """The same however often it is made, so that a report that came twice is known."""
    return f"{day}.{hashlib.sha256(f'{ours} {domain}'.encode()).hexdigest()[:12]}@{ours}"


def _detail(each: Counted) -> dict[str, object]:
    count = each.count
    found = {
        "result-type": count.result,
        "receiving-mx-hostname": count.host,
        "receiving-mx-helo": count.helo,
        "receiving-ip": count.ip,
        "failed-session-count": each.sessions,
        "failure-reason-code": count.reason,
    }
    return {name: value for name, value in found.items() if value}


def message(ours: str, domain: str, day: date, to: str, packed: bytes, now: datetime) -> bytes:
    """The mail that carries a report (§5.3), without a signature."""
    begin = datetime.combine(day, time(), UTC)
    begins, ends = int(begin.timestamp()), int((begin + timedelta(days=1)).timestamp()) - 1
    name = f"{ours}!{domain}!{begins}!{ends}.json.gz"
    number = report_id(ours, domain, day)
    boundary = f"=_{hashlib.sha256(number.encode()).hexdigest()[:24]}"
    lines = [
        f"From: postmaster@{ours}",
        f"To: {to}",
        f"Date: {compose.date_value(now).decode()}",
        f"Message-ID: <tlsrpt.{number}>",
        f"Subject: Report Domain: {domain}\r\n Submitter: {ours}\r\n Report-ID: <{number}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {ours}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is a report of {ours} about TLS connections to the mail hosts of",
        f"{domain} on {day}.",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n filename="{name}"',
        "",
        base64.encodebytes(packed).decode().replace("\n", "\r\n") + f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


async def send_due(conf: Conf, resolver: Resolver, now: datetime | None = None, until: float | None = None) -> Sent:
    """Send the reports whose time has come, or drop what nobody asks for. `until`: when to leave the rest to the next
    round, by the event loop's clock."""
    now = now or datetime.now(UTC)
    clock = asyncio.get_running_loop().time
    async with db.read() as tx:
        ours = await transport.our_domain(tx, conf.hostname)
        due = [(day, domain) for day, domain in await transport.days_to_report(tx) if is_due(day, domain, now)]
    # In no order: those that keep us waiting for their DNS are not always the same ones' predecessors.
    random.shuffle(due)
    sent = unwanted = later = 0
    for day, domain in due:
        if until is not None and clock() > until:
            break
        try:
            wanted = addresses(await resolver.texts(f"_smtp._tls.{domain}", TXT_LIFETIME))
        except dns.exception.DNSException:
            later += 1
            continue
        if not wanted or ours is None:
            async with db.transaction() as tx:
                await transport.forget_results(tx, day, domain)
            unwanted += 1
        elif await _send(conf, resolver, ours, day, domain, wanted, now):
            sent += 1
        else:
            later += 1
    return Sent(sent, unwanted, later)


async def _send(
    conf: Conf, resolver: Resolver, ours: str, day: date, domain: str, wanted: Sequence[str], now: datetime
) -> bool:
    """One domain's report to all who want it; False when nobody could be told."""
    async with db.transaction() as tx:
        counted = await transport.results(tx, day, domain)
    if not counted:
        return False
    text = json.dumps(report(ours, domain, day, counted), indent=1)
    packed = gzip.compress(text.encode(), mtime=0)
    told = 0
    for url in (each for each in wanted if each.lower().startswith("https:")):
        told += await _post(conf, resolver, url, packed)
    people = [each for each in map(_mailbox, wanted) if each is not None]
    async with db.transaction() as tx:
        if not told and not people:
            return False
        if not await transport.results(tx, day, domain):
            return False  # another worker is at it
        for address in people:
            raw = message(ours, domain, day, address, packed, now)
            signed = await _signed(tx, ours, raw)
            # From the null sender: nobody wants to hear that a report could not be delivered.
            recipients = (Recipient(address, "NEVER"),)
            await queue.enqueue(tx, Outgoing("", recipients, trace.new_id(), signed, requiretls=False))
        await transport.forget_results(tx, day, domain)
    log.info("the TLS report about %s on %s was sent to %s", domain, day, ", ".join(wanted))
    return True


async def _post(conf: Conf, resolver: Resolver, url: str, packed: bytes) -> bool:
    try:
        answer = await fetch.fetch(
            *(url, conf, resolver),
            method="POST",
            body=packed,
            headers=(("Content-Type", "application/tlsrpt+gzip"),),
            seconds=POST_SECONDS,
        )
    except FetchError as error:
        log.warning("a TLS report could not be posted to %s: %s", url, error)
        return False
    if answer.status // 100 != 2:
        log.warning("a TLS report was refused by %s: status %d", url, answer.status)
    return answer.status // 100 == 2


def _mailbox(uri: str) -> str | None:
    if not uri.lower().startswith("mailto:"):
        return None
    try:
        parsed = parse_address(unquote(uri[7:].partition("?")[0]), literal=False)
    except AddressError:
        return None
    return str(parsed) if parsed.is_ascii else None


async def _signed(tx: Tx, ours: str, raw: bytes) -> bytes:
    try:
        keys = await dkim.load_keys(tx, ours)
    except SealError as error:
        log.error("a TLS report leaves without a signature: %s", error)
        return raw
    return dkim.sign(raw, keys) + raw
