"""SORT and UID SORT, by what is displayed as well, and with result options (RFC 5256, 5957, 5267 §3)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from mailcore import db
from mailcore.imap import criteria, orders
from mailcore.imap.commands.search import answer, find
from mailcore.imap.orders import Order
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import search
from mailcore.store.search import Criterion, Sort
from mailcore.wire.imap.commands import Command, SearchArgs

_KEYS = {"DATE": "sent"}  # the others are the store's own, in upper case


@command("SORT", "UID SORT", state=SELECTED, uses_seqs=True, may_expunge=False)
async def sort(session: Session, command: Command) -> Done:
    """Find messages and name them in an order of the client's choice; equal ones in the order of the mailbox."""
    args = cast(SearchArgs, command.args)
    by = sort_keys(args)

    async def numbers(session: Session, criterion: Criterion) -> Sequence[int]:
        return await in_order(session, criterion, by)

    answer(session, command, await find(session, args, numbers, by))
    return Done("SORT completed")


def sort_keys(args: SearchArgs) -> Sort:
    """The store's names of the client's criteria."""
    return tuple((_KEYS.get(key, key.lower()), reverse) for key, reverse in args.sort)


async def in_order(session: Session, criterion: Criterion, by: Sort) -> Sequence[int]:
    """The UIDs of the messages that match, in order: from memory where that knows the mailbox."""
    view, memory, now = session.view, session.server.orders, asyncio.get_running_loop().time()
    account_id, everything = session.account_id, criteria.is_everything(criterion, view)
    key = (account_id, view.mailbox_id, by)
    top = view.uids[-1] if view.uids else 0
    known = memory.get(key, top, now)
    async with db.read() as tx:
        if known is None:
            found = await search.numbers(tx, account_id, view.mailbox_id, criterion, by)
            if everything:
                memory.put(key, Order(max(top, max(found, default=0)), found), now)
            return found
        matches = view.uids if everything else await search.numbers(tx, account_id, view.mailbox_id, criterion)
    return orders.only(known.uids, matches)
