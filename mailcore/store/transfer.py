"""COPY and MOVE: an email enters another mailbox; its email id stays (RFC 9051 §6.4.7, §6.4.8, RFC 8474)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailcore import mime
from mailcore.arrays import Int8s
from mailcore.db import Params, Row, Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import expunge, fetch, locks, quota
from mailcore.store.append import Incoming, Job, append_jobs
from mailcore.store.flags import DELETED, FLAGGED, SEEN
from mailcore.wake import Change


@dataclass(frozen=True, slots=True)
class Transferred:
    """What COPYUID says: `source_uids[i]` became `target_uids[i]`; both empty when nothing was there to take."""

    uidvalidity: int
    source_uids: list[int]
    target_uids: list[int]
    modseq: int


# Octets of messages read at a time on their way to another account.
PORTION = 1024 * 1024
_ACROSS = ("uid", "message_id", "flags", "keywords", "internal_date", "size")

# Who goes, in order: new UIDs follow the order of the old ones. Nothing of it travels but the UIDs and the sums.
_COPIES = """
    WITH old AS ({old}),
    new AS (
        INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT account_id, %(target)s::bigint, %(uidnext)s::bigint - 1 + row_number() OVER (ORDER BY uid), message_id,
            %(modseq)s::bigint, flags, keywords, internal_date, size
        FROM old){more}
    SELECT array_agg(uid ORDER BY uid), sum(size)::bigint, count(*) FILTER (WHERE flags & {seen} = 0),
        count(*) FILTER (WHERE flags & {deleted} <> 0)
    FROM old HAVING count(*) > 0"""

_THESE = """account_id = %(account)s::bigint AND mailbox_id = %(source)s::bigint
        AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint"""
_SOME = f"{_THESE} AND uid = ANY(%(uids)s::bigint[])"

_BURY = """,
    gone AS (
        INSERT INTO expunged (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size,
            moved)
        SELECT account_id, mailbox_id, uid, message_id, %(modseq)s::bigint, flags, keywords, internal_date, size, true
        FROM old)"""


SIZE = {
    whole: sql(f"SELECT coalesce(sum(size), 0)::bigint, count(*) FROM entry WHERE {_SOME if not whole else _THESE}")
    for whole in (True, False)
}


def _query(old: str, more: str) -> str:
    return sql(_COPIES.format(old=old, more=more, seen=SEEN, deleted=DELETED))


COPY = {
    True: _query(f"SELECT * FROM entry WHERE {_THESE}", ""),
    False: _query(f"SELECT * FROM entry WHERE {_SOME}", ""),
}
MOVE = {
    True: _query(f"DELETE FROM entry WHERE {_THESE} RETURNING *", _BURY),
    False: _query(f"DELETE FROM entry WHERE {_SOME} RETURNING *", _BURY),
}


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
    if not uids:
        return Transferred(target.uidvalidity, [], [], 0)
    names: dict[str, object] = {"account": account_id, "source": source_id, "target": target_id, "modseq": modseq}
    names |= {"uidnext": target.uidnext, "lo": uids[0], "hi": uids[-1]}
    whole = len(uids) == uids[-1] - uids[0] + 1
    if not whole:
        names["uids"] = Int8s(uids)
    if not moving:
        await _check_quota(tx, account_id, SIZE[whole], names)
    row = await tx.one((MOVE if moving else COPY)[whole], names)
    if row is None:
        return Transferred(target.uidvalidity, [], [], 0)
    found, size, unseen, deleted = row
    count = len(found)
    came = {"messages": count, "unseen": unseen, "deleted": deleted, "size": size}
    counts: list[tuple[str, Params]] = [
        (locks.NEXT_MODSEQ, (account_id,)),
        locks.counting(account_id, target_id, modseq, **came, uids=count),
    ]
    tx.changed(Change(account_id, target_id, modseq, "mail"))
    if moving:
        left = {name: -number for name, number in came.items()}
        counts.append(locks.counting(account_id, source_id, modseq, **left))
        tx.changed(Change(account_id, source_id, modseq, "gone"))
    else:
        counts.append(locks.counting_account(account_id, count, size))
    await tx.batch(*counts)
    return Transferred(target.uidvalidity, found, list(range(target.uidnext, target.uidnext + count)), modseq)


async def _check_quota(tx: Tx, account_id: int, query: str, names: dict[str, object]) -> None:
    have = await quota.get(tx, account_id)
    if have.limit is not None or have.message_limit is not None:
        row = await tx.one(query, names)
        if row is not None and not have.allows(*row):
            raise MailError(Code.OVER_QUOTA, "the account's quota does not allow the copy")


async def across(
    tx: Tx, here: tuple[int, int], uids: Sequence[int], there: tuple[int, int], *, keep: int, moving: bool
) -> Transferred:
    """Copy or move messages between mailboxes (account, mailbox) of two accounts, or to one whose flags are guarded.

    They are other emails there, with ids of that account. `keep`: the system flags that come along; keywords do with
    FLAGGED. The modseq is that of a move's leaving. Raises NOT_FOUND (mailbox), OVER_QUOTA.
    """
    for account_id in sorted({here[0], there[0]}):
        await locks.lock_account(tx, account_id)
    await locks.lock_mailboxes(tx, here[0], [here[1]])
    target = (await locks.lock_mailboxes(tx, there[0], [there[1]]))[there[1]]
    rows = await fetch.rows_of(tx, *here, uids, _ACROSS) if uids else []
    came: list[int] = []
    for part in _portions(rows):
        raws = await fetch.raws(tx, here[0], [row[1] for row in part])
        items = []
        for _, email, mask, words, when, _ in part:
            keywords = tuple(words or ()) if keep & FLAGGED else ()
            items.append(Incoming(*there, raws[email], mime.parse(raws[email]), mask & keep, keywords, when))
        (results,) = await append_jobs(tx, [Job(items, atomic=True)])
        for result in results:
            if isinstance(result, MailError):
                raise result
            came.append(result.uid)
    found = [row[0] for row in rows]
    left = await expunge.expunge(tx, *here, found, deleted_only=False) if moving and found else None
    return Transferred(target.uidvalidity, found, came, left.modseq if left is not None else 0)


def _portions(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """As many messages at a time as may be in memory."""
    part: list[Row] = []
    octets = 0
    for row in rows:
        part.append(row)
        octets += row[-1]
        if octets >= PORTION:
            yield part
            part, octets = [], 0
    if part:
        yield part
