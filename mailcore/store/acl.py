"""Who may do what in whose mailbox (RFC 4314): the one place that turns a name into a mailbox and rights in it.

People of one domain may share mailboxes. What Alice shares with Bob he finds as "Other Users/alice@example.org/Work".
The owner has every right, always. For whoever has no right to look it up, a mailbox does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any, Literal

from accounts.addresses import normalise
from accounts.errors import AddressError
from mailcore.db import Tx, sql
from mailcore.errors import Code, MailError
from mailcore.store import locks, mailboxes
from mailcore.store.flags import ALL_FLAGS, DELETED, SEEN
from mailcore.store.mailboxes import OTHER_USERS, SEPARATOR, Mailbox
from mailcore.wake import Change

ANYONE = "anyone"
MAX_GRANTS = 1_000  # of one mailbox
MAX_SHARED = 10_000  # mailboxes of others that one account is shown


class Right(IntFlag):
    """What may be done in a mailbox; the letters are those of RFC 4314 §2.1."""

    LOOKUP = 1
    READ = 2
    SEEN = 4
    WRITE = 8
    INSERT = 16
    POST = 32
    CREATE = 64
    DELETE_MAILBOX = 128
    DELETE = 256
    EXPUNGE = 512
    ADMINISTER = 1024


LETTERS = "lrswipkxtea"
_BITS = {letter: Right(1 << n) for n, letter in enumerate(LETTERS)}
EVERY = Right(2 ** len(LETTERS) - 1)
NONE = Right(0)
# The letters of RFC 2086 that stand for several of today's (RFC 4314 §2.1.1).
OBSOLETE = {"c": Right.CREATE | Right.DELETE_MAILBOX, "d": Right.DELETE | Right.EXPUNGE}
# Any of them, beside LOOKUP, lets one know the mailbox's metadata (RFC 5464 §3.3).
USING = Right.READ | Right.SEEN | Right.WRITE | Right.INSERT | Right.POST
# Any of them changes what is in the mailbox.
CHANGING = Right.SEEN | Right.WRITE | Right.INSERT | Right.DELETE | Right.EXPUNGE


def parse(letters: str) -> Right:
    """Rights from their letters; raises BAD_VALUE for one that is none."""
    rights = NONE
    for letter in letters:
        bits = _BITS.get(letter) or OBSOLETE.get(letter)
        if bits is None:
            raise MailError(Code.BAD_VALUE, f"there is no right {letter!r}")
        rights |= bits
    return rights


def spell(rights: Right) -> str:
    """Letters of rights; the obsolete ones too as soon as one of theirs is there, as RFC 4314 §2.1.1 wants it."""
    letters = [letter for letter, bit in _BITS.items() if rights & bit]
    return "".join(letters + [letter for letter, bits in OBSOLETE.items() if rights & bits])


@dataclass(frozen=True, slots=True)
class Place:
    """A mailbox as an account sees it. `mailbox.name` is the name there; `owner` is "" for a mailbox of one's own."""

    account_id: int
    mailbox: Mailbox
    rights: Right = EVERY
    owner: str = ""

    @property
    def name(self) -> str:
        """The name by which the account that asked knows it."""
        if not self.owner:
            return self.mailbox.name
        return SEPARATOR.join((OTHER_USERS, self.owner, self.mailbox.name))

    @property
    def known(self) -> Mailbox:
        """The mailbox under that name; the owner's special uses are nobody else's."""
        return self.mailbox if not self.owner else replace(self.mailbox, name=self.name, special_use=None)

    def require(self, right: Right) -> Place:
        """Itself; raises NO_PERMISSION unless all these rights are there."""
        if right & ~self.rights:
            raise MailError(Code.NO_PERMISSION, "you have no right to do that in this mailbox")
        return self

    @property
    def flags(self) -> int:
        """The system flags that may be changed."""
        return flags(self.rights)


def flags(rights: Right) -> int:
    """The system flags that these rights allow to change; keywords go with WRITE."""
    allowed = ALL_FLAGS & ~(SEEN | DELETED) if rights & Right.WRITE else 0
    return allowed | (SEEN if rights & Right.SEEN else 0) | (DELETED if rights & Right.DELETE else 0)


# Whom a grant to the account or to everybody of its domain comes from: somebody else of the same domain.
_GRANTS = """
    FROM accounts_account v
        JOIN accounts_account o ON o.domain_id = v.domain_id AND o.id <> v.id
        JOIN mailbox_grant g ON g.account_id = o.id AND g.grantee_id IN (v.id, -v.domain_id)
    WHERE v.id = %(viewer)s::bigint"""

SHARED = sql(f"""
    WITH granted AS (
        SELECT g.account_id, g.mailbox_id, o.address, bit_or(g.rights) AS rights
        FROM mailbox_grant g
            JOIN accounts_account v ON v.id = %(viewer)s::bigint
            JOIN accounts_account o ON o.id = g.account_id AND o.domain_id = v.domain_id AND o.id <> v.id
        WHERE g.grantee_id IN (%(viewer)s::bigint,
            (SELECT -domain_id FROM accounts_account WHERE id = %(viewer)s::bigint))
        GROUP BY g.account_id, g.mailbox_id, o.address)
    SELECT granted.account_id, granted.address, granted.rights, {mailboxes.COLUMNS}
    FROM granted JOIN mailbox m ON m.account_id = granted.account_id AND m.id = granted.mailbox_id
    WHERE granted.rights & {Right.LOOKUP.value} <> 0
    ORDER BY granted.address, m.name LIMIT {MAX_SHARED}""")

BY_NAME = sql(f"""
    WITH granted AS (
        SELECT g.account_id, g.mailbox_id, o.address, bit_or(g.rights) AS rights
        {_GRANTS} AND o.address = ANY(%(owners)s::text[])
        GROUP BY g.account_id, g.mailbox_id, o.address)
    SELECT granted.account_id, granted.address, granted.rights, {mailboxes.COLUMNS}
    FROM granted JOIN mailbox m ON m.account_id = granted.account_id AND m.id = granted.mailbox_id
    WHERE m.name = ANY(%(names)s::text[]) AND granted.rights & {Right.LOOKUP.value} <> 0""")

RIGHTS = sql(f"""
    SELECT coalesce(bit_or(g.rights), 0) {_GRANTS} AND o.id = %(account)s::bigint
        AND g.mailbox_id = %(mailbox)s::bigint""")

OWNERS = sql("""
    SELECT o.id, o.address FROM accounts_account v JOIN accounts_account o ON o.domain_id = v.domain_id
    WHERE v.id = %s::bigint AND o.id <> v.id AND o.address = ANY(%s::text[])""")

ENTRIES = sql("""
    SELECT coalesce(a.address, 'anyone'), g.rights
    FROM mailbox_grant g LEFT JOIN accounts_account a ON a.id = g.grantee_id
    WHERE g.account_id = %s::bigint AND g.mailbox_id = %s::bigint AND (a.id IS NOT NULL OR g.grantee_id < 0)
    ORDER BY g.grantee_id < 0, a.address""")
ADDRESS = sql("SELECT address FROM accounts_account WHERE id = %s::bigint")
PERSON = sql("""
    SELECT p.id FROM accounts_account o JOIN accounts_account p ON p.domain_id = o.domain_id
    WHERE o.id = %s::bigint AND p.address = %s::text""")
EVERYBODY = sql("SELECT -domain_id FROM accounts_account WHERE id = %s::bigint")
OF_GRANTEE = sql("""
    SELECT rights FROM mailbox_grant
    WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND grantee_id = %s::bigint""")
COUNT = sql("SELECT count(*) FROM mailbox_grant WHERE account_id = %s::bigint AND mailbox_id = %s::bigint")
GRANT = sql("""
    INSERT INTO mailbox_grant (account_id, mailbox_id, grantee_id, rights)
    VALUES (%s::bigint, %s::bigint, %s::bigint, %s::int)
    ON CONFLICT (account_id, mailbox_id, grantee_id) DO UPDATE SET rights = excluded.rights""")
REVOKE = sql("""
    DELETE FROM mailbox_grant WHERE account_id = %s::bigint AND mailbox_id = %s::bigint AND grantee_id = %s::bigint""")


async def resolve(tx: Tx, viewer_id: int, name: str) -> Place:
    """The mailbox that an account means by a name, and its rights there. Raises NOT_FOUND, also for the invisible."""
    if not is_elsewhere(name):
        return Place(viewer_id, await mailboxes.by_name(tx, viewer_id, name))
    splits = dict(_splits(name))
    if splits:
        rows = await tx.fetch(
            BY_NAME, {"viewer": viewer_id, "owners": list(splits), "names": list(set(splits.values()))}
        )
        for place in map(_place, rows):
            if splits.get(place.owner) == place.mailbox.name:
                return place
    raise MailError(Code.NOT_FOUND, "no such mailbox")


async def resolve_new(tx: Tx, viewer_id: int, name: str) -> tuple[int, str]:
    """The account and the name in it of a mailbox that is to be made: of one's own, or below one that allows it.

    Raises NO_PERMISSION, without saying whether what stands above exists.
    """
    if not is_elsewhere(name):
        return viewer_id, name
    splits = dict(_splits(name))
    for owner_id, owner in await tx.fetch(OWNERS, (viewer_id, list(splits))):
        new = splits[owner]
        levels = new.split(SEPARATOR)
        above = [SEPARATOR.join(levels[:n]) for n in range(1, len(levels))]
        present = {mailbox.name for mailbox in await mailboxes.all(tx, owner_id)}
        nearest = next((parent for parent in reversed(above) if parent in present), None)
        if nearest is not None:
            rows = await tx.fetch(BY_NAME, {"viewer": viewer_id, "owners": [owner], "names": [nearest]})
            if rows and _place(rows[0]).rights & Right.CREATE:
                return owner_id, new
    raise MailError(Code.NO_PERMISSION, "you have no right to make a mailbox there")


async def shared(tx: Tx, viewer_id: int) -> list[Place]:
    """The mailboxes of others that an account may look up, by owner and name."""
    return [_place(row) for row in await tx.fetch(SHARED, {"viewer": viewer_id})]


async def rights(tx: Tx, viewer_id: int, account_id: int, mailbox_id: int) -> Right:
    """What an account may do in a mailbox of this or another account now."""
    if viewer_id == account_id:
        return EVERY
    row = await tx.one(RIGHTS, {"viewer": viewer_id, "account": account_id, "mailbox": mailbox_id})
    return Right(row[0]) if row else NONE


async def entries(tx: Tx, place: Place) -> list[tuple[str, Right]]:
    """Who has which rights in a mailbox, its owner first."""
    owner = await tx.one(ADDRESS, (place.account_id,))
    granted = await tx.fetch(ENTRIES, (place.account_id, place.mailbox.id))
    return [(owner[0] if owner else "owner", EVERY), *((who, Right(bits)) for who, bits in granted)]


async def find(tx: Tx, place: Place, identifier: str) -> int:
    """The number that grants to an identifier carry: an address of the owner's domain, or "anyone".

    Raises BAD_VALUE for whoever cannot be meant; of another domain, nobody is known.
    """
    if identifier.lower() == ANYONE:
        row = await tx.one(EVERYBODY, (place.account_id,))
    else:
        try:
            row = await tx.one(PERSON, (place.account_id, normalise(identifier)))
        except AddressError:
            row = None
    if row is None:
        raise MailError(Code.BAD_VALUE, "there is nobody of that address in the domain")
    return int(row[0])


async def change(tx: Tx, place: Place, identifier: str, how: Literal["=", "+", "-"], wanted: Right) -> None:
    """Set, add or take rights of an identifier. Raises NOT_FOUND, BAD_VALUE, TOO_MANY, and NO_PERMISSION for the owner,
    whose rights cannot be taken."""
    account_id, mailbox_id = place.account_id, place.mailbox.id
    await locks.lock_account(tx, account_id)
    await locks.lock_mailboxes(tx, account_id, [mailbox_id])
    grantee = await find(tx, place, identifier)
    if grantee == account_id:
        if how == "+" or (how == "=" and wanted == EVERY) or (how == "-" and not wanted):
            return
        raise MailError(Code.NO_PERMISSION, "the owner of a mailbox has all rights in it, always")
    row = await tx.one(OF_GRANTEE, (account_id, mailbox_id, grantee))
    before = Right(row[0]) if row else NONE
    after = {"=": wanted, "+": before | wanted, "-": before & ~wanted}[how]
    if after == before:
        return
    if not after:
        await tx.execute(REVOKE, (account_id, mailbox_id, grantee))
    else:
        count = await tx.one(COUNT, (account_id, mailbox_id))
        if not before and count is not None and count[0] >= MAX_GRANTS:
            raise MailError(Code.TOO_MANY, f"a mailbox is shared with {MAX_GRANTS} at most")
        await tx.execute(GRANT, (account_id, mailbox_id, grantee, int(after)))
    modseq = await locks.next_modseq(tx, account_id)
    tx.changed(Change(account_id, mailbox_id, modseq, "rights"))
    if grantee > 0:
        tx.changed(Change(grantee, 0, 0, "mailbox"))


def is_elsewhere(name: str) -> bool:
    """Whether the name is one of the mailboxes of others, or of the levels above them."""
    return name == OTHER_USERS or name.startswith(OTHER_USERS + SEPARATOR)


def levels_above(places: Iterable[Place]) -> set[str]:
    """The names above shared mailboxes that are no mailboxes themselves: the namespace, and one for each owner."""
    owners = {SEPARATOR.join((OTHER_USERS, place.owner)) for place in places}
    return owners | {OTHER_USERS} if owners else owners


def _splits(name: str) -> Iterable[tuple[str, str]]:
    """(owner's address, name there) for every way to read the name: an address may hold the separator."""
    levels = name.split(SEPARATOR)[1:]
    for n in range(1, len(levels)):
        owner = SEPARATOR.join(levels[:n])
        if "@" in owner:
            below = levels[n:]
            if below[0].upper() == mailboxes.INBOX:
                below[0] = mailboxes.INBOX
            yield owner.lower(), SEPARATOR.join(below)


def _place(row: tuple[Any, ...]) -> Place:
    account_id, address, rights, *columns = row
    return Place(account_id, Mailbox(*columns), Right(rights), address)
