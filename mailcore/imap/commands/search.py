"""SEARCH and UID SEARCH, and what SORT and ESEARCH share with them (RFC 9051 §6.4.4; RFC 4731, 5032, 5182, 5267, 6203,
7162, 9394)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from mailcore import db
from mailcore.imap import contexts, criteria, finding
from mailcore.imap.capabilities import Enabled
from mailcore.imap.contexts import Context
from mailcore.imap.errors import bad
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import search
from mailcore.store.search import Relevance, Sort
from mailcore.wire.imap import response, search_key
from mailcore.wire.imap.commands import Command, SearchArgs
from mailcore.wire.imap.numset import NumSet

_WINDOW = frozenset(("PARTIAL", "CONTEXT", "SAVE"))  # for these options nothing but the range is of interest
_SORT_KEYS = {"DATE": "sent"}  # the others are the store's own, in upper case


@dataclass(frozen=True, slots=True)
class Found:
    """The UIDs of a result in order; modseqs and scores only if the client wants to read of them.

    `window`: only what PARTIAL asks for has been looked for.
    """

    uids: Sequence[int]
    modseqs: Mapping[int, int] | None = None
    scores: Sequence[int] | None = None
    window: bool = False


@command("SEARCH", "UID SEARCH", state=SELECTED, uses_seqs=True, may_expunge=False)
async def search_(session: Session, command: Command) -> Done:
    """Find messages; the answer names those that the client knows, in the order of the mailbox."""
    await run(session, command)
    return Done("SEARCH completed")


async def run(session: Session, command: Command) -> None:
    """SEARCH or SORT: find, answer, and keep what is to be kept."""
    args = cast(SearchArgs, command.args)
    view, returns = session.view, args.returns or frozenset()
    if "UPDATE" in returns:
        contexts.check_tag(session, command.tag)
    if args.charset is not None and not args.sort and session.enabled & Enabled.UTF8:
        raise bad("After ENABLE UTF8=ACCEPT a search names no charset: it is UTF-8 (RFC 9755 section 3)")
    criterion = criteria.criterion(args.key, view)
    if "SAVE" in returns:
        # A search that fails from here on leaves an empty result behind (RFC 5182 §2.1).
        view.save(())
    by = sort_keys(args)
    modseqs: dict[int, int] | None = None
    if search_key.uses_modseq(args.key):
        session.enabled |= Enabled.CONDSTORE
        async with db.read() as tx:
            modseqs = dict(await search.uids(tx, view.account_id, view.mailbox_id, criterion, by))
        uids: Sequence[int] = [uid for uid in modseqs if uid < view.uidnext]
    elif args.partial is not None and not by and returns <= _WINDOW:
        window = await finding.window(session, criterion, args.partial)
        _answer(session, command, Found(window, window=True))
        if "SAVE" in returns:
            view.save(window)
        return
    else:
        uids = await finding.numbers(session, criterion, by)
    scores = None
    if "RELEVANCY" in returns:
        phrases = criteria.phrases(args.key)
        async with db.read() as tx:
            scores = await finding.scores(tx, view.account_id, view.mailbox_id, phrases, uids)
    _answer(session, command, Found(uids, modseqs, scores))
    if "SAVE" in returns:
        view.save(named(args, uids))
    if "UPDATE" in returns:
        contexts.begin(session, command.tag, Context(command.uid, criterion, by, array("I", uids)))


def sort_keys(args: SearchArgs) -> Sort:
    """The store's names of SORT's criteria. The most relevant comes first (RFC 6203 §5)."""
    return tuple(
        (Relevance(criteria.phrases(args.key)), not reverse)
        if key == "RELEVANCY"
        else (_SORT_KEYS.get(key, key.lower()), reverse)
        for key, reverse in args.sort
    )


def _answer(session: Session, command: Command, found: Found) -> None:
    """* SEARCH, * SORT or * ESEARCH."""
    args, view = cast(SearchArgs, command.args), session.view
    if args.returns == frozenset(("SAVE",)):
        return  # RFC 5182 §2.1
    numbers = _same if command.uid else partial(criteria.seqs, view)
    if args.returns is not None or (session.rev2 and not args.sort):
        session.send(extended(command.tag, args, found, numbers, uid=command.uid))
    else:
        name = "SORT" if args.sort else "SEARCH"
        session.send(response.search_line(numbers(found.uids), name=name, modseq=_modseq(args, found)))


Numbers = Callable[[Sequence[int]], Sequence[int]]


def _same(uids: Sequence[int]) -> Sequence[int]:
    return uids


def extended(
    tag: str,
    args: SearchArgs,
    found: Found,
    numbers: Numbers = _same,
    *,
    uid: bool = True,
    mailbox: tuple[bytes, int] | None = None,
) -> bytes:
    """* ESEARCH with what the options ask for; `numbers` makes of UIDs what the client wants to read of."""
    returns = frozenset(("ALL",)) if args.returns is None else args.returns
    uids, scores, part = found.uids, found.scores, None
    if args.partial is not None:
        chosen = slice(None) if found.window else args.partial.of(len(uids))
        inside = numbers(uids[chosen])
        part = str(args.partial), inside if args.sort else NumSet.of(inside)
        scores = scores and scores[chosen]
    every = numbers(uids) if "ALL" in returns else ()
    return response.esearch_line(
        tag,
        uid=uid,
        minimum=next(iter(numbers(uids[:1])), None) if "MIN" in returns else None,
        maximum=next(iter(numbers(uids[-1:])), None) if "MAX" in returns else None,
        count=len(uids) if "COUNT" in returns else None,
        all=every if args.sort else NumSet.of(every),
        partial=part,
        relevancy=scores,
        modseq=_modseq(args, found),
        mailbox=mailbox,
    )


def _modseq(args: SearchArgs, found: Found) -> int | None:
    """The highest of the messages that the answer names (RFC 4731 §3.2)."""
    if found.modseqs is None:
        return None
    return max((found.modseqs[uid] for uid in named(args, found.uids)), default=None)


def named(args: SearchArgs, uids: Sequence[int]) -> Sequence[int]:
    """Those of the result that the options speak of: without ALL and COUNT, MIN, MAX and PARTIAL choose some (RFC 5182
    §2.4, RFC 9394 §3.2)."""
    returns = args.returns or frozenset()
    if returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX", "PARTIAL"}:
        return uids
    ends = [*uids[:1]] * ("MIN" in returns) + [*uids[-1:]] * ("MAX" in returns)
    return ends if args.partial is None else [*ends, *uids[args.partial.of(len(uids))]]
