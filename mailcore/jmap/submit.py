"""Sending an email: the envelope is checked, then it goes the way of every submitted message (mailcore.inbound)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from accounts.addresses import Parsed, parse_address
from accounts.errors import AddressError
from mailcore import db
from mailcore.auth.senders import sender_allowed
from mailcore.errors import Code, MailError
from mailcore.inbound import headers, sending
from mailcore.inbound.envelope import MAX_WAYS, Envelope, Recipient, Source
from mailcore.inbound.recipients import Directory, Writer, held
from mailcore.inbound.sending import MIN_BY
from mailcore.jmap import ids, limits, queries, values
from mailcore.jmap.context import Context
from mailcore.jmap.errors import MethodError, SetError, invalid
from mailcore.jmap.identities import Sender, identities
from mailcore.jmap.submissions import submission_id
from mailcore.mime import Summary
from mailcore.store import fetch, trace
from mailcore.wire.smtp.params import By, parse_mail_params
from mailcore.wire.smtp.reply import CommandError

Json = dict[str, Any]

MAX_AUTHORS = 20
AT_ONCE = 16  # recipients looked up together
PROPERTIES = frozenset({"identityId", "emailId", "envelope"})


@dataclass(frozen=True, slots=True)
class _Letter:
    """An email to be sent."""

    number: int
    thread: int
    raw: bytes
    summary: Summary


@dataclass(frozen=True, slots=True)
class _Route:
    """An envelope: from whom, to whom, not before when, within which time (RFC 2852), how urgent (RFC 6710)."""

    sender: str
    to: Sequence[Parsed]
    send_after: datetime | None
    by: By | None = None
    priority: int = 0


async def submit(context: Context, given: Json) -> tuple[int, Json]:
    """Send the email that an EmailSubmission to be created names; returns its number and the server-set properties.

    Raises SetError (RFC 8621 §7.5), MailError(UNAVAILABLE).
    """
    for name in given:
        if name not in PROPERTIES:
            raise invalid(f"{name[:100]} cannot be set", name[:100])
    async with context.services.large:
        return await _submit(context, given)


async def _submit(context: Context, given: Json) -> tuple[int, Json]:
    async with db.read() as tx:
        sender, account = await _identity(tx, context, given)
        letter = await _letter(tx, context, given)
        route = _route(given, sender, letter)
        await _require_own(tx, context, route, letter)
    writer = Writer(route.sender, context.account_id, tls=True)
    to = await _resolved(context.services.directory, writer, route, len(letter.raw))
    trace_id = trace.new_id()
    now = datetime.now(UTC)
    note: Json = {
        "from": context.caller.source,
        "account": account,
        "login": context.caller.how,
        "email": letter.number,
        "thread": letter.thread,
        "identity": sender.id,
        "to": [str(one) for one in route.to],
    }
    if route.send_after is not None:
        note["held"] = route.send_after.isoformat()
    hostname = context.services.hostname
    utf8 = not letter.raw[: len(headers.split(letter.raw).header)].isascii()
    envelope = Envelope(
        trace_id,
        # Where the writer sits is nobody's business but ours: the trace knows it, Received does not.
        Source("127.0.0.1", hostname, "HTTP"),
        route.sender,
        to,
        context.account_id,
        smtputf8=utf8 or not all(one.is_ascii for one in route.to) or not route.sender.isascii(),
        send_after=route.send_after,
        by=route.by,
        priority=await sending.priority(context.account_id, route.priority),
        note=note,
    )
    try:
        await context.services.receiver.receive(envelope, letter.raw)
    except MailError as error:
        if error.code is Code.UNAVAILABLE:
            raise
        raise SetError("forbiddenToSend", error.text) from None
    return letter.number, {
        "id": submission_id(trace_id),
        "threadId": ids.thread(letter.thread),
        "sendAt": values.utc(route.send_after or now),
        "undoStatus": "pending" if route.send_after else "final",
        "envelope": {
            "mailFrom": {"email": route.sender, "parameters": None},
            "rcptTo": [{"email": str(one), "parameters": None} for one in route.to],
        },
    }


async def _identity(tx: db.Tx, context: Context, given: Json) -> tuple[Sender, str]:
    """The identity that is meant, and the account's own address."""
    found = await identities(tx, context.account_id)
    for one in found:
        if one.id == given.get("identityId"):
            return one, found[0].email
    raise invalid("there is no such identity", "identityId")


async def _letter(tx: db.Tx, context: Context, given: Json) -> _Letter:
    wanted = given.get("emailId")
    number = ids.number_of(context.resolve(wanted), "M") if isinstance(wanted, str) else None
    if number is None or number not in await queries.presences(tx, context.account_id, [number]):
        raise SetError("invalidProperties", "there is no such email", ["emailId"])
    rows = await fetch.messages(tx, context.account_id, [number], ("thread_id", "summary"))
    raw = await fetch.raw(tx, context.account_id, number)
    return _Letter(number, rows[0][0], raw, Summary.from_json(rows[0][1]))


def _route(given: Json, sender: Sender, letter: _Letter) -> _Route:
    envelope = given.get("envelope")
    if envelope is None:
        people = [*letter.summary.to, *letter.summary.cc, *letter.summary.bcc]
        # An identity for a whole domain (RFC 8621 §6) leaves it to From.
        author = letter.summary.from_[0].email if sender.email.startswith("*@") and letter.summary.from_ else ""
        return _Route(author or sender.email, _parsed([one.email for one in people]), None)
    if not isinstance(envelope, dict):
        raise invalid("envelope must be an object", "envelope")
    sender_address, parameters = _address(envelope.get("mailFrom"))
    rcpt_to = envelope.get("rcptTo")
    if not isinstance(rcpt_to, list):
        raise invalid("rcptTo must be a list", "envelope")
    addresses = []
    for item in rcpt_to[: limits.MAX_RECIPIENTS + 1]:
        address, unknown = _address(item)
        if unknown:
            raise invalid("recipients take no parameters here", "envelope")
        addresses.append(address)
    by, priority = _wishes({name: parameters.pop(name) for name in ("BY", "MT-PRIORITY") if name in parameters})
    return _Route(sender_address, _parsed(addresses), _held_until(parameters), by, priority)


def _address(value: Any) -> tuple[str, Json]:
    """(email, parameters) of an Address object (RFC 8621 §7)."""
    if not isinstance(value, dict) or not isinstance(value.get("email"), str):
        raise invalid("an address of an envelope has an email", "envelope")
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict) or not all(isinstance(item, str | None) for item in parameters.values()):
        raise invalid("parameters must be a map of strings", "envelope")
    return value["email"], {name.upper(): item for name, item in parameters.items()}


def _wishes(parameters: Json) -> tuple[By | None, int]:
    words = " ".join(name if value is None else f"{name}={value}" for name, value in parameters.items())
    try:
        found = parse_mail_params(words, parameters)
    except CommandError as error:
        raise invalid(error.text, "envelope") from None
    if found.by is not None and found.by.returns and found.by.seconds < MIN_BY:
        raise invalid(f"mail can be returned after {MIN_BY} seconds at the earliest", "envelope")
    return found.by, found.priority


def _held_until(parameters: Json) -> datetime | None:
    """HOLDFOR or HOLDUNTIL (RFC 4865); None = send at once."""
    now = datetime.now(UTC)
    if not parameters:
        return None
    if len(parameters) != 1 or not parameters.keys() <= {"HOLDFOR", "HOLDUNTIL"}:
        raise invalid("of MAIL's parameters BY, MT-PRIORITY and HOLDFOR or HOLDUNTIL can be given", "envelope")
    ((name, value),) = parameters.items()
    try:
        if name == "HOLDFOR":
            if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10):
                raise ValueError(value)
            until = now + timedelta(seconds=int(value))
        else:
            until = values.parse_date(value, name).astimezone(UTC)
    except (MethodError, ValueError):
        raise invalid(f"{name} cannot be read", "envelope") from None
    if until > now + timedelta(seconds=limits.MAX_DELAYED_SEND + 60):
        raise invalid(f"mail can be held back for {limits.MAX_DELAYED_SEND} seconds at most", "envelope")
    return until if until > now else None


def _parsed(addresses: Sequence[str]) -> list[Parsed]:
    """Recipients, each once. Raises SetError noRecipients, tooManyRecipients, invalidRecipients."""
    if len(addresses) > limits.MAX_RECIPIENTS:
        text = f"a message has {limits.MAX_RECIPIENTS} recipients at most"
        raise SetError("tooManyRecipients", text, maxRecipients=limits.MAX_RECIPIENTS)
    found: dict[str, Parsed] = {}
    wrong: list[str] = []
    for address in addresses:
        try:
            parsed = parse_address(address)
        except AddressError:
            wrong.append(address)
        else:
            found.setdefault(str(parsed), parsed)
    if wrong:
        raise SetError("invalidRecipients", "these addresses cannot be used", invalidRecipients=wrong)
    if not found:
        raise SetError("noRecipients", "there is no recipient")
    return list(found.values())


async def _require_own(tx: db.Tx, context: Context, route: _Route, letter: _Letter) -> None:
    """Envelope and From must be the account's own. Raises SetError."""
    authors = headers.authors(headers.split(letter.raw).header)
    if not authors:
        raise SetError("invalidEmail", "an email that is sent has one From field", ["from"])
    if len(authors) > MAX_AUTHORS:
        raise SetError("invalidEmail", "there are too many addresses in From", ["from"])
    for author in authors:
        if not await sender_allowed(tx, context.account_id, author):
            raise SetError("forbiddenFrom", f"you may not send as {author[:200]}")
    if not await sender_allowed(tx, context.account_id, route.sender):
        raise SetError("forbiddenMailFrom", f"you may not send as {route.sender[:200]}")


async def _resolved(directory: Directory, writer: Writer, route: _Route, size: int) -> tuple[Recipient, ...]:
    """Where the recipients lead. What is held back waits in the queue, for people here as well: so it can be taken
    back."""
    found: list[Recipient] = []
    wrong: dict[str, str] = {}
    ways = 0
    for start in range(0, len(route.to), AT_ONCE):
        some = route.to[start : start + AT_ONCE]
        answers = await asyncio.gather(
            *(directory.resolve(one, writer, size=size) for one in some), return_exceptions=True
        )
        for parsed, answer in zip(some, answers, strict=True):
            if isinstance(answer, Recipient):
                ways += answer.ways
                found.append(answer if route.send_after is None else held(answer))
            elif isinstance(answer, MailError) and answer.code is not Code.UNAVAILABLE:
                wrong[str(parsed)] = answer.text
            else:
                raise answer
        if ways > MAX_WAYS and len(route.to) > 1:
            text = f"these recipients lead to more than {MAX_WAYS} people: write to some of them in another message"
            raise SetError("tooManyRecipients", text, maxRecipients=max(1, len(found) - 1))
    if wrong:
        # `reasons` is ours (RFC 8620 §5.3 allows it): one does not help who wrote to several.
        why = next(iter(wrong.values()))
        raise SetError("invalidRecipients", why, invalidRecipients=list(wrong), reasons=wrong)
    return tuple(found)
