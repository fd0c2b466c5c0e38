"""Questions that only JMAP asks the store. An entry with \\Deleted is not there for JMAP (RFC 8621 §4.1.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.store.fetch import Placement
from mailcore.store.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN

KEYWORD_FLAGS = {"$seen": SEEN, "$answered": ANSWERED, "$flagged": FLAGGED, "$draft": DRAFT}

PLACEMENTS = sql(f"""
    SELECT message_id, mailbox_id, uid, flags, keywords, modseq, internal_date FROM entry
    WHERE account_id = %s::bigint AND message_id = ANY(%s::bigint[]) AND flags & {DELETED} = 0
    ORDER BY message_id, mailbox_id, uid""")

THREADS = sql(f"""
    SELECT m.thread_id, m.id FROM message m
    WHERE m.account_id = %s::bigint AND m.thread_id = ANY(%s::bigint[])
        AND EXISTS (SELECT FROM entry e
            WHERE e.account_id = m.account_id AND e.message_id = m.id AND e.flags & {DELETED} = 0)
    ORDER BY m.thread_id, m.received_at, m.id""")

# One scan of an index on (account, mailbox) per mailbox asked for.
THREAD_TOTALS = sql(f"""
    SELECT e.mailbox_id, count(DISTINCT m.thread_id)
    FROM entry e JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id
    WHERE e.account_id = %s::bigint AND e.mailbox_id = ANY(%s::bigint[]) AND e.flags & {DELETED} = 0
    GROUP BY e.mailbox_id""")

# Unread mail in Trash makes no thread unread elsewhere (RFC 8621 §2).
UNREAD = sql(f"""
    WITH unread AS (
        SELECT e.mailbox_id, e.message_id, m.thread_id, e.mailbox_id = %(trash)s::bigint AS in_trash
        FROM entry e JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id
        WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = ANY(%(unseen)s::bigint[])
            AND e.flags & {SEEN | DRAFT | DELETED} = 0),
    emails AS (SELECT mailbox_id, count(DISTINCT message_id) AS n FROM unread GROUP BY mailbox_id),
    threads AS (
        SELECT e.mailbox_id, count(DISTINCT m.thread_id) AS n
        FROM (SELECT thread_id, bool_or(in_trash) AS inside, bool_or(NOT in_trash) AS outside FROM unread GROUP BY
            thread_id) u
            JOIN message m ON m.account_id = %(account)s::bigint AND m.thread_id = u.thread_id
            JOIN entry e ON e.account_id = m.account_id AND e.message_id = m.id
        WHERE e.flags & {DELETED} = 0 AND CASE WHEN e.mailbox_id = %(trash)s::bigint THEN u.inside ELSE u.outside END
        GROUP BY e.mailbox_id)
    SELECT coalesce(emails.mailbox_id, threads.mailbox_id), coalesce(emails.n, 0), coalesce(threads.n, 0)
    FROM emails FULL JOIN threads ON threads.mailbox_id = emails.mailbox_id""")


@dataclass(frozen=True, slots=True)
class Presence:
    """An email as JMAP sees it: the entries behind it, its mailboxes, its keywords."""

    entries: tuple[Placement, ...]

    @property
    def mailboxes(self) -> dict[int, list[int]]:
        """UIDs by mailbox, ascending."""
        found: dict[int, list[int]] = {}
        for entry in self.entries:
            found.setdefault(entry.mailbox_id, []).append(entry.uid)
        return found

    @property
    def keywords(self) -> dict[str, bool]:
        """In several mailboxes: all that any entry has, but $seen only when all have it."""
        seen = all(entry.flags & SEEN for entry in self.entries)
        flags = 0
        words: set[str] = set()
        for entry in self.entries:
            flags |= entry.flags
            words.update(word.lower() for word in entry.keywords)
        if not seen:
            flags &= ~SEEN
        return dict.fromkeys([*(name for name, bit in KEYWORD_FLAGS.items() if flags & bit), *sorted(words)], True)


async def presences(tx: Tx, account_id: int, message_ids: Sequence[int]) -> dict[int, Presence]:
    """Where each email is; those that are nowhere are left out."""
    found: dict[int, list[Placement]] = {}
    if message_ids:
        for message_id, mailbox_id, uid, bits, words, modseq, at in await tx.fetch(
            PLACEMENTS, (account_id, list(message_ids))
        ):
            found.setdefault(message_id, []).append(Placement(mailbox_id, uid, bits, tuple(words or ()), modseq, at))
    return {message_id: Presence(tuple(entries)) for message_id, entries in found.items()}


async def threads(tx: Tx, account_id: int, thread_ids: Iterable[int]) -> dict[int, list[int]]:
    """The email ids of each thread, oldest first; threads without any are left out."""
    found: dict[int, list[int]] = {}
    for thread_id, message_id in await tx.fetch(THREADS, (account_id, list(thread_ids))):
        found.setdefault(thread_id, []).append(message_id)
    return found


async def thread_totals(tx: Tx, account_id: int, mailbox_ids: Sequence[int]) -> dict[int, int]:
    """How many threads have an email in each mailbox."""
    if not mailbox_ids:
        return {}
    return dict(await tx.fetch(THREAD_TOTALS, (account_id, list(mailbox_ids)), anew=True))


async def unread(tx: Tx, account_id: int, unseen: Sequence[int], trash: int | None) -> dict[int, tuple[int, int]]:
    """(unread emails, unread threads) by mailbox; `unseen`: the mailboxes that have messages without \\Seen."""
    if not unseen:
        return {}
    names = {"account": account_id, "unseen": list(unseen), "trash": trash or 0}
    return {row[0]: (row[1], row[2]) for row in await tx.fetch(UNREAD, names, anew=True)}
