"""SEARCH and UID SEARCH with ESEARCH, SEARCHRES, WITHIN and CONDSTORE (RFC 9051 §6.4.4, RFC 4731, 5182, 5032, 7162)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from mailcore import db
from mailcore.imap.capabilities import Enabled
from mailcore.imap.errors import bad
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.selected import Selected
from mailcore.imap.session import Session
from mailcore.store import search
from mailcore.store.flags import SYSTEM_FLAGS
from mailcore.wire.imap import response, search_key
from mailcore.wire.imap.commands import Command, SearchArgs
from mailcore.wire.imap.numset import NumSet
from mailcore.wire.imap.search_key import SearchKey

_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
_NOTHING = search.Or(())
_SIZE_OPS = {"larger": ">", "smaller": "<"}
_DATE_OPS = {"before": "<", "on": "=", "since": ">="}


@command("SEARCH", "UID SEARCH", state=SELECTED, uses_seqs=True, may_expunge=False)
async def search_(session: Session, command: Command) -> Done:
    """Find messages; the answer names those that the client knows."""
    args = cast(SearchArgs, command.args)
    view = session.view
    with_modseq = search_key.uses_modseq(args.key)
    if with_modseq:
        session.enabled |= Enabled.CONDSTORE
    returns = args.returns
    if returns is not None and "SAVE" in returns:
        # A failed search leaves an empty result behind (RFC 5182 §2.1).
        saved_before, view.saved = view.saved, NumSet()
        criterion = _compile(args.key, view, saved_before)
    else:
        criterion = _compile(args.key, view, view.saved)
    async with db.read() as tx:
        rows = await search.uids(tx, session.account_id, view.mailbox_id, criterion)
    known = [row for row in rows if row[0] < view.uidnext]
    uids = [row[0] for row in known]
    numbers = uids if command.uid else _seqs(view, uids)
    modseq = max((row[1] for row in known), default=None) if with_modseq else None
    if returns is None and not session.rev2:
        session.send(response.search_line(numbers, modseq=modseq))
    else:
        _answer(session, command, frozenset(("ALL",)) if returns is None else returns, numbers, known, with_modseq)
    if returns is not None and "SAVE" in returns:
        view.saved = NumSet.of(_saved(returns, uids))
    return Done("SEARCH completed")


def _seqs(view: Selected, uids: Sequence[int]) -> list[int]:
    if len(uids) == len(view.uids):
        return list(range(1, len(uids) + 1))
    return [seq for uid in uids if (seq := view.seq(uid))]


def _answer(
    session: Session,
    command: Command,
    returns: frozenset[str],
    numbers: Sequence[int],
    rows: Sequence[db.Row],
    with_modseq: bool,
) -> None:
    """* ESEARCH; not even that when the client only wants the result saved (RFC 5182 §2.1)."""
    if returns == {"SAVE"}:
        return
    modseq = None
    if with_modseq and rows:
        # Of the messages that MIN and MAX name if only they are asked for (RFC 4731 §3.2).
        ends = [rows[0]] * ("MIN" in returns) + [rows[-1]] * ("MAX" in returns)
        modseq = max(row[1] for row in (rows if returns & {"ALL", "COUNT"} or not ends else ends))
    session.send(
        response.esearch_line(
            command.tag,
            uid=command.uid,
            minimum=numbers[0] if numbers and "MIN" in returns else None,
            maximum=numbers[-1] if numbers and "MAX" in returns else None,
            count=len(numbers) if "COUNT" in returns else None,
            all=NumSet.of(numbers) if "ALL" in returns else None,
            modseq=modseq,
        )
    )


def _saved(returns: frozenset[str], uids: Sequence[int]) -> Sequence[int]:
    """What SAVE keeps: with MIN or MAX but neither ALL nor COUNT, only those (RFC 5182 §2.4)."""
    if uids and returns & {"MIN", "MAX"} and not returns & {"ALL", "COUNT"}:
        return [uids[0]] * ("MIN" in returns) + [uids[-1]] * ("MAX" in returns)
    return uids


def _compile(key: SearchKey, view: Selected, saved: NumSet | None) -> search.Criterion:
    """The client's key as the store's criterion; sequence numbers become UIDs, relative times become instants."""
    match key:
        case search_key.And(keys):
            return search.And(tuple(_compile(one, view, saved) for one in keys))
        case search_key.Or(left, right):
            return search.Or((_compile(left, view, saved), _compile(right, view, saved)))
        case search_key.Not(inner):
            return search.Not(_compile(inner, view, saved))
        case search_key.All() | search_key.SaveDateSupported():
            return search.All()
        case search_key.Flag(flag, is_set):
            return _flag(flag, is_set, view)
        case search_key.Text(field, value):
            return search.Text(field.lower(), value)
        case search_key.Header(name, value):
            return search.Text(f"header:{name.lower()}", value)
        case search_key.Date(which, op, day):
            return search.Date(which, _DATE_OPS[op], day)  # type: ignore[arg-type]  # the same three words
        case search_key.Size(op, size):
            return search.Size(_SIZE_OPS[op], size)  # type: ignore[arg-type]  # two of its three
        case search_key.Numbers(numbers, uid):
            if numbers.saved:
                return _uids((saved or NumSet()).ranges)
            if uid:
                return _uids(numbers.resolve(view.uids[-1] if view.uids else 0).ranges)
            return _uids(
                tuple((view.uids[part.start], view.uids[part.stop - 1]) for part in view.slices(numbers, uid=False))
            )
        case search_key.Modseq(modseq):
            return search.Modseq(modseq)
        case search_key.Within(op, seconds):
            since = search.Date("internal", ">=", datetime.now(UTC) - timedelta(seconds=seconds))
            return since if op == "younger" else search.Not(since)
        case search_key.ObjectId(kind, value):
            return _object_id(kind, value)
    raise bad("This search key is not supported here")


def _flag(flag: str, is_set: bool, view: Selected) -> search.Criterion:
    if not flag.startswith("\\"):
        return search.Keyword(flag, is_set)
    bit = _BITS.get(flag.lower())
    if bit is not None:
        return search.Flag(bit, is_set)
    recent = _uids(tuple((first, after - 1) for first, after in view.recent if after > first))
    return recent if is_set else search.Not(recent)


def _uids(ranges: tuple[tuple[int, int], ...]) -> search.Criterion:
    return search.Uids(ranges) if ranges else _NOTHING


def _object_id(kind: str, value: str) -> search.Criterion:
    prefix, number = value[:1], value[1:]
    if (
        not (number.isascii() and number.isdigit() and len(number) < 19)
        or prefix != {"EMAILID": "M", "THREADID": "T"}[kind]
    ):
        return _NOTHING
    return search.Emails((int(number),)) if kind == "EMAILID" else search.InThreads((int(number),))
