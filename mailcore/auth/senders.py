"""Which addresses an account may send as: submission's envelope sender and From field, JMAP's identities.

Its own addresses, aliases that lead to it, groups that let their members, what accounts.rights grants; each under all
names of its domain.
"""

from __future__ import annotations

from collections.abc import Mapping

from accounts.addresses import CATCH_ALL, normalise, parse_address, quote_local, split_tag
from accounts.errors import AddressError
from mailcore import db
from mailcore.arrays import Int4s, Int8s, Texts
from mailcore.db import Tx, sql
from mailcore.desk import Desk

# Seconds for which a process tells again that an account may send as an address; that it may not is always asked.
KEEP = 1.0

# `t` is a target of the alias or group, `o` an address of the account; a target may carry a plus-tag.
_LEADS_HERE = """
    EXISTS (SELECT FROM accounts_aliastarget t, accounts_address o JOIN accounts_domain od ON od.id = o.domain_id
        WHERE t.alias_id = a.id AND o.account_id = q.account AND (
            t.address = o.local_part || '@' || od.name
            OR (starts_with(t.address, o.local_part || '+') AND split_part(t.address, '@', -1) = od.name)))"""

# For each question a row when the whole domain is granted (''), and one for each of the names that is an address.
ALLOWED = sql(f"""
    WITH question AS MATERIALIZED (
        SELECT q.n, q.account, q.local, q.base, d.id AS domain
        FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[]) AS q(n, account, local, base, domain)
            JOIN accounts_domain n ON n.name = q.domain AND n.is_active
            JOIN accounts_domain d ON d.id = coalesce(n.alias_of_id, n.id) AND d.is_active
            JOIN accounts_account u ON u.id = q.account AND u.is_active)
    SELECT q.n, a.local_part, a.account_id IS NOT DISTINCT FROM q.account
        OR EXISTS (SELECT FROM accounts_sendas s WHERE s.account_id = q.account AND s.address_id = a.id)
        OR (a.account_id IS NULL AND coalesce(g.send_as, true) AND {_LEADS_HERE})
    FROM question q JOIN accounts_address a ON a.domain_id = q.domain AND a.local_part IN (q.local, q.base, '*')
        LEFT JOIN accounts_group g ON g.address_id = a.id
    UNION ALL
    SELECT q.n, '', true
    FROM question q JOIN accounts_sendas s ON s.account_id = q.account AND s.domain_id = q.domain""")

# In order: the account's own, under its domain's own name first; aliases and groups; what is granted; whole domains.
ADDRESSES = sql("""
    WITH named AS (
        SELECT d.id, n.name, n.id <> d.id AS other
        FROM accounts_domain n JOIN accounts_domain d ON d.id = coalesce(n.alias_of_id, n.id)
        WHERE n.is_active AND d.is_active
    ), own AS (
        SELECT a.id, 0 AS rank FROM accounts_address a WHERE a.account_id = %(account)s::bigint
        UNION ALL SELECT t.alias_id, 1
        FROM accounts_address o JOIN accounts_domain od ON od.id = o.domain_id
            JOIN accounts_aliastarget t ON t.address = o.local_part || '@' || od.name
            LEFT JOIN accounts_group g ON g.address_id = t.alias_id
        WHERE o.account_id = %(account)s::bigint AND coalesce(g.send_as, true)
        UNION ALL SELECT s.address_id, 2 FROM accounts_sendas s
        WHERE s.account_id = %(account)s::bigint AND s.address_id IS NOT NULL)
    SELECT address FROM (
        SELECT a.local_part || '@' || named.name, min(own.rank), named.other
        FROM own JOIN accounts_address a ON a.id = own.id JOIN named ON named.id = a.domain_id
        WHERE a.local_part <> '*' GROUP BY 1, 3
        UNION ALL SELECT '*@' || named.name, 3, named.other
        FROM accounts_sendas s JOIN named ON named.id = s.domain_id WHERE s.account_id = %(account)s::bigint
    ) AS found(address, rank, other)
    ORDER BY rank, other, address LIMIT 1000""")


# An account, and the parts of an address: its local part, that without a tag, its domain.
_Question = tuple[int, str, str, str]


class Senders:
    """Says for all sessions of one event loop who may send as whom."""

    def __init__(self) -> None:
        self._desk: Desk[_Question, bool] = Desk(_read, keep=KEEP)

    async def allowed(self, account_id: int, address: str) -> bool:
        """As `sender_allowed`; what was taken away within the last second may still be there."""
        question = _question(account_id, address)
        return question is not None and await self._desk.ask(question) is True


async def sender_allowed(tx: Tx, account_id: int, address: str) -> bool:
    """Whether the account may send as this address, tags allowed.

    The address is looked up as mail to it would be: the exact one, else without its tag, else the domain's catch-all.
    A disabled account may send as nobody: sessions that it opened before can send nothing more.
    """
    question = _question(account_id, address)
    return question is not None and question in await _allowed(tx, [question])


def _question(account_id: int, address: str) -> _Question | None:
    try:
        parsed = parse_address(normalise(address))
    except AddressError:
        return None
    return account_id, quote_local(parsed.local), quote_local(split_tag(parsed.local)[0]), parsed.domain


async def _read(questions: list[_Question]) -> Mapping[_Question, bool]:
    async with db.read() as tx:
        return await _allowed(tx, questions)


async def _allowed(tx: Tx, questions: list[_Question]) -> dict[_Question, bool]:
    """The questions that are answered with yes."""
    accounts, locals_, bases, domains = zip(*questions, strict=True)
    numbers = Int4s(range(len(questions)))
    values = [numbers, Int8s(accounts), Texts(locals_), Texts(bases), Texts(domains)]
    answers: dict[int, dict[str, bool]] = {}
    for n, name, may in await tx.call(ALLOWED, values):
        answers.setdefault(n, {})[name] = bool(may)
    return {questions[n]: True for n, found in answers.items() if _may(found, *questions[n][1:3])}


def _may(found: Mapping[str, bool], local: str, base: str) -> bool:
    return "" in found or next((found[name] for name in (local, base, CATCH_ALL) if name in found), False)


async def sender_addresses(tx: Tx, account_id: int) -> list[str]:
    """The addresses an account may send as, its own first (at most 1,000; no tags, no catch-all).

    `*@domain` stands for every address of a domain, as in JMAP's identities (RFC 8621 §6).
    """
    return [row[0] for row in await tx.fetch(ADDRESSES, {"account": account_id})]
