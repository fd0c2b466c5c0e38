"""Which messages of the selected mailbox a criterion finds, and in which order: from memory where that knows."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.imap import criteria, orders
from mailcore.imap.orders import Order
from mailcore.store import search
from mailcore.store.search import Criterion, Sort
from mailcore.wire.imap.numset import NumSet
from mailcore.wire.imap.parse_search import Partial

if TYPE_CHECKING:
    from mailcore.imap.selected import Selected
    from mailcore.imap.session import Session


async def numbers(session: Session, criterion: Criterion, by: Sort = ()) -> Sequence[int]:
    """The UIDs of the messages that match and that the client knows, in the order of the mailbox or `by`."""
    view = session.view
    if by:
        return await _in_order(session, criterion, by)
    if criteria.is_everything(criterion, view):
        return view.uids
    async with db.read() as tx:
        return _known(view, await search.numbers(tx, view.account_id, view.mailbox_id, criterion))


async def window(session: Session, criterion: Criterion, part: Partial) -> Sequence[int]:
    """A range of what `numbers` finds in the order of the mailbox, at a cost that need not grow with it."""
    view = session.view
    if criteria.is_everything(criterion, view):
        return view.uids[part.of(len(view.uids))]
    at, count, backwards = part.window
    known = search.And((search.Uids(((1, view.uidnext - 1),)), criterion))
    async with db.read() as tx:
        return await search.window(tx, view.account_id, view.mailbox_id, known, at, count, backwards=backwards)


def _known(view: Selected, uids: array[int]) -> Sequence[int]:
    """Without what came after the client was last told of new messages."""
    return uids if max(uids, default=0) < view.uidnext else [uid for uid in uids if uid < view.uidnext]


async def scores(
    tx: db.Tx, account_id: int, mailbox_id: int, phrases: Sequence[search.Text], uids: Sequence[int]
) -> list[int]:
    """How relevant messages are (RFC 6203 §4), 1 to 100: 50, and the rest for the share of phrases that they hold."""
    if not phrases or not uids:
        return [100] * len(uids)
    some = search.Uids(NumSet.of(uids).ranges)
    held: Counter[int] = Counter()
    for phrase in phrases:
        held.update(await search.numbers(tx, account_id, mailbox_id, search.And((some, phrase))))
    return [50 + 50 * held[uid] // len(phrases) for uid in uids]


async def _in_order(session: Session, criterion: Criterion, by: Sort) -> Sequence[int]:
    view, memory, now = session.view, session.server.orders, asyncio.get_running_loop().time()
    everything = criteria.is_everything(criterion, view)
    key = (view.account_id, view.mailbox_id, by)
    top = view.uids[-1] if view.uids else 0
    known = memory.get(key, top, now)
    if known is not None and everything:
        if known.of is view.uids:
            return known.uids
        found = orders.only(known.uids, view.uids)
    else:
        async with db.read() as tx:
            if known is not None:
                matches = await search.numbers(tx, view.account_id, view.mailbox_id, criterion)
                return _known(view, orders.only(known.uids, matches))
            found = await search.numbers(tx, view.account_id, view.mailbox_id, criterion, by)
    if everything:
        of = view.uids if len(found) == len(view.uids) and max(found, default=0) == top else None
        memory.put(key, Order(max(top, max(found, default=0)), found, of=of), now)
    return _known(view, found)
