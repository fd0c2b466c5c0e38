"""Changes to emails that are there: keywords, mailboxes, destruction; many at once in few statements (RFC 8621
§4.6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mailcore.db import Tx
from mailcore.errors import MailError
from mailcore.jmap import ids, limits
from mailcore.jmap.errors import SetError, invalid
from mailcore.jmap.queries import KEYWORD_FLAGS, Presence
from mailcore.store import expunge, flags, transfer
from mailcore.store.flags import check_keywords

Json = dict[str, Any]
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Marks:
    """Flag bits and keywords."""

    flags: int = 0
    words: Words = ()

    def __bool__(self) -> bool:
        return bool(self.flags or self.words)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of one email: marks replaced (`exactly`) or added and removed, mailboxes (None = as they
    are)."""

    exactly: Marks | None = None
    added: Marks = Marks()
    removed: Marks = Marks()
    mailboxes: frozenset[int] | None = None


def marks(names: Iterable[str], prop: str = "keywords") -> Marks:
    """Keywords of JMAP as the store has them. Raises SetError."""
    bits, words = 0, []
    for name in names:
        low = name.lower()
        if low in KEYWORD_FLAGS:
            bits |= KEYWORD_FLAGS[low]
        else:
            words.append(low)
    try:
        return Marks(bits, check_keywords(words))
    except MailError as error:
        kind = "tooManyKeywords" if len(words) > flags.MAX_KEYWORDS else "invalidProperties"
        raise SetError(kind, error.text, [prop]) from None


def keyword_map(value: Any) -> Marks:
    """The `keywords` property. Raises SetError."""
    if not isinstance(value, dict) or not all(item is True for item in value.values()):
        raise invalid("keywords must be a map of keyword to true", "keywords")
    return marks(value)


def mailbox_map(value: Any, resolve: Callable[[str], str], known: Collection[int]) -> frozenset[int]:
    """The `mailboxIds` property. Raises SetError."""
    if not isinstance(value, dict) or not all(item is True for item in value.values()):
        raise invalid("mailboxIds must be a map of id to true", "mailboxIds")
    found = frozenset(_mailbox(key, resolve, known) for key in value)
    return _in_some(found)


def _in_some(found: frozenset[int]) -> frozenset[int]:
    if not found:
        raise invalid("an email is in one mailbox at least", "mailboxIds")
    if len(found) > limits.MAX_MAILBOXES_PER_EMAIL:
        raise SetError("tooManyMailboxes", f"an email is in {limits.MAX_MAILBOXES_PER_EMAIL} mailboxes at most")
    return found


def _mailbox(given: str, resolve: Callable[[str], str], known: Collection[int]) -> int:
    number = ids.number_of(resolve(given), "F")
    if number is None or number not in known:
        raise invalid(f"there is no mailbox {given[:100]}", "mailboxIds")
    return number


def change(patch: Json, presence: Presence, resolve: Callable[[str], str], known: Collection[int]) -> Change:
    """The change that an update's PatchObject asks of an email (RFC 8620 §5.3). Raises SetError."""
    exactly: Marks | None = None
    target: set[int] | None = None
    add: list[str] = []
    remove: list[str] = []
    put: dict[int, bool] = {}
    for path, value in patch.items():
        name, slash, key = path.partition("/")
        key = key.replace("~1", "/").replace("~0", "~")
        if path == "keywords":
            exactly = keyword_map(value)
        elif path == "mailboxIds":
            target = set(mailbox_map(value, resolve, known))
        elif name not in ("keywords", "mailboxIds"):
            raise invalid(f"{path[:100]} of an email cannot be changed", path[:100])
        elif not slash or not key or (value is not True and value is not None):
            raise SetError("invalidPatch", f"{path[:100]} is true or null")
        elif name == "keywords":
            (add if value else remove).append(key)
        else:
            put[_mailbox(key, resolve, known) if value else ids.number_of(resolve(key), "F") or 0] = bool(value)
    if (exactly is not None and (add or remove)) or (target is not None and put):
        raise SetError("invalidPatch", "a property and a part of it cannot both be set")
    if put:
        target = set(presence.mailboxes) | {box for box, on in put.items() if on}
        target -= {box for box, on in put.items() if not on}
    chosen = None if target is None else _in_some(frozenset(target))
    return Change(exactly, marks(add), marks(remove), chosen)


async def apply(tx: Tx, account_id: int, changes: Mapping[int, Change], presences: Mapping[int, Presence]) -> None:
    """Make the changes; all or none. The account is locked. Raises MailError."""
    await _mark(tx, account_id, changes, presences)
    await _move(tx, account_id, changes, presences)


async def _mark(tx: Tx, account_id: int, changes: Mapping[int, Change], presences: Mapping[int, Presence]) -> None:
    groups: dict[tuple[int, flags.Op, Marks], list[int]] = defaultdict(list)
    for email_id, wanted in changes.items():
        steps: list[tuple[flags.Op, Marks]] = []
        if wanted.exactly is not None:
            steps.append(("=", wanted.exactly))
        if wanted.added:
            steps.append(("+", wanted.added))
        if wanted.removed:
            steps.append(("-", wanted.removed))
        for op, what in steps:
            for mailbox_id, uids in presences[email_id].mailboxes.items():
                groups[(mailbox_id, op, what)].extend(uids)
    for (mailbox_id, op, what), uids in groups.items():
        await flags.store(tx, account_id, mailbox_id, sorted(uids), op, what.flags, what.words)


async def _move(tx: Tx, account_id: int, changes: Mapping[int, Change], presences: Mapping[int, Presence]) -> None:
    copies: dict[tuple[int, int], list[int]] = defaultdict(list)
    moves: dict[tuple[int, int], list[int]] = defaultdict(list)
    losses: dict[int, list[int]] = defaultdict(list)
    for email_id, wanted in changes.items():
        if wanted.mailboxes is None:
            continue
        current = presences[email_id].mailboxes
        leaves = [box for box in current if box not in wanted.mailboxes]
        enters = sorted(wanted.mailboxes - current.keys())
        for source, target in zip(leaves, enters, strict=False):
            moves[(source, target)].append(current[source][0])
            losses[source].extend(current[source][1:])
        for source in leaves[len(enters) :]:
            losses[source].extend(current[source])
        first = next(iter(current))
        for target in enters[len(leaves) :]:
            copies[(first, target)].append(current[first][0])
    # Copies first, while every source is where it was.
    for (source, target), uids in copies.items():
        await transfer.copy(tx, account_id, source, sorted(uids), target)
    for (source, target), uids in moves.items():
        await transfer.move(tx, account_id, source, sorted(uids), target)
    for source, uids in losses.items():
        await expunge.expunge(tx, account_id, source, sorted(uids), deleted_only=False)


async def destroy(tx: Tx, account_id: int, presences: Iterable[Presence]) -> None:
    """Remove emails from all their mailboxes. The account is locked."""
    gone: dict[int, list[int]] = defaultdict(list)
    for presence in presences:
        for mailbox_id, uids in presence.mailboxes.items():
            gone[mailbox_id].extend(uids)
    for mailbox_id, uids in sorted(gone.items()):
        await expunge.expunge(tx, account_id, mailbox_id, sorted(uids), deleted_only=False)
