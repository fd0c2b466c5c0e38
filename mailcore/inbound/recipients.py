"""RCPT: whom an address leads to, and whether mail for it is taken now.

Everything that can be refused is refused here, before the message is sent, so that no bounce has to be written to a
sender who may be forged. A full mailbox is refused for now (452), because its owner can make room while the sender's
server waits; the person who submits mail is told at once and for good (552). That choice is the protocol's: here it
is OVER_QUOTA.

Most addresses are simply those of an account. They are found by a statement that all sessions of the process share
(mailcore.desk); aliases, and whatever is to be refused, take the store's own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from accounts.addresses import CATCH_ALL, Parsed, fold_local, normalise, split_tag
from accounts.errors import AddressError
from mailcore import db
from mailcore.arrays import Texts
from mailcore.db import Tx, sql
from mailcore.desk import Desk
from mailcore.errors import Code, MailError
from mailcore.inbound.envelope import Recipient
from mailcore.store import accounts
from mailcore.store.accounts import Local, Resolution

# RFC 5321 §4.5.1 and RFC 2142: these reach a human being in every domain, whether they are defined or not. An address
# of that name wins, then the catch-all; where there is none, or it leads nowhere, whoever looks after the domain.
ALWAYS_REACHABLE = frozenset({"postmaster", "abuse"})

NOWHERE = frozenset({Code.NO_SUCH_USER, Code.DISABLED, Code.LOOP})

# 0.1 ms for one address, 0.3 ms for sixteen.
DIRECT = sql("""
    SELECT q.address, a.local_part, a.account_id, u.address, d.is_active AND u.is_active, s.bytes,
        CASE WHEN s.messages >= s.quota_messages THEN 0 ELSE s.quota_bytes END
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS q(address, local, base, domain)
        JOIN accounts_domain d ON d.name = q.domain
        JOIN accounts_address a ON a.domain_id = d.id AND a.local_part IN (q.local, q.base, '*')
        LEFT JOIN accounts_account u ON u.id = a.account_id
        LEFT JOIN account_state s ON s.account_id = a.account_id""")

_REACHED = """accounts_account u JOIN account_state s ON s.account_id = u.id
        JOIN accounts_domain d ON d.id = u.domain_id AND d.is_active WHERE u.is_active"""
# Who looks after a domain: its administrator, the installation's, else whoever is there longest, in it or at all.
CARETAKER = sql(f"""
    (SELECT u.id, u.address FROM {_REACHED} AND u.id IN (
        SELECT a.account_id FROM accounts_account_administers a JOIN accounts_domain o ON o.id = a.domain_id
        WHERE o.name = %(domain)s::text) ORDER BY u.id LIMIT 1)
    UNION ALL (SELECT u.id, u.address FROM {_REACHED} AND u.is_superuser ORDER BY u.id LIMIT 1)
    UNION ALL (SELECT u.id, u.address FROM {_REACHED} AND d.name = %(domain)s::text ORDER BY u.id LIMIT 1)
    UNION ALL (SELECT u.id, u.address FROM {_REACHED} ORDER BY u.id LIMIT 1)
    LIMIT 1""")

NO_ROOM = sql("""
    SELECT account_id FROM account_state
    WHERE account_id = ANY(%s::bigint[]) AND (bytes + %s::bigint > quota_bytes OR messages >= quota_messages)""")

FULL = "Mailbox full"
# Seconds. Mail for an account that is removed or filled meanwhile is refused by the transaction that would store it.
KEEP = 1.0


@dataclass(frozen=True, slots=True)
class _Direct:
    """An address that is an account's own, with the account's octets and quota."""

    local: Local
    bytes: int
    quota: int | None


class Directory:
    """Looks recipients up for all sessions of one event loop."""

    def __init__(self) -> None:
        self._desk: Desk[str, _Direct] = Desk(_read, keep=KEEP)

    async def resolve(
        self, parsed: Parsed, *, relay: bool, size: int = 0, notify: str | None = None, orcpt: str | None = None
    ) -> Recipient:
        """Where mail of `size` octets (0 = not known yet) to the address goes.

        Raises NO_PERMISSION for an address of somebody else's domain unless `relay`, NO_SUCH_USER, DISABLED, LOOP, and
        OVER_QUOTA when none of the mailboxes it leads to has room.
        """
        address = str(parsed)
        try:
            ours = normalise(address)
        except AddressError as error:
            if not parsed.is_literal:
                raise MailError(Code.NO_SUCH_USER, error.text) from None
            if not relay:
                raise _relay_denied() from None
            return Recipient(address, (), (address,), notify, orcpt)
        direct = await self._desk.ask(ours)
        if direct is not None:
            if direct.quota is not None and direct.bytes + max(size, 1) > direct.quota:
                raise MailError(Code.OVER_QUOTA, FULL)
            return Recipient(address, (direct.local,), (), notify, orcpt)
        async with db.read() as tx:
            found = await _follow(tx, parsed, ours)
            if found.remote == (ours,):
                # Not one of our domains: the local part is the other server's business, its case included.
                if not relay:
                    raise _relay_denied()
                return Recipient(address, (), (address,), notify, orcpt)
            await _require_room(tx, found, size)
        return Recipient(address, found.accounts, found.remote, notify, orcpt)

    async def postmaster(self, *, notify: str | None = None, orcpt: str | None = None) -> Recipient:
        """`<postmaster>` without a domain: whoever looks after the installation. Raises UNAVAILABLE, for nobody yet."""
        async with db.read() as tx:
            return Recipient("postmaster", (await _caretaker(tx, ""),), (), notify, orcpt)


def _relay_denied() -> MailError:
    return MailError(Code.NO_PERMISSION, "Relay access denied")


async def _read(addresses: list[str]) -> Mapping[str, _Direct]:
    """Those of `addresses` that are an active account's own: the exact one, else the untagged, else the catch-all."""
    locals_ = [address.rpartition("@")[0] for address in addresses]
    bases = [split_tag(local)[0] for local in locals_]
    async with db.read() as tx:
        rows = await tx.fetch(
            DIRECT,
            (Texts(addresses), Texts(locals_), Texts(bases), Texts([each.rpartition("@")[2] for each in addresses])),
        )
    ranks = {address: (local, base, CATCH_ALL) for address, local, base in zip(addresses, locals_, bases, strict=True)}
    found: dict[str, tuple[int, _Direct | None]] = {}
    for address, name, account_id, own, active, octets, quota in rows:
        rank = ranks[address].index(name)
        if address in found and found[address][0] <= rank:
            continue
        usable = account_id is not None and active and octets is not None
        local, base, _ = ranks[address]
        tag = local[len(base) + 1 :] if rank == 1 else ""
        found[address] = (rank, _Direct(Local(account_id, own, tag), octets, quota) if usable else None)
    return {address: direct for address, (_, direct) in found.items() if direct is not None}


async def _follow(tx: Tx, parsed: Parsed, ours: str) -> Resolution:
    try:
        return await accounts.resolve(tx, ours)
    except MailError as error:
        if error.code not in NOWHERE or fold_local(parsed.local) not in ALWAYS_REACHABLE:
            raise
    return Resolution((await _caretaker(tx, ours.rpartition("@")[2]),))


async def _caretaker(tx: Tx, domain: str) -> Local:
    row = await tx.one(CARETAKER, {"domain": domain})
    if row is None:
        raise MailError(Code.UNAVAILABLE, "Nobody has a mailbox here yet, try again later")
    return Local(row[0], row[1])


async def _require_room(tx: Tx, found: Resolution, size: int) -> None:
    if not found.accounts or found.remote:
        return
    ids = {local.account_id for local in found.accounts}
    if await without_room(tx, ids, size) == ids:
        raise MailError(Code.OVER_QUOTA, FULL)


async def without_room(tx: Tx, account_ids: set[int], size: int) -> set[int]:
    """Those of the accounts that cannot take `size` octets more."""
    return {row[0] for row in await tx.fetch(NO_ROOM, (sorted(account_ids), max(size, 1)))}
