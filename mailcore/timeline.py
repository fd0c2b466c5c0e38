"""Where is my mail? The history of messages in people's words: for the terminal, administrators and people themselves.

`store.trace` finds the events; here they become messages with steps, and what the asker may not see is left out.

Who may see what. Who sent a message sees his own steps and, of each address that he wrote to, what an outside sender
would be told by a notice (RFC 3461 §5.2.7): that an alias or a group has it, not who is behind it. A recipient sees
what concerns his own addresses. Nobody sees another's mailbox, client, reasons of refusal or other recipients. Whoever
administers a domain sees where its addresses lead, and what its accounts sent. Without a viewer: the superuser.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from accounts.addresses import AddressError, parse_address
from mailcore import phrases
from mailcore.store.trace import MAX_EVENTS, Found
from mailcore.words import printable

# What a step means for its recipient; the last one that says something is the state.
STATES = {
    "stored": "in the mailbox",
    "queued": "waiting",
    "deferred": "waiting",
    "retry": "waiting",
    "released": "waiting",
    "redirected": "redirected",
    "held": "on hold",
    "delivered": "delivered",
    "discarded": "discarded",
    "failed": "failed",
    "refused": "refused",
    "aborted": "broke off",
    "removed": "removed",
    "canceled": "taken back",
}
# Of what a stranger's server did not get to us there is no message.
WITHOUT_MESSAGE = frozenset({"refused", "aborted"})
# What only the one whose mailbox it is, or an administrator, has to know.
_OF_THE_MAILBOX = frozenset({"mailbox", "uid", "email"})
# What its recipients may know of a message as such: not who else got it, and how many, and of people here not where
# they sit.
_OF_THE_MESSAGE = frozenset({"size", "checks", "requiretls"})
_OF_THE_CLIENT = frozenset({"from", "helo", "protocol", "tls", "at", "reply", "more", "since"})
# What administrators write for each other.
_OF_ADMINISTRATORS = {
    "refused": frozenset({"reason"}),
    "held": frozenset({"reason", "reply"}),
    "redirected": frozenset({"to"}),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened: when, its name, to whom (an address, or None: to the message), and how.

    `words` has it as administrators say it, `sentence` as everybody does, `quote` a server's own words.
    """

    at: datetime
    name: str
    who: str | None
    words: str
    sentence: str = ""
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message's history; `states` says of each recipient where the message is now.

    `sent`: the viewer sent it. `account`: who submitted it. `cut`: there are more steps than were looked at.
    """

    trace_id: str
    sender: str | None
    message_id: str | None
    steps: tuple[Step, ...]
    states: Mapping[str, str]
    sent: bool = False
    account: str | None = None
    more: int = 0
    cut: bool = False

    @property
    def begun(self) -> datetime:
        """When it came."""
        return self.steps[0].at

    @property
    def last(self) -> datetime:
        """When something happened to it last."""
        return self.steps[-1].at


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a person (`account_id`, the `addresses` that are hers) or the administrator of `domains`.

    `manages`: domains that a person looks after as well; she may know who is behind their addresses.
    """

    account_id: int | None = None
    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    manages: frozenset[str] = frozenset()

    def owns(self, address: str | None) -> bool:
        """Whether mail to this address is the viewer's business; +tags belong to their address."""
        if address is None:
            return False
        if _domain(address) in self.domains or address in self.addresses:
            return True
        local, plus, rest = address.partition("+")
        return bool(plus) and f"{local}@{rest.rpartition('@')[2]}" in self.addresses

    def knows_behind(self, address: str | None) -> bool:
        """Whether the viewer may know where an address leads."""
        return self.owns(address) or _domain(address) in self.manages

    def submitted(self, event: Found) -> bool:
        """Whether this step is about what the viewer's account, or an account of the viewer's domains, handed in."""
        if event.account_id is None:
            return False
        if self.account_id is not None:
            return event.account_id == self.account_id
        account = event.detail.get("account")
        return _domain(account) in self.domains or _domain(event.sender) in self.domains

    def sent(self, events: Sequence[Found]) -> bool:
        """Whether the viewer, or an account of the viewer's domains, sent the message of these events, or tried to."""
        first = next((event for event in events if event.step == "accepted"), None)
        if first is not None:
            return self.submitted(first)
        return all(event.step in WITHOUT_MESSAGE and self.submitted(event) for event in events)


def messages(
    found: Sequence[Found],
    viewer: Viewer | None = None,
    mailboxes: Mapping[tuple[int | None, Any], str] | None = None,
    steps: int = MAX_EVENTS,
) -> list[Message]:
    """Events in order, as `store.trace` finds them, as messages; without those that are not the viewer's business.

    `mailboxes` has names by account and number; None: the asker is not told any. Without a viewer everything is shown.
    The newest message, by the time it came, is the first. What has more than `steps` is cut, and its states are open.
    """
    told = []
    grouped: dict[str, list[Found]] = {}
    for event in found:
        grouped.setdefault(event.trace_id, []).append(event)
    if len(found) >= MAX_EVENTS and len(grouped) > 1:
        grouped.popitem()  # only a part of it: the next question begins with it
    for trace_id, events in grouped.items():
        seen = events if viewer is None else _visible(events, viewer)
        if seen:
            sent = viewer.sent(events) if viewer is not None else events[0].account_id is not None
            message = _message(trace_id, seen, viewer, mailboxes, sent)
            told.append(replace(message, cut=True, states={}) if len(events) >= steps else message)
    return sorted(told, key=lambda message: message.begun, reverse=True)


def _visible(events: Sequence[Found], viewer: Viewer) -> list[Found]:
    sent = viewer.sent(events)
    if not sent and not any(viewer.owns(event.recipient) for event in events):
        return []
    may = _seen_recipients(events, viewer, sent=sent)
    kept = []
    done = {event.recipient for event in events if event.step == "delivered"}
    for event in events:
        if event.step == "expanded" and event.recipient in done and not viewer.knows_behind(event.recipient):
            continue  # that it was delivered is said already
        if event.recipient is None:
            kept.append(_cleaned(event, viewer) if sent else _for_recipients(event))
        elif viewer.owns(event.recipient) or (sent and event.step == "dsn") or may(event.recipient):
            event = _cleaned(event, viewer)
            if event.step == "dsn" and "recipients" in event.detail and _original(event):
                named = [each for each in event.detail["recipients"] if may(each)]
                event = replace(event, detail=event.detail | {"recipients": named})
            kept.append(event)
    return kept


def _original(event: Found) -> bool:
    """Whether a notice's step stands in the history of the message that it is about."""
    return "id" in event.detail


def _seen_recipients(events: Sequence[Found], viewer: Viewer, *, sent: bool) -> Callable[[str], bool]:
    """Which recipients the viewer may know of: his own, whom he wrote to, who is behind an address he looks after."""
    behind: set[str] = set()
    hidden: set[str] = set()
    for event in events:
        if event.step in ("expanded", "redirected"):
            to = _listed(event.detail.get("to"))
            known = viewer.knows_behind(event.recipient)
            if event.step == "redirected":
                known = sent and bool(viewer.domains)
            (behind if known else hidden).update(to)
    first = next((event for event in events if event.step == "accepted"), None)
    wrote = None if first is None or "to" not in first.detail else frozenset(_listed(first.detail["to"]))

    def may(address: str) -> bool:
        if viewer.owns(address) or address in behind:
            return True
        return sent and (address in wrote if wrote is not None else address not in hidden)

    return may


def _listed(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return (value.lower(),)
    return [str(each).lower() for each in value] if isinstance(value, list | tuple) else ()


def _cleaned(event: Found, viewer: Viewer) -> Found:
    """A step without what it says of others' clients, mailboxes and addresses."""
    left = dict(event.detail)
    if not viewer.owns(event.recipient):
        for name in _OF_THE_MAILBOX & left.keys():
            if event.step == "stored":
                del left[name]
    if event.step == "expanded" and not viewer.knows_behind(event.recipient):
        left = {}
    if event.step in WITHOUT_MESSAGE and event.account_id is not None and not viewer.submitted(event):
        left = {}
    elif (
        event.step in ("accepted", *WITHOUT_MESSAGE) and event.account_id is not None and not _may_locate(event, viewer)
    ):
        left = {name: value for name, value in left.items() if name not in ("from", "helo", "tls")}
    if not viewer.domains:
        for name in ("rule", *_OF_ADMINISTRATORS.get(event.step, ())):
            left.pop(name, None)
        # Our own words for what happened here may name where an address leads.
        if event.step == "delivered" and not left.get("host") and not viewer.owns(event.recipient):
            left.pop("reply", None)
    return replace(event, detail=left)


def _may_locate(event: Found, viewer: Viewer) -> bool:
    """Whether the viewer may know where the client of an account sits: not of who merely may send as her domain."""
    if viewer.account_id is not None:
        return event.account_id == viewer.account_id
    account = event.detail.get("account") or event.sender
    return _domain(account) in viewer.domains


def _for_recipients(event: Found) -> Found:
    known = _OF_THE_MESSAGE if event.account_id is not None else _OF_THE_MESSAGE | _OF_THE_CLIENT
    return replace(event, detail={key: value for key, value in event.detail.items() if key in known})


def _message(
    trace_id: str,
    events: Sequence[Found],
    viewer: Viewer | None,
    mailboxes: Mapping[tuple[int | None, Any], str] | None,
    sent: bool,
) -> Message:
    states: dict[str, str] = {}
    steps = []
    for event in events:
        detail = dict(event.detail)
        if event.recipient is not None and event.step in STATES:
            states[printable(event.recipient)] = STATES[event.step]
        elif event.recipient is not None and event.step == "expanded" and not detail:
            states[printable(event.recipient)] = STATES["delivered"]
        elif event.step == "dsn" and _original(event) and detail.get("kind") == "failed":
            # What failed may be behind an address, where the viewer does not see it.
            told = map(printable, detail.get("recipients", ()))
            states |= {each: STATES["failed"] for each in told if each in states}
        if "mailbox" in detail:
            key = (event.account_id, detail["mailbox"])
            detail["mailbox"] = "a mailbox" if mailboxes is None else mailboxes.get(key)
        if event.step == "queued" and event.outbound_id is not None:
            detail["number"] = event.outbound_id
        if detail.get("reason") == event.recipient:  # who is meant is said already
            detail.pop("reason", None)
        who = _shown(event.recipient if event.recipient is not None else event.sender)
        steps.append(
            Step(
                event.at,
                event.step,
                who,
                phrases.words(event.step, detail),
                phrases.sentence(event.step, detail, sent=sent),
                phrases.quote(event.step, detail),
            )
        )
    sender = next((event.sender for event in events if event.sender is not None), None)
    message_id = next((event.message_id for event in events if event.message_id), None)
    account = next((event.detail["account"] for event in events if event.detail.get("account")), None)
    more = sum(phrases.count_more(event.detail) for event in events)
    return Message(trace_id, _shown(sender), _shown(message_id), tuple(steps), states, sent, _shown(account), more)


def own_addresses(addresses: Collection[str]) -> frozenset[str]:
    """Addresses as the trace has them."""
    kept = set()
    for each in addresses:
        try:
            kept.add(str(parse_address(each)).lower())
        except AddressError:
            continue
    return frozenset(kept)


def _shown(words: str | None) -> str | None:
    """Strangers choose these words: none of them moves a terminal's cursor or turns the direction of what follows."""
    return None if words is None else printable(words)


def _domain(address: object) -> str:
    return str(address).rpartition("@")[2].lower() if address else ""
