"""EXPUNGE: messages leave a mailbox; what left stays known for QRESYNC and, for a while, for undelete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.arrays import Int8s
from mailcore.db import Tx, sql
from mailcore.store import locks
from mailcore.store.flags import DELETED, SEEN
from mailcore.wake import Change


@dataclass(frozen=True, slots=True)
class Expunged:
    """UIDs that left, ascending, and the modseq of their leaving (0 if none did)."""

    uids: list[int]
    modseq: int


_REMOVE = """
    WITH gone AS (
        DELETE FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint {which}
            RETURNING *),
    buried AS (
        INSERT INTO expunged (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
        SELECT account_id, mailbox_id, uid, message_id, %(modseq)s::bigint, flags, keywords, internal_date, size
        FROM gone)
    SELECT array_agg(uid ORDER BY uid), sum(size)::bigint, count(*) FILTER (WHERE flags & {seen} = 0),
        count(*) FILTER (WHERE flags & {deleted} <> 0)
    FROM gone HAVING count(*) > 0"""

_SOME = "AND uid BETWEEN %(lo)s::bigint AND %(hi)s::bigint AND uid = ANY(%(uids)s::bigint[])"
_DELETED = f"AND flags & {DELETED} <> 0"


def _query(which: str) -> str:
    return sql(_REMOVE.format(which=which, seen=SEEN, deleted=DELETED))


REMOVE_DELETED = _query(_DELETED)
REMOVE_SOME_DELETED = _query(f"{_SOME} {_DELETED}")
REMOVE_SOME = _query(_SOME)


async def expunge(
    tx: Tx, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None, deleted_only: bool = True
) -> Expunged:
    """Remove messages: all with \\Deleted, those among `uids` (ascending), or just `uids` (RFC 9051 §6.4.3, RFC 4315).

    Raises NOT_FOUND (mailbox).
    """
    modseq = await locks.lock(tx, account_id, [mailbox_id]) + 1
    names: dict[str, object] = {"account": account_id, "mailbox": mailbox_id, "modseq": modseq}
    if uids is None:
        row = await tx.one(REMOVE_DELETED, names)
    elif not uids:
        row = None
    else:
        query = REMOVE_SOME_DELETED if deleted_only else REMOVE_SOME
        row = await tx.one(query, {**names, "uids": Int8s(uids), "lo": uids[0], "hi": uids[-1]})
    if row is None:
        return Expunged([], 0)
    gone, size, unseen, deleted = row
    await tx.batch(
        (locks.NEXT_MODSEQ, (account_id,)),
        locks.counting(
            *(account_id, mailbox_id, modseq), messages=-len(gone), unseen=-unseen, deleted=-deleted, size=-size
        ),
        locks.counting_account(account_id, -len(gone), -size),
    )
    tx.changed(Change(account_id, mailbox_id, modseq, "gone"))
    return Expunged(gone, modseq)
