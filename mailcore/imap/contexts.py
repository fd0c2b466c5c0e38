"""Results that stay up to date: what UPDATE asks of SEARCH and SORT (RFC 5267 §4.3).

A context remembers what its client knows of the result. After each look into the store the messages that changed are
searched again, they alone; what nothing can change, such as sequence numbers and intervals of time, is as it was when
the client asked.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.errors import MailError
from mailcore.imap import criteria, finding
from mailcore.imap.errors import bad
from mailcore.store import search
from mailcore.store.search import Criterion, Sort
from mailcore.wire.imap import response
from mailcore.wire.imap.numset import NumSet

if TYPE_CHECKING:
    from mailcore.imap.session import Session

log = logging.getLogger(__name__)

# Of one session; it always may have one.
MAX_CONTEXTS = 16
MAX_UIDS = 500_000
# Of a sorted result, for which a new message finds its place by sorting again.
MAX_SORTED = 100_000


@dataclass(slots=True)
class Context:
    """One updated result: its UIDs in order, and whether the client wants to read of UIDs."""

    uid: bool
    criterion: Criterion
    by: Sort
    uids: array[int]
    pending: set[int] = field(default_factory=set)
    """Changed messages that could not be looked at."""


def check_tag(session: Session, tag: str) -> None:
    """Raises Refused(BAD) for the tag of a result that is being updated."""
    if tag in session.view.contexts:
        raise bad("The tag is in use by a search that is updated: CANCELUPDATE it first")


def begin(session: Session, tag: str, context: Context) -> None:
    """Keep a result up to date, or say that there are too many."""
    contexts = session.view.contexts
    held = sum(len(known.uids) for known in contexts.values())
    if context.by and len(context.uids) > MAX_SORTED:
        refuse(session, tag, f"A sorted result of more than {MAX_SORTED} messages is not updated")
    elif contexts and (len(contexts) >= MAX_CONTEXTS or held + len(context.uids) > MAX_UIDS):
        refuse(session, tag, "Too many searches are updated at once")
    else:
        contexts[tag] = context


def refuse(session: Session, tag: str, why: str) -> None:
    """Say that a result will not be updated, or no more (RFC 5267 §4.3.1)."""
    session.send(response.status_line(None, "NO", why, b"NOUPDATE " + response.quoted(tag)))


def end_numbers(session: Session) -> None:
    """Update no result that speaks of sequence numbers any more."""
    contexts = session.view.contexts
    for tag in [tag for tag, context in contexts.items() if not context.uid]:
        del contexts[tag]
        refuse(session, tag, "Sequence numbers are not used any more")


def gone(session: Session) -> None:
    """Messages have left: say so, as long as they have sequence numbers."""
    for tag, context in session.view.contexts.items():
        left = session.view.gone.intersection(context.uids)
        if left:
            _remove(session, tag, context, left)


async def update(session: Session, changed: Iterable[int]) -> None:
    """Messages came or changed; the client knows of it already."""
    view = session.view
    touch(session, changed)
    for tag, context in view.contexts.items():
        context.pending -= view.gone
        if not context.pending:
            continue
        try:
            await _look_again(session, tag, context)
        except MailError as error:
            view.dirty = True
            log.warning("no update of a search for %s: %s", session.who, error.private or error.text)


def touch(session: Session, changed: Iterable[int]) -> None:
    """Look at these messages again when next there is something to tell."""
    view = session.view
    if view.contexts:
        touched = {uid for uid in changed if view.seq(uid)}
        for context in view.contexts.values():
            context.pending |= touched


async def _look_again(session: Session, tag: str, context: Context) -> None:
    view, pending = session.view, context.pending
    some = search.Uids(NumSet.of(pending).ranges)
    async with db.read() as tx:
        criterion = search.And((some, context.criterion))
        hits = pending.intersection(await search.numbers(tx, view.account_id, view.mailbox_id, criterion))
    left = (pending - hits).intersection(context.uids)
    if left:
        _remove(session, tag, context, left)
    came = hits.difference(context.uids)
    if came:
        await _add(session, tag, context, came)
    context.pending = set()


async def _add(session: Session, tag: str, context: Context, came: Collection[int]) -> None:
    known = context.uids
    if not context.by:
        context.uids = array("I", sorted([*known, *came]))
        _tell(session, tag, context, "ADDTO", [(0, sorted(came))])
        return
    order = await finding.numbers(session, search.Uids(NumSet.of([*known, *came]).ranges), context.by)
    merged, at = array("I"), 0
    changes: list[tuple[int, list[int]]] = []
    for uid in order:
        if uid in came:
            if changes and changes[-1][0] + len(changes[-1][1]) == len(merged) + 1:
                changes[-1][1].append(uid)
            else:
                changes.append((len(merged) + 1, [uid]))
        else:
            # What has left the store but is still known to the client keeps its place.
            stop = known.index(uid, at)
            merged.extend(known[at:stop])
            at = stop + 1
        merged.append(uid)
    merged.extend(known[at:])
    context.uids = merged
    if changes:
        _tell(session, tag, context, "ADDTO", changes)


def _remove(session: Session, tag: str, context: Context, left: Collection[int]) -> None:
    kept = array("I")
    changes: list[tuple[int, list[int]]] = []
    for uid in context.uids:
        if uid not in left:
            kept.append(uid)
        elif changes and changes[-1][0] == len(kept) + 1:
            changes[-1][1].append(uid)
        else:
            changes.append((len(kept) + 1, [uid]))
    context.uids = kept
    _tell(session, tag, context, "REMOVEFROM", changes if context.by else [(0, sorted(left))])


def _tell(session: Session, tag: str, context: Context, item: str, changes: Sequence[tuple[int, list[int]]]) -> None:
    told = [(at, uids if context.uid else criteria.seqs(session.view, uids)) for at, uids in changes]
    pairs = told if context.by else [(at, NumSet.of(numbers)) for at, numbers in told]
    session.send(response.context_line(tag, uid=context.uid, item=item, changes=pairs))
