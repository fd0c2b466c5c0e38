"""Which messages of the selected mailbox a criterion finds, and in which order: from memory where that knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailcore import db
from mailcore.imap import criteria, orders
from mailcore.imap.orders import Order
from mailcore.store import search
from mailcore.store.search import Criterion, Sort

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
