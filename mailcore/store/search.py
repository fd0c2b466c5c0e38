"""Search: one set of criteria and one compiler for IMAP SEARCH, JMAP queries and the webmail.

Words are found as exact, case-insensitive substrings of the decoded text (RFC 9051 §6.4.4): both sides are folded by
mime.fold. Header and date criteria answer from columns. Criteria become one SQL statement; nothing from a client is
ever part of its text. Each is planned anew: a person searches an empty folder, imports, and searches again.
"""

from __future__ import annotations

from array import array
from datetime import date, datetime
from typing import Any

from mailcore.arrays import PACKED_UID, unpack_uids
from mailcore.db import Row, Tx, sql
from mailcore.store.criteria import (
    All,
    And,
    Before,
    Criterion,
    Date,
    Emails,
    Flag,
    Found,
    HasAttachment,
    InMailbox,
    InThreads,
    Keyword,
    Modseq,
    Not,
    Or,
    Relevance,
    Size,
    Sort,
    Text,
    ThreadKeyword,
    Uids,
)
from mailcore.store.index_lookup import looked_up
from mailcore.store.search_sql import MANY, SORT_KEYS, Query, only_mailbox, sort_key

_UIDS = """SELECT e.uid, e.modseq FROM entry e{joins}
    WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = %(mailbox)s::bigint AND {condition} ORDER BY {order}"""

_PACKED = f"""SELECT coalesce(string_agg({PACKED_UID}, ''::bytea ORDER BY {{order}}), ''::bytea)
    FROM entry e{{joins}}
    WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = %(mailbox)s::bigint AND {{condition}}"""

_WINDOW = f"""SELECT coalesce(string_agg({PACKED_UID}, ''::bytea ORDER BY uid), ''::bytea) FROM (
        SELECT e.uid FROM entry e{{joins}}
        WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = %(mailbox)s::bigint AND {{condition}}
        ORDER BY {{order}} LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint) AS part"""

_ANCESTRIES = """SELECT e.uid, m.base_subject, m.ancestry, e.internal_date FROM entry e{joins}
    WHERE e.account_id = %(account)s::bigint AND e.mailbox_id = %(mailbox)s::bigint AND {condition} ORDER BY {order}"""

_EMAILS = """
    SELECT id, thread_id, count(*) OVER () FROM (
        SELECT DISTINCT ON ({key}) e.message_id AS id, m.thread_id, {sorts}
        FROM entry e{joins}
        WHERE e.account_id = %(account)s::bigint{mailbox} AND {condition}
        ORDER BY {key}, {inner}, e.message_id DESC) AS found
    ORDER BY {outer}, id DESC LIMIT %(limit)s::bigint OFFSET %(offset)s::bigint"""


def uids_query(
    account_id: int, mailbox_id: int, criterion: Criterion, sort: Sort = (), template: str = _UIDS
) -> tuple[str, dict[str, Any]]:
    """The statement behind `uids`, or `numbers`, `window` and `ancestries` by their templates, and its parameters."""
    query = Query({"account": account_id, "mailbox": mailbox_id})
    condition = query.condition(criterion)
    if template is _ANCESTRIES:
        query.tables.add("m")
    order = "".join(f"{sort_key(query, key)}{' DESC' if down else ''}, " for key, down in sort) + "e.uid"
    return template.format(joins=query.joins(), condition=condition, order=order), query.params


async def uids(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, sort: Sort = ()) -> list[Row]:
    """(uid, modseq) of the messages of a mailbox that match, in `sort` order, else ascending.

    Raises BAD_VALUE (unknown field), TOO_MANY (terms).
    """
    criterion = await looked_up(tx, account_id, mailbox_id, criterion)
    return await tx.fetch(*uids_query(account_id, mailbox_id, criterion, sort), anew=True)


async def numbers(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, sort: Sort = ()) -> array[int]:
    """The UIDs of `uids` alone, as 32-bit numbers in one value on the wire: a fifth of the cost. Raises as `uids`."""
    criterion = await looked_up(tx, account_id, mailbox_id, criterion)
    row = await tx.one(*uids_query(account_id, mailbox_id, criterion, sort, _PACKED), anew=True)
    return unpack_uids(row[0] if row else b"")


async def window(
    tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, at: int, count: int, *, backwards: bool
) -> array[int]:
    """`count` of the UIDs of `numbers`, ascending, after the first `at`, or before the last: only they are looked for
    where the criterion allows. Raises as `uids`."""
    criterion = await looked_up(tx, account_id, mailbox_id, criterion)
    text, params = uids_query(account_id, mailbox_id, criterion, (("uid", backwards),), _WINDOW)
    row = await tx.one(text, {**params, "limit": count, "offset": at}, anew=True)
    return unpack_uids(row[0] if row else b"")


async def ancestries(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion) -> list[Row]:
    """(uid, base subject, ordering.ancestry, internal date) of the messages that match, by sent date.

    Raises as `uids`.
    """
    criterion = await looked_up(tx, account_id, mailbox_id, criterion)
    return await tx.fetch(*uids_query(account_id, mailbox_id, criterion, (("sent", False),), _ANCESTRIES), anew=True)


def emails_query(
    account_id: int,
    criterion: Criterion,
    sort: Sort = (("arrival", True),),
    limit: int | None = None,
    offset: int = 0,
    collapse_threads: bool = False,
) -> tuple[str, dict[str, Any]]:
    """The statement behind `emails` and its parameters."""
    query = Query({"account": account_id, "limit": limit, "offset": offset})
    query.tables.add("m")
    only, criterion = only_mailbox(criterion)
    mailbox = f" AND e.mailbox_id = {query.bind(only, 'bigint')}" if only is not None else ""
    condition = query.condition(criterion)
    keys = [(sort_key(query, key), " DESC NULLS LAST" if down else "") for key, down in sort or (("arrival", True),)]
    text = _EMAILS.format(
        key="m.thread_id" if collapse_threads else "e.message_id",
        sorts=", ".join(f"{key} AS s{n}" for n, (key, _) in enumerate(keys)),
        joins=query.joins(),
        mailbox=mailbox,
        condition=condition,
        inner=", ".join(f"{key}{down}" for key, down in keys),
        outer=", ".join(f"s{n}{down}" for n, (_, down) in enumerate(keys)),
    )
    return text, query.params


async def emails(
    tx: Tx,
    account_id: int,
    criterion: Criterion,
    sort: Sort = (("arrival", True),),
    limit: int | None = None,
    offset: int = 0,
    collapse_threads: bool = False,
) -> tuple[list[tuple[int, int]], int]:
    """(email id, thread id) of the account's emails that match, each once (or one a thread), and their number in all.

    The total is 0 when `offset` is beyond the end. Raises as `uids`.
    """
    criterion = await looked_up(tx, account_id, None, criterion)
    rows = await tx.fetch(*emails_query(account_id, criterion, sort, limit, offset, collapse_threads), anew=True)
    return [(row[0], row[1]) for row in rows], rows[0][2] if rows else 0


# One of each kind, so that every piece the compiler can write is prepared against the schema in the tests.
_SAMPLE = And(
    (
        All(), Or((Flag(1), Keyword("a"), Keyword("a", False))), Not(Flag(2, False)), Uids(((1, 2),)),
        Uids(((1, 2), (4, 5))), Uids(((1, MANY), (MANY + 2, MANY + 3))), Size(">", 1), Modseq(1), Emails((1,)),
        InThreads((1,)), Before(9),
        Found((1,)), Found((), b"\1"), InMailbox((1, 2)),
        *(Text(name, "x") for name in ("from", "to", "cc", "bcc", "subject", "body", "text", "header:x-a")),
        *(Date(kind, op, date(2020, 1, 1)) for kind in ("internal", "sent", "saved") for op in ("<", ">=", "=")),
        Date("sent", "<", datetime(2020, 1, 1)), InMailbox((1,), True), HasAttachment(), ThreadKeyword(1),
        ThreadKeyword(0, "a", True),
    )
)  # fmt: skip
_EVERY_SORT: Sort = (*((key, True) for key in SORT_KEYS), (Relevance((Text("text", "x"), Text("from", "x"))), True))
sql(uids_query(1, 1, _SAMPLE, _EVERY_SORT)[0])
sql(uids_query(1, 1, _SAMPLE, _EVERY_SORT, _PACKED)[0])
sql(uids_query(1, 1, _SAMPLE, _EVERY_SORT, _ANCESTRIES)[0])
sql(uids_query(1, 1, _SAMPLE, (("uid", True),), _WINDOW)[0])
sql(emails_query(1, And((InMailbox((1,)), _SAMPLE)), _EVERY_SORT)[0])
sql(emails_query(1, _SAMPLE, _EVERY_SORT, collapse_threads=True)[0])
