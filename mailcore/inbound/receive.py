"""From an accepted envelope and the message's octets to the commit: checked, filed, stored and queued, all or nothing.

Either all of it happens or nothing: when one of the mailboxes has filled up since RCPT, nobody gets the message and the
sender's server keeps it, so that neither a copy is lost nor a bounce is written to a sender who may be forged. Only of
an alias a full member does not keep the others from their mail: that copy waits in the queue until there is room.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.inbound import checks, headers
from mailcore.inbound import envelope as envelopes
from mailcore.inbound.checks import Check, Letter, form, loop
from mailcore.inbound.envelope import Envelope
from mailcore.inbound.file import placements
from mailcore.inbound.recipients import without_room
from mailcore.inbound.verdict import Action, Verdict, decide
from mailcore.store.append import Incoming
from mailcore.store.ingest import Ingest
from mailcore.store.queue import Outgoing, Recipient
from mailcore.store.trace import Event

# Parsing an ordinary message of this size takes 1 ms; a thread costs more than it saves below that.
INLINE_OCTETS = 1 << 20

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
        verdict = await self._judge(Letter(envelope, header, content))
        if envelope.account_id is None:
            kept = headers.without_forged_results(header, self.hostname)
        else:
            kept = headers.completed(header, envelope, self.hostname)
        if kept is not header:
            content = kept + parts.body
        trace = headers.received(envelope, self.hostname)
        stored = b"".join((headers.return_path(envelope), trace, content))
        envelope = await _full_members_later(envelope, len(stored))
        places = placements(envelope, verdict)
        items = []
        message_id = None
        if places:
            derived = await _parse(stored)
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
        queue = _outgoing(envelope, content, trace, message_id)
        events = [_accepted(envelope, verdict, len(stored), message_id), *_expanded(envelope)]
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
    late = tuple(local.address for local in recipient.accounts if local.account_id in full)
    return replace(recipient, accounts=served, remote=recipient.remote + late)


async def _parse(raw: bytes) -> mime.Derived:
    if len(raw) <= INLINE_OCTETS:
        return mime.parse(raw)
    return await asyncio.to_thread(mime.parse, raw)


def _outgoing(envelope: Envelope, content: bytes, trace: bytes, message_id: str | None) -> list[Outgoing]:
    """What goes through the queue: recipients elsewhere, and what aliases here lead to elsewhere; each address once."""
    remote: dict[str, Recipient] = {}
    for recipient in envelope.recipients:
        for address in (recipient.address,) if recipient.wants_receipt else recipient.remote:
            remote.setdefault(address, Recipient(address, recipient.notify, recipient.orcpt))
    if not remote:
        return []
    return [
        Outgoing(
            sender=envelope.sender,
            recipients=tuple(remote.values()),
            trace_id=envelope.trace_id,
            raw=content,
            account_id=envelope.account_id,
            prepend=trace,
            smtputf8=envelope.smtputf8,
            body_8bit=not content.isascii(),
            dsn_ret=envelope.ret,
            dsn_envid=envelope.envid,
            send_after=envelope.send_after,
            message_id=message_id,
        )
    ]


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
    if verdict.findings:
        detail["checks"] = verdict.reasons()
    detail.update(envelope.note)
    return Event(
        envelope.trace_id, "accepted", envelope.account_id, sender=envelope.sender, message_id=message_id, detail=detail
    )


def _expanded(envelope: Envelope) -> list[Event]:
    """One step for each recipient whose address is not that of a single mailbox or a server elsewhere."""
    events = []
    for recipient in envelope.recipients:
        targets = [local.address for local in recipient.accounts] + list(recipient.remote)
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
