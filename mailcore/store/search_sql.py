"""From criteria to SQL: conditions, joins and sort keys, with nothing from a client ever part of the text.

`store.search` makes statements of them; `store.index_lookup` finds words beforehand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from mailcore.arrays import Int8s
from mailcore.errors import Code, MailError
from mailcore.mime import fold
from mailcore.store import ordering
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
    Text,
    ThreadKeyword,
    Uids,
)

# A tree deeper or larger than this is not a question a person asked.
MAX_DEPTH = 50
MAX_TERMS = 1000
# So many UIDs are named one by one.
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

COLUMNS = {
    "from": "t.from_text",
    "to": "t.to_text",
    "cc": "t.cc_text",
    "bcc": "t.bcc_text",
    "subject": "t.subject_text",
}
_DATES = {"internal": "e.internal_date", "saved": "e.saved_at", "sent": "m.sent_at"}
_REGEX_SPECIAL = re.compile(r"([\\.^$|()\[\]{}*+?])")


@dataclass(slots=True)
class Query:
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
                ordered = sorted(terms, key=reads_text)
                return "(" + " AND ".join([self.condition(term, depth + 1) for term in ordered] or ["true"]) + ")"
            case Or(terms):
                ordered = sorted(terms, key=reads_text)
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
                return self.text(name.lower(), words)
            case Date(kind, op, value):
                return self._date(kind, op, value)
            case Size(op, value):
                return f"e.size {op} {self.bind(value, 'bigint')}"
            case Modseq(value):
                return f"e.modseq >= {self.bind(value, 'bigint')}"
            case Emails(ids):
                return f"e.message_id = ANY({self.bind(list(ids), 'bigint[]')})"
            case Found(ids, bits):
                if not bits:
                    return f"e.message_id IN (SELECT unnest({self.bind(Int8s(ids), 'bigint[]')}))"
                below = self.bind(8 * len(bits), "bigint")
                told = f"get_bit({self.bind(bits, 'bytea')}, e.message_id) = 1"
                return f"CASE WHEN e.message_id < {below} THEN {told} ELSE false END"
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

    def text(self, name: str, words: str) -> str:
        wanted = fold(words)
        self.tables.add("t")
        if name.startswith("header:") and name[7:] not in COLUMNS:
            return self._header(name[7:], wanted)
        name = name.removeprefix("header:")
        if not wanted:
            return f"{COLUMNS[name]} <> ''" if name in COLUMNS else "true"
        needle = self.bind(wanted, "text")
        if name in COLUMNS:
            return f"strpos({COLUMNS[name]}, {needle}) > 0"
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


def reads_text(criterion: Criterion) -> int:
    match criterion:
        case Text(name, _):
            return 1 if name in COLUMNS else 2
        case And(terms) | Or(terms):
            return max(map(reads_text, terms), default=0)
        case Not(term):
            return reads_text(term)
    return 0


def sort_key(query: Query, key: str | Relevance) -> str:
    if isinstance(key, Relevance):
        return "(" + " + ".join([f"({query.condition(text)})::int" for text in key.texts] or ["0"]) + ")"
    expression = SORT_KEYS[key]
    if "m." in expression:
        query.tables.add("m")
    return expression


def only_mailbox(criterion: Criterion) -> tuple[int | None, Criterion]:
    """Take a single InMailbox out of the conjunction, so that the mailbox's own key finds the entries."""
    match criterion:
        case InMailbox((mailbox_id,), False):
            return mailbox_id, All()
        case And(terms):
            for n, term in enumerate(terms):
                only, _ = only_mailbox(term) if isinstance(term, InMailbox) else (None, term)
                if only is not None:
                    return only, And(terms[:n] + terms[n + 1 :])
    return None, criterion
