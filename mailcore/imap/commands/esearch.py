"""ESEARCH: one search through several mailboxes, none of which need be selected (RFC 7377)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import cast

from mailcore import db
from mailcore.imap import contexts, criteria, finding
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands.list import visible
from mailcore.imap.commands.search import Found, extended, named
from mailcore.imap.errors import bad
from mailcore.imap.filters import fits
from mailcore.imap.registry import LOGGED_IN, Done, command
from mailcore.imap.selected import Selected
from mailcore.imap.session import Session
from mailcore.store import mailboxes, search
from mailcore.store.acl import Place, Right
from mailcore.wire.imap import response, search_key
from mailcore.wire.imap.commands import Command, EsearchArgs, SearchArgs

_SELECTED = ("SELECTED", "SELECTED-DELAYED")
Sources = Sequence[tuple[str, tuple[str, ...]]]


@command("ESEARCH", state=LOGGED_IN)
async def esearch(session: Session, command: Command) -> Done:
    """Find messages in mailboxes; an answer for each that has some. Those one may not see or read are left out."""
    args = cast(EsearchArgs, command.args)
    sources = args.sources or (("SELECTED", ()),)
    returns = args.search.returns or frozenset()
    elsewhere = any(kind not in _SELECTED for kind, _ in sources)
    if session.selected is None and any(kind in _SELECTED for kind, _ in sources):
        raise bad("No mailbox is selected")
    if elsewhere and search_key.uses_sequence_numbers(args.search.key):
        raise bad("Sequence numbers are those of the selected mailbox: search by UID")
    if elsewhere and "SAVE" in returns:
        raise bad("SAVE is for the selected mailbox only (RFC 7377 section 2.1)")
    if args.search.charset is not None and session.enabled & Enabled.UTF8:
        raise bad("After ENABLE UTF8=ACCEPT a search names no charset: it is UTF-8 (RFC 9755 section 3)")
    if search_key.uses_modseq(args.search.key):
        session.enabled |= Enabled.CONDSTORE
    for view, name in await _views(session, sources):
        await _search(session, command.tag, args.search, view, name)
        await session.connection.drain()
    if "UPDATE" in returns:
        contexts.refuse(session, command.tag, "Only SEARCH and SORT are updated")
    return Done("ESEARCH completed")


async def _search(session: Session, tag: str, args: SearchArgs, view: Selected, name: str) -> None:
    returns = args.returns or frozenset()
    if view is not session.selected and search_key.uses_star(args.key):
        async with db.read() as tx:
            view.uids = await search.window(tx, view.account_id, view.mailbox_id, search.All(), 0, 1, backwards=True)
    criterion = criteria.criterion(args.key, view)
    if "SAVE" in returns:
        view.save(())
    modseqs: dict[int, int] | None = None
    scores: list[int] | None = None
    async with db.read() as tx:
        if search_key.uses_modseq(args.key):
            modseqs = dict(await search.uids(tx, view.account_id, view.mailbox_id, criterion))
            found: Iterable[int] = modseqs
        else:
            found = await search.numbers(tx, view.account_id, view.mailbox_id, criterion)
        uids = [uid for uid in found if uid < view.uidnext]
        if "RELEVANCY" in returns:
            phrases = criteria.phrases(args.key)
            scores = await finding.scores(tx, view.account_id, view.mailbox_id, phrases, uids)
    if "SAVE" in returns:
        view.save(named(args, uids))
    if uids and returns != {"SAVE"}:
        mailbox = response.mailbox(name, utf8=session.utf8), view.uidvalidity
        session.send(extended(tag, args, Found(uids, modseqs, scores), mailbox=mailbox))


async def _views(session: Session, sources: Sources) -> list[tuple[Selected, str]]:
    """The mailboxes that are meant, each once, by the names that they have now."""
    async with db.read() as tx:
        places = await visible(tx, session.account_id)
        subscribed = set(await mailboxes.subscriptions(tx, session.account_id))
    selected = session.selected
    views = []
    wanted = [(kind, frozenset(names)) for kind, names in sources]
    for place in sorted(places, key=lambda place: place.name):
        is_selected = selected is not None and (selected.account_id, selected.mailbox_id) == (
            place.account_id,
            place.mailbox.id,
        )
        if place.rights & Right.READ and any(
            _means(kind, names, place, place.name in subscribed, is_selected) for kind, names in wanted
        ):
            views.append((selected if is_selected and selected is not None else _closed(place), place.name))
    return views


def _means(kind: str, names: frozenset[str], place: Place, subscribed: bool, selected: bool) -> bool:
    if kind in ("SELECTED", "SELECTED-DELAYED"):
        return selected
    return fits(kind, names, place.name, subscribed=subscribed)


def _closed(place: Place) -> Selected:
    """A mailbox that is not selected, as far as a search must know it."""
    mailbox = place.mailbox
    return Selected(
        mailbox.id,
        place.name,
        mailbox.uidvalidity,
        array("I"),
        mailbox.uidnext,
        mailbox.highest_modseq,
        read_only=True,
        account_id=place.account_id,
        rights=place.rights,
        shared=bool(place.owner),
    )
