"""THREAD and UID THREAD: conversations as trees (RFC 5256 §3, draft-ietf-morg-inthread)."""

from __future__ import annotations

import asyncio
from typing import cast

from mailcore import db
from mailcore.imap import criteria
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import no
from mailcore.imap.orders import Order
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.imap.threads import ALGORITHMS, Threads
from mailcore.store import search
from mailcore.store.search import Criterion
from mailcore.wire.imap.commands import Command, ThreadArgs
from mailcore.wire.imap.search_key import uses_modseq

# Messages beyond which the event loop does not wait for them to be threaded, and one session at a time may ask.
_IN_PASSING = 1_000


@command("THREAD", "UID THREAD", state=SELECTED, uses_seqs=True, may_expunge=False)
async def thread(session: Session, command: Command) -> Done:
    """Find messages and tell who answers whom, by the algorithm that the client names."""
    args = cast(ThreadArgs, command.args)
    view = session.view
    if uses_modseq(args.key):
        session.enabled |= Enabled.CONDSTORE
    criterion = criteria.criterion(args.key, view)
    threads = await _threads(session, args.algorithm, criterion)
    numbers = threads.uids if command.uid else criteria.seqs(view, threads.uids)
    session.send(b"* THREAD%b\r\n" % (threads.form and b" " + threads.form % tuple(numbers)))
    return Done("THREAD completed")


async def _threads(session: Session, algorithm: str, criterion: Criterion) -> Threads:
    """The threads of what is found; those of a whole mailbox from memory, as long as it is the same."""
    view, orders = session.view, session.server.orders
    if (known := _remembered(session, algorithm, criterion)) is not None:
        return known
    if len(view.uids) <= _IN_PASSING:
        return await _made(session, algorithm, criterion)
    async with orders.turn:
        # The session before this one may have asked for the same.
        known = _remembered(session, algorithm, criterion)
        return known if known is not None else await _made(session, algorithm, criterion)


async def _made(session: Session, algorithm: str, criterion: Criterion) -> Threads:
    view, work, loop = session.view, ALGORITHMS[algorithm], asyncio.get_running_loop()
    everything = criteria.is_everything(criterion, view)
    await _check_number(session, criterion)
    async with db.read() as tx:
        rows = await search.ancestries(tx, view.account_id, view.mailbox_id, criterion)
    rows = [row for row in rows if view.seq(row[0])]
    threads = work(rows) if len(rows) <= _IN_PASSING else await loop.run_in_executor(None, work, rows)
    if everything and rows:
        key = (view.account_id, view.mailbox_id, algorithm)
        order = Order(max(threads.uids), threads.uids, threads.form)
        session.server.orders.put(key, order, loop.time())
    return threads


def _remembered(session: Session, algorithm: str, criterion: Criterion) -> Threads | None:
    view = session.view
    if not criteria.is_everything(criterion, view) or not view.uids:
        return None
    key, now = (view.account_id, view.mailbox_id, algorithm), asyncio.get_running_loop().time()
    known = session.server.orders.get(key, view.uids[-1], now)
    # Without what has left a thread may fall apart.
    if known is not None and len(known.uids) == len(view.uids) and set(known.uids) == set(view.uids):
        return Threads(known.form, known.uids)
    return None


async def _check_number(session: Session, criterion: Criterion) -> None:
    """Raises Refused (LIMIT) for more messages than there is memory for."""
    view, most = session.view, session.server.limits.threads
    if len(view.uids) > most:
        async with db.read() as tx:
            found = await search.numbers(tx, view.account_id, view.mailbox_id, criterion)
        if len(found) > most:
            raise no(f"Threads are made of {most} messages at most: search for fewer", "LIMIT")
