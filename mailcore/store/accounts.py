"""Accounts as the store sees them: their mailboxes come and go with them, and addresses lead to them."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks, mailboxes
from mailcore.wake import Change

# How far aliases may lead to aliases, and to how many mailboxes and addresses in all.
MAX_DEPTH = 10
MAX_TARGETS = 1000


@dataclass(frozen=True, slots=True)
class Local:
    """A mailbox owner that an address leads to; `tag` is what stood behind the plus sign."""

    account_id: int
    address: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where mail to an address goes: accounts here, addresses elsewhere."""

    accounts: tuple[Local, ...]
    remote: tuple[str, ...] = ()


CREATE = sql("""
    INSERT INTO account_state (account_id, quota_bytes, quota_messages) VALUES (%s::bigint, %s::bigint, %s::bigint)
    ON CONFLICT DO NOTHING""")

CREATE_INDEX = sql("INSERT INTO search_index (account_id) VALUES (%s::bigint) ON CONFLICT DO NOTHING")

REMOVE = tuple(
    sql(f"DELETE FROM {table} WHERE account_id = %s::bigint")
    for table in (
        # In this order: the index's worker stores segments only while it finds the first.
        *("search_index", "search_segment", "search_filter", "search_block"),
        *("entry", "flag_change", "expunged", "message_text", "message", "thread_key", "subscription", "gone_mailbox"),
        *("upload", "annotation", "mailbox_grant", "mailbox", "account_state"),
    )
) + (
    # What it kept beside, and was allowed in, the mailboxes of others.
    sql("DELETE FROM annotation WHERE reader_id = %s::bigint"),
    sql("DELETE FROM mailbox_grant WHERE grantee_id = %s::bigint"),
)

# The sweep of unused blobs looks at what was touched lately; in one order, as everybody locks blobs.
TOUCH_BLOBS = sql("""
    WITH held AS (
        SELECT hash FROM blob WHERE hash IN (SELECT blob FROM message WHERE account_id = %s::bigint)
        ORDER BY hash FOR UPDATE)
    UPDATE blob SET touched_at = now() FROM held WHERE blob.hash = held.hash""")

IS_LOCAL = sql("SELECT true FROM accounts_domain WHERE name = %s::text")

LOOK_UP = sql("""
    SELECT d.is_active, a.local_part, a.account_id, u.is_active, u.address,
        ARRAY(SELECT t.address FROM accounts_aliastarget t WHERE t.alias_id = a.id ORDER BY t.id)
    FROM accounts_domain d
        LEFT JOIN accounts_address a ON a.domain_id = d.id AND a.local_part = ANY(%s::text[])
        LEFT JOIN accounts_account u ON u.id = a.account_id
    WHERE d.name = %s::text""")


async def create(tx: Tx, account_id: int, quota_bytes: int | None = None, quota_messages: int | None = None) -> None:
    """Give a new account its store: INBOX, Drafts, Sent, Archive, Junk, Trash, all subscribed. Again = nothing
    happens."""
    if not await tx.execute(CREATE, (account_id, quota_bytes, quota_messages)):
        return
    await tx.execute(CREATE_INDEX, (account_id,))
    await mailboxes.insert(tx, account_id, mailboxes.DEFAULT_MAILBOXES)
    await tx.execute(mailboxes.SUBSCRIBE, (account_id, [name for name, _ in mailboxes.DEFAULT_MAILBOXES]))


async def remove(tx: Tx, account_id: int) -> None:
    """Remove an account's mail for good; blobs that nobody else holds are swept later."""
    # First, as every writer does: what is being delivered right now is there before it is removed.
    if await tx.one(locks.LOCK_ACCOUNT, (account_id,)) is None:
        return
    await tx.execute(TOUCH_BLOBS, (account_id,))
    for statement in REMOVE:
        await tx.execute(statement, (account_id,))
    tx.changed(Change(account_id, 0, 0, "mailbox"))


async def is_local_domain(tx: Tx, domain: str) -> bool:
    """Whether the domain (A-label form, lower case) is hosted here."""
    return await tx.one(IS_LOCAL, (domain,)) is not None


async def resolve(tx: Tx, address: str) -> Resolution:
    """Follow an address (normalised) through aliases to accounts here and addresses elsewhere.

    An exact address wins over one without its plus-tag, that over the domain's catch-all. Each target once.
    Raises NO_SUCH_USER when the domain is ours and the address is not, DISABLED, and LOOP.
    """
    accounts: dict[int, Local] = {}
    remote: dict[str, None] = {}
    await _follow(tx, address, (), set(), accounts, remote)
    if not accounts and not remote:
        raise MailError(Code.LOOP, "the address leads nowhere but back to itself", address)
    return Resolution(tuple(accounts.values()), tuple(remote))


async def _follow(
    tx: Tx,
    address: str,
    path: tuple[str, ...],
    seen: set[str],
    accounts: dict[int, Local],
    remote: dict[str, None],
) -> None:
    if address in seen:
        return  # a circle, or another way to the same place
    seen.add(address)
    if len(path) >= MAX_DEPTH or len(accounts) + len(remote) >= MAX_TARGETS or len(seen) > 2 * MAX_TARGETS:
        raise MailError(Code.LOOP, "the address leads through too many aliases", " > ".join((*path, address)))
    local, _, domain = address.rpartition("@")
    local = local.lower()
    base, _, tag = local.partition("+")
    rows = await tx.fetch(LOOK_UP, ([local, base, "*"], domain))
    if not rows:
        remote[address] = None
        return
    if not rows[0][0]:
        raise MailError(Code.DISABLED, "mail for this domain is not accepted now", address)
    found = {row[1]: row for row in rows if row[1] is not None}
    for name in (local, base, "*"):
        if name in found:
            break
    else:
        if path:  # an alias whose target is gone: its other targets still count
            return
        raise MailError(Code.NO_SUCH_USER, "no such user here", address)
    _active, _name, account_id, account_active, account_address, targets = found[name]
    if account_id is None:
        for target in targets:
            await _follow(tx, target, (*path, address), seen, accounts, remote)
    elif account_active:
        accounts.setdefault(account_id, Local(account_id, account_address, tag if name == base != local else ""))
    elif not path:
        raise MailError(Code.DISABLED, "this mailbox does not accept mail now", address)
