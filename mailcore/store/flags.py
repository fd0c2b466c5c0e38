"""Flags: the bits of the system flags, and the verb behind STORE and JMAP's keywords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
    """Outcome of `store`: rows that exist now (changed or not), UIDs refused by `unchanged_since`, the modseq taken."""

    changed: list[FlagRow]
    modified: list[int] = field(default_factory=list)
    modseq: int = 0


# Keywords compare case-insensitively (RFC 9051 §2.3.2); the spelling that came first is kept.
LOCK_ENTRIES = sql("""
    SELECT uid, modseq, flags, keywords FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint
        AND uid BETWEEN %s::bigint AND %s::bigint AND uid = ANY(%s::bigint[]) ORDER BY uid""")

LOCK_ENTRY_RANGE = sql("""
    SELECT uid, modseq, flags, keywords FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND uid BETWEEN %s::bigint AND %s::bigint ORDER BY uid""")

SET_FLAGS = sql("""
    UPDATE entry SET flags = (flags & ~%(clear)s::int) | %(set)s::int, modseq = %(modseq)s::bigint
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint
        AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint AND uid = ANY(%(uids)s::bigint[])""")

SET_FLAGS_RANGE = sql("""
    UPDATE entry SET flags = (flags & ~%(clear)s::int) | %(set)s::int, modseq = %(modseq)s::bigint
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint
        AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint""")

# text[][] would need rows of equal length, so that each message's keywords travel as one string.
SET_EACH = sql("""
    UPDATE entry SET flags = new.flags, modseq = %(modseq)s::bigint,
        keywords = CASE WHEN new.keywords = '' THEN NULL ELSE string_to_array(new.keywords, ' ') END
    FROM unnest(%(uids)s::bigint[], %(flags)s::int[], %(keywords)s::text[]) AS new(uid, flags, keywords)
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint AND entry.uid = new.uid""")


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


async def store(
    tx: Tx,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    op: Op,
    flags: int,
    keywords: Sequence[str] = (),
    unchanged_since: int | None = None,
) -> Stored:
    """Add, remove or replace flags and keywords of messages (RFC 9051 §6.4.6, RFC 7162 §3.1.3).

    `uids` ascending; missing ones are passed over. A message that has the flags already keeps its modseq.
    Raises NOT_FOUND (mailbox), BAD_VALUE and TOO_MANY (keywords).
    """
    if not uids:
        return Stored([])
    keywords = check_keywords(keywords)
    modseq = await locks.lock_account(tx, account_id) + 1
    await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    lo, hi = uids[0], uids[-1]
    # Every UID of the range is meant: no need to name them.
    whole = len(uids) == hi - lo + 1
    if whole:
        rows = await tx.fetch(LOCK_ENTRY_RANGE, (account_id, mailbox_id, lo, hi))
    else:
        rows = await tx.fetch(LOCK_ENTRIES, (account_id, mailbox_id, lo, hi, list(uids)))
    result: list[FlagRow] = []
    modified: list[int] = []
    touched: list[tuple[int, int, tuple[str, ...]]] = []
    unseen = deleted = 0
    words_touched = False
    for uid, row_modseq, now, have in rows:
        if unchanged_since is not None and row_modseq > unchanged_since:
            modified.append(uid)
            continue
        before = tuple(have or ())
        after_flags, after_words = (
            _apply(op, now, before, flags, keywords)
            if keywords or (before and op == "=")
            else ((now | flags if op == "+" else now & ~flags if op == "-" else flags), before)
        )
        if after_flags == now and after_words == before:
            result.append((uid, row_modseq, now, before))
            continue
        words_touched = words_touched or after_words != before
        unseen += (now & SEEN) - (after_flags & SEEN)
        deleted += ((after_flags & DELETED) - (now & DELETED)) // DELETED
        touched.append((uid, after_flags, after_words))
        result.append((uid, modseq, after_flags, after_words))
    if not touched:
        return Stored(result, modified, 0)
    await locks.next_modseq(tx, account_id)
    names = {"account": account_id, "mailbox": mailbox_id, "modseq": modseq, "lo": lo, "hi": hi}
    if words_touched:
        each = {
            "uids": [uid for uid, _, _ in touched],
            "flags": [bits for _, bits, _ in touched],
            "keywords": [" ".join(words) for _, _, words in touched],
        }
        await tx.execute(SET_EACH, {"account": account_id, "mailbox": mailbox_id, "modseq": modseq, **each})
    else:
        set_bits = flags if op in "+=" else 0
        clear_bits = flags if op == "-" else ALL_FLAGS if op == "=" else 0
        bits = {"set": set_bits, "clear": clear_bits}
        if whole and len(touched) == len(rows):
            await tx.execute(SET_FLAGS_RANGE, {**names, **bits})
        else:
            await tx.execute(SET_FLAGS, {**names, **bits, "uids": [uid for uid, _, _ in touched]})
    await locks.count_mailbox(tx, account_id, mailbox_id, modseq, unseen=unseen, deleted=deleted)
    tx.changed(Change(account_id, mailbox_id, modseq, "flags"))
    return Stored(result, modified, modseq)
