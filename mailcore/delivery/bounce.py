"""Telling the sender: failure, delay and, when asked for, success (RFC 3461, RFC 3464).

What is to be told is written down together with the result, and told a moment later: one report tells of all recipients
that failed together. A sender is told of the address that he wrote to: where it led on to is its owner's business (RFC
3464 §2.3.2, §4.2). Nobody is told about a bounce (null sender), and no stranger about mail that only passed through
here, because that address may be forged. The notice goes into the INBOX of a sender who is here, else into the queue
with the null sender.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

from accounts.addresses import AddressError, normalise, parse_address
from accounts.secrets import SealError
from mailcore import mime
from mailcore.conf import Conf
from mailcore.db import Tx
from mailcore.delivery import backoff, content, convert, dkim
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict
from mailcore.errors import MailError
from mailcore.inbound import srs
from mailcore.mime.report import Action, Fate, Report, compose
from mailcore.store import accounts, forwards, locks, notices, queue, trace
from mailcore.store.append import Incoming, append
from mailcore.store.notices import Noted
from mailcore.store.queue import Claimed, Outgoing, Recipient

# The message itself comes back only when it is small, or the sender asked for it (RET=FULL) and it is not huge.
FULL_BY_DEFAULT = 64 * 1024
FULL_AT_MOST = 4 * 1024 * 1024
# Octets that hold the header of whatever was taken in.
HEADER_AT_MOST = 1024 * 1024 + 64 * 1024

_WANTED: dict[Action, str] = {
    **{"failed": "FAILURE", "delayed": "DELAY"},
    **{"delivered": "SUCCESS", "relayed": "SUCCESS", "expanded": "SUCCESS"},
}
# Said of an address that led on, or whose mail was sent elsewhere by hand, in place of what was said there.
_BEHIND: dict[Action, str] = {
    "failed": "It was sent on to another address, and could not be delivered there.",
    "delayed": "It was sent on to another address, and could not be delivered there yet.",
}
_LED_ON = re.compile(rb"\A(?:Delivered-To: [^\r\n]*\r\n)+")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UTF8_XTEXT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell about one recipient; `remote` is the server that spoke last. `unless_never`: also whom NOTIFY
    asks to be told of other things only (RFC 2852 §4.1.4); `at`: when it happened, once it is written down."""

    claim: Claimed
    action: Action
    outcome: Outcome
    remote: str | None = None
    unless_never: bool = False
    at: datetime | None = None


def is_wanted(claim: Claimed, action: Action, *, unless_never: bool = False) -> bool:
    """Whether the sender is to be told (NOTIFY of RFC 3461 §4.1; without it, of failure and delay).

    A stranger may be forged: he is told only when he asked for a receipt, which SMTP grants now and then.
    """
    wanted = (claim.notify or "FAILURE,DELAY").upper().split(",")
    if not claim.sender or (claim.account_id is None and "SUCCESS" not in wanted):
        return False
    return _WANTED[action] in wanted or (unless_never and wanted != ["NEVER"])


async def note(tx: Tx, told: Sequence[Notice]) -> None:
    """Write down the notices that are wanted, for `tell_noted`."""
    await notices.add(
        tx,
        [
            Noted(
                *(each.claim.outbound_id, each.claim.recipient_id, each.claim.address, each.claim.orcpt, each.action),
                *(each.outcome.status, each.outcome.text, each.outcome.remote, each.remote),
            )
            for each in told
            if is_wanted(each.claim, each.action, unless_never=each.unless_never)
        ],
    )


async def tell_noted(tx: Tx, conf: Conf, outbound_ids: Sequence[int]) -> int:
    """Tell what was written down about these messages; returns of how many recipients."""
    found = [
        Notice(
            _as_written(claim, noted),
            cast(Action, noted.action),
            Outcome(Verdict.LATER, Stage.ROUTE, noted.status, noted.text, remote=noted.is_remote),
            noted.host,
            at=at,
        )
        for claim, noted, at in await notices.take(tx, outbound_ids)
    ]
    await _tell(tx, conf, found)
    return len(found)


def _as_written(claim: Claimed, noted: Noted) -> Claimed:
    """A notice's claim under what the sender wrote to; since it was noted it may have been sent elsewhere, or back."""
    written = claim.written_to or claim.address
    return replace(claim, address=written, orcpt=noted.orcpt, written_to=written if noted.address != written else None)


async def _tell(tx: Tx, conf: Conf, told: Sequence[Notice]) -> None:
    groups: dict[tuple[int, int, Action], list[Notice]] = {}
    for notice in told:
        claim = notice.claim
        groups.setdefault((claim.account_id or 0, claim.outbound_id, notice.action), []).append(notice)
    targets = {sender: await _targets(tx, sender) for sender in {group[0].claim.sender for group in groups.values()}}
    # All accounts in ascending order before anything else is locked, as everybody does: an alias may lead to several.
    for account_id in sorted({each for _, found, _ in targets.values() for each in found}):
        await tx.one(locks.LOCK_ACCOUNT, (account_id,))
    for (_, _, action), group in sorted(groups.items(), key=lambda item: item[0]):
        await _tell_one(tx, conf, action, group, *targets[group[0].claim.sender])


async def _tell_one(
    tx: Tx,
    conf: Conf,
    action: Action,
    group: Sequence[Notice],
    address: str,
    targets: Sequence[int],
    remote: tuple[str, ...],
) -> None:
    # Several to whom one address led are one to its sender.
    group = list({notice.claim.address: notice for notice in reversed(group)}.values())[::-1]
    claim = group[0].claim
    full = _is_full(claim)
    report = _report(conf, group, await _original(tx, claim, full), full)
    if not targets and report.sender != address:
        report = replace(report, sender=address)
    raw = compose(report)
    name = trace.new_id()
    stored = False
    if targets:
        received = b"Return-Path: <>\r\n" + raw
        derived = mime.parse(received)
        items = [Incoming(account, 0, received, derived, trace_id=name, recipient=address) for account in targets]
        results = await append(tx, items)
        stored = any(not isinstance(result, MailError) for result in results)
        if not stored:
            # No room this very moment: the queue will try again, as for any mail.
            remote = (*remote, address)
    detail = {"of": claim.trace_id, "kind": action, "recipients": [notice.claim.address for notice in group[:20]]}
    number = None
    if remote:
        to = [Recipient(each, "NEVER") for each in remote]
        utf8 = report.utf8 or not all(each.isascii() for each in (address, *remote))
        raw = await _signature(tx, conf.hostname, raw) + raw
        body: queue.Body = "7BIT" if raw.isascii() else "8BITMIME"
        outgoing = Outgoing(
            "", to, name, raw, smtputf8=utf8, body=body, requiretls=claim.requiretls, priority=claim.priority
        )
        number = await queue.enqueue(tx, outgoing)
    if not (stored or remote):
        detail["lost"] = "the sender's mailbox is gone"
    about = trace.Event(name, "dsn", claim.account_id, number, "", address, None, detail)
    detail = detail | {"id": name}
    told = trace.Event(claim.trace_id, "dsn", claim.account_id, claim.outbound_id, "", address, None, detail)
    await trace.add(tx, [told, about])


def _is_full(claim: Claimed) -> bool:
    """Whether the message comes back, or only its header (RET of RFC 3461 §4.3)."""
    asked = claim.dsn_ret or ("FULL" if claim.size <= FULL_BY_DEFAULT else "HDRS")
    return asked == "FULL" and claim.size <= FULL_AT_MOST


async def _original(tx: Tx, claim: Claimed, full: bool) -> bytes:
    """The message, or the beginning of it with all of its header; of our own lines without those that say which
    addresses led it on."""
    prepend = _LED_ON.sub(b"", claim.prepend)
    try:
        raw = await queue.blob(tx, claim.blob, None if full else HEADER_AT_MOST)
        if full and claim.body == "BINARYMIME":
            raw = convert.to_text(raw)
        return content.crlf(prepend + raw)
    except (MailError, Undeliverable):
        return prepend  # lost or strange content is no reason to lose the notice as well


async def _targets(tx: Tx, sender: str) -> tuple[str, list[int], tuple[str, ...]]:
    """The sender's address, the accounts that it is here, and where it leads elsewhere."""
    try:
        parsed = parse_address(sender)
        local = not parsed.is_literal and await accounts.is_local_domain(tx, parsed.domain)
        if not local:
            return sender, [], (sender,)
        if srs.is_shaped(parsed.local):
            # It passed through here: whoever sent it asked for a receipt.
            original = srs.reverse(parsed.local)
            first = original.address or await forwards.recall(tx, original.token)
            return first, [], (first,)
        address = normalise(sender)
        resolution = await accounts.resolve(tx, address)
    except (AddressError, MailError):
        return sender, [], ()
    return address, sorted({found.account_id for found in resolution.accounts}), resolution.remote


async def _signature(tx: Tx, hostname: str, raw: bytes) -> bytes:
    try:
        keys = await dkim.load_keys(tx, hostname)
    except SealError:
        return b""
    return dkim.sign(raw, keys) if keys else b""


def _report(conf: Conf, group: Sequence[Notice], original: bytes, full: bool) -> Report:
    claim = group[0].claim
    now = datetime.now(UTC)
    return Report(
        sender=claim.sender,
        hostname=conf.hostname,
        fates=[_fate(notice, now) for notice in group],
        original=original,
        full=full,
        arrived=claim.created_at,
        now=now,
        deliver_by=now + timedelta(seconds=claim.by.seconds) if claim.by else None,
        envid=_unxtext(claim.dsn_envid) if claim.dsn_envid else None,
        utf8=claim.smtputf8 and not (claim.sender.isascii() and all(n.claim.address.isascii() for n in group)),
    )


def _fate(notice: Notice, now: datetime) -> Fate:
    claim, result = notice.claim, notice.outcome
    until = None
    if notice.action == "delayed":
        until = now + timedelta(seconds=max(0.0, backoff.MAX_AGE - claim.age))
    fate = Fate(
        address=claim.address,
        action=notice.action,
        status=result.status if notice.action != "failed" else _permanent(result.status),
        reason="" if result.remote else result.text,
        diagnostic=result.text if result.remote else None,
        remote=notice.remote,
        orcpt=_unxtext(claim.orcpt) if claim.orcpt else None,
        at=notice.at,
        retry_until=until,
    )
    return _discreet(fate, claim.trace_id) if claim.written_to else fate


def _discreet(fate: Fate, trace_id: str) -> Fate:
    """Without what says where the address led: hosts, words, and that "there is no such address", which is another."""
    reason = fate.reason
    if fate.action in _BEHIND:
        reason = f"{_BEHIND[fate.action]} The administrator of this mail system finds the reason under {trace_id}."
    status = f"{fate.status[0]}.1.0" if fate.status[1:4] == ".1." else fate.status
    return replace(fate, status=status, reason=reason, diagnostic=None, remote=None)


def _permanent(status: str) -> str:
    """What failed for now until it was too late has failed: 4.4.1 of the last attempt makes 4.4.7 (RFC 3463 §3.5)."""
    return "4.4.7" if status.startswith("4.4.") else status


def _unxtext(text: str) -> str:
    """Undo xtext (RFC 3461 §4) and the utf-8 form of RFC 6533 §3."""
    text = _UTF8_XTEXT.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), text)
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)
