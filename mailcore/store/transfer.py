"""COPY and MOVE: an email enters another mailbox; its email id stays (RFC 9051 §6.4.7, §6.4.8, RFC 8474)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks, quota
from mailcore.store.flags import DELETED, SEEN
from mailcore.wake import Change


@dataclass(frozen=True, slots=True)
class Transferred:
    """What COPYUID says: `source_uids[i]` became `target_uids[i]`; both empty when nothing was there to take."""

    uidvalidity: int
    source_uids: list[int]
    target_uids: list[int]
    modseq: int


SOURCE = sql("""
    SELECT uid, flags, size FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint
        AND uid BETWEEN %s::bigint AND %s::bigint AND uid = ANY(%s::bigint[]) ORDER BY uid""")

COPY = sql("""
    INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
    SELECT account_id, %(target)s::bigint, new.target_uid, message_id, %(modseq)s::bigint, flags, keywords,
        internal_date, size
    FROM entry JOIN unnest(%(uids)s::bigint[], %(target_uids)s::bigint[]) AS new(uid, target_uid) USING (uid)
    WHERE account_id = %(account)s::bigint AND mailbox_id = %(source)s::bigint
        AND entry.uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint""")

MOVE = sql("""
    WITH gone AS (
        DELETE FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = %(source)s::bigint
            AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint AND uid = ANY(%(uids)s::bigint[]) RETURNING *),
    moved AS (
        INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT account_id, %(target)s::bigint, new.target_uid, message_id, %(modseq)s::bigint, flags, keywords,
            internal_date, size
        FROM gone JOIN unnest(%(uids)s::bigint[], %(target_uids)s::bigint[]) AS new(uid, target_uid) USING (uid))
    INSERT INTO expunged (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size, moved)
    SELECT account_id, mailbox_id, uid, message_id, %(modseq)s::bigint, flags, keywords, internal_date, size, true
        FROM gone""")


async def copy(tx: Tx, account_id: int, source_id: int, uids: Sequence[int], target_id: int) -> Transferred:
    """Copy messages with flags, keywords and internal date; all or none. Raises NOT_FOUND (mailbox), OVER_QUOTA."""
    return await _transfer(tx, account_id, source_id, uids, target_id, moving=False)


async def move(tx: Tx, account_id: int, source_id: int, uids: Sequence[int], target_id: int) -> Transferred:
    """Move messages; all or none; they leave the source as expunged. Raises NOT_FOUND (mailbox)."""
    return await _transfer(tx, account_id, source_id, uids, target_id, moving=True)


async def _transfer(
    tx: Tx, account_id: int, source_id: int, uids: Sequence[int], target_id: int, *, moving: bool
) -> Transferred:
    modseq = await locks.lock_account(tx, account_id) + 1
    target = (await locks.lock_mailboxes(tx, account_id, [source_id, target_id]))[target_id]
    wanted = list(uids)
    rows = await tx.fetch(SOURCE, (account_id, source_id, wanted[0], wanted[-1], wanted)) if wanted else []
    if not rows:
        return Transferred(target.uidvalidity, [], [], 0)
    found = [row[0] for row in rows]
    size = sum(row[2] for row in rows)
    unseen = sum(1 for row in rows if not row[1] & SEEN)
    deleted = sum(1 for row in rows if row[1] & DELETED)
    if not moving and not (await quota.get(tx, account_id)).allows(size):
        raise MailError(Code.OVER_QUOTA, "the account's quota does not allow the copy")
    await locks.next_modseq(tx, account_id)
    new_uids = list(range(target.uidnext, target.uidnext + len(found)))
    await tx.execute(
        MOVE if moving else COPY,
        {
            "account": account_id,
            "source": source_id,
            "target": target_id,
            "uids": found,
            "target_uids": new_uids,
            "modseq": modseq,
            "lo": found[0],
            "hi": found[-1],
        },
    )
    await locks.count_mailbox(
        tx,
        account_id,
        target_id,
        modseq,
        messages=len(found),
        unseen=unseen,
        deleted=deleted,
        size=size,
        uids=len(found),
    )
    tx.changed(Change(account_id, target_id, modseq, "mail"))
    if moving:
        await locks.count_mailbox(
            tx, account_id, source_id, modseq, messages=-len(found), unseen=-unseen, deleted=-deleted, size=-size
        )
        tx.changed(Change(account_id, source_id, modseq, "gone"))
    else:
        await locks.count_account(tx, account_id, len(found), size)
    return Transferred(target.uidvalidity, found, new_uids, modseq)
