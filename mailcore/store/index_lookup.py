"""What a search asks of the index: words in criteria become the emails that have them, where that is the quicker way.

Texts do not change, so what is found holds whenever the statement runs; mail that comes in between is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailcore.arrays import Int8s
from mailcore.db import Params, Tx, sql
from mailcore.mime import fold
from mailcore.store import index_read
from mailcore.store.criteria import All, And, Before, Criterion, Found, Not, Or, Text
from mailcore.store.index_segment import Part
from mailcore.store.search_sql import COLUMNS, Query, only_mailbox, reads_text

# So many different words of a search are looked up in the index; others are found by reading the texts.
MAX_LOOKED_UP = 20
# So few messages that meet all other criteria are rather read; of a mailbox of so many, columns like the subject.
FEW = 300
FEW_COLUMNS = 20_000
# So many emails are named one by one, or one in so many of the account; of more of them there is a bit for each.
NAMED = 500
NAMED_SHARE = 40

SIZE = sql("SELECT messages FROM account_state WHERE account_id = %s::bigint")
MAILBOX_SIZE = sql("SELECT messages FROM mailbox WHERE account_id = %s::bigint AND id = %s::bigint")

_COUNT_FEW = """SELECT count(*) FROM (SELECT FROM entry e{joins}
    WHERE e.account_id = %(account)s::bigint{mailbox} AND {condition} LIMIT {limit}) AS few"""

_READ = """
    SELECT t.docno FROM message_text t
    WHERE t.account_id = %(account)s::bigint AND t.docno = ANY(%(maybe)s::bigint[]) AND {condition}
    UNION ALL
    SELECT x.docno FROM unnest(%(firsts)s::bigint[], %(beyonds)s::bigint[]) AS r(first, beyond) CROSS JOIN LATERAL (
        SELECT t.docno FROM message_text t
        WHERE t.account_id = %(account)s::bigint AND t.docno >= r.first AND t.docno < r.beyond AND {condition}
        OFFSET 0) AS x"""


async def looked_up(tx: Tx, account_id: int, mailbox_id: int | None, criterion: Criterion) -> Criterion:
    """The criterion with words replaced by the emails that have them, where the index tells that sooner than the texts.

    Raises BAD_VALUE (unknown field), TOO_MANY (terms).
    """
    Query({}).condition(criterion)
    texts = list(dict.fromkeys(text for text in _texts(criterion) if index_read.can_look_up(_in_index(text)[0])))
    if not texts:
        return criterion
    only, rest = only_mailbox(criterion)
    mailbox_id = mailbox_id or only
    if not any(reads_text(text) > 1 for text in texts):
        size = await tx.one(*size_query(account_id, mailbox_id))
        if size is None or size[0] <= FEW_COLUMNS:
            return criterion
    index, few = await index_read.opened(tx, account_id, few_query(account_id, mailbox_id, rest))
    if few[0][0] <= FEW or not index.segments:
        return criterion
    found = {text: await _emails_with(tx, index, text) for text in texts[:MAX_LOOKED_UP]}
    told = _replaced(criterion, found)
    return And((*(told.terms if isinstance(told, And) else (told,)), Before(index.beyond)))


def few_query(account_id: int, mailbox_id: int | None, criterion: Criterion) -> tuple[str, Params]:
    """How many messages, counted up to FEW + 1, meet all that needs no reading of texts, and its parameters."""
    query = Query({"account": account_id})
    terms = criterion.terms if isinstance(criterion, And) else (criterion,)
    condition = query.condition(And(tuple([term for term in terms if not reads_text(term)])))
    mailbox = f" AND e.mailbox_id = {query.bind(mailbox_id, 'bigint')}" if mailbox_id is not None else ""
    text = _COUNT_FEW.format(joins=query.joins(), mailbox=mailbox, condition=condition, limit=FEW + 1)
    return text, query.params


def size_query(account_id: int, mailbox_id: int | None) -> tuple[str, Params]:
    """How many messages there are, and its parameters."""
    return (SIZE, (account_id,)) if mailbox_id is None else (MAILBOX_SIZE, (account_id, mailbox_id))


def _texts(criterion: Criterion) -> Iterator[Text]:
    match criterion:
        case Text():
            yield criterion
        case And(terms) | Or(terms):
            for term in terms:
                yield from _texts(term)
        case Not(term):
            yield from _texts(term)


def _replaced(criterion: Criterion, found: Mapping[Text, Found]) -> Criterion:
    match criterion:
        case Text():
            return found.get(criterion, criterion)
        case And(terms):
            return And(tuple([_replaced(term, found) for term in terms]))
        case Or(terms):
            return Or(tuple([_replaced(term, found) for term in terms]))
        case Not(term):
            return Not(_replaced(term, found))
    return criterion


def _in_index(text: Text) -> tuple[str, Part]:
    """What to look up for words in a field, and in which part of messages; a header that is there is its name."""
    name, words = text.field.lower(), fold(text.words)
    if name in ("body", "text"):
        return words, "body" if name == "body" else "any"
    return words or (fold(name[7:]) + ":" if name.startswith("header:") else ""), "header"


async def _emails_with(tx: Tx, index: index_read.Index, text: Text) -> Found:
    """The emails that have words in a field: what the index cannot decide is read."""
    words, part = _in_index(text)
    hits = await index_read.find(tx, index, words, part, decides=text.field.lower() in ("body", "text"))
    read: list[int] = []
    if hits.maybe or hits.unread:
        read = [row[0] for row in await tx.fetch(*read_query(index.account_id, text, hits), anew=True)]
    if hits.count + len(read) > max(NAMED, index.beyond // NAMED_SHARE):
        return Found((), hits.bitmap(read, index.beyond))
    return Found((*hits.numbers(), *read))


def read_query(account_id: int, text: Text, hits: index_read.Hits) -> tuple[str, dict[str, Any]]:
    """The statement that reads texts of messages which may have the words, and its parameters."""
    query = Query({"account": account_id, "maybe": Int8s(hits.maybe)})
    query.params |= {"firsts": [one for one, _ in hits.unread], "beyonds": [one for _, one in hits.unread]}
    return _READ.format(condition=query.text(text.field.lower(), text.words)), query.params


sql(few_query(1, 1, And((Text("body", "x"), All())))[0])
for _name in (*COLUMNS, "body", "text", "header:x-a"):
    sql(read_query(1, Text(_name, "x"), index_read.Hits())[0])
