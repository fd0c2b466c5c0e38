"""Quota: what an account uses and may use, kept exact by every verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store.flags import DELETED, SEEN


@dataclass(frozen=True, slots=True)
class Quota:
    """Octets and messages in use; `limit` in octets, None = no limit."""

    bytes: int
    messages: int
    limit: int | None
    message_limit: int | None

    def allows(self, more: int, count: int = 1) -> bool:
        """Whether `count` messages of `more` octets together still fit."""
        room = self.limit is None or self.bytes + more <= self.limit
        return room and (self.message_limit is None or self.messages + count <= self.message_limit)


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that does not equal a recount (never seen; `manage.py doctor` looks)."""

    what: str
    counted: int
    recount: int


GET = sql("SELECT bytes, messages, quota_bytes, quota_messages FROM account_state WHERE account_id = %s::bigint")
SET_LIMIT = sql("""
    UPDATE account_state SET quota_bytes = %s::bigint, quota_messages = %s::bigint WHERE account_id = %s::bigint""")
RECOUNT = sql(f"""
    SELECT m.id, m.messages, m.unseen, m.deleted, m.bytes, count(e.uid)::bigint,
        count(e.uid) FILTER (WHERE e.flags & {SEEN} = 0)::bigint, count(e.uid) FILTER (WHERE e.flags & {DELETED} <>
            0)::bigint,
        coalesce(sum(e.size), 0)::bigint
    FROM mailbox m LEFT JOIN entry e ON e.account_id = m.account_id AND e.mailbox_id = m.id
    WHERE m.account_id = %s::bigint GROUP BY m.account_id, m.id ORDER BY m.id""")


# Reads the mailbox's entries, so ask only when it has deleted messages: 3 ms for 10,000.
RECLAIMABLE = sql(f"""
    SELECT mailbox_id, sum(size)::bigint FROM entry
    WHERE account_id = %s::bigint AND mailbox_id = ANY(%s::bigint[]) AND flags & {DELETED} <> 0 GROUP BY mailbox_id""")


async def get(tx: Tx, account_id: int) -> Quota:
    """What the account uses and may use; raises NOT_FOUND."""
    row = await tx.one(GET, (account_id,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    return Quota(*row)


async def set_limit(tx: Tx, account_id: int, limit: int | None, messages: int | None = None) -> None:
    """Set the limits in octets and messages (None = none); mail that is there stays even above them.

    Raises NOT_FOUND, BAD_VALUE.
    """
    if any(number is not None and number < 0 for number in (limit, messages)):
        raise MailError(Code.BAD_VALUE, "a quota is a number of octets or messages")
    if not await tx.execute(SET_LIMIT, (limit, messages, account_id)):
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")


async def reclaimable(tx: Tx, account_id: int, mailbox_ids: Sequence[int]) -> dict[int, int]:
    """Octets that an EXPUNGE would free, by mailbox; those without deleted messages are left out."""
    return dict(await tx.fetch(RECLAIMABLE, (account_id, list(mailbox_ids)))) if mailbox_ids else {}


async def recount(tx: Tx, account_id: int) -> list[Drift]:
    """Compare every counter of an account with a recount; an empty list is the promise kept."""
    rows = await tx.fetch(RECOUNT, (account_id,))
    drifts = []
    for mailbox_id, *numbers in rows:
        names = ("messages", "unseen", "deleted", "bytes")
        for name, counted, recounted in zip(names, numbers[:4], numbers[4:], strict=True):
            if counted != recounted:
                drifts.append(Drift(f"mailbox {mailbox_id} {name}", counted, recounted))
    used = await get(tx, account_id)
    for name, counted, recounted in (
        ("messages", used.messages, sum(row[5] for row in rows)),
        ("bytes", used.bytes, sum(row[8] for row in rows)),
    ):
        if counted != recounted:
            drifts.append(Drift(f"account {name}", counted, recounted))
    return drifts
