"""RCPT: whom an address leads to, and whether mail for it is taken now.

Everything that can be refused is refused here, before the message is sent, so that no bounce has to be written to a
sender who may be forged. A full mailbox is refused for now (452), because its owner can make room while the sender's
server waits; the person who submits mail is told at once and for good (552). That choice is the protocol's: here it
is OVER_QUOTA.

Most addresses are simply those of an account. They are found by a statement that all sessions of the process share
(mailcore.desk); aliases, groups, and whatever is to be refused, take the store's own way.

Then the policies (accounts.policies) of the address's domain and of the accounts that it leads to have their say, and
the rules of groups. When one of several behind an address refuses a message, he is left out and the others get it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from accounts.addresses import CATCH_ALL, Parsed, fold_local, normalise, parse_address, split_tag
from accounts.errors import AddressError
from accounts.policies import Policy, effective
from mailcore import db
from mailcore.arrays import Texts
from mailcore.conf import conf
from mailcore.db import Tx, sql
from mailcore.desk import Desk
from mailcore.errors import Code, MailError
from mailcore.inbound import srs
from mailcore.inbound.envelope import Recipient
from mailcore.store import accounts, forwards
from mailcore.store.accounts import Group, Local, Resolution

# RFC 5321 §4.5.1, RFC 2142, and where our DNS records send TLS reports: these reach a human being in every domain,
# whether they are defined or not. An address of that name wins, then the catch-all; where there is none, or it leads
# nowhere, whoever looks after the domain.
ALWAYS_REACHABLE = frozenset({"postmaster", "abuse", conf.tls_reports.lower()}) - {""}

NOWHERE = frozenset({Code.NO_SUCH_USER, Code.DISABLED, Code.LOOP})

# A row for each of the names that is an address of ours; one without a name where the domain is not ours at all, with
# why the address is not written to, if it is not. 0.1 ms for one address, 0.3 ms for sixteen.
DIRECT = sql("""
    SELECT q.address, a.local_part, a.account_id, u.address, d.is_active AND u.is_active, s.bytes,
        CASE WHEN s.messages >= s.quota_messages THEN 0 ELSE s.quota_bytes END, d.policy::text, u.policy::text, NULL
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS q(address, local, base, domain)
        JOIN accounts_domain n ON n.name = q.domain
        JOIN accounts_domain d ON d.id = coalesce(n.alias_of_id, n.id)
        JOIN accounts_address a ON a.domain_id = d.id AND a.local_part IN (q.local, q.base, '*')
        LEFT JOIN accounts_account u ON u.id = a.account_id
        LEFT JOIN account_state s ON s.account_id = a.account_id
    WHERE CASE a.local_part WHEN q.local THEN true
        WHEN '*' THEN coalesce(d.policy -> 'catch-all', 'true') <> 'false'
        ELSE coalesce(u.policy -> 'plus-tags', d.policy -> 'plus-tags', 'true') <> 'false' END
    UNION ALL
    SELECT q.address, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, (
        SELECT x.address || ' is not sent from here any more: ' || coalesce(nullif(x.reason, ''), x.category)
        FROM suppression x
        WHERE x.address IN (q.address, q.domain) AND x.active AND (x.until IS NULL OR x.until > now())
        ORDER BY x.address = q.domain LIMIT 1)
    FROM unnest(%s::text[], %s::text[]) AS q(address, domain)
    WHERE NOT EXISTS (SELECT FROM accounts_domain n WHERE n.name = q.domain)""")
GUARDED = sql("""
    SELECT n.name FROM accounts_domain n JOIN accounts_domain d ON d.id = coalesce(n.alias_of_id, n.id)
    WHERE d.policy -> 'refuse-own-senders' = 'true'""")

DOMAIN_OF = sql("""
    SELECT n.name FROM accounts_account u JOIN accounts_domain n ON u.domain_id IN (n.id, n.alias_of_id)
    WHERE u.id = %s::bigint""")

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
# Addresses behind one from which on that is worth being remembered for as long: finding 10,000 takes 0.3 s.
LARGE = 100


# More mailboxes than this behind one address are served by the queue, a few in each transaction: a message to ten
# thousand holds nobody up.
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: the envelope sender ("" = a bounce), the account that logged in, and whether TLS protects it.

    `front_end`: handed on by a server that has received the mail in our place, and has looked at both.
    """

    sender: str
    account_id: int | None = None
    tls: bool = False
    front_end: bool = False


@dataclass(frozen=True, slots=True)
class _Direct:
    """An address that is an account's own, with the account's octets and quota."""

    local: Local
    bytes: int
    quota: int | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """An address that is none of ours. `refusal`: why it is not written to, "" when it is."""

    refusal: str


class Directory:
    """Looks recipients up for all sessions of one event loop."""

    def __init__(self) -> None:
        self._direct: Desk[str, _Direct | _Elsewhere] = Desk(_read, keep=KEEP)
        self._ways: Desk[str, Resolution | MailError] = Desk(_ways)
        self._large: dict[str, Resolution] = {}
        self._guarded: Desk[str, frozenset[str]] = Desk(_guarded, keep=KEEP)

    async def resolve(
        self, parsed: Parsed, writer: Writer, *, size: int = 0, notify: str | None = None, orcpt: str | None = None
    ) -> Recipient:
        """Where mail of `size` octets (0 = not known yet) to the address goes.

        Raises NO_PERMISSION for an address of somebody else's domain, unless the writer has logged in, and for what
        policies refuse; NO_SUCH_USER, DISABLED, LOOP, TOO_BIG, and OVER_QUOTA when none of the mailboxes has room.
        """
        address = str(parsed)
        relay = writer.account_id is not None
        try:
            ours = normalise(address)
        except AddressError as error:
            if not parsed.is_literal:
                raise MailError(Code.NO_SUCH_USER, error.text) from None
            if not relay:
                raise _relay_denied() from None
            return Recipient(address, (), (address,), notify, orcpt)
        always = fold_local(parsed.local) in ALWAYS_REACHABLE
        if not relay and not always and not writer.front_end:
            await self._refuse_own_senders(writer)
        if srs.is_shaped(parsed.local) and (bounced := await _bounced(parsed, writer)) is not None:
            return Recipient(address, (), (bounced,), notify, orcpt)
        direct = await self._direct.ask(ours)
        if isinstance(direct, _Elsewhere):
            return _elsewhere(parsed, relay, direct.refusal, notify, orcpt)
        if direct is not None:
            if not always:
                _require_policy(direct.policy, writer, size)
            if direct.quota is not None and direct.bytes + max(size, 1) > direct.quota:
                raise MailError(Code.OVER_QUOTA, FULL)
            most = None if always else direct.policy.max_message_size
            return Recipient(address, (direct.local,), (), notify, orcpt, max_size=most)
        found = await self._way(ours)
        if not found.ours and found.remote == (ours,):  # since a moment ago
            return _elsewhere(parsed, relay, "", notify, orcpt)
        async with db.read() as tx:
            if not always:
                found = await _permitted(tx, found, writer, size)
            if len(found.accounts) <= AT_ONCE:
                await _require_room(tx, found, size)
        served, queued = (found.accounts, ()) if len(found.accounts) <= AT_ONCE else ((), found.accounts)
        most = None if always else effective(found.domain_policy).max_message_size
        smaller = () if always else _smaller(found)
        return Recipient(address, served, found.remote, notify, orcpt, queued, most, smaller)

    async def postmaster(self, *, notify: str | None = None, orcpt: str | None = None) -> Recipient:
        """`<postmaster>` without a domain: whoever looks after the installation. Raises UNAVAILABLE, for nobody yet."""
        async with db.read() as tx:
            return Recipient("postmaster", (await _caretaker(tx, ""),), (), notify, orcpt)

    async def _way(self, ours: str) -> Resolution:
        found = self._large.get(ours) or await self._ways.ask(ours)
        if isinstance(found, Resolution):
            if len(found.accounts) + len(found.remote) > LARGE:
                self._remember(ours, found)
            return found
        refusal = found or MailError(Code.UNAVAILABLE, "try again later")
        raise MailError(refusal.code, refusal.text, refusal.private)

    def _remember(self, address: str, found: Resolution) -> None:
        if not self._large:
            asyncio.get_running_loop().call_later(KEEP, self._large.clear)
        self._large[address] = found

    async def _refuse_own_senders(self, writer: Writer) -> None:
        domain = writer.sender.rpartition("@")[2]
        if not domain or domain not in (await self._guarded.ask("") or ()):
            return
        parsed = parse_address(writer.sender)
        if srs.is_shaped(parsed.local):
            srs.reverse(parsed.local)  # forwarded by us, and by somebody else back to us
            return
        raise MailError(Code.NO_PERMISSION, f"Who writes as somebody of {domain} has to log in")


def held(found: Recipient) -> Recipient:
    """A recipient of mail that is held back: it waits in the queue, for people here as well, and can be taken back."""
    address = found.address if "@" in found.address else found.accounts[0].address
    return Recipient(address, (), (address,), found.notify, found.orcpt)


def _elsewhere(parsed: Parsed, relay: bool, refusal: str, notify: str | None, orcpt: str | None) -> Recipient:
    """A recipient of another server, whose business the local part is, its case included.

    Raises NO_PERMISSION without `relay`. Who writes to an address that refuses our mail hears of it now, and not from
    a notice later: NO_SUCH_USER.
    """
    if not relay:
        raise _relay_denied()
    if refusal:
        raise MailError(Code.NO_SUCH_USER, " ".join(f"Mail to {refusal}".split())[:300])
    address = str(parsed)
    return Recipient(address, (), (address,), notify, orcpt)


def _relay_denied() -> MailError:
    return MailError(Code.NO_PERMISSION, "Relay access denied")


async def _read(addresses: list[str]) -> Mapping[str, _Direct | _Elsewhere]:
    """Those of `addresses` that are an active account's own (the exact one, else the untagged, else the catch-all), and
    those of other servers."""
    locals_ = [address.rpartition("@")[0] for address in addresses]
    bases = [split_tag(local)[0] for local in locals_]
    all_, domains = Texts(addresses), Texts([each.rpartition("@")[2] for each in addresses])
    async with db.read() as tx:
        rows = await tx.call(DIRECT, (all_, Texts(locals_), Texts(bases), domains, all_, domains))
    ranks = {address: (local, base, CATCH_ALL) for address, local, base in zip(addresses, locals_, bases, strict=True)}
    found: dict[str, tuple[int, _Direct | _Elsewhere | None]] = {}
    for address, name, account_id, own, active, octets, quota, above, policy, refusal in rows:
        if name is None:
            found[address] = (0, _Elsewhere(refusal or ""))
            continue
        rank = ranks[address].index(name)
        if address in found and found[address][0] <= rank:
            continue
        usable = account_id is not None and active and octets is not None
        local, base, _ = ranks[address]
        tag = local[len(base) + 1 :] if rank == 1 else ""
        direct = _Direct(Local(account_id, own, tag), octets, quota, effective(above, policy)) if usable else None
        found[address] = (rank, direct)
    return {address: answer for address, (_, answer) in found.items() if answer is not None}


async def _ways(addresses: list[str]) -> Mapping[str, Resolution | MailError]:
    found: dict[str, Resolution | MailError] = {}
    async with db.read() as tx:
        for address in addresses:
            try:
                found[address] = await follow(tx, address)
            except MailError as error:
                found[address] = error
    return found


async def follow(tx: Tx, address: str) -> Resolution:
    """Where an address (normalised) leads, as accounts.resolve says; what is always reachable leads to somebody."""
    try:
        return await accounts.resolve(tx, address)
    except MailError as error:
        local, _, domain = address.rpartition("@")
        if error.code not in NOWHERE or fold_local(local) not in ALWAYS_REACHABLE:
            raise
        return Resolution((await _caretaker(tx, domain),), ours=True)


def willing(found: Resolution, writer: Writer, size: int) -> Resolution:
    """For mail that was taken and waited: without those behind an alias or group whose policies refuse it.

    Mail is not lost for it: when nobody is left, all get it, as whoever asked at RCPT was told.
    """
    kept = tuple(local for local in found.accounts if _takes(found.policies.get(local.account_id), writer, size))
    if len(kept) == len(found.accounts) or not (kept or found.remote):
        return found
    return replace(found, accounts=kept)


def _smaller(found: Resolution) -> tuple[tuple[int, int], ...]:
    """The accounts that take messages of a certain size at most. Most of a group have the same policies."""
    most = {pair: effective(*pair).max_message_size for pair in set(found.policies.values())}
    sizes = ((local.account_id, most.get(found.policies.get(local.account_id, ("", "")))) for local in found.accounts)
    return tuple((account_id, size) for account_id, size in sizes if size is not None)


def _takes(pair: tuple[str, str] | None, writer: Writer, size: int) -> bool:
    try:
        if pair is not None:
            _require_policy(effective(*pair), writer, size)
    except MailError:
        return False
    return True


async def _guarded(keys: list[str]) -> Mapping[str, frozenset[str]]:
    async with db.read() as tx:
        names = frozenset(row[0] for row in await tx.fetch(GUARDED))
    return dict.fromkeys(keys, names)


def _require_policy(policy: Policy, writer: Writer, size: int) -> None:
    """Raises what a policy refuses the mail for."""
    if policy.require_tls and writer.account_id is None and not (writer.tls or writer.front_end):
        raise MailError(Code.NO_PERMISSION, "Mail for this recipient is taken over TLS only: issue STARTTLS")
    if policy.max_message_size is not None and size > policy.max_message_size:
        raise MailError(Code.TOO_BIG, f"This recipient takes messages of {policy.max_message_size} octets at most")
    if policy.rules and policy.blocks(_plain(writer.sender)):
        raise MailError(Code.NO_PERMISSION, f"This recipient takes no mail from {writer.sender}")


def _plain(address: str) -> str:
    """An address as lists of senders have it: lower case, no tag."""
    try:
        parsed = parse_address(normalise(address))
    except AddressError:
        return address.lower()
    return str(parsed.without_tag())


async def _permitted(tx: Tx, found: Resolution, writer: Writer, size: int) -> Resolution:
    """What is left of a resolution when policies and groups have had their say. Raises what they refuse it for."""
    _require_policy(effective(found.domain_policy), writer, size)
    for group in found.groups:
        await _require_posting(tx, group, writer)
    refused: dict[tuple[str, str], MailError] = {}
    for pair in set(found.policies.values()):  # one for most of a group
        try:
            _require_policy(effective(*pair), writer, size)
        except MailError as error:
            refused[pair] = error
    if not refused:
        return found
    kept = tuple(local for local in found.accounts if found.policies[local.account_id] not in refused)
    if not kept and not found.remote:
        raise next(iter(refused.values()))
    return replace(found, accounts=kept)


async def _require_posting(tx: Tx, group: Group, writer: Writer) -> None:
    """The rule of a group for who may post. Somebody elsewhere is believed to be the member that he says he is."""
    if group.posting == "members":
        if writer.account_id in group.members if writer.account_id is not None else _is_stranger(group, writer):
            return
    elif group.posting == "domain":
        names = {row[0] for row in await tx.fetch(DOMAIN_OF, (writer.account_id,))} if writer.account_id else set()
        if group.address.rpartition("@")[2] in names:
            return
    else:
        return
    who = "its members" if group.posting == "members" else "people of its domain who have logged in"
    raise MailError(Code.NO_PERMISSION, f"Only {who} may write to {group.address}")


def _is_stranger(group: Group, writer: Writer) -> bool:
    return bool(writer.sender) and {writer.sender.lower(), _plain(writer.sender)} & group.strangers != set()


async def _bounced(parsed: Parsed, writer: Writer) -> str | None:
    """Where a bounce of mail that we have forwarded goes on to; None when the address is not one of ours of that kind.

    Raises NO_PERMISSION for what is no bounce.
    """
    async with db.read() as tx:
        if not await accounts.is_local_domain(tx, parsed.domain):
            return None
        try:
            original = srs.reverse(parsed.local)
            address = original.address or await forwards.recall(tx, original.token)
        except MailError:
            return None
    if writer.sender:
        raise MailError(Code.NO_PERMISSION, "This address takes bounces only")
    return address


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
