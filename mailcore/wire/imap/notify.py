"""NOTIFY on the wire (RFC 5465): which events of which mailboxes a client wants to hear of."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import FetchItem, parse_items
from mailcore.wire.imap.response import atom, code, paren
from mailcore.wire.imap.tokens import Cursor

MAX_GROUPS = 50
MAX_NAMES = 500
SELECTED = frozenset(("SELECTED", "SELECTED-DELAYED"))
_NAMED = frozenset(("SUBTREE", "SUBTREE-ONE", "MAILBOXES"))
_FILTERS = SELECTED | _NAMED | {"INBOXES", "PERSONAL", "SUBSCRIBED"}
_MESSAGE_EVENTS = frozenset(("MESSAGENEW", "MESSAGEEXPUNGE", "FLAGCHANGE", "ANNOTATIONCHANGE"))
# Those that can be had, as the RFC writes them.
EVENTS = (
    "MessageNew",
    "MessageExpunge",
    "FlagChange",
    "MailboxName",
    "SubscriptionChange",
    "MailboxMetadataChange",
    "ServerMetadataChange",
)
_SUPPORTED = frozenset(name.upper() for name in EVENTS)


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Events, in upper case, of the mailboxes that a filter names; without any, those mailboxes are left in peace.

    `items`: what is to be told of new messages (SELECTED and SELECTED-DELAYED only).
    """

    filter: str
    names: tuple[str, ...] = ()
    events: frozenset[str] = frozenset()
    items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class NotifyArgs:
    """NOTIFY; no groups for NOTIFY NONE. `status`: the state of the mailboxes is wanted at once."""

    groups: tuple[EventGroup, ...]
    status: bool = False


def parse_notify(cursor: Cursor) -> NotifyArgs:
    """NONE, or SET [STATUS] (filter events) ..."""
    cursor.space("NONE or SET")
    if cursor.one_of(frozenset(("NONE", "SET")), "NONE or SET") == "NONE":
        return NotifyArgs(())
    cursor.space("STATUS or event groups")
    status = False
    if not cursor.looking_at(b"("):
        cursor.one_of(frozenset(("STATUS",)), "STATUS or event groups")
        cursor.space("event groups")
        status = True
    groups = [_group(cursor)]
    while cursor.try_take(b" "):
        groups.append(_group(cursor))
        if len(groups) > MAX_GROUPS:
            raise ImapSyntaxError(f"More than {MAX_GROUPS} event groups", code="LIMIT")
    if sum(group.filter in SELECTED for group in groups) > 1:
        raise ImapSyntaxError("There is one group for the selected mailbox at most (RFC 5465 section 6.1)")
    unknown = frozenset().union(*(group.events for group in groups)) - _SUPPORTED
    if unknown:
        supported = code("BADEVENT", paren(atom(name) for name in EVENTS))
        raise ImapSyntaxError(
            f"Not supported: {', '.join(sorted(unknown))[:200]}", status="NO", code=supported.decode()
        )
    return NotifyArgs(tuple(groups), status)


def _group(cursor: Cursor) -> EventGroup:
    cursor.expect(b"(", "'(' and a mailbox filter")
    kind = cursor.one_of(_FILTERS, "a mailbox filter")
    names: tuple[str, ...] = ()
    if kind in _NAMED:
        cursor.space("mailbox names")
        if cursor.looking_at(b"("):
            names = tuple(dict.fromkeys(cursor.paren_list(cursor.mailbox, "mailbox names", limit=MAX_NAMES)))
        else:
            names = (cursor.mailbox(),)
    cursor.space("events or NONE")
    events: set[str] = set()
    items: tuple[FetchItem, ...] = ()
    if cursor.looking_at(b"("):

        def event() -> None:
            nonlocal items
            name = cursor.word("an event such as MessageNew")
            events.add(name)
            if name == "MESSAGENEW" and cursor.looking_at(b" ("):
                cursor.space("FETCH items")
                items = parse_items(cursor)

        cursor.paren_list(event, "events", limit=50)
    else:
        cursor.one_of(frozenset(("NONE",)), "events in parentheses, or NONE")
    cursor.expect(b")", "')'")
    _check(kind, frozenset(events), items)
    return EventGroup(kind, names, frozenset(events), items)


def _check(kind: str, events: frozenset[str], items: tuple[FetchItem, ...]) -> None:
    """What may not be asked for together (RFC 5465 §5)."""
    if ("MESSAGENEW" in events) != ("MESSAGEEXPUNGE" in events):
        raise ImapSyntaxError("MessageNew and MessageExpunge come together")
    if "FLAGCHANGE" in events and "MESSAGENEW" not in events:
        raise ImapSyntaxError("FlagChange comes with MessageNew and MessageExpunge")
    if kind in SELECTED and events - _MESSAGE_EVENTS:
        raise ImapSyntaxError("Of the selected mailbox only events of messages can be had")
    if items and kind not in SELECTED:
        raise ImapSyntaxError("FETCH items are for the selected mailbox only")
