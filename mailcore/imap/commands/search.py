"""SEARCH and UID SEARCH with ESEARCH, SEARCHRES, WITHIN and CONDSTORE (RFC 9051 §6.4.4, RFC 4731, 5182, 5032, 7162)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from mailcore import db
from mailcore.imap import criteria
from mailcore.imap.capabilities import Enabled
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.store import search
from mailcore.store.search import Criterion, Sort
from mailcore.wire.imap import response, search_key
from mailcore.wire.imap.commands import Command, SearchArgs
from mailcore.wire.imap.numset import NumSet


@dataclass(frozen=True, slots=True)
class Found:
    """UIDs that the client knows, in the order asked for; their modseqs only when MODSEQ was among the keys."""

    uids: Sequence[int]
    modseqs: dict[int, int] | None = None

    def modseq(self, uids: Iterable[int]) -> int | None:
        """The highest modseq of some of them."""
        return max((self.modseqs[uid] for uid in uids), default=None) if self.modseqs is not None else None


Finder = Callable[[Session, Criterion], Awaitable[Sequence[int]]]


@command("SEARCH", "UID SEARCH", state=SELECTED, uses_seqs=True, may_expunge=False)
async def search_(session: Session, command: Command) -> Done:
    """Find messages; the answer names those that the client knows, in the order of the mailbox."""
    found = await find(session, cast(SearchArgs, command.args), _numbers)
    answer(session, command, found)
    return Done("SEARCH completed")


async def _numbers(session: Session, criterion: Criterion) -> Sequence[int]:
    view = session.view
    if criteria.is_everything(criterion, view):
        return view.uids
    async with db.read() as tx:
        return await search.numbers(tx, session.account_id, view.mailbox_id, criterion)


async def find(session: Session, args: SearchArgs, numbers: Finder, sort: Sort = ()) -> Found:
    """Run a search: `numbers` finds the UIDs, and the store itself, by `sort`, if their modseqs are wanted."""
    view = session.view
    with_modseq = search_key.uses_modseq(args.key)
    if with_modseq:
        session.enabled |= Enabled.CONDSTORE
    saved = view.saved
    if args.returns is not None and "SAVE" in args.returns:
        # A failed search leaves an empty result behind (RFC 5182 §2.1).
        view.saved = NumSet()
    criterion = criteria.criterion(args.key, view, saved)
    if with_modseq:
        async with db.read() as tx:
            rows = await search.uids(tx, session.account_id, view.mailbox_id, criterion, sort)
        modseqs = {uid: modseq for uid, modseq in rows if uid < view.uidnext}
        return Found(list(modseqs), modseqs)
    uids = await numbers(session, criterion)
    return Found(uids if uids is view.uids else [uid for uid in uids if uid < view.uidnext])


def answer(session: Session, command: Command, found: Found) -> None:
    """* SEARCH, * SORT or * ESEARCH; and keep the result if SAVE is among the options."""
    args = cast(SearchArgs, command.args)
    uids, returns = found.uids, args.returns
    numbers = uids if command.uid else criteria.seqs(session.view, uids)
    if returns is None and session.rev2 and not args.sort:
        returns = frozenset(("ALL",))
    if returns is None:
        name = "SORT" if args.sort else "SEARCH"
        session.send(response.search_line(numbers, name=name, modseq=found.modseq(uids)))
        return
    if returns != {"SAVE"}:  # then nothing is said (RFC 5182 §2.1)
        shown = uids if returns & {"ALL", "COUNT"} or not returns & {"MIN", "MAX"} else _ends(returns, uids)
        session.send(
            response.esearch_line(
                command.tag,
                uid=command.uid,
                minimum=numbers[0] if numbers and "MIN" in returns else None,
                maximum=numbers[-1] if numbers and "MAX" in returns else None,
                count=len(numbers) if "COUNT" in returns else None,
                all=(numbers if args.sort else NumSet.of(numbers)) if "ALL" in returns else None,
                # Of the messages that MIN and MAX name if only they are asked for (RFC 4731 §3.2).
                modseq=found.modseq(shown),
            )
        )
    if "SAVE" in returns:
        # With MIN or MAX but neither ALL nor COUNT, only those (RFC 5182 §2.4).
        only_ends = returns & {"MIN", "MAX"} and not returns & {"ALL", "COUNT"}
        session.view.saved = NumSet.of(_ends(returns, uids) if only_ends else uids)


def _ends(returns: frozenset[str], uids: Sequence[int]) -> list[int]:
    return [*uids[:1]] * ("MIN" in returns) + [*uids[-1:]] * ("MAX" in returns)
