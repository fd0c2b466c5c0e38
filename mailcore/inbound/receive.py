"""From an accepted envelope and the message's octets to the commit: checked, filed, stored and queued, all or nothing.

Either all of it happens or nothing: when one of the mailboxes has filled up since RCPT, nobody gets the message and the
sender's server keeps it, so that neither a copy is lost nor a bounce is written to a sender who may be forged. Only of
an alias a full member does not keep the others from their mail: that copy waits in the queue until there is room.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.inbound import checks, headers, onward, sending, tlsreport
from mailcore.inbound import envelope as envelopes
from mailcore.inbound.checks import Check, Letter, form, loop
from mailcore.inbound.envelope import Envelope
from mailcore.inbound.file import placements
from mailcore.inbound.recipients import without_room
from mailcore.inbound.verdict import Action, Verdict, decide
from mailcore.store.append import Incoming
from mailcore.store.ingest import Ingest
from mailcore.store.queue import Body, Outgoing
from mailcore.store.trace import Event
from mailcore.wire.smtp.data import OctetCheck
from mailcore.wire.smtp.params import By

T = TypeVar("T")

# Parsing an ordinary message of this size takes 1 ms; a thread costs more than it saves below that.
INLINE_OCTETS = 1 << 20

_BINARY_PART = re.compile(rb"^content-transfer-encoding[ \t]*+:[ \t]*+binary", re.M | re.I)

REQUIRED: tuple[tuple[str, Check], ...] = (("loop", loop.check),)
OPTIONAL: tuple[tuple[str, Check], ...] = (("form", form.check),)


@dataclass(frozen=True, slots=True)
class Receiver:
    """What every message of a process is received with. `checks_on`: run the optional checks as well."""

    ingest: Ingest
    hostname: str
    checks_on: bool = True

    async def receive(self, envelope: Envelope, content: bytes) -> None:
        """Take a message; returns once it is committed.

        Raises MailError: LOOP or what else a check refuses it for, OVER_QUOTA, UNAVAILABLE. Then nothing was stored.
        """
        parts = headers.split(content)
        header = parts.header
        envelope = _fitting(envelope, len(content))
        envelope = onward.without_loops(envelope, header)
        verdict = await self._judge(Letter(envelope, header, content))
        if envelope.account_id is None:
            kept = headers.without_forged_results(header, self.hostname)
        else:
            kept = headers.completed(header, envelope, self.hostname)
        if kept is not header:
            content = await _aside(len(content), lambda: b"".join((kept, parts.body)))
        trace = headers.received(envelope, self.hostname)
        prepend = headers.return_path(envelope) + trace
        size = len(prepend) + len(content)
        envelope = await _full_members_later(envelope, size)
        places = placements(envelope, verdict)
        items = []
        stored = b""
        if places or tlsreport.awaited(envelope):
            stored = await _aside(size, partial(b"".join, (prepend, content)))
        if places:
            derived = await _aside(len(stored), partial(mime.parse, stored))
            message_id = derived.summary.message_id[0] if derived.summary.message_id else None
            items = [
                Incoming(
                    place.account_id,
                    place.mailbox_id,
                    stored,
                    derived,
                    place.flags,
                    place.keywords,
                    trace_id=envelope.trace_id,
                    recipient=place.owner,
                )
                for place in places
            ]
        else:
            message_id = headers.message_id(kept)
        queue = await _outgoing(envelope, kept, content, trace, message_id)
        events = [_accepted(envelope, verdict, size, message_id), *_expanded(envelope)]
        if tlsreport.awaited(envelope):
            await tlsreport.keep(envelope, stored)
        async with sending.counted(envelope):
            for result in await self.ingest.add(items, queue, events, atomic=True):
                if isinstance(result, MailError):
                    raise result

    async def _judge(self, letter: Letter) -> Verdict:
        chosen = REQUIRED + OPTIONAL if self.checks_on and letter.envelope.account_id is None else REQUIRED
        verdict = decide(await checks.run(chosen, letter))
        if decisive := verdict.decisive:
            code = decisive.code if verdict.action is Action.REJECT else Code.UNAVAILABLE
            raise MailError(code, decisive.text, f"{letter.envelope.trace_id} {decisive.check}")
        return verdict


def _fitting(envelope: Envelope, size: int) -> Envelope:
    """The envelope without those behind an alias or group who take smaller messages only. Raises TOO_BIG."""
    for one in envelope.recipients:
        if one.max_size is not None and size > one.max_size:
            raise MailError(Code.TOO_BIG, f"{one.address} takes messages of {one.max_size} octets at most")
    if not any(size > most for one in envelope.recipients for _, most in one.smaller):
        return envelope
    return replace(envelope, recipients=tuple(_without_smaller(one, size) for one in envelope.recipients))


def _without_smaller(one: envelopes.Recipient, size: int) -> envelopes.Recipient:
    over = {account_id for account_id, most in one.smaller if size > most}
    served = tuple(local for local in one.accounts if local.account_id not in over)
    queued = tuple(local for local in one.queued if local.account_id not in over)
    if not (served or queued or one.remote):
        raise MailError(
            Code.TOO_BIG, f"{one.address} takes messages of {max(dict(one.smaller).values())} octets at most"
        )
    return replace(one, accounts=served, queued=queued)


async def _full_members_later(envelope: Envelope, size: int) -> Envelope:
    """The envelope in which members of an alias who have no room are left to the queue, if another member is served."""
    shared = [one for one in envelope.recipients if one.accounts and len(one.accounts) + len(one.remote) > 1]
    if not shared:
        return envelope
    async with db.read() as tx:
        full = await without_room(tx, {local.account_id for one in shared for local in one.accounts}, size)
    if not full:
        return envelope
    return replace(
        envelope, recipients=tuple(_later(one, full) if one in shared else one for one in envelope.recipients)
    )


def _later(recipient: envelopes.Recipient, full: set[int]) -> envelopes.Recipient:
    served = tuple(local for local in recipient.accounts if local.account_id not in full)
    if not served and not recipient.remote:
        return recipient
    late = tuple(local for local in recipient.accounts if local.account_id in full)
    return replace(recipient, accounts=served, queued=recipient.queued + late)


async def _aside(octets: int, work: Callable[[], T]) -> T:
    """The result of work on that many octets: beside the event loop if they are many."""
    return work() if octets <= INLINE_OCTETS else await asyncio.to_thread(work)


async def _outgoing(
    envelope: Envelope, header: bytes, content: bytes, trace: bytes, message_id: str | None
) -> list[Outgoing]:
    """What goes through the queue: to people elsewhere, and where addresses here lead to elsewhere."""
    if not any(one.remote or one.queued or one.wants_receipt for one in envelope.recipients):
        return []
    legs = await onward.legs(envelope, header)
    if not legs:
        return []
    requiretls = envelope.requiretls or headers.tls_required(header)
    body = await _aside(len(content), partial(_body, envelope, content))
    return [
        Outgoing(
            sender=leg.sender,
            recipients=leg.recipients,
            trace_id=envelope.trace_id,
            raw=content,
            account_id=envelope.account_id,
            prepend=leg.lines + trace,
            smtputf8=envelope.smtputf8,
            body=body,
            requiretls=requiretls,
            dsn_ret=envelope.ret,
            dsn_envid=envelope.envid,
            send_after=envelope.send_after,
            by=_by(envelope),
            priority=envelope.priority,
            message_id=message_id,
        )
        for leg in legs
    ]


def _by(envelope: Envelope) -> By | None:
    """The time for what goes through the queue. Nothing comes back to a stranger, who may be forged: of his mail only
    what is for people here goes there, when it was to come back."""
    return None if envelope.account_id is None and envelope.by and envelope.by.returns else envelope.by


def _body(envelope: Envelope, content: bytes) -> Body:
    """What the next server must be able to take; what was declared as binary and is not can go anywhere."""
    if envelope.binary:
        check = OctetCheck()
        check.feed(content)
        if check.finish() is not None or _BINARY_PART.search(content):
            return "BINARYMIME"
    return "7BIT" if content.isascii() else "8BITMIME"


def _accepted(envelope: Envelope, verdict: Verdict, size: int, message_id: str | None) -> Event:
    source = envelope.source
    detail: dict[str, object] = {
        "from": source.address,
        "helo": source.helo,
        "protocol": source.protocol,
        "size": size,
        "recipients": len(envelope.recipients),
    }
    if source.tls:
        detail["tls"] = source.tls
    if envelope.requiretls:
        detail["requiretls"] = True
    if envelope.by:
        detail["deliver_by"] = str(envelope.by)
    if envelope.priority:
        detail["priority"] = envelope.priority
    if verdict.findings:
        detail["checks"] = verdict.reasons()
    if envelope.account_id is not None:
        # The sender may know of those he wrote to, and not of whom they lead to.
        detail["to"] = [one.address.lower() for one in envelope.recipients]
    detail.update(envelope.note)
    return Event(
        envelope.trace_id, "accepted", envelope.account_id, sender=envelope.sender, message_id=message_id, detail=detail
    )


def _expanded(envelope: Envelope) -> list[Event]:
    """One step for each recipient whose address is not that of a single mailbox or a server elsewhere."""
    events = []
    for recipient in envelope.recipients:
        here = (*recipient.accounts, *recipient.queued)
        targets = [local.address for local in here] + list(recipient.remote)
        if len(targets) > 1 or targets[0] != recipient.address:
            events.append(
                Event(
                    envelope.trace_id,
                    "expanded",
                    sender=envelope.sender,
                    recipient=recipient.address,
                    detail={"to": targets[:20], "targets": len(targets)},
                )
            )
    return events
