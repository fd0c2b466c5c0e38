"""SELECT, EXAMINE, CLOSE, UNSELECT: entering and leaving a mailbox, with CONDSTORE and QRESYNC (RFC 7162)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import cast

from mailcore import db
from mailcore.db import Tx
from mailcore.imap import render
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import bad
from mailcore.imap.registry import LOGGED_IN, SELECTED, Done, command
from mailcore.imap.selected import Known, Selected
from mailcore.imap.session import Session
from mailcore.store import acl, changes, expunge, fetch
from mailcore.store.acl import Right
from mailcore.store.flags import SYSTEM_FLAGS
from mailcore.store.mailboxes import Mailbox
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, QresyncParams, SelectArgs
from mailcore.wire.imap.numset import NumSet

# Beyond this many modseqs the whole list of UIDs is cheaper than what changed since.
_CATCH_UP = 2_000
# How far back SELECT looks for mail that came since the process started, when nobody has selected the mailbox yet.
_RECENT_WINDOW = 500


@command("SELECT", state=LOGGED_IN)
async def select(session: Session, command: Command) -> Done:
    """Open a mailbox for reading and writing (RFC 9051 §6.3.2)."""
    return await _open(session, command, read_only=False)


@command("EXAMINE", state=LOGGED_IN)
async def examine(session: Session, command: Command) -> Done:
    """Open a mailbox for reading only (RFC 9051 §6.3.3)."""
    return await _open(session, command, read_only=True)


@command("UNSELECT", state=SELECTED)
async def unselect(session: Session, command: Command) -> Done:
    """Leave the mailbox as it is (RFC 9051 §6.4.2)."""
    session.deselect()
    return Done("UNSELECT completed")


@command("CLOSE", state=SELECTED)
async def close(session: Session, command: Command) -> Done:
    """Remove the messages marked as deleted, without telling, and leave the mailbox (RFC 9051 §6.4.1).

    No HIGHESTMODSEQ: nobody says which they were, so the client must ask from where it is (RFC 7162 §3.2.8).
    """
    view = session.view
    if not view.read_only and view.rights & Right.EXPUNGE:
        async with db.transaction() as tx:
            await expunge.expunge(tx, view.account_id, view.mailbox_id)
    session.deselect()
    return Done("CLOSE completed")


async def _open(session: Session, command: Command, *, read_only: bool) -> Done:
    args = cast(SelectArgs, command.args)
    if args.qresync is not None and not session.enabled & Enabled.QRESYNC:
        raise bad("ENABLE QRESYNC first")
    if session.selected is not None:
        # A failed SELECT leaves the old mailbox, too (RFC 9051 §6.3.2).
        session.deselect()
        session.send(response.status_line(None, "OK", "The previous mailbox is closed", "CLOSED"))
    if args.condstore:
        session.enabled |= Enabled.CONDSTORE
    try:
        # Before anything is read of the mailbox, so that nothing is missed.
        session.listen(await _account_of(session, args.mailbox))
        resync = await _load(session, args, read_only)
    except BaseException:
        session.deselect()
        raise
    if resync is not None:
        _resynchronise(session, cast(QresyncParams, args.qresync), resync)
    name = "EXAMINE" if read_only else "SELECT"
    return Done(f"{name} completed", response.code("READ-ONLY" if session.view.read_only else "READ-WRITE"))


async def _account_of(session: Session, name: str) -> int:
    if not acl.is_elsewhere(name):
        return session.account_id
    async with db.read() as tx:
        return (await acl.resolve(tx, session.account_id, name)).account_id


async def _load(session: Session, args: SelectArgs, read_only: bool) -> changes.MailboxChanges | None:
    """Read the mailbox, enter it and describe it; returns what a QRESYNC client missed."""
    server, resync = session.server, None
    # A resynchronisation compares two states, so it wants one snapshot. For the rest, what changes between two of the
    # statements has been heard of, and is reported at once.
    async with db.snapshot() if args.qresync is not None else db.read() as tx:
        place = (await acl.resolve(tx, session.account_id, args.mailbox)).require(Right.READ)
        account_id, mailbox = place.account_id, place.mailbox
        known = await _known(tx, session, account_id, mailbox)
        first_recent = await _first_recent(tx, session, account_id, mailbox)
        asked = args.qresync
        if asked is not None and asked.uidvalidity == mailbox.uidvalidity and asked.modseq < mailbox.highest_modseq:
            resync = await changes.mailbox(tx, account_id, mailbox.id, asked.modseq)
    uids = server.uid_lists.share(account_id, mailbox.id, known)
    view = Selected(
        mailbox.id,
        place.name,
        mailbox.uidvalidity,
        uids,
        mailbox.uidnext,
        mailbox.highest_modseq,
        read_only=read_only or not place.rights & acl.CHANGING,
        account_id=account_id,
        rights=place.rights,
        shared=account_id != session.account_id,
    )
    if not session.rev2:
        view.add_recent(
            *server.recent.claim(account_id, mailbox.id, first_recent, mailbox.uidnext, keep=view.read_only)
        )
    session.select(view)
    _describe(session, mailbox, known)
    return resync


async def _known(tx: Tx, session: Session, account_id: int, mailbox: Mailbox) -> Known:
    """The mailbox at its highest modseq: as the process knows it, brought up to date, or read."""
    known = session.server.uid_lists.get(account_id, mailbox.id)
    behind = mailbox.highest_modseq - known.modseq if known is not None else -1
    if known is not None and behind == 0:
        uids = known.uids
        if known.unseen is not None:
            return known
    elif known is not None and 0 < behind <= _CATCH_UP:
        after = known.uids[-1] + 1 if known.uids else 1
        view = Selected(mailbox.id, "", 0, known.uids, after, known.modseq, read_only=True)
        view.absorb(await changes.mailbox(tx, account_id, mailbox.id, known.modseq))
        view.report(expunge=True)
        uids = _below(view.uids, mailbox.uidnext)
    else:
        uids = _below(await fetch.uids(tx, account_id, mailbox.id), mailbox.uidnext)
    unseen = await fetch.first_unseen(tx, account_id, mailbox.id) if mailbox.unseen else 0
    keywords = await fetch.keywords(tx, account_id, mailbox.id)
    return Known(mailbox.highest_modseq, uids, unseen, tuple(keywords))


def _below(uids: array[int], uidnext: int) -> array[int]:
    while uids and uids[-1] >= uidnext:
        uids = uids[:-1]
    return uids


async def _first_recent(tx: Tx, session: Session, account_id: int, mailbox: Mailbox) -> int:
    """Where \\Recent begins in a mailbox that this process has not seen selected: at the mail that came in its time."""
    known = session.server.recent.known(account_id, mailbox.id)
    if known is not None or session.rev2:
        return known or mailbox.uidnext
    first, _ = (await came_since_start(tx, session, account_id, [mailbox])).get(mailbox.id, (mailbox.uidnext, 0))
    return first


async def came_since_start(
    tx: Tx, session: Session, account_id: int, boxes: Iterable[Mailbox]
) -> dict[int, tuple[int, int]]:
    """By mailbox id: the first UID of the mail that came since this process began, and how much did. All of it is
    \\Recent until somebody selects the mailbox."""
    ranges = [(one.id, max(1, one.uidnext - _RECENT_WINDOW), one.uidnext - 1) for one in boxes if one.messages]
    return await fetch.arrived(tx, account_id, session.server.started, ranges) if ranges else {}


def _describe(session: Session, mailbox: Mailbox, known: Known) -> None:
    view, rev2 = session.view, session.rev2
    flags = [*SYSTEM_FLAGS, *(known.keywords or ())]
    unseen = view.seq(known.unseen) if known.unseen else 0
    lines = [
        response.flags_line(flags),
        response.exists_line(len(view.uids)),
    ]
    if not rev2:
        lines.append(response.recent_line(view.count_recent()))
        if unseen and not view.uid_only:
            lines.append(
                response.status_line(None, "OK", "First unseen message", response.code("UNSEEN", b"%d" % unseen))
            )
    permanent = b"()" if view.read_only else response.flag_list(_permanent(view, flags))
    for name, value, words in (
        ("PERMANENTFLAGS", permanent, "No flag can be changed" if view.read_only else "Flags that are kept"),
        ("UIDVALIDITY", b"%d" % mailbox.uidvalidity, "UIDs are valid"),
        ("UIDNEXT", b"%d" % mailbox.uidnext, "Next UID"),
        ("HIGHESTMODSEQ", b"%d" % mailbox.highest_modseq, "Highest"),
        ("MAILBOXID", response.object_id(session.object_id("F", view.account_id, mailbox.id)), "Mailbox id"),
    ):
        lines.append(response.status_line(None, "OK", words, response.code(name, value)))
    if rev2:
        lines.append(response.list_line(view.name, [], utf8=session.utf8))
    session.send(b"".join(lines))


def _permanent(view: Selected, flags: Sequence[str]) -> list[str]:
    """The flags that the client may change for good (RFC 4314 §5.2)."""
    allowed = acl.flags(view.rights)
    words = bool(view.rights & Right.WRITE)
    kept = [flag for flag in flags if (SYSTEM_FLAGS[flag] & allowed if flag in SYSTEM_FLAGS else words)]
    return [*kept, "\\*"] if words else kept


def _resynchronise(session: Session, params: QresyncParams, found: changes.MailboxChanges) -> None:
    """What the client missed since it was here last (RFC 7162 §3.2.5): VANISHED (EARLIER), then FETCH."""
    view = session.view
    known = None if params.known_uids is None else params.known_uids.resolve(view.uidnext - 1)
    if params.modseq < found.floor:
        # Too long ago to know what left since: whatever is not here (RFC 7162 §3.2.5.1).
        every = known if known is not None else NumSet.from_ranges([(1, view.uidnext - 1)] if view.uidnext > 1 else [])
        vanished = every.subtract(NumSet.of(view.uids))
    else:
        vanished = NumSet.of(found.vanished)
        if known is not None:
            vanished = vanished.intersect(known)
    if vanished:
        session.send(response.vanished_line(vanished, earlier=True))
    rows = [(seq, row) for row in found.changed if (seq := view.seq(row[0])) and (known is None or row[0] in known)]
    session.send(render.flag_lines(rows, view, uid=True, modseq=True))
