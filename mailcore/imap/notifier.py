"""What a client hears of mailboxes that it has not selected (RFC 5465).

The store's hints only say that something happened. What, is found by comparing the mailboxes as they are with how the
client was told of them last: so nothing is lost when hints are, and a slow client costs one comparison, not a queue.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailcore import db, wake
from mailcore.errors import MailError
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands import fetch
from mailcore.imap.commands.metadata import special_use
from mailcore.imap.filters import fits
from mailcore.store import acl, mailboxes, metadata
from mailcore.store.acl import Place, Right
from mailcore.wake import Change
from mailcore.wire.imap import response
from mailcore.wire.imap.fetch_item import FetchAttr
from mailcore.wire.imap.metadata import changed_line
from mailcore.wire.imap.notify import SELECTED, EventGroup

if TYPE_CHECKING:
    from mailcore.imap.selected import Selected
    from mailcore.imap.session import Session

log = logging.getLogger(__name__)

# Seconds between two looks into the store, at least, and after one that failed; and how many times as long as a look
# took, so that whoever watches thousands of mailboxes costs no more than a share of the time.
BREATH, RETRY = 0.05, 5.0
SHARE = 10
MAX_REMEMBERED = 25_000  # names whose group is known
Key = tuple[int, int]
NOTHING: frozenset[str] = frozenset()


class Overflow(Exception):
    """There is more to watch than one session may."""


@dataclass(frozen=True, slots=True)
class Picture:
    """All that can be told of, at one moment; `annotations` maps entries (mailbox, name) to their versions."""

    places: dict[Key, Place]
    subscribed: frozenset[str]
    annotations: dict[tuple[Key, str], str]


class Notifier:
    """One session's NOTIFY."""

    def __init__(self, session: Session, groups: tuple[EventGroup, ...]) -> None:
        self._session = session
        chosen = next((group for group in groups if group.filter in SELECTED), EventGroup("SELECTED"))
        self.selected: frozenset[str] = chosen.events
        """Events of the selected mailbox that are wanted; none = silence about it."""
        self.immediate = bool(chosen.events) and chosen.filter == "SELECTED"
        """They are told as they happen, not only after commands and in IDLE."""
        self.items = chosen.items
        """What is told of new messages in it."""
        self.pending = False
        """Something may have happened."""
        self._groups = tuple((group, frozenset(group.names)) for group in groups if group.filter not in SELECTED)
        self._events = NOTHING.union(*(group.events for group, _ in self._groups))
        self._group_of: dict[tuple[str, bool], EventGroup | None] = {}
        self._breath = BREATH
        self._known = Picture({}, frozenset(), {})
        self._followed: dict[int, Callable[[], None]] = {}
        self._own: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    # -- from outside

    async def start(self) -> bytes:
        """Begin to watch; returns what STATUS says now of the mailboxes whose messages are watched. Raises Overflow."""
        if not self._groups:
            return b""
        self._follow((self._session.account_id,))
        self._known = await self._look()
        return b"".join(self._status(place) for key, place in self._known.places.items() if self._watched(key, place))

    def close(self) -> None:
        """Watch no more."""
        for unsubscribe in self._followed.values():
            unsubscribe()
        self._followed.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.pending = False

    def own(self, *names: str) -> None:
        """The session itself is about to change these names: it need not be told (RFC 5465 §3)."""
        if self._groups:
            self._own.update(names)

    async def flush(self) -> None:
        """Tell what has happened. Never raises for trouble of the store: then it looks again."""
        self.pending = False
        own, self._own = self._own, set()
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            now = await self._look()
        except MailError as error:
            log.warning("no notifications for %s: %s", self._session.who, error.private or error.text)
            self._own |= own
            self._again(RETRY)
            return
        except Overflow:
            self.overflow()
            return
        before, self._known = self._known, now
        self._session.send(b"".join((*self._names(before, now, own), *self._messages(before, now))))
        self._session.send(b"".join(self._metadata(before, now)))
        self._breath = min(max(BREATH, SHARE * (clock() - began)), RETRY)

    def left(self, view: Selected) -> None:
        """The mailbox is not selected any more: what its client was not told of it, STATUS will say."""
        key = (view.account_id, view.mailbox_id)
        place = self._known.places.get(key)
        if place is not None and self._groups:
            told = replace(place.mailbox, messages=len(view.uids), uidnext=view.uidnext, highest_modseq=view.modseq)
            self._known.places[key] = replace(place, mailbox=told)
            self._again(self._breath)

    async def describe(self, first: int) -> None:
        """Say what was asked for of the new messages of the selected mailbox, which begin with this UID."""
        view = self._session.view
        self._session.server.progress.end(self._session)  # which must not speak within a literal
        items = self.items
        if self._session.enabled & Enabled.CONDSTORE and FetchAttr("MODSEQ") not in items:
            items = (*items, FetchAttr("MODSEQ"))  # as in all that is told unasked (RFC 7162 §3.1)
        plan = replace(fetch.plan(items, self._session), seen=False)
        await fetch.send_planned(self._session, plan, [slice(bisect_left(view.uids, first), len(view.uids))])

    def overflow(self) -> None:
        """Give up: from now on as after NOTIFY NONE (RFC 5465 §5.8)."""
        self.close()
        self._groups, self.selected, self.immediate, self.items = (), NOTHING, False, ()
        self._group_of.clear()
        self._session.send(
            response.status_line(None, "OK", "There is too much to watch: NOTIFY is off", "NOTIFICATIONOVERFLOW")
        )

    # -- hearing

    def _heard(self, changes: tuple[Change, ...]) -> None:
        self._again(self._breath)

    def _again(self, delay: float) -> None:
        if self._timer is None and not self.pending:
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.pending = True
        self._session.connection.wake()

    def _follow(self, accounts: Iterable[int]) -> None:
        wanted = set(accounts)
        for account_id in self._followed.keys() - wanted:
            self._followed.pop(account_id)()
        for account_id in wanted - self._followed.keys():
            self._followed[account_id] = wake.subscribe(account_id, self._heard)
            self._again(BREATH)  # for what happened before

    # -- looking

    async def _look(self) -> Picture:
        """The mailboxes of the filters as they are now, and whatever else the events speak of."""
        session, limits = self._session, self._session.server.limits
        account_id = session.account_id
        beyond = any(group.filter in ("SUBSCRIBED", "SUBTREE", "SUBTREE-ONE", "MAILBOXES") for group, _ in self._groups)
        async with db.read() as tx:
            found = [Place(account_id, mailbox) for mailbox in await mailboxes.all(tx, account_id)]
            others = await acl.shared(tx, account_id) if beyond else []
            subscribed = frozenset(await mailboxes.subscriptions(tx, account_id))
            places = {(place.account_id, place.mailbox.id): place for place in (*found, *others)}
            watched = [place for place in places.values() if self._group(place.name, subscribed) is not None]
            if len(watched) > limits.notify:
                raise Overflow
            self._follow({account_id, *(place.account_id for place in watched)})
            annotations: dict[tuple[Key, str], str] = {}
            if self._events & {"MAILBOXMETADATACHANGE", "SERVERMETADATACHANGE"}:
                owners = {account_id, *(place.account_id for place in watched)}
                for owner, mailbox_id, name, version in await metadata.versions(tx, owners, account_id):
                    annotations[(owner, mailbox_id), name] = version
                for key, place in places.items():
                    annotations |= {(key, name): use.decode() for name, use in special_use(place).items()}
        return Picture(places, subscribed, annotations)

    def _group(self, name: str, subscribed: frozenset[str]) -> EventGroup | None:
        """The first group whose filter names the mailbox (RFC 5465 §6); None when it is nobody's business."""
        key = (name, name in subscribed)
        if key not in self._group_of:
            if len(self._group_of) >= MAX_REMEMBERED:
                self._group_of.clear()
            fitting = (group for group, names in self._groups if fits(group.filter, names, name, subscribed=key[1]))
            self._group_of[key] = next(fitting, None)
        return self._group_of[key]

    def _wants(self, event: str, name: str, subscribed: frozenset[str]) -> bool:
        group = self._group(name, subscribed)
        return group is not None and event in group.events

    def _watched(self, key: Key, place: Place) -> bool:
        """Whether STATUS responses speak of a mailbox: the selected one is another matter."""
        view = self._session.selected
        if view is not None and key == (view.account_id, view.mailbox_id):
            return False
        may = bool(place.rights & Right.READ)
        return may and self._wants("MESSAGENEW", place.name, self._known.subscribed)

    # -- telling

    def _messages(self, before: Picture, now: Picture) -> Iterable[bytes]:
        for key, place in now.places.items():
            old, is_ = before.places.get(key), place.mailbox
            renamed = old is not None and old.name != place.name
            if old is not None and not renamed and old.mailbox.highest_modseq == is_.highest_modseq:
                continue
            if not self._watched(key, place):
                continue
            was = (0, 1) if old is None else (old.mailbox.messages, old.mailbox.uidnext)
            flags = old is not None and self._wants("FLAGCHANGE", place.name, now.subscribed)
            if renamed or flags or was != (is_.messages, is_.uidnext):
                yield self._status(place)

    def _status(self, place: Place) -> bytes:
        mailbox = place.mailbox
        values: dict[str, int | str | None] = {
            "MESSAGES": mailbox.messages,
            "UIDNEXT": mailbox.uidnext,
            "UIDVALIDITY": mailbox.uidvalidity,
            "UNSEEN": mailbox.unseen,
        }
        if self._session.enabled & Enabled.CONDSTORE:
            values["HIGHESTMODSEQ"] = mailbox.highest_modseq
        return response.status_data_line(place.name, values, utf8=self._session.utf8)

    def _names(self, before: Picture, now: Picture, own: set[str]) -> Iterable[bytes]:
        """LIST for mailboxes that came, left or changed their name, and for subscriptions (RFC 5465 §5.4, §5.5)."""
        told: set[str] = set(own)
        renamed = {
            old.name: place
            for key, place in now.places.items()
            if (old := before.places.get(key)) is not None and old.name != place.name
        }
        for oldname, place in _free_first(renamed):
            # Who watches a mailbox by its name is told that it has another one now, watched or not.
            watched = self._wants("MAILBOXNAME", place.name, now.subscribed)
            if place.name not in told and (watched or self._wants("MAILBOXNAME", oldname, before.subscribed)):
                told.add(place.name)
                yield self._listed(place.name, now, oldname=oldname)
        for key, place in now.places.items():
            if key not in before.places and place.name not in told:
                if self._wants("MAILBOXNAME", place.name, now.subscribed):
                    told.add(place.name)
                    yield self._listed(place.name, now)
        present = {place.name for place in now.places.values()}
        for key, old in before.places.items():
            if key not in now.places and old.name not in told and old.name not in present:
                if self._wants("MAILBOXNAME", old.name, before.subscribed):
                    told.add(old.name)
                    yield self._listed(old.name, now, gone=True)
        for name in sorted(before.subscribed ^ now.subscribed):
            if name not in told and self._wants("SUBSCRIPTIONCHANGE", name, before.subscribed | now.subscribed):
                yield self._listed(name, now, gone=name not in present)

    def _listed(self, name: str, now: Picture, *, gone: bool = False, oldname: str | None = None) -> bytes:
        attributes = ["\\NonExistent"] if gone else []
        if name in now.subscribed:
            attributes.append("\\Subscribed")
        return response.list_line(name, attributes, utf8=self._session.utf8, oldname=oldname)

    def _metadata(self, before: Picture, now: Picture) -> Iterable[bytes]:
        """METADATA with the names of entries that changed (RFC 5465 §5.6, §5.7)."""
        changed: dict[Key, list[str]] = {}
        for entry in before.annotations.keys() | now.annotations.keys():
            if before.annotations.get(entry) != now.annotations.get(entry):
                changed.setdefault(entry[0], []).append(entry[1])
        for key, names in sorted(changed.items()):
            if key == (self._session.account_id, metadata.SERVER):
                if "SERVERMETADATACHANGE" in self._events:
                    yield changed_line("", sorted(names), utf8=self._session.utf8)
                continue
            place = now.places.get(key)
            if (
                place is not None
                and place.rights & acl.USING
                and self._wants("MAILBOXMETADATACHANGE", place.name, now.subscribed)
            ):
                yield changed_line(place.name, sorted(names), utf8=self._session.utf8)


def _free_first(renamed: Mapping[str, Place]) -> Iterable[tuple[str, Place]]:
    """Renamings by their old names in an order in which a new name is free when it is taken, if there is one."""
    waiting = dict(renamed)
    while waiting:
        free = [old for old, place in waiting.items() if place.name not in waiting] or [next(iter(waiting))]
        for old in free:
            yield old, waiting.pop(old)
