"""Locks and numbers: what every writing verb does first, and the counters it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError

LOCK_ACCOUNT = sql("SELECT modseq FROM account_state WHERE account_id = %s::bigint FOR UPDATE")

NEXT_MODSEQ = sql("UPDATE account_state SET modseq = modseq + 1 WHERE account_id = %s::bigint RETURNING modseq")

LOCK_MAILBOXES = sql("""
    SELECT id, uidvalidity, uidnext FROM mailbox
    WHERE account_id = %s::bigint AND id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE""")

COUNT_MAILBOX = sql("""
    UPDATE mailbox SET messages = messages + %(messages)s::bigint, unseen = unseen + %(unseen)s::bigint,
        deleted = deleted + %(deleted)s::bigint, bytes = bytes + %(bytes)s::bigint,
        uidnext = uidnext + %(uids)s::bigint, highest_modseq = %(modseq)s::bigint
    WHERE account_id = %(account)s::bigint AND id = %(mailbox)s::bigint""")

COUNT_ACCOUNT = sql("""
    UPDATE account_state SET messages = messages + %(messages)s::bigint, bytes = bytes + %(bytes)s::bigint
    WHERE account_id = %(account)s::bigint""")


@dataclass(frozen=True, slots=True)
class Locked:
    """A locked mailbox and the numbers it will give out next."""

    id: int
    uidvalidity: int
    uidnext: int


async def next_modseq(tx: Tx, account_id: int) -> int:
    """Lock the account for writing and take the next modseq. Raises NOT_FOUND for an account without a store."""
    row = await tx.one(NEXT_MODSEQ, (account_id,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    return int(row[0])


async def lock_account(tx: Tx, account_id: int) -> int:
    """Lock the account for writing without taking a number; returns its modseq."""
    row = await tx.one(LOCK_ACCOUNT, (account_id,))
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    return int(row[0])


async def lock_mailboxes(tx: Tx, account_id: int, mailbox_ids: Sequence[int]) -> dict[int, Locked]:
    """Lock mailboxes of a locked account; raises NOT_FOUND unless all of them are there."""
    rows = await tx.fetch(LOCK_MAILBOXES, (account_id, sorted(set(mailbox_ids))))
    locked = {row[0]: Locked(*row) for row in rows}
    if len(locked) != len(set(mailbox_ids)):
        raise MailError(Code.NOT_FOUND, "no such mailbox")
    return locked


async def lock(tx: Tx, account_id: int, mailbox_ids: Sequence[int]) -> int:
    """Lock the account and mailboxes of it in one round trip; returns the account's modseq. Raises NOT_FOUND."""
    account, boxes = await tx.batch(
        (LOCK_ACCOUNT, (account_id,)), (LOCK_MAILBOXES, (account_id, sorted(set(mailbox_ids))))
    )
    if not account:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    if len(boxes) != len(set(mailbox_ids)):
        raise MailError(Code.NOT_FOUND, "no such mailbox")
    return int(account[0][0])


def counting(
    account_id: int,
    mailbox_id: int,
    modseq: int,
    *,
    messages: int = 0,
    unseen: int = 0,
    deleted: int = 0,
    size: int = 0,
    uids: int = 0,
) -> tuple[str, dict[str, int]]:
    """The statement that adds to a locked mailbox's counters and sets its highest modseq."""
    return COUNT_MAILBOX, {
        "account": account_id,
        "mailbox": mailbox_id,
        "modseq": modseq,
        "messages": messages,
        "unseen": unseen,
        "deleted": deleted,
        "bytes": size,
        "uids": uids,
    }


def counting_account(account_id: int, messages: int, size: int) -> tuple[str, dict[str, int]]:
    """The statement that adds to the account's counters, which the quota reads."""
    return COUNT_ACCOUNT, {"account": account_id, "messages": messages, "bytes": size}
