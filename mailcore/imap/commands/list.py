"""LIST and LSUB, with LIST-EXTENDED, LIST-STATUS, CHILDREN and SPECIAL-USE (RFC 9051 §6.3.9, 5258, 5819, 6154)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from mailcore import db
from mailcore.imap.commands import metadata, status
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.session import Session
from mailcore.store import mailboxes
from mailcore.store.mailboxes import Mailbox
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
        found = await mailboxes.all(tx, session.account_id)
        subscribed = set(await mailboxes.subscriptions(tx, session.account_id))
        freeable = await status.reclaimable(tx, session.account_id, found, status_items)
        entries = list(_entries(args, found, subscribed))
        listed = [mailbox for _, mailbox, _, _ in entries if mailbox is not None]
        annotations = await metadata.lines(tx, session, listed, args.metadata)
    lines = []
    for name, mailbox, attributes, childinfo in entries:
        lines.append(response.list_line(name, attributes, utf8=session.utf8, childinfo=childinfo))
        if mailbox is not None and mailbox.id in annotations:
            lines.append(annotations[mailbox.id])
        if status_items and mailbox is not None:
            lines.append(status.line(session, mailbox, status_items, freeable))
    session.send(b"".join(lines))
    return Done("LIST completed")


@command("LSUB", state=LOGGED_IN)
async def lsub(session: Session, command: Command) -> Done:
    """Say which subscribed names match; with %, also the levels above such names (RFC 3501 §6.3.9)."""
    args = cast(ListArgs, command.args)
    matches = _matcher(args)
    async with db.read() as tx:
        found = {mailbox.name for mailbox in await mailboxes.all(tx, session.account_id)}
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


Entry = tuple[str, Mailbox | None, list[str], list[str]]


def _entries(args: ListArgs, found: Iterable[Mailbox], subscribed: set[str]) -> Iterable[Entry]:
    """(name, mailbox or None, attributes, CHILDINFO) of what LIST answers, INBOX first, then by name."""
    matches = _matcher(args)
    selection, returns = args.selection, args.returns
    by_name = {mailbox.name: mailbox for mailbox in found}
    parents_of_mailboxes = {parent for name in by_name for parent in parents(name)}
    want_subscribed = "SUBSCRIBED" in selection
    names = set(by_name) | (subscribed if want_subscribed else set())
    chosen = {
        name
        for name in names
        if (not want_subscribed or name in subscribed)
        and ("SPECIAL-USE" not in selection or (name in by_name and by_name[name].special_use))
    }
    answers: dict[str, list[str]] = {name: [] for name in chosen if matches(name)}
    if "RECURSIVEMATCH" in selection:
        # A level above a chosen mailbox that itself does not match the pattern speaks for it (RFC 5258 §3.5).
        for name in chosen:
            for parent in parents(name):
                if matches(parent):
                    info = answers.setdefault(parent, [])
                    if want_subscribed and "SUBSCRIBED" not in info:
                        info.append("SUBSCRIBED")
    show_use = "SPECIAL-USE" in selection or "SPECIAL-USE" in returns or not args.extended
    show_subscribed = want_subscribed or "SUBSCRIBED" in returns
    for name in sorted(answers, key=lambda one: (one != mailboxes.INBOX, one)):
        mailbox = by_name.get(name)
        attributes = []
        if mailbox is None:
            attributes.append("\\NonExistent")
        if show_subscribed and name in subscribed:
            attributes.append("\\Subscribed")
        attributes.append("\\HasChildren" if name in parents_of_mailboxes else "\\HasNoChildren")
        if show_use and mailbox is not None and mailbox.special_use:
            attributes.append(mailbox.special_use)
        yield name, mailbox, attributes, answers[name]
