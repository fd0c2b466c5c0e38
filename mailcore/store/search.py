"""Search: one set of criteria and one compiler for IMAP SEARCH, JMAP queries and the webmail.

Words are found as exact, case-insensitive substrings of the decoded text (RFC 9051 §6.4.4): both sides are folded by
mime.fold. Header and date criteria answer from columns. Criteria become one SQL statement; nothing from a client is
ever part of its text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from mailcore.arrays import PACKED_UID, unpack_uids
from mailcore.db import Params, Row, Tx, sql
from mailcore.errors import Code, MailError
from mailcore.mime import fold
from mailcore.store import index_read, ordering
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
from mailcore.store.index_segment import Part

# A tree deeper or larger than this is not a question a person asked.
MAX_DEPTH = 50
MAX_TERMS = 1000
# So many different words of a search are looked up in the index; others are found by reading the texts.
MAX_LOOKED_UP = 20
# So few messages that meet all other criteria are rather read; of a mailbox of so many, columns like the subject.
FEW = 300
FEW_COLUMNS = 20_000
# More emails than these are named to the database by a bitmap.
MANY = 500

SORT_KEYS = {
    "arrival": "e.internal_date",
    "sent": "coalesce(m.sent_at, e.internal_date)",
    "size": "e.size",
    "subject": "m.base_subject",
    **{name: f"split_part(m.sort_keys, chr(1), {at})" for at, name in enumerate(ordering.PARTS, 1)},
    "flagged": "(e.flags & 4)",
    "uid": "e.uid",
}

_COLUMNS = {
    "from": "t.from_text",
    "to": "t.to_text",
    "cc": "t.cc_text",
    "bcc": "t.bcc_text",
    "subject": "t.subject_text",
}
_DATES = {"internal": "e.internal_date", "saved": "e.saved_at", "sent": "m.sent_at"}
_REGEX_SPECIAL = re.compile(r"([\\.^$|()\[\]{}*+?])")


@dataclass(slots=True)
class _Query:
    """The statement as it grows: parameters, and which tables beyond `entry` it needs."""

    params: dict[str, Any]
    tables: set[str] = field(default_factory=set)
    terms: int = 0

    def bind(self, value: Any, kind: str) -> str:
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"%({name})s::{kind}"

    def joins(self) -> str:
        found = ""
        if "m" in self.tables:
            found += " JOIN message m ON m.account_id = e.account_id AND m.id = e.message_id"
        if "t" in self.tables:
            found += " JOIN message_text t ON t.account_id = e.account_id AND t.docno = e.message_id"
        return found

    def condition(self, criterion: Criterion, depth: int = 0) -> str:
        self.terms += 1
        if depth > MAX_DEPTH or self.terms > MAX_TERMS:
            raise MailError(Code.TOO_MANY, "the search has too many terms")
        match criterion:
            case All():
                return "true"
            case And(terms):
                # What reads text goes last, when the cheap criteria have left little to read.
                ordered = sorted(terms, key=_reads_text)
                return "(" + " AND ".join([self.condition(term, depth + 1) for term in ordered] or ["true"]) + ")"
            case Or(terms):
                ordered = sorted(terms, key=_reads_text)
                return "(" + " OR ".join([self.condition(term, depth + 1) for term in ordered] or ["false"]) + ")"
            case Not(term):
                return f"NOT coalesce({self.condition(term, depth + 1)}, false)"
            case Flag(mask, on):
                return f"e.flags & {int(mask)} {'=' if on else '<>'} {int(mask)}"
            case Keyword(word, on):
                return ("" if on else "NOT ") + self._keyword("e", word)
            case Uids(ranges):
                return self._uids(ranges)
            case Text(name, words):
                return self._text(name.lower(), words)
            case Date(kind, op, value):
                return self._date(kind, op, value)
            case Size(op, value):
                return f"e.size {op} {self.bind(value, 'bigint')}"
            case Modseq(value):
                return f"e.modseq >= {self.bind(value, 'bigint')}"
            case Emails(ids):
                return f"e.message_id = ANY({self.bind(list(ids), 'bigint[]')})"
            case Found(ids, beyond):
                if len(ids) <= MANY:
                    return f"e.message_id IN (SELECT unnest({self.bind(sorted(ids), 'bigint[]')}))"
                bits = self.bind(index_read.bitmap(ids, beyond), "bytea")
                below = self.bind(beyond, "bigint")
                return f"CASE WHEN e.message_id < {below} THEN get_bit({bits}, e.message_id) = 1 ELSE false END"
            case Before(number):
                return f"e.message_id < {self.bind(number, 'bigint')}"
            case InThreads(ids):
                self.tables.add("m")
                return f"m.thread_id = ANY({self.bind(list(ids), 'bigint[]')})"
            case InMailbox(ids, other):
                compare = "<> ALL" if other else "= ANY"
                return (
                    "EXISTS (SELECT FROM entry x WHERE x.account_id = e.account_id AND x.message_id = e.message_id"
                    f" AND x.mailbox_id {compare} ({self.bind(list(ids), 'bigint[]')}))"
                )
            case HasAttachment(on):
                self.tables.add("m")
                return "m.has_attachment" if on else "NOT m.has_attachment"
            case ThreadKeyword():
                return self._thread_keyword(criterion)
        raise TypeError(f"not a search criterion: {criterion!r}")

    def _keyword(self, table: str, word: str) -> str:
        wanted = self.bind(word.lower(), "text")
        return f"EXISTS (SELECT FROM unnest({table}.keywords) AS k(word) WHERE lower(k.word) = {wanted})"

    def _uids(self, ranges: tuple[tuple[int, int], ...]) -> str:
        if not ranges:
            return "false"
        lowest, highest = min(lo for lo, _ in ranges), max(hi for _, hi in ranges)
        between = f"e.uid BETWEEN {self.bind(lowest, 'bigint')} AND {self.bind(highest, 'bigint')}"
        if len(ranges) == 1:
            return between
        if sum(hi - lo + 1 for lo, hi in ranges) <= MANY:
            return f"e.uid = ANY({self.bind([uid for lo, hi in ranges for uid in range(lo, hi + 1)], 'bigint[]')})"
        # Looked up by bisection: thousands of ranges cost a message little more than one.
        several = "{" + ",".join([f"[{lo},{hi}]" for lo, hi in ranges]) + "}"
        return f"({between} AND e.uid <@ {self.bind(several, 'int8multirange')})"

    def _text(self, name: str, words: str) -> str:
        wanted = fold(words)
        self.tables.add("t")
        if name.startswith("header:") and name[7:] not in _COLUMNS:
            return self._header(name[7:], wanted)
        name = name.removeprefix("header:")
        if not wanted:
            return f"{_COLUMNS[name]} <> ''" if name in _COLUMNS else "true"
        needle = self.bind(wanted, "text")
        if name in _COLUMNS:
            return f"strpos({_COLUMNS[name]}, {needle}) > 0"
        if name == "body":
            return f"(strpos(t.text, {needle}) > 0 AND strpos(substr(t.text, t.body_at), {needle}) > 0)"
        if name == "text":
            return f"strpos(t.text, {needle}) > 0"
        raise MailError(Code.BAD_VALUE, f"mail cannot be searched by {name!r}")

    def _header(self, name: str, wanted: str) -> str:
        # Fields stand one to a line, "name: value"; the n flag keeps the match inside one line.
        name, wanted = (_REGEX_SPECIAL.sub(r"\\\1", part) for part in (fold(name), wanted))
        pattern = f"(?n)^{name}:.*{wanted}"
        return f"substr(t.text, 1, t.body_at - 2) ~ {self.bind(pattern, 'text')}"

    def _date(self, kind: str, op: str, value: date | datetime) -> str:
        if kind == "sent":
            self.tables.add("m")
        column = _DATES[kind]
        if isinstance(value, datetime):
            return f"{column} {op} {self.bind(value, 'timestamptz')}"
        if kind == "sent":
            return f"m.sent_on {op} {self.bind(value, 'date')}"
        start = f"({self.bind(value, 'date')}::timestamp AT TIME ZONE 'UTC')"
        if op == "=":
            return f"({column} >= {start} AND {column} < {start} + interval '1 day')"
        return f"{column} {op} {start}"

    def _thread_keyword(self, criterion: ThreadKeyword) -> str:
        self.tables.add("m")
        if criterion.word is None:
            has = f"x.flags & {int(criterion.mask)} = {int(criterion.mask)}"
        else:
            has = self._keyword("x", criterion.word)
        rows = (
            "SELECT FROM message y JOIN entry x ON x.account_id = y.account_id AND x.message_id = y.id"
            " WHERE y.account_id = e.account_id AND y.thread_id = m.thread_id AND"
        )
        return f"NOT EXISTS ({rows} NOT {has})" if criterion.every else f"EXISTS ({rows} {has})"


def _reads_text(criterion: Criterion) -> int:
    match criterion:
        case Text(name, _):
            return 1 if name in _COLUMNS else 2
        case And(terms) | Or(terms):
            return max(map(_reads_text, terms), default=0)
        case Not(term):
            return _reads_text(term)
    return 0


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
    query = _Query({"account": account_id, "mailbox": mailbox_id})
    condition = query.condition(criterion)
    if template is _ANCESTRIES:
        query.tables.add("m")
    order = "".join(f"{_sort_key(query, key)}{' DESC' if down else ''}, " for key, down in sort) + "e.uid"
    return template.format(joins=query.joins(), condition=condition, order=order), query.params


async def uids(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, sort: Sort = ()) -> list[Row]:
    """(uid, modseq) of the messages of a mailbox that match, in `sort` order, else ascending.

    Raises BAD_VALUE (unknown field), TOO_MANY (terms).
    """
    criterion = await _looked_up(tx, account_id, mailbox_id, criterion)
    return await tx.fetch(*uids_query(account_id, mailbox_id, criterion, sort))


async def numbers(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, sort: Sort = ()) -> array[int]:
    """The UIDs of `uids` alone, as 32-bit numbers in one value on the wire: a fifth of the cost. Raises as `uids`."""
    criterion = await _looked_up(tx, account_id, mailbox_id, criterion)
    row = await tx.one(*uids_query(account_id, mailbox_id, criterion, sort, _PACKED))
    return unpack_uids(row[0] if row else b"")


async def window(
    tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion, at: int, count: int, *, backwards: bool
) -> array[int]:
    """`count` of the UIDs of `numbers`, ascending, after the first `at`, or before the last: only they are looked for
    where the criterion allows. Raises as `uids`."""
    criterion = await _looked_up(tx, account_id, mailbox_id, criterion)
    text, params = uids_query(account_id, mailbox_id, criterion, (("uid", backwards),), _WINDOW)
    row = await tx.one(text, {**params, "limit": count, "offset": at})
    return unpack_uids(row[0] if row else b"")


async def ancestries(tx: Tx, account_id: int, mailbox_id: int, criterion: Criterion) -> list[Row]:
    """(uid, base subject, ordering.ancestry, internal date) of the messages that match, by sent date.

    Raises as `uids`.
    """
    criterion = await _looked_up(tx, account_id, mailbox_id, criterion)
    return await tx.fetch(*uids_query(account_id, mailbox_id, criterion, (("sent", False),), _ANCESTRIES))


def emails_query(
    account_id: int,
    criterion: Criterion,
    sort: Sort = (("arrival", True),),
    limit: int | None = None,
    offset: int = 0,
    collapse_threads: bool = False,
) -> tuple[str, dict[str, Any]]:
    """The statement behind `emails` and its parameters."""
    query = _Query({"account": account_id, "limit": limit, "offset": offset})
    query.tables.add("m")
    only, criterion = _only_mailbox(criterion)
    mailbox = f" AND e.mailbox_id = {query.bind(only, 'bigint')}" if only is not None else ""
    condition = query.condition(criterion)
    keys = [(_sort_key(query, key), " DESC NULLS LAST" if down else "") for key, down in sort or (("arrival", True),)]
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
    criterion = await _looked_up(tx, account_id, None, criterion)
    rows = await tx.fetch(*emails_query(account_id, criterion, sort, limit, offset, collapse_threads))
    return [(row[0], row[1]) for row in rows], rows[0][2] if rows else 0


def _sort_key(query: _Query, key: str | Relevance) -> str:
    if isinstance(key, Relevance):
        return "(" + " + ".join([f"({query.condition(text)})::int" for text in key.texts] or ["0"]) + ")"
    expression = SORT_KEYS[key]
    if "m." in expression:
        query.tables.add("m")
    return expression


def _only_mailbox(criterion: Criterion) -> tuple[int | None, Criterion]:
    """Take a single InMailbox out of the conjunction, so that the mailbox's own key finds the entries."""
    match criterion:
        case InMailbox((mailbox_id,), False):
            return mailbox_id, All()
        case And(terms):
            for n, term in enumerate(terms):
                only, _ = _only_mailbox(term) if isinstance(term, InMailbox) else (None, term)
                if only is not None:
                    return only, And(terms[:n] + terms[n + 1 :])
    return None, criterion


# --- the index (docs/search.md) -------------------------------------------------------------------------------------

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


SIZE = sql("SELECT messages FROM account_state WHERE account_id = %s::bigint")
MAILBOX_SIZE = sql("SELECT messages FROM mailbox WHERE account_id = %s::bigint AND id = %s::bigint")


async def _looked_up(tx: Tx, account_id: int, mailbox_id: int | None, criterion: Criterion) -> Criterion:
    """The criterion with words replaced by the emails that have them, where the index tells that sooner than the texts.

    Texts do not change, so what is found now holds whenever the statement runs; mail that comes in between is left out.
    Raises as `uids`.
    """
    _Query({}).condition(criterion)
    texts = list(dict.fromkeys(text for text in _texts(criterion) if index_read.can_look_up(_in_index(text)[0])))
    if not texts:
        return criterion
    only, rest = _only_mailbox(criterion)
    mailbox_id = mailbox_id or only
    if not any(_reads_text(text) > 1 for text in texts):
        size = await tx.one(*size_query(account_id, mailbox_id))
        if size is None or size[0] <= FEW_COLUMNS:
            return criterion
    index, few = await index_read.opened(tx, account_id, few_query(account_id, mailbox_id, rest))
    if few[0][0] <= FEW or not index.segments:
        return criterion
    found = {text: Found(await _emails_with(tx, index, text), index.beyond) for text in texts[:MAX_LOOKED_UP]}
    told = _replaced(criterion, found)
    return And((*(told.terms if isinstance(told, And) else (told,)), Before(index.beyond)))


def few_query(account_id: int, mailbox_id: int | None, criterion: Criterion) -> tuple[str, Params]:
    """How many messages, counted up to FEW + 1, meet all that needs no reading of texts, and its parameters."""
    query = _Query({"account": account_id})
    terms = criterion.terms if isinstance(criterion, And) else (criterion,)
    condition = query.condition(And(tuple([term for term in terms if not _reads_text(term)])))
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


async def _emails_with(tx: Tx, index: index_read.Index, text: Text) -> frozenset[int]:
    """The emails that have words in a field: what the index cannot decide is read."""
    hits = await index_read.find(tx, index, *_in_index(text))
    if text.field.lower() not in ("body", "text"):
        hits.maybe, hits.sure = hits.maybe + hits.sure, []
    if hits.maybe or hits.unread:
        rows = await tx.fetch(*read_query(index.account_id, text, hits))
        hits.sure += [row[0] for row in rows]
    return frozenset(hits.sure)


def read_query(account_id: int, text: Text, hits: index_read.Hits) -> tuple[str, dict[str, Any]]:
    """The statement that reads texts of messages which may have the words, and its parameters."""
    query = _Query({"account": account_id, "maybe": hits.maybe})
    query.params |= {"firsts": [one for one, _ in hits.unread], "beyonds": [one for _, one in hits.unread]}
    return _READ.format(condition=query._text(text.field.lower(), text.words)), query.params


# One of each kind, so that every piece the compiler can write is prepared against the schema in the tests.
_SAMPLE = And(
    (
        All(), Or((Flag(1), Keyword("a"), Keyword("a", False))), Not(Flag(2, False)), Uids(((1, 2),)),
        Uids(((1, 2), (4, 5))), Uids(((1, MANY), (MANY + 2, MANY + 3))), Size(">", 1), Modseq(1), Emails((1,)),
        InThreads((1,)), Before(9),
        Found(frozenset((1,)), 2), Found(frozenset(range(MANY + 1)), MANY + 1), InMailbox((1, 2)),
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
sql(few_query(1, 1, _SAMPLE)[0])
for _name in (*_COLUMNS, "body", "text", "header:x-a"):
    sql(read_query(1, Text(_name, "x"), index_read.Hits())[0])
