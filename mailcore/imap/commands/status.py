"""STATUS: a mailbox's numbers without opening it (RFC 9051 §6.3.11, RFC 7162, 8438, 8474, 7889, 9208)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from mailcore import db
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands.select import came_since_start
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl, quota
from mailcore.store.acl import Place, Right
from mailcore.store.mailboxes import Mailbox
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, StatusArgs

Numbers = Mapping[tuple[int, int], int]
"""By account and mailbox."""

_ITEMS: Mapping[str, Callable[[Mailbox], int | str]] = {
    "MESSAGES": lambda mailbox: mailbox.messages,
    "UIDNEXT": lambda mailbox: mailbox.uidnext,
    "UIDVALIDITY": lambda mailbox: mailbox.uidvalidity,
    "UNSEEN": lambda mailbox: mailbox.unseen,
    "DELETED": lambda mailbox: mailbox.deleted,
    "SIZE": lambda mailbox: mailbox.bytes,
    "HIGHESTMODSEQ": lambda mailbox: mailbox.highest_modseq,
}


@command("STATUS", state=LOGGED_IN)
async def status(session: Session, command: Command) -> Done:
    """Answer from the mailbox's counters, which are exact; no message is read."""
    args = cast(StatusArgs, command.args)
    note_items(session, args.items)
    async with db.read() as tx:
        place = (await acl.resolve(tx, session.account_id, args.mailbox)).require(Right.READ)
        freeable = await reclaimable(tx, [place], args.items)
        fresh = await recent(tx, session, [place], args.items)
    session.send(line(session, place, args.items, freeable, fresh))
    return Done("STATUS completed")


def note_items(session: Session, items: Sequence[str]) -> None:
    """Asking for HIGHESTMODSEQ enables CONDSTORE (RFC 7162 §3.1)."""
    if "HIGHESTMODSEQ" in items:
        session.enabled |= Enabled.CONDSTORE


async def recent(tx: db.Tx, session: Session, places: Iterable[Place], items: Sequence[str]) -> Numbers:
    """What RECENT says, if it is asked for."""
    if "RECENT" not in items:
        return {}
    found: dict[tuple[int, int], int] = {}
    never_selected: dict[int, list[Mailbox]] = {}
    for place in places:
        key, mailbox = (place.account_id, place.mailbox.id), place.mailbox
        known = session.server.recent.known(*key)
        if known is None:
            never_selected.setdefault(place.account_id, []).append(mailbox)
        else:
            # Exact only where messages since the last SELECT still lie at the end, which is what \\Recent is about.
            found[key] = min(mailbox.messages, max(0, mailbox.uidnext - known))
    for account_id, boxes in never_selected.items():
        for mailbox_id, (_, count) in (await came_since_start(tx, session, account_id, boxes)).items():
            found[account_id, mailbox_id] = count
    return found


async def reclaimable(tx: db.Tx, places: Iterable[Place], items: Sequence[str]) -> Numbers:
    """What DELETED-STORAGE says (RFC 9208 §4.1.4), if it is asked for."""
    if "DELETED-STORAGE" not in items:
        return {}
    wanted: dict[int, list[int]] = {}
    for place in places:
        if place.mailbox.deleted:
            wanted.setdefault(place.account_id, []).append(place.mailbox.id)
    found: dict[tuple[int, int], int] = {}
    for account_id, ids in wanted.items():
        sizes = await quota.reclaimable(tx, account_id, ids)
        found |= {(account_id, mailbox_id): size for mailbox_id, size in sizes.items()}
    return found


def line(session: Session, place: Place, items: Sequence[str], freeable: Numbers, fresh: Numbers) -> bytes:
    """* STATUS name (...)."""
    account_id, mailbox = place.account_id, place.mailbox
    values: dict[str, int | str | None] = {}
    for item in items:
        if item == "APPENDLIMIT":
            values[item] = session.server.message_size
        elif item == "DELETED-STORAGE":
            values[item] = freeable.get((account_id, mailbox.id), 0)
        elif item == "MAILBOXID":
            values[item] = session.object_id("F", account_id, mailbox.id)
        elif item == "RECENT":
            values[item] = fresh.get((account_id, mailbox.id), 0)
        else:
            values[item] = _ITEMS[item](mailbox)
    return response.status_data_line(place.name, values, utf8=session.utf8)
