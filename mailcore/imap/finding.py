"""Which messages of the selected mailbox a criterion finds, and in which order: from memory where that knows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.imap import criteria, orders
from mailcore.imap.orders import Order
from mailcore.store import search
from mailcore.store.search import Criterion, Sort
from mailcore.wire.imap.numset import NumSet

if TYPE_CHECKING:
    from mailcore.imap.session import Session


async def numbers(session: Session, criterion: Criterion, by: Sort = ()) -> Sequence[int]:
    """The UIDs of the messages that match, in the order of the mailbox or `by`."""
    view = session.view
    if by:
        return await _in_order(session, criterion, by)
    if criteria.is_everything(criterion, view):
        return view.uids
    async with db.read() as tx:
        return await search.numbers(tx, view.account_id, view.mailbox_id, criterion)


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
        return orders.only(known.uids, view.uids)
    async with db.read() as tx:
        if known is not None:
            return orders.only(known.uids, await search.numbers(tx, view.account_id, view.mailbox_id, criterion))
        found = await search.numbers(tx, view.account_id, view.mailbox_id, criterion, by)
    if everything:
        memory.put(key, Order(max(top, max(found, default=0)), found), now)
    return found
