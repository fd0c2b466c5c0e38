"""LIST and LSUB, with LIST-EXTENDED, LIST-STATUS, CHILDREN and SPECIAL-USE (RFC 9051 §6.3.9, 5258, 5819, 6154),
with LIST-MYRIGHTS (RFC 8440) and LIST-METADATA (RFC 9590)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from mailcore import db
from mailcore.imap.commands import acl, metadata, status
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import acl as rights
from mailcore.store import mailboxes
from mailcore.store.acl import Place, Right
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, ListArgs
from mailcore.wire.imap.mailbox_name import join_reference, matcher, parents


@command("LIST", state=LOGGED_IN)
async def list_(session: Session, command: Command) -> Done:
    """Say which mailboxes match, with what is known about each."""
    args = cast(ListArgs, command.args)
    if not args.extended and args.patterns == ("",):
        # The separator and the root of the reference (RFC 9051 §6.3.9).
        session.send(response.list_line("", ["\\Noselect"], utf8=session.utf8))
        return Done("LIST completed")
    status_items = args.status_items or ()
    status.note_items(session, status_items)
    async with db.read() as tx:
        found = await visible(tx, session.account_id)
        subscribed = set(await mailboxes.subscriptions(tx, session.account_id))
        entries = list(_entries(args, found, subscribed))
        listed = [place for _, place, _, _ in entries if place is not None]
        freeable = await status.reclaimable(tx, listed, status_items)
        fresh = await status.recent(tx, session, listed, status_items)
        annotations = await metadata.lines(tx, session, listed, args.metadata)
    lines = []
    for name, place, attributes, childinfo in entries:
        lines.append(response.list_line(name, attributes, utf8=session.utf8, childinfo=childinfo))
        if place is None:
            continue
        if "MYRIGHTS" in args.returns:
            lines.append(acl.line(session, place))
        if name in annotations:
            lines.append(annotations[name])
        if status_items and place.rights & Right.READ:
            lines.append(status.line(session, place, status_items, freeable, fresh))
    session.send(b"".join(lines))
    return Done("LIST completed")


async def visible(tx: db.Tx, account_id: int) -> list[Place]:
    """All mailboxes that the person may look up, his own first."""
    own = [Place(account_id, mailbox) for mailbox in await mailboxes.all(tx, account_id)]
    return own + await rights.shared(tx, account_id)


@command("LSUB", state=LOGGED_IN)
async def lsub(session: Session, command: Command) -> Done:
    """Say which subscribed names match; with %, also the levels above such names (RFC 3501 §6.3.9)."""
    args = cast(ListArgs, command.args)
    matches = _matcher(args)
    async with db.read() as tx:
        found = {place.name for place in await visible(tx, session.account_id)}
        subscribed = await mailboxes.subscriptions(tx, session.account_id)
    names: dict[str, list[str]] = {}
    for name in subscribed:
        if matches(name):
            names[name] = [] if name in found else ["\\Noselect"]
    above = {parent for name in subscribed for parent in parents(name)} if args.patterns[0].endswith("%") else set()
    for parent in above:
        if matches(parent) and parent not in names:
            names[parent] = ["\\Noselect"]
    lines = [
        response.list_line(name, attributes, command="LSUB", utf8=session.utf8)
        for name, attributes in sorted(names.items())
    ]
    session.send(b"".join(lines))
    return Done("LSUB completed")


def _matcher(args: ListArgs) -> Callable[[str], bool]:
    tests = [matcher(join_reference(args.reference, pattern)) for pattern in args.patterns]
    return tests[0] if len(tests) == 1 else lambda name: any(test(name) for test in tests)


Entry = tuple[str, Place | None, list[str], list[str]]


def _entries(args: ListArgs, found: Sequence[Place], subscribed: set[str]) -> Iterable[Entry]:
    """(name, place or None, attributes, CHILDINFO) of what LIST answers, INBOX first, then by name."""
    matches = _matcher(args)
    selection, returns = args.selection, args.returns
    by_name = {place.name: place for place in found}
    uses = {place.name: place.mailbox.special_use for place in found if not place.owner}
    parents_of_mailboxes = {parent for name in by_name for parent in parents(name)}
    above = rights.levels_above(place for place in found if place.owner)
    # What somebody shares may lie below what he does not.
    above |= {parent for name in by_name if rights.is_elsewhere(name) for parent in parents(name)} - by_name.keys()
    want_subscribed = "SUBSCRIBED" in selection
    names = set(by_name) | above | (subscribed if want_subscribed else set())
    chosen = {
        name
        for name in names
        if (not want_subscribed or name in subscribed) and ("SPECIAL-USE" not in selection or uses.get(name))
    }
    answers: dict[str, list[str]] = {name: [] for name in chosen if matches(name)}
    if "RECURSIVEMATCH" in selection:
        # A level above a chosen mailbox speaks for it, with what it was chosen by (RFC 5258 §3.5, RFC 6154 §6).
        chosen_by = sorted(selection - {"RECURSIVEMATCH", "REMOTE"})
        for name in chosen:
            answers |= {parent: chosen_by for parent in parents(name) if matches(parent)}
    show_use = "SPECIAL-USE" in selection or "SPECIAL-USE" in returns or not args.extended
    show_subscribed = want_subscribed or "SUBSCRIBED" in returns
    for name in sorted(answers, key=lambda one: (one != mailboxes.INBOX, one)):
        place = by_name.get(name)
        use = uses.get(name)
        attributes = []
        if name in above or (place is not None and not place.rights & Right.READ):
            attributes.append("\\Noselect")
        elif place is None:
            attributes.append("\\NonExistent")
        if show_subscribed and name in subscribed:
            attributes.append("\\Subscribed")
        attributes.append("\\HasChildren" if name in parents_of_mailboxes else "\\HasNoChildren")
        if show_use and use:
            attributes.append(use)
        yield name, place, attributes, answers[name]
