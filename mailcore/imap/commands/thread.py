"""THREAD and UID THREAD: conversations as trees (RFC 5256 §3, draft-ietf-morg-inthread)."""

from __future__ import annotations

import asyncio
from typing import cast

from mailcore import db
from mailcore.imap import criteria
from mailcore.imap.capabilities import Enabled
from mailcore.imap.orders import Order
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.imap.threads import ALGORITHMS, Threads
from mailcore.store import search
from mailcore.store.search import Criterion
from mailcore.wire.imap.commands import Command, ThreadArgs
from mailcore.wire.imap.search_key import uses_modseq

# Messages beyond which the event loop does not wait for them to be threaded.
_IN_PASSING = 1_000


@command("THREAD", "UID THREAD", state=SELECTED, uses_seqs=True, may_expunge=False)
async def thread(session: Session, command: Command) -> Done:
    """Find messages and tell who answers whom, by the algorithm that the client names."""
    args = cast(ThreadArgs, command.args)
    view = session.view
    if uses_modseq(args.key):
        session.enabled |= Enabled.CONDSTORE
    criterion = criteria.criterion(args.key, view, view.saved)
    threads = await _threads(session, args.algorithm, criterion)
    numbers = threads.uids if command.uid else criteria.seqs(view, threads.uids)
    session.send(b"* THREAD%b\r\n" % (threads.form and b" " + threads.form % tuple(numbers)))
    return Done("THREAD completed")


async def _threads(session: Session, algorithm: str, criterion: Criterion) -> Threads:
    """The threads of what is found; those of a whole mailbox from memory, as long as it is the same."""
    view, memory, loop = session.view, session.server.orders, asyncio.get_running_loop()
    everything = criteria.is_everything(criterion, view)
    key = (view.account_id, view.mailbox_id, algorithm)
    if everything and view.uids:
        known = memory.get(key, view.uids[-1], loop.time())
        # Without what has left a thread may fall apart.
        if known is not None and len(known.uids) == len(view.uids) and set(known.uids) == set(view.uids):
            return Threads(known.form, known.uids)
    async with db.read() as tx:
        rows = await search.ancestries(tx, view.account_id, view.mailbox_id, criterion)
    rows = [row for row in rows if view.seq(row[0])]
    work = ALGORITHMS[algorithm]
    threads = work(rows) if len(rows) <= _IN_PASSING else await loop.run_in_executor(None, work, rows)
    if everything and rows:
        memory.put(key, Order(max(threads.uids), threads.uids, threads.form), loop.time())
    return threads
