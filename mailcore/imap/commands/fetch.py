"""FETCH and UID FETCH: data of messages, streamed in chunks (RFC 9051 §6.4.5, RFC 7162 §3.1.4, §3.2.6).

No connection of the pool and no transaction is held while the client reads; the next chunk is read from the store while
the last one is on its way, and a client that stops reading stops both. Pipelined FETCHes of one message each: `runs`.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, TypeVar, cast

from mailcore import db
from mailcore.db import Row
from mailcore.errors import Code, MailError
from mailcore.imap import bodies, messagelimit, render, runs
from mailcore.imap.bodies import Piece, Wanted
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import Refused, no
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.render import Item, Rows
from mailcore.imap.runs import Run
from mailcore.imap.session import Session
from mailcore.store import changes, fetch, flags
from mailcore.store.acl import Right
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, FetchArgs
from mailcore.wire.imap.fetch_item import FetchAttr, FetchItem, sets_seen
from mailcore.wire.imap.numset import NumSet
from mailcore.wire.imap.parse_search import Partial

# Messages a time: the first answer soon, the rest in pieces of a few hundred kilobytes.
FIRST, CHUNK = 100, 500
# … when only the narrow table is read.
NARROW_FIRST, NARROW_CHUNK = 1000, 3000
# Octets of message bodies a time.
OCTETS = 2 * 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """A FETCH prepared: what columns answer, `fixed` for ever or not; what needs the messages' octets; and the columns
    to read each time."""

    items: tuple[Item, ...]
    fixed: tuple[Item, ...]
    bodies: tuple[FetchItem, ...]
    columns: tuple[str, ...]
    seen: bool

    @property
    def narrow(self) -> bool:
        """Only cheap columns are read, apart from what never changes."""
        return fetch.NARROW_COLUMNS.issuperset(self.columns)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages read; `tails`: their fixed items, if any are asked for; `marked`: \\Seen was set on some of them."""

    rows: Rows
    tails: Sequence[bytes] | None
    marked: bool


@command("FETCH", "UID FETCH", state=SELECTED, uses_seqs=True, may_expunge=False)
async def fetch_(session: Session, command: Command) -> Done:
    """Send data of messages, in the order of the mailbox."""
    args = cast(FetchArgs, command.args)
    view = session.view
    items = args.items
    if command.uid and FetchAttr("UID") not in items and not view.uid_only:
        items = (FetchAttr("UID"), *items)
    if args.changedsince is not None and FetchAttr("MODSEQ") not in items:
        items = (*items, FetchAttr("MODSEQ"))
    had = session.enabled
    if FetchAttr("MODSEQ") in items:
        session.enabled |= Enabled.CONDSTORE
    if args.vanished and not session.enabled & Enabled.QRESYNC:
        raise no("ENABLE QRESYNC first", "CLIENTBUG")
    prepared = plan(items, session)
    slices = view.slices(args.numbers, uid=command.uid)
    if not prepared.seen and session.enabled == had and (run := runs.waiting(session, command)) is not None:
        return await _send_run(session, prepared, run)
    if args.changedsince is not None:
        slices = await _changed(session, args, slices)
    if args.partial is not None:
        slices = _part(slices, args.partial)
    slices, cut = messagelimit.within(session, slices)
    expected = sum(part.stop - part.start for part in slices)
    found = await send_planned(session, prepared, slices)
    if found < expected and not command.uid:
        raise runs.expunged(expected - found)
    return Done(runs.COMPLETED, cut)


async def send_planned(session: Session, plan: Plan, slices: Iterable[slice]) -> int:
    """Send what is planned of the messages of the slices; returns how many of them are still there."""
    found, view = 0, session.view
    sizes = (NARROW_FIRST, NARROW_CHUNK) if plan.narrow else (FIRST, CHUNK)
    reader = _Reader(session, plan)
    reads = (reader.read(uids, seqs) for uids, seqs in view.chunks(slices, *sizes))
    try:
        async with aclosing(_ahead(reads)) as chunks:
            async for read in chunks:
                found += await _send_chunk(session, plan, reader, read)
    except (MailError, Refused):
        if plan.seen:  # what was marked and could not be sent is told like what others mark
            view.own.clear()
            view.dirty = True
        raise
    return found


async def _send_chunk(session: Session, plan: Plan, reader: _Reader, read: Chunk) -> int:
    found = 0
    async with aclosing(reader.completed(read)) as chunks:
        async for chunk in chunks:
            found += len(chunk.rows)
            if plan.bodies:
                await _send_bodies(session, plan, chunk)
            else:
                session.send(b"".join(render.lines(plan.items, chunk.rows, chunk.tails)))
                await session.connection.drain()
    return found


async def _send_run(session: Session, plan: Plan, run: Run) -> Done:
    """The answers to all commands of a run but the last one's tagged OK."""
    reader, chunk, found = _Reader(session, plan), None, []
    uids, seqs = run.known()
    if uids:
        read = await reader.read(array("I", uids), seqs)
        async with aclosing(reader.completed(read)) as chunks:
            async for chunk in chunks:  # it is one: a run is short
                found = list(chunk.rows["uid"] if run.uid else chunk.rows.seqs)
    run.begin()
    ends = run.ends(found)
    session.send(next(ends))
    if chunk is not None and plan.bodies:
        await _send_bodies(session, plan, chunk, ends)
    elif chunk is not None:
        lines = render.lines(plan.items, chunk.rows, chunk.tails, b"")
        session.send(b"".join([line + next(ends) for line in lines]))
        await session.connection.drain()
    if not run.uid and (not found or found[-1] != run.numbers[-1]):
        raise runs.expunged(1)
    return Done(runs.COMPLETED)


def plan(items: Sequence[FetchItem], session: Session) -> Plan:
    """How to answer FETCH items."""
    columns: list[Item] = []
    fixed: list[Item] = []
    rest: list[FetchItem] = []
    for item in items:
        column = render.column_item(item, utf8=session.utf8)
        if column is None:
            rest.append(item)
        else:
            (fixed if column.fixed else columns).append(column)
    may_mark = not session.view.read_only and session.view.rights & Right.SEEN
    seen = bool(may_mark) and any(sets_seen(item) for item in rest)
    names = ["uid", "message_id"] if fixed else ["uid"]
    names += [name for column in columns for name in column.columns]
    if rest:
        names += bodies.columns(rest)
    if seen:
        names += ("flags", "keywords", "modseq")
    return Plan(tuple(columns), tuple(fixed), tuple(rest), tuple(dict.fromkeys(names)), seen)


async def _changed(session: Session, args: FetchArgs, slices: Iterable[slice]) -> list[slice]:
    """CHANGEDSINCE: only messages that changed later; with VANISHED, say first which left (RFC 7162 §3.2.6)."""
    view = session.view
    async with db.read() as tx:
        since = await changes.mailbox(tx, view.account_id, view.mailbox_id, cast(int, args.changedsince))
    if args.vanished:
        asked = view.saved if args.numbers.saved else args.numbers.resolve(view.uidnext - 1)
        if cast(int, args.changedsince) < since.floor:  # too long ago to know: whatever is not here
            gone = asked.subtract(NumSet.of(view.uids))
        else:
            gone = NumSet.of(uid for uid in since.vanished if uid in asked and not view.seq(uid))
        if gone:
            session.send(response.vanished_line(gone, earlier=True))
    wanted = set(view.pick(slices)).intersection(row[0] for row in since.changed)
    return NumSet.of(wanted).slices(view.uids)


def _part(slices: Sequence[slice], partial: Partial) -> list[slice]:
    """A range of the messages in slices (RFC 9394 §3.3)."""
    wanted, at = partial.of(sum(part.stop - part.start for part in slices)), 0
    found = []
    for part in slices:
        start, stop = part.start + max(0, wanted.start - at), min(part.stop, part.start + wanted.stop - at)
        if start < stop:
            found.append(slice(start, stop))
        at += part.stop - part.start
    return found


class _Reader:
    """Reads the messages of one FETCH: what may change from the store, the rest only if it is not remembered."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self._session = session
        self._plan = plan
        self._key = (session.view.account_id, tuple(item.text for item in plan.fixed))
        self._fixed_columns = ("id", *sorted({name for item in plan.fixed for name in item.columns}))

    async def read(self, uids: array[int], seqs: Sequence[int]) -> Chunk:
        """The messages of a chunk that are still there, without their fixed items."""
        session, plan = self._session, self._plan
        rows, seqs = _known(await _rows(session, uids, seqs, plan.columns), uids, seqs)
        marked = False
        if plan.seen:
            if bodies.may_fail(plan.bodies):  # what cannot be sent has not been seen
                deque(bodies.wanted(plan.bodies, Rows.of(plan.columns, rows, seqs, session.view)), 0)
            rows, marked = await _mark_seen(session, plan.columns, rows)
        return Chunk(Rows.of(plan.columns, rows, seqs, session.view), None, marked)

    async def completed(self, chunk: Chunk) -> AsyncGenerator[Chunk, None]:
        """The chunk with its fixed items, in pieces when there are any. To be closed."""
        if not self._plan.fixed:
            yield chunk
            return
        reads = (self._unknown(rows) for rows in chunk.rows.pieces(FIRST, CHUNK))
        async with aclosing(_ahead(reads)) as pieces:
            async for rows, tails, unknown in pieces:
                if unknown:
                    # Here and not in `_unknown`, so that Postgres works meanwhile.
                    tails = self._rendered(rows["message_id"], tails, unknown)
                if None in tails:  # gone for good since
                    there = [tail is not None for tail in tails]
                    rows, tails = rows.only(there), tuple(compress(tails, there))
                yield Chunk(rows, cast(Sequence[bytes], tails), chunk.marked)

    async def _unknown(self, rows: Rows) -> tuple[Rows, Sequence[bytes | None], list[Row]]:
        """Messages, what is remembered of them, and the columns of the others."""
        session, ids = self._session, rows["message_id"]
        tails = session.server.tails.get(self._key, ids, asyncio.get_running_loop().time())
        if None not in tails:
            return rows, tails, []
        missing = [i for i, tail in zip(ids, tails, strict=True) if tail is None]
        async with db.read() as tx:
            return rows, tails, await fetch.messages(tx, session.view.account_id, missing, self._fixed_columns)

    def _rendered(
        self, ids: Sequence[int], known: Sequence[bytes | None], messages: list[Row]
    ) -> Sequence[bytes | None]:
        """`known` with the fixed items of other messages, which are remembered."""
        rows = Rows.of(self._fixed_columns, messages, range(len(messages)), self._session.view)
        tails = render.tails(self._plan.fixed, rows)
        self._session.server.tails.put(self._key, rows["id"], tails, asyncio.get_running_loop().time())
        if rows["id"] == ids:
            return tails
        fresh = dict(zip(rows["id"], tails, strict=True))
        return [tail or fresh.get(number) for number, tail in zip(ids, known, strict=True)]


def _known(rows: list[Row], uids: Sequence[int], seqs: Sequence[int]) -> tuple[list[Row], Sequence[int]]:
    """The rows with their sequence numbers; a message may have been expunged, which the client does not know yet."""
    if len(rows) == len(uids):
        return rows, seqs
    numbers = dict(zip(uids, seqs, strict=True))
    rows = [row for row in rows if row[0] in numbers]
    return rows, [numbers[row[0]] for row in rows]


async def _rows(session: Session, uids: array[int], seqs: Sequence[int], columns: tuple[str, ...]) -> list[Row]:
    view = session.view
    async with db.read() as tx:
        if seqs[-1] - seqs[0] + 1 == len(seqs):
            return await fetch.rows(tx, view.account_id, view.mailbox_id, uids[0], uids[-1], columns)
        return await fetch.rows_of(tx, view.account_id, view.mailbox_id, uids, columns)


async def _mark_seen(session: Session, columns: tuple[str, ...], rows: list[Row]) -> tuple[list[Row], bool]:
    view = session.view
    mask, words, modseq = (columns.index(name) for name in ("flags", "keywords", "modseq"))
    unseen = [row[0] for row in rows if not row[mask] & flags.SEEN]
    if not unseen:
        return rows, False
    async with db.transaction() as tx:
        stored = await flags.store(tx, view.account_id, view.mailbox_id, unseen, "+", flags.SEEN)
        view.note_own(stored.modseq)
    now = {row[0]: row for row in stored.changed}
    marked = []
    for row in rows:
        if row[0] in now:
            fresh = list(row)
            _, fresh[modseq], fresh[mask], fresh[words] = now[row[0]]
            row = tuple(fresh)
        marked.append(row)
    return marked, True


async def _ahead(reads: Iterable[Coroutine[Any, Any, T]]) -> AsyncGenerator[T, None]:
    """The results of reads in order; the next one runs while the caller works on the last. To be closed."""
    pending: asyncio.Task[T] | None = None
    try:
        for read in reads:
            if pending is None:
                pending = asyncio.create_task(read)
                continue
            try:
                done = await pending
            except BaseException:
                read.close()
                raise
            pending = asyncio.create_task(read)
            # Let it send its query, so that Postgres works while the caller does.
            await asyncio.sleep(0)
            yield done
        if pending is not None:
            last, pending = pending, None
            yield await last
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)  # nobody wants to hear how it went


_LINE_ENDS = repeat(b")\r\n")


async def _send_bodies(session: Session, plan: Plan, chunk: Chunk, ends: Iterator[bytes] = _LINE_ENDS) -> None:
    items = _with_flags(plan.items, session) if chunk.marked else plan.items
    heads = render.lines(items, chunk.rows, chunk.tails, b" " if items or plan.fixed else b"")
    messages = list(zip(heads, bodies.wanted(plan.bodies, chunk.rows), strict=True))
    for group in bodies.batches(messages, OCTETS):
        if group[0][1].size > OCTETS:
            try:
                await _send_large(session, *group[0], ends)
            except Exception as error:
                # In the middle of a line, or even of a literal, nothing else can be said: not NO, and not BYE.
                raise ConnectionAbortedError("a message could not be sent to its end") from error
        else:
            await _send_group(session, group, ends)
        await session.connection.drain()


async def _send_group(session: Session, group: Sequence[tuple[bytes, Wanted]], ends: Iterator[bytes]) -> None:
    """Pass the octets on as they come. A slow client makes nobody wait here: what it leaves is a group at most."""
    connection, loop = session.connection, asyncio.get_running_loop()
    waiting: list[bytes] = []

    def write(line: list[bytes]) -> None:
        # Together with whatever else has come by now: one system call for several messages.
        if not waiting:
            loop.call_soon(send)
        waiting.extend(line)

    def send() -> None:
        if waiting:
            connection.writelines(waiting)
            waiting.clear()

    lines = bodies.assembler(group, ends, write)
    next(lines)
    pieces = [
        (wanted.message_id, piece.start, piece.size)
        for _, wanted in group
        for piece in wanted.answers
        if isinstance(piece, Piece)
    ]
    if pieces:
        async with db.read() as tx:
            await fetch.stream(tx, session.view.account_id, pieces, lines.send)
    send()


def _with_flags(items: tuple[Item, ...], session: Session) -> tuple[Item, ...]:
    """The client must hear of the \\Seen that its FETCH set."""
    wanted = [render.column_item(FetchAttr("FLAGS"), utf8=False)]
    if session.enabled & Enabled.CONDSTORE:
        wanted.append(render.column_item(FetchAttr("MODSEQ"), utf8=False))
    return items + tuple(item for item in wanted if item is not None and item not in items)


async def _send_large(session: Session, head: bytes, wanted: Wanted, ends: Iterator[bytes]) -> None:
    """A message that is not held in memory: its octets pass through in slices."""
    connection = session.connection
    connection.write(head)
    for n, answer in enumerate(wanted.answers):
        if n:
            connection.write(b" ")
        if isinstance(answer, bytes):
            connection.write(answer)
        elif answer.finish is not None:
            await _send_finished(session, wanted.message_id, answer, answer.finish)
        else:
            connection.write(b"%b {%d}\r\n" % (answer.label, answer.size))
            starts = range(answer.start, answer.end, OCTETS)
            reads = (_slice(session, wanted.message_id, at, min(OCTETS, answer.end - at)) for at in starts)
            async with aclosing(_ahead(reads)) as slices:
                async for octets in slices:
                    connection.write(octets)
                    await connection.drain()
    connection.write(next(ends))


async def _slice(session: Session, message_id: int, start: int, length: int) -> bytes:
    async with db.read() as tx:
        octets = await fetch.raw(tx, session.view.account_id, message_id, start, length)
    if len(octets) != length:
        raise MailError(Code.INTERNAL, "the message is shorter than it should be", f"email {message_id}")
    return octets


async def _send_finished(session: Session, message_id: int, piece: Piece, finish: Callable[[bytes], bytes]) -> None:
    """A large slice that has to be decoded: as a whole, in a thread, within the process's budget."""
    connection, uploads = session.connection, session.server.uploads
    held = await uploads.acquire(2 * piece.size)
    try:
        octets = await _slice(session, message_id, piece.start, piece.size)
        answer = await asyncio.get_running_loop().run_in_executor(None, piece.answer, octets)
        del octets
        for at in range(0, len(answer), OCTETS):
            connection.write(answer[at : at + OCTETS])
            await connection.drain()
    finally:
        uploads.release(held)
