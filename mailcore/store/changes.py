"""What changed since a modseq: for IMAP per mailbox (CONDSTORE, QRESYNC, IDLE), for JMAP per account (/changes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store.flags import FlagRow


@dataclass(frozen=True, slots=True)
class MailboxChanges:
    """A mailbox at `modseq` and how it got there: new and changed messages, and UIDs that left; all ascending.

    What left up to modseq `floor` is forgotten: `vanished` is all of it only for who asked from there or later.
    """

    modseq: int
    uidnext: int
    messages: int
    changed: list[FlagRow]
    vanished: list[int]
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids that changed after the asked state; `state` is where they lead; `has_more` when the limit cut them."""

    created: list[int]
    updated: list[int]
    destroyed: list[int]
    state: int
    has_more: bool = False


# Entries that are new or have other flags since a modseq, without an index on it (decision 0008). UIDs ascend with the
# modseq of arrival: what arrived since lies above the last entry that is older (`edge`). Older mail that changed lies
# where flag_change says, unless that has been forgotten already: then everything is looked at. OFFSET 0 keeps the
# planner from reading the whole table for what is a range of a key.
_CHANGED = """
    WITH box AS (
        SELECT id, highest_modseq, uidnext, messages FROM mailbox WHERE account_id = %(account)s::bigint AND {which}),
    edge AS (
        SELECT box.id AS mailbox_id, CASE WHEN a.flag_floor > %(since)s::bigint THEN 0 ELSE coalesce((
            SELECT e.uid FROM entry e
            WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = box.id AND e.modseq <= %(since)s::bigint
            ORDER BY e.uid DESC LIMIT 1), 0) END AS uid
        FROM box, account_state a
        WHERE a.account_id = %(account)s::bigint AND box.highest_modseq > %(since)s::bigint),
    hint AS (
        SELECT c.mailbox_id, unnest(range_agg(int8range(r.first, r.last, '[]'))) AS uids
        FROM flag_change c, unnest(c.firsts, c.lasts) AS r(first, last)
        WHERE c.account_id = %(account)s::bigint AND c.modseq > %(since)s::bigint GROUP BY c.mailbox_id),
    changed AS (
        SELECT e.* FROM edge, LATERAL (
            SELECT * FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = edge.mailbox_id
                AND uid > edge.uid AND modseq > %(since)s::bigint OFFSET 0) AS e
        UNION ALL
        SELECT e.* FROM edge JOIN hint USING (mailbox_id), LATERAL (
            SELECT * FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = edge.mailbox_id
                AND uid >= lower(hint.uids) AND uid < upper(hint.uids) AND uid <= edge.uid
                AND modseq > %(since)s::bigint OFFSET 0) AS e)"""

# One statement, so one snapshot: numbers, changes and departures belong together.
MAILBOX = sql(f"""{_CHANGED.format(which="id = %(mailbox)s::bigint")}
    SELECT 0, highest_modseq, uidnext, messages::int, NULL::text[] FROM box
    UNION ALL
    SELECT 3, gone_floor, 0, 0, NULL FROM account_state WHERE account_id = %(account)s::bigint
    UNION ALL
    SELECT 1, uid, modseq, flags, keywords FROM changed
    UNION ALL
    SELECT 2, uid, modseq, 0, NULL FROM expunged
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint AND modseq > %(since)s::bigint""")

STATE = sql("SELECT modseq FROM account_state WHERE account_id = %s::bigint")
FLOOR = sql("SELECT modseq, gone_floor FROM account_state WHERE account_id = %s::bigint")
STATES = sql("SELECT account_id, modseq FROM account_state WHERE account_id = ANY(%s::bigint[])")

EMAILS = sql(f"""{_CHANGED.format(which="highest_modseq > %(since)s::bigint")},
    moved AS (
        SELECT message_id, max(modseq) AS modseq FROM (
            SELECT message_id, modseq FROM changed
            UNION ALL
            SELECT message_id, modseq FROM expunged WHERE account_id = %(account)s::bigint AND modseq >
                %(since)s::bigint
        ) AS either GROUP BY message_id)
    SELECT moved.message_id, moved.modseq, m.created_modseq,
        EXISTS (SELECT FROM entry e WHERE e.account_id = %(account)s::bigint AND e.message_id = moved.message_id)
    FROM moved LEFT JOIN message m ON m.account_id = %(account)s::bigint AND m.id = moved.message_id
    ORDER BY moved.modseq, moved.message_id LIMIT %(limit)s::bigint""")

MAILBOXES = sql("""
    SELECT id, created_modseq, greatest(changed_modseq, highest_modseq) AS modseq, changed_modseq, true FROM mailbox
    WHERE account_id = %(account)s::bigint AND greatest(changed_modseq, highest_modseq) > %(since)s::bigint
    UNION ALL
    SELECT id, 0, modseq, modseq, false FROM gone_mailbox
    WHERE account_id = %(account)s::bigint AND modseq > %(since)s::bigint
    ORDER BY modseq, id""")


async def state(tx: Tx, account_id: int) -> int:
    """The account's modseq: JMAP's state of emails and mailboxes. Raises NOT_FOUND."""
    row = await tx.one(STATE, (account_id,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    return int(row[0])


async def states(tx: Tx, account_ids: Sequence[int]) -> dict[int, int]:
    """The modseqs of several accounts: the poll behind wake-ups."""
    return dict(await tx.fetch(STATES, (list(account_ids),)))


async def mailbox(tx: Tx, account_id: int, mailbox_id: int, since: int) -> MailboxChanges:
    """Everything that happened in a mailbox after modseq `since`. Raises NOT_FOUND when it is gone."""
    numbers: tuple[int, int, int] | None = None
    changed: list[FlagRow] = []
    vanished: list[int] = []
    floor = 0
    for kind, first, second, third, keywords in await tx.fetch(
        MAILBOX, {"account": account_id, "mailbox": mailbox_id, "since": since}
    ):
        if kind == 1:
            changed.append((first, second, third, tuple(keywords or ())))
        elif kind == 2:
            vanished.append(first)
        elif kind == 3:
            floor = first
        else:
            numbers = (first, second, third)
    if numbers is None:
        raise MailError(Code.NOT_FOUND, "the mailbox is gone")
    changed.sort()
    vanished.sort()
    return MailboxChanges(*numbers, changed, vanished, floor)


async def emails(tx: Tx, account_id: int, since: int, limit: int) -> Changes:
    """JMAP Email/changes (RFC 8621 §4.3): at most `limit` ids.

    Raises NOT_FOUND, and BAD_VALUE for a state from the future or from before what is remembered of departures.
    """
    row = await tx.one(FLOOR, (account_id,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    current, floor = row
    if since > current:
        raise MailError(Code.BAD_VALUE, "that state is not known here")
    if since < floor:
        raise MailError(Code.BAD_VALUE, "that state is too long ago: what left since then is not remembered")
    rows = await tx.fetch(EMAILS, {"account": account_id, "since": since, "limit": limit + 1})
    more = len(rows) > limit
    if more:
        # Stop between two modseqs, so that the state given out names a complete step.
        cut = rows[limit][1]
        kept = [row for row in rows[:limit] if row[1] < cut]
        if not kept:
            raise MailError(Code.TOO_MANY, "one change touched more emails than may be listed: start anew")
        rows, current = kept, kept[-1][1]
    created: list[int] = []
    updated: list[int] = []
    destroyed: list[int] = []
    for message_id, _modseq, created_modseq, present in rows:
        if present:
            (created if created_modseq > since else updated).append(message_id)
        elif created_modseq is None or created_modseq <= since:
            destroyed.append(message_id)
    return Changes(created, updated, destroyed, current, more)


async def mailbox_list(tx: Tx, account_id: int, since: int) -> tuple[Changes, bool]:
    """JMAP Mailbox/changes (RFC 8621 §2.2); the flag says that only counts changed. Raises as `emails`."""
    current = await state(tx, account_id)
    if since > current:
        raise MailError(Code.BAD_VALUE, "that state is not known here")
    created: list[int] = []
    updated: list[int] = []
    destroyed: list[int] = []
    counts_only = True
    for mailbox_id, created_modseq, _modseq, changed_modseq, present in await tx.fetch(
        MAILBOXES, {"account": account_id, "since": since}
    ):
        if not present:
            destroyed.append(mailbox_id)
        elif created_modseq > since:
            created.append(mailbox_id)
        else:
            updated.append(mailbox_id)
            counts_only = counts_only and changed_modseq <= since
    return Changes(created, updated, destroyed, current), counts_only and bool(updated)
