"""Mailboxes: list, make, rename, remove, subscribe. Names are Unicode with '/' between levels; INBOX is upper case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks
from mailcore.wake import Change

SEPARATOR = "/"
INBOX = "INBOX"
OTHER_USERS = "Other Users"  # the level above what others share (store.acl)
MAX_NAME = 255  # characters of a full name
MAX_DEPTH = 20
MAX_MAILBOXES = 10_000

SPECIAL_USES = ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash")
DEFAULT_MAILBOXES = (
    (INBOX, None),
    ("Drafts", "\\Drafts"),
    ("Sent", "\\Sent"),
    ("Archive", "\\Archive"),
    ("Junk", "\\Junk"),
    ("Trash", "\\Trash"),
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox with its counters; `bytes` and counts are exact."""

    id: int
    name: str
    special_use: str | None
    uidvalidity: int
    uidnext: int
    highest_modseq: int
    messages: int
    unseen: int
    deleted: int
    bytes: int
    created_modseq: int
    changed_modseq: int
    subscribed: bool


# Of the table mailbox, called m.
COLUMNS = """m.id, m.name, m.special_use, m.uidvalidity, m.uidnext, m.highest_modseq, m.messages, m.unseen, m.deleted,
    m.bytes, m.created_modseq, m.changed_modseq,
    EXISTS (SELECT FROM subscription s WHERE s.account_id = m.account_id AND s.name = m.name)"""

ALL = sql(f"SELECT {COLUMNS} FROM mailbox m WHERE account_id = %s::bigint ORDER BY name")
BY_NAME = sql(f"SELECT {COLUMNS} FROM mailbox m WHERE account_id = %s::bigint AND name = %s::text")
BY_ID = sql(f"SELECT {COLUMNS} FROM mailbox m WHERE account_id = %s::bigint AND id = %s::bigint")
BY_USE = sql(
    f"SELECT {COLUMNS} FROM mailbox m WHERE account_id = %s::bigint AND special_use = %s::text ORDER BY id LIMIT 1"
)

TAKE_NUMBERS = sql("""
    UPDATE account_state SET modseq = modseq + 1, next_mailbox = next_mailbox + %(n)s::bigint,
        next_uidvalidity = next_uidvalidity + %(n)s::bigint
    WHERE account_id = %(account)s::bigint RETURNING modseq, next_mailbox - %(n)s::bigint, next_uidvalidity -
        %(n)s::bigint""")

INSERT = sql("""
    INSERT INTO mailbox (account_id, id, name, special_use, uidvalidity, highest_modseq, created_modseq, changed_modseq)
    SELECT %(account)s::bigint, n.id, n.name, n.special_use, n.uidvalidity, %(modseq)s::bigint, %(modseq)s::bigint,
        %(modseq)s::bigint
    FROM unnest(%(ids)s::bigint[], %(names)s::text[], %(uses)s::text[], %(validities)s::bigint[])
        AS n(id, name, special_use, uidvalidity)""")

NAMES = sql("SELECT name, id FROM mailbox WHERE account_id = %s::bigint")
RENAME = sql("""
    UPDATE mailbox SET name = n.name, changed_modseq = %(modseq)s::bigint
    FROM unnest(%(ids)s::bigint[], %(names)s::text[]) AS n(id, name)
    WHERE mailbox.account_id = %(account)s::bigint AND mailbox.id = n.id""")
TOUCH = sql("UPDATE mailbox SET changed_modseq = %s::bigint WHERE account_id = %s::bigint AND name = %s::text")
SET_USE = sql("""
    UPDATE mailbox SET special_use = %s::text, changed_modseq = %s::bigint WHERE account_id = %s::bigint AND id =
        %s::bigint""")
DROP_ENTRIES = sql("""
    WITH gone AS (DELETE FROM entry WHERE account_id = %(account)s::bigint AND mailbox_id = %(mailbox)s::bigint
        RETURNING *)
    INSERT INTO expunged (account_id, mailbox_id, uid, message_id, modseq, flags, keywords, internal_date, size)
    SELECT account_id, mailbox_id, uid, message_id, %(modseq)s::bigint, flags, keywords, internal_date, size FROM
        gone""")
DROP_METADATA = sql("DELETE FROM annotation WHERE account_id = %s::bigint AND mailbox_id = %s::bigint")
DROP_GRANTS = sql("DELETE FROM mailbox_grant WHERE account_id = %s::bigint AND mailbox_id = %s::bigint")
# A new mailbox is shared as the one above it is (RFC 4314 leaves that to us).
INHERIT = sql("""
    INSERT INTO mailbox_grant (account_id, mailbox_id, grantee_id, rights)
    SELECT g.account_id, n.id, g.grantee_id, g.rights
    FROM mailbox_grant g, unnest(%(ids)s::bigint[]) AS n(id)
    WHERE g.account_id = %(account)s::bigint AND g.mailbox_id = %(above)s::bigint""")
DROP = sql("DELETE FROM mailbox WHERE account_id = %s::bigint AND id = %s::bigint")
BURY = sql("INSERT INTO gone_mailbox (account_id, id, modseq) VALUES (%s::bigint, %s::bigint, %s::bigint)")
SUBSCRIBE = sql(
    "INSERT INTO subscription (account_id, name) SELECT %s::bigint, unnest(%s::text[]) ON CONFLICT DO NOTHING"
)
UNSUBSCRIBE = sql("DELETE FROM subscription WHERE account_id = %s::bigint AND name = %s::text")
SUBSCRIPTIONS = sql("SELECT name FROM subscription WHERE account_id = %s::bigint ORDER BY name")


def check_name(name: str) -> str:
    """The name as it is stored (INBOX in upper case); raises BAD_NAME with the reason."""
    levels = name.split(SEPARATOR)
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    problem = None
    if not name or any(not level for level in levels):
        problem = "a mailbox name has no empty level"
    elif len(name) > MAX_NAME:
        problem = f"a mailbox name has {MAX_NAME} characters at most"
    elif len(levels) > MAX_DEPTH:
        problem = f"mailboxes nest {MAX_DEPTH} levels at most"
    elif any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 or c in "\u2028\u2029" for c in name):
        problem = "a mailbox name has no control characters"
    if problem:
        raise MailError(Code.BAD_NAME, problem)
    return SEPARATOR.join(levels)


def _check_new(name: str) -> str:
    """`check_name` of a name that is to come into being."""
    name = check_name(name)
    if name.split(SEPARATOR)[0] == OTHER_USERS:
        raise MailError(Code.BAD_NAME, f"{OTHER_USERS} is where mailboxes of others are found")
    return name


def _parents(name: str) -> list[str]:
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:n]) for n in range(1, len(levels))]


async def all(tx: Tx, account_id: int) -> list[Mailbox]:
    """All mailboxes of an account, by name."""
    return [Mailbox(*row) for row in await tx.fetch(ALL, (account_id,))]


async def by_name(tx: Tx, account_id: int, name: str) -> Mailbox:
    """The mailbox of that name (INBOX in any case); raises NOT_FOUND."""
    if name.upper() == INBOX:
        name = INBOX
    return _found(await tx.one(BY_NAME, (account_id, name)))


async def by_id(tx: Tx, account_id: int, mailbox_id: int) -> Mailbox:
    """The mailbox of that number; raises NOT_FOUND."""
    return _found(await tx.one(BY_ID, (account_id, mailbox_id)))


async def by_special_use(tx: Tx, account_id: int, use: str) -> Mailbox | None:
    """The account's mailbox for `\\Sent`, `\\Trash`, … if it has one."""
    row = await tx.one(BY_USE, (account_id, use))
    return Mailbox(*row) if row else None


def _found(row: tuple[Any, ...] | None) -> Mailbox:
    if row is None:
        raise MailError(Code.NOT_FOUND, "no such mailbox")
    return Mailbox(*row)


async def insert(tx: Tx, account_id: int, items: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    """Make mailboxes (name, special use) of a locked account that are known to be missing; returns their ids."""
    items = list(items)
    numbers = await tx.one(TAKE_NUMBERS, {"account": account_id, "n": len(items)})
    if numbers is None:
        raise MailError(Code.NOT_FOUND, "no such account", f"account_state {account_id}")
    modseq, first_id, first_validity = numbers
    ids = list(range(first_id, first_id + len(items)))
    await tx.execute(
        INSERT,
        {
            "account": account_id,
            "modseq": modseq,
            "ids": ids,
            "names": [name for name, _ in items],
            "uses": [use for _, use in items],
            "validities": list(range(first_validity, first_validity + len(items))),
        },
    )
    tx.changed(Change(account_id, 0, modseq, "mailbox"))
    return dict(zip((name for name, _ in items), ids, strict=True))


async def create(tx: Tx, account_id: int, name: str, special_use: str | None = None) -> Mailbox:
    """Make a mailbox and whatever parents are missing (RFC 9051 §6.3.4, RFC 6154).

    Raises BAD_NAME, EXISTS, TOO_MANY, and BAD_VALUE for a special use that is unknown or taken.
    """
    name = _check_new(name)
    await locks.lock_account(tx, account_id)
    present: dict[str, int] = dict(await tx.fetch(NAMES, (account_id,)))
    if name in present:
        raise MailError(Code.EXISTS, "a mailbox of that name exists already")
    missing = [parent for parent in _parents(name) if parent not in present]
    if len(present) + len(missing) + 1 > MAX_MAILBOXES:
        raise MailError(Code.TOO_MANY, f"an account has {MAX_MAILBOXES} mailboxes at most")
    if special_use is not None:
        if special_use not in SPECIAL_USES:
            raise MailError(Code.BAD_VALUE, "that special use is not known here")
        if await by_special_use(tx, account_id, special_use) is not None:
            raise MailError(Code.BAD_VALUE, f"another mailbox is used for {special_use} already")
    ids = await insert(tx, account_id, [(parent, None) for parent in missing] + [(name, special_use)])
    above = next((present[parent] for parent in reversed(_parents(name)) if parent in present), None)
    if above is not None:
        await tx.execute(INHERIT, {"account": account_id, "above": above, "ids": list(ids.values())})
    return await by_id(tx, account_id, ids[name])


async def rename(tx: Tx, account_id: int, old: str, new: str) -> None:
    """Rename a mailbox with all below it; renaming INBOX moves its messages away and keeps INBOX (RFC 9051 §6.3.6).

    Raises NOT_FOUND, EXISTS, BAD_NAME.
    """
    old, new = check_name(old), _check_new(new)
    await locks.lock_account(tx, account_id)
    present: dict[str, int] = dict(await tx.fetch(NAMES, (account_id,)))
    if old not in present:
        raise MailError(Code.NOT_FOUND, "no such mailbox")
    if new in present:
        raise MailError(Code.EXISTS, "a mailbox of that name exists already")
    if new.startswith(old + SEPARATOR):
        raise MailError(Code.BAD_NAME, "a mailbox cannot move below itself")
    missing = [parent for parent in _parents(new) if parent not in present]
    if old == INBOX:
        await _empty_inbox(tx, account_id, present[INBOX], new, missing)
        return
    if missing:
        await insert(tx, account_id, [(parent, None) for parent in missing])
    renamed = {name: new + name[len(old) :] for name in present if name == old or name.startswith(old + SEPARATOR)}
    for name in renamed.values():
        check_name(name)
        if name in present and name not in renamed:
            raise MailError(Code.EXISTS, "a mailbox of that name exists already")
    modseq = await locks.next_modseq(tx, account_id)
    ids = [present[name] for name in renamed]
    await locks.lock_mailboxes(tx, account_id, ids)
    await tx.execute(RENAME, {"account": account_id, "modseq": modseq, "ids": ids, "names": list(renamed.values())})
    tx.changed(Change(account_id, 0, modseq, "mailbox"))


async def _empty_inbox(tx: Tx, account_id: int, inbox_id: int, new: str, missing: list[str]) -> None:
    from mailcore.store import fetch, transfer  # they use this module's constants

    ids = await insert(tx, account_id, [(name, None) for name in [*missing, new]])
    uids = await fetch.uids(tx, account_id, inbox_id)
    if uids:
        await transfer.move(tx, account_id, inbox_id, uids, ids[new])


async def delete(tx: Tx, account_id: int, name: str) -> None:
    """Remove a mailbox and its messages (they stay undeletable from `expunged` for a while) (RFC 9051 §6.3.5).

    Raises NOT_FOUND; NO_PERMISSION for INBOX; NOT_EMPTY while mailboxes lie below it.
    """
    name = check_name(name)
    if name == INBOX:
        raise MailError(Code.NO_PERMISSION, "INBOX cannot be deleted")
    await locks.lock_account(tx, account_id)
    present: dict[str, int] = dict(await tx.fetch(NAMES, (account_id,)))
    if name not in present:
        raise MailError(Code.NOT_FOUND, "no such mailbox")
    if any(other.startswith(name + SEPARATOR) for other in present):
        raise MailError(Code.NOT_EMPTY, "the mailbox has mailboxes below it: delete those first")
    mailbox_id = present[name]
    await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    mailbox = await by_id(tx, account_id, mailbox_id)
    modseq = await locks.next_modseq(tx, account_id)
    await tx.execute(DROP_ENTRIES, {"account": account_id, "mailbox": mailbox_id, "modseq": modseq})
    await tx.execute(DROP_METADATA, (account_id, mailbox_id))
    await tx.execute(DROP_GRANTS, (account_id, mailbox_id))
    await tx.execute(DROP, (account_id, mailbox_id))
    await tx.execute(BURY, (account_id, mailbox_id, modseq))
    await tx.execute(*locks.counting_account(account_id, -mailbox.messages, -mailbox.bytes))
    tx.changed(Change(account_id, mailbox_id, modseq, "gone"))
    tx.changed(Change(account_id, 0, modseq, "mailbox"))


async def set_special_use(tx: Tx, account_id: int, mailbox_id: int, use: str | None) -> None:
    """Give a mailbox a special use, or none. Raises NOT_FOUND, BAD_VALUE (unknown, or another mailbox has it)."""
    if use is not None and use not in SPECIAL_USES:
        raise MailError(Code.BAD_VALUE, "that special use is not known here")
    await locks.lock_account(tx, account_id)
    holder = await by_special_use(tx, account_id, use) if use else None
    if holder is not None and holder.id != mailbox_id:
        raise MailError(Code.BAD_VALUE, f"another mailbox is used for {use} already")
    await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    modseq = await locks.next_modseq(tx, account_id)
    await tx.execute(SET_USE, (use, modseq, account_id, mailbox_id))
    tx.changed(Change(account_id, 0, modseq, "mailbox"))


async def subscribe(tx: Tx, account_id: int, name: str) -> None:
    """Add a name to the subscriptions; the mailbox need not exist (RFC 9051 §6.3.7). Raises BAD_NAME."""
    await _subscription(tx, account_id, SUBSCRIBE, [check_name(name)], check_name(name))


async def unsubscribe(tx: Tx, account_id: int, name: str) -> None:
    """Take a name from the subscriptions; no error if it was not there. Raises BAD_NAME."""
    await _subscription(tx, account_id, UNSUBSCRIBE, check_name(name), check_name(name))


async def _subscription(tx: Tx, account_id: int, query: str, argument: object, name: str) -> None:
    await locks.lock_account(tx, account_id)
    if await tx.execute(query, (account_id, argument)):
        modseq = await locks.next_modseq(tx, account_id)
        await tx.execute(TOUCH, (modseq, account_id, name))
        tx.changed(Change(account_id, 0, modseq, "mailbox"))


async def subscriptions(tx: Tx, account_id: int) -> list[str]:
    """Subscribed names, also of mailboxes that are gone."""
    return [row[0] for row in await tx.fetch(SUBSCRIPTIONS, (account_id,))]
