"""SEARCH and UID SEARCH, and what SORT shares with them (RFC 9051 §6.4.4; RFC 4731, 5032, 5182, 5267, 7162, 9394)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import cast

from mailcore import db
from mailcore.imap import contexts, criteria, finding
from mailcore.imap.capabilities import Enabled
from mailcore.imap.contexts import Context
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import search
from mailcore.store.search import Sort
from mailcore.wire.imap import response, search_key
from mailcore.wire.imap.commands import Command, SearchArgs
from mailcore.wire.imap.numset import NumSet

_SORT_KEYS = {"DATE": "sent"}  # the others are the store's own, in upper case


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
    saved = view.saved
    if "SAVE" in returns:
        # A failed search leaves an empty result behind (RFC 5182 §2.1).
        view.saved = NumSet()
    criterion = criteria.criterion(args.key, view, saved)
    by = sort_keys(args)
    modseqs: dict[int, int] | None = None
    if search_key.uses_modseq(args.key):
        session.enabled |= Enabled.CONDSTORE
        async with db.read() as tx:
            modseqs = dict(await search.uids(tx, view.account_id, view.mailbox_id, criterion, by))
        found: Sequence[int] = list(modseqs)
    else:
        found = await finding.numbers(session, criterion, by)
    uids = found if found is view.uids else [uid for uid in found if uid < view.uidnext]
    answer(session, command, uids, modseqs)
    if "SAVE" in returns:
        view.saved = NumSet.of(_named(args, uids))
    if "UPDATE" in returns:
        contexts.begin(session, command.tag, Context(command.uid, criterion, by, array("I", uids)))


def sort_keys(args: SearchArgs) -> Sort:
    """The store's names of SORT's criteria."""
    return tuple((_SORT_KEYS.get(key, key.lower()), reverse) for key, reverse in args.sort)


def answer(session: Session, command: Command, uids: Sequence[int], modseqs: dict[int, int] | None) -> None:
    """* SEARCH, * SORT or * ESEARCH; `modseqs`: of the messages, if the client searched by them."""
    args = cast(SearchArgs, command.args)
    returns = args.returns
    if returns == frozenset(("SAVE",)):
        return  # RFC 5182 §2.1
    numbers = uids if command.uid else criteria.seqs(session.view, uids)
    if returns is None and session.rev2 and not args.sort:
        returns = frozenset(("ALL",))
    modseq = None
    if modseqs is not None:
        # Of the messages that the answer names (RFC 4731 §3.2).
        modseq = max((modseqs[uid] for uid in _named(args, uids)), default=None)
    if returns is None:
        session.send(response.search_line(numbers, name="SORT" if args.sort else "SEARCH", modseq=modseq))
        return
    partial = None
    if args.partial is not None:
        part = numbers[args.partial.of(len(numbers))]
        partial = str(args.partial), part if args.sort else NumSet.of(part)
    session.send(
        response.esearch_line(
            command.tag,
            uid=command.uid,
            minimum=numbers[0] if numbers and "MIN" in returns else None,
            maximum=numbers[-1] if numbers and "MAX" in returns else None,
            count=len(numbers) if "COUNT" in returns else None,
            all=(numbers if args.sort else NumSet.of(numbers)) if "ALL" in returns else None,
            partial=partial,
            modseq=modseq,
        )
    )


def _named(args: SearchArgs, uids: Sequence[int]) -> Sequence[int]:
    """Those of the result that the options speak of: without ALL and COUNT, MIN, MAX and PARTIAL choose some (RFC 5182
    §2.4, RFC 9394 §3.2)."""
    returns = args.returns or frozenset()
    if returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX", "PARTIAL"}:
        return uids
    ends = [*uids[:1]] * ("MIN" in returns) + [*uids[-1:]] * ("MAX" in returns)
    return ends if args.partial is None else [*ends, *uids[args.partial.of(len(uids))]]
