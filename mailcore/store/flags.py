"""Flags: the bits of the system flags, and the verb behind STORE and JMAP's keywords."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mailcore.arrays import Int4s, Int8s, Texts, columns
from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks
from mailcore.wake import Change

SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = 1, 2, 4, 8, 16
ALL_FLAGS = SEEN | ANSWERED | FLAGGED | DELETED | DRAFT
SYSTEM_FLAGS = {"\\Seen": SEEN, "\\Answered": ANSWERED, "\\Flagged": FLAGGED, "\\Deleted": DELETED, "\\Draft": DRAFT}

# A message with more keywords than this, or longer ones, serves no reader.
MAX_KEYWORDS = 100
MAX_KEYWORD_LENGTH = 100

Op = Literal["+", "-", "="]
FlagRow = tuple[int, int, int, tuple[str, ...]]  # uid, modseq, flags, keywords


@dataclass(frozen=True, slots=True)
class Stored:
    """Outcome of `store`: rows as they are now (changed or not), UIDs refused by `unchanged_since`, the modseq taken.

    `found` counts the rows, also when they were not asked for.
    """

    changed: list[FlagRow]
    modified: list[int] = field(default_factory=list)
    modseq: int = 0
    found: int = 0


_THESE = "account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint AND uid "
_SCOPES = {
    True: _THESE + "BETWEEN %(lo)s::bigint AND %(hi)s::bigint",
    False: _THESE + "BETWEEN %(lo)s::bigint AND %(hi)s::bigint AND uid = ANY(%(uids)s::bigint[])",
}
_LATER = "modseq > %(since)s::bigint"
_NEW_FLAGS = "(flags & ~%(clear)s::int) | %(set)s::int"


def _scoped(query: str) -> dict[bool, str]:
    """A query about every UID of a range (True), and about some UIDs in it."""
    return {whole: sql(query.replace("{these}", these)) for whole, these in _SCOPES.items()}


ROWS = _scoped("SELECT uid, modseq, flags, keywords FROM entry WHERE {these} ORDER BY uid")
COUNT = _scoped("SELECT count(*) FROM entry WHERE {these}")
LATER = _scoped(f"SELECT uid FROM entry WHERE {{these}} AND {_LATER} ORDER BY uid")

# How many are going to lose and to gain a flag that mailboxes count.
COUNTED = _scoped(f"""
    SELECT count(*) FILTER (WHERE flags & {SEEN} = 0), count(*) FILTER (WHERE flags & {SEEN} <> 0),
        count(*) FILTER (WHERE flags & {DELETED} = 0), count(*) FILTER (WHERE flags & {DELETED} <> 0)
    FROM entry WHERE {{these}} AND NOT {_LATER}""")

SET_FLAGS = _scoped(f"""
    UPDATE entry SET flags = {_NEW_FLAGS}, modseq = %(modseq)s::bigint
    WHERE {{these}} AND NOT {_LATER} AND flags <> ({_NEW_FLAGS})""")

REPLACE_FLAGS = _scoped(f"""
    UPDATE entry SET flags = {_NEW_FLAGS}, keywords = NULL, modseq = %(modseq)s::bigint
    WHERE {{these}} AND NOT {_LATER} AND (flags <> ({_NEW_FLAGS}) OR keywords IS NOT NULL)""")

# text[][] would need rows of equal length, so that each message's keywords travel as one string.
SET_EACH = sql("""
    UPDATE entry SET flags = new.flags, modseq = %(modseq)s::bigint,
        keywords = CASE WHEN new.keywords = '' THEN NULL ELSE string_to_array(new.keywords, ' ') END
    FROM unnest(%(uids)s::bigint[], %(flags)s::int[], %(keywords)s::text[]) AS new(uid, flags, keywords)
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint AND entry.uid = new.uid""")

NOTE_CHANGE = sql("""
    INSERT INTO flag_change (account_id, modseq, mailbox_id, firsts, lasts)
    VALUES (%s::bigint, %s::bigint, %s::bigint, %s::bigint[], %s::bigint[])""")
# More ranges than this are noted as the one that holds them all.
MAX_RANGES = 500


def check_keywords(keywords: Sequence[str]) -> tuple[str, ...]:
    """Keywords without repetition, sorted; raises BAD_VALUE or TOO_MANY for what cannot be stored."""
    kept: dict[str, str] = {}
    for word in keywords:
        if (
            not word
            or len(word) > MAX_KEYWORD_LENGTH
            or not all("!" <= c <= "~" and c not in '(){%*"\\]' for c in word)
        ):
            raise MailError(Code.BAD_VALUE, f"not a keyword: {word[:40]!r}")
        kept.setdefault(word.lower(), word)
    if len(kept) > MAX_KEYWORDS:
        raise MailError(Code.TOO_MANY, f"a message can have {MAX_KEYWORDS} keywords at most")
    return tuple(kept[low] for low in sorted(kept))


def _apply(
    op: Op, now: int, have: Sequence[str] | None, flags: int, keywords: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    if op == "=":
        return flags, check_keywords(keywords)
    present = {word.lower(): word for word in have or ()}
    if op == "+":
        return now | flags, check_keywords([*present.values(), *keywords])
    for word in keywords:
        present.pop(word.lower(), None)
    return now & ~flags, tuple(present[low] for low in sorted(present))


@dataclass(frozen=True, slots=True)
class _Scope:
    """The messages a STORE is about, as its statements name them."""

    account: int
    mailbox: int
    names: dict[str, object]
    whole: bool

    @classmethod
    def of(cls, account: int, mailbox: int, uids: Sequence[int], since: int | None) -> _Scope:
        names: dict[str, object] = {"account": account, "mailbox": mailbox, "lo": uids[0], "hi": uids[-1]}
        names["since"] = _EVER if since is None else since
        whole = len(uids) == uids[-1] - uids[0] + 1
        if not whole:
            names["uids"] = Int8s(uids)
        return cls(account, mailbox, names, whole)


_EVER = 2**63 - 1


async def store(
    tx: Tx,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    op: Op,
    flags: int,
    keywords: Sequence[str] = (),
    unchanged_since: int | None = None,
    *,
    rows: bool = True,
    within: int = ALL_FLAGS,
) -> Stored:
    """Add, remove or replace flags and keywords of messages (RFC 9051 §6.4.6, RFC 7162 §3.1.3).

    `uids` ascending; missing ones are passed over. A message that has the flags already keeps its modseq. Without
    `rows`, `changed` stays empty, which is cheaper. `within`: the system flags that "=" may take away; keywords go with
    FLAGGED. Raises NOT_FOUND (mailbox), BAD_VALUE and TOO_MANY (keywords).
    """
    if not uids:
        return Stored([])
    keywords = check_keywords(keywords)
    modseq = await locks.lock(tx, account_id, [mailbox_id]) + 1
    scope = _Scope.of(account_id, mailbox_id, uids, unchanged_since)
    if keywords:
        return await _store_keywords(tx, scope, modseq, op, flags, keywords, within)
    modified: list[int] = []
    if unchanged_since is not None:
        modified = [row[0] for row in await tx.fetch(LATER[scope.whole], scope.names)]
    bits = {"set": flags if op in "+=" else 0, "clear": flags if op == "-" else within if op == "=" else 0}
    unseen, deleted = await _counted(tx, scope, bits["set"], bits["clear"])
    query = (REPLACE_FLAGS if op == "=" and within & FLAGGED else SET_FLAGS)[scope.whole]
    touched = await tx.execute(query, {**scope.names, **bits, "modseq": modseq})
    if touched:
        await _note(tx, scope, modseq, uids, unseen, deleted)
    taken = modseq if touched else 0
    if rows:
        refused = set(modified)
        now = [
            (uid, changed, mask, tuple(words or ()))
            for uid, changed, mask, words in await tx.fetch(ROWS[scope.whole], scope.names)
            if uid not in refused
        ]
        return Stored(now, modified, taken, len(now))
    found = touched
    if touched + len(modified) < len(uids):
        row = await tx.one(COUNT[scope.whole], scope.names)
        found = row[0] - len(modified) if row else 0
    return Stored([], modified, taken, found)


async def _counted(tx: Tx, scope: _Scope, set_bits: int, clear_bits: int) -> tuple[int, int]:
    """By how much the mailbox's unseen and deleted messages are going to grow."""
    if not (set_bits | clear_bits) & (SEEN | DELETED):
        return 0, 0
    row = await tx.one(COUNTED[scope.whole], scope.names)
    without_seen, with_seen, without_deleted, with_deleted = row or (0, 0, 0, 0)
    unseen = -without_seen if set_bits & SEEN else with_seen if clear_bits & SEEN else 0
    deleted = without_deleted if set_bits & DELETED else -with_deleted if clear_bits & DELETED else 0
    return unseen, deleted


async def _store_keywords(
    tx: Tx, scope: _Scope, modseq: int, op: Op, flags: int, keywords: tuple[str, ...], within: int
) -> Stored:
    """Keywords compare without case and keep the spelling that came first, so each message is looked at."""
    result: list[FlagRow] = []
    modified: list[int] = []
    touched: list[tuple[int, int, str]] = []
    unseen = deleted = 0
    for uid, row_modseq, now, have in await tx.fetch(ROWS[scope.whole], scope.names):
        if row_modseq > scope.names["since"]:
            modified.append(uid)
            continue
        before = tuple(have or ())
        after, words = _apply(op, now, before, flags, keywords)
        if op == "=":
            after |= now & ~within
        if after == now and words == before:
            result.append((uid, row_modseq, now, before))
            continue
        unseen += (now & SEEN) - (after & SEEN)
        deleted += ((after & DELETED) - (now & DELETED)) // DELETED
        touched.append((uid, after, " ".join(words)))
        result.append((uid, modseq, after, words))
    if not touched:
        return Stored(result, modified, 0, len(result))
    uids, bits, words_of = columns(touched, (Int8s, Int4s, Texts))
    names = {"account": scope.account, "mailbox": scope.mailbox, "modseq": modseq}
    await tx.execute(SET_EACH, {**names, "uids": uids, "flags": bits, "keywords": words_of})
    await _note(tx, scope, modseq, [row[0] for row in touched], unseen, deleted)
    return Stored(result, modified, modseq, len(result))


async def _note(tx: Tx, scope: _Scope, modseq: int, uids: Sequence[int], unseen: int, deleted: int) -> None:
    """Take the modseq, count, and write down where the changes are; `uids` (ascending) hold all of them."""
    firsts, lasts = [uids[0]], [uids[-1]]
    if len(uids) <= uids[-1] - uids[0]:
        gaps = [(one, other) for one, other in itertools.pairwise(uids) if other - one > 1]
        if len(gaps) < MAX_RANGES:
            firsts += [other for _, other in gaps]
            lasts = [*(one for one, _ in gaps), uids[-1]]
    await tx.batch(
        (locks.NEXT_MODSEQ, (scope.account,)),
        locks.counting(scope.account, scope.mailbox, modseq, unseen=unseen, deleted=deleted),
        (NOTE_CHANGE, (scope.account, modseq, scope.mailbox, Int8s(firsts), Int8s(lasts))),
    )
    tx.changed(Change(scope.account, scope.mailbox, modseq, "flags"))
