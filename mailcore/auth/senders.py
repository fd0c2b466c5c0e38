"""Which addresses an account may send as: submission's envelope sender and From field, JMAP's identities."""

from __future__ import annotations

from accounts.addresses import CATCH_ALL, normalise, parse_address, quote_local, split_tag
from accounts.errors import AddressError
from mailcore.db import Tx, sql

# `t` is a target of the alias, `o` an address of the account; a target may carry a plus-tag.
_LEADS_HERE = """
    EXISTS (SELECT FROM accounts_aliastarget t, accounts_address o JOIN accounts_domain od ON od.id = o.domain_id
        WHERE t.alias_id = a.id AND o.account_id = %(account)s::bigint AND (
            t.address = o.local_part || '@' || od.name
            OR (starts_with(t.address, o.local_part || '+') AND split_part(t.address, '@', -1) = od.name)))"""

ALLOWED = sql(f"""
    SELECT a.local_part, coalesce(a.account_id = %(account)s::bigint, {_LEADS_HERE})
    FROM accounts_address a JOIN accounts_domain d ON d.id = a.domain_id
    WHERE d.name = %(domain)s::text AND d.is_active AND a.local_part = ANY(%(names)s::text[])
        AND EXISTS (SELECT FROM accounts_account u WHERE u.id = %(account)s::bigint AND u.is_active)""")

ADDRESSES = sql("""
    SELECT a.local_part || '@' || d.name, a.account_id IS NULL
    FROM accounts_address a JOIN accounts_domain d ON d.id = a.domain_id
    WHERE d.is_active AND a.local_part <> '*' AND (a.account_id = %(account)s::bigint OR a.id IN (
        SELECT t.alias_id FROM accounts_aliastarget t, accounts_address o JOIN accounts_domain od ON od.id = o.domain_id
        WHERE o.account_id = %(account)s::bigint AND t.address = o.local_part || '@' || od.name))
    ORDER BY 2, 1 LIMIT 1000""")


async def sender_allowed(tx: Tx, account_id: int, address: str) -> bool:
    """Whether the account may send as this address: its own, or an alias that has it among its targets; tags allowed.

    The address is looked up as mail to it would be: the exact one, else without its tag, else the domain's catch-all.
    A disabled account may send as nobody: sessions that it opened before can send nothing more.
    """
    try:
        parsed = parse_address(normalise(address))
    except AddressError:
        return False
    names = [quote_local(parsed.local), quote_local(split_tag(parsed.local)[0]), CATCH_ALL]
    rows = await tx.fetch(ALLOWED, {"account": account_id, "domain": parsed.domain, "names": names})
    allowed = {name: bool(leads_here) for name, leads_here in rows}
    return next((allowed[name] for name in names if name in allowed), False)


async def sender_addresses(tx: Tx, account_id: int) -> list[str]:
    """The addresses an account may send as, its own first, then aliases (at most 1,000; no tags, no catch-all)."""
    return [address for address, _ in await tx.fetch(ADDRESSES, {"account": account_id})]
