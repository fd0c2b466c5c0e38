"""SEARCH keys as a tree of frozen dataclasses, and their grammar (RFC 9051 §6.4.4; RFC 5032, 7162, 8474, 8514)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_SEARCH_DEPTH, MAX_SEARCH_KEYS
from mailcore.wire.imap.numset import STAR, SequenceSet
from mailcore.wire.imap.tokens import MAX_NUMBER64, Cursor

CHARSETS = ("US-ASCII", "UTF-8")


@dataclass(frozen=True, slots=True)
class And:
    """All of the keys match; never empty."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the two matches."""

    left: SearchKey
    right: SearchKey


@dataclass(frozen=True, slots=True)
class Not:
    """The key does not match."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class Flag:
    """SEEN/UNSEEN, ..., KEYWORD/UNKEYWORD, RECENT/OLD: a system flag ("\\Seen", "\\Recent") or keyword is set or not.

    NEW is And((Flag("\\Recent", True), Flag("\\Seen", False))).
    """

    flag: str
    is_set: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """FROM TO CC BCC SUBJECT BODY TEXT: the decoded `field` contains `value`, ignoring case; an empty one always."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Header:
    """HEADER name value: such a field exists and contains `value` (empty: exists)."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Date:
    """A day without time or zone. `which`: "internal", "sent", "saved"; `op`: "before", "on", "since" (inclusive)."""

    which: str
    op: str
    day: date


@dataclass(frozen=True, slots=True)
class Size:
    """`op` "larger" or "smaller" (both strict), octets."""

    op: str
    size: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """A bare sequence set (`uid` False) or UID set."""

    numbers: SequenceSet
    uid: bool


@dataclass(frozen=True, slots=True)
class Modseq:
    """MODSEQ (RFC 7162): at least this. Entry name and type are checked and dropped: a message has one modseq."""

    modseq: int


@dataclass(frozen=True, slots=True)
class Within:
    """OLDER/YOUNGER (RFC 5032): `op` is that word in lower case; internal date against now minus `seconds`."""

    op: str
    seconds: int


@dataclass(frozen=True, slots=True)
class ObjectId:
    """EMAILID or THREADID (RFC 8474): `kind` is that word."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class SaveDateSupported:
    """SAVEDATESUPPORTED (RFC 8514): true when the mailbox keeps saved dates."""


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """FUZZY (RFC 6203): what `key` looks for need not stand there to the letter."""

    key: SearchKey


Leaf = All | Flag | Text | Header | Date | Size | Numbers | Modseq | Within | ObjectId | SaveDateSupported
SearchKey = And | Or | Not | Fuzzy | Leaf

_FIXED: dict[str, SearchKey] = {
    "ALL": All(),
    "NEW": And((Flag("\\Recent"), Flag("\\Seen", False))),
    "OLD": Flag("\\Recent", False),
    "RECENT": Flag("\\Recent"),
    "SAVEDATESUPPORTED": SaveDateSupported(),
}
for _flag in ("Answered", "Deleted", "Draft", "Flagged", "Seen"):
    _FIXED[_flag.upper()] = Flag(f"\\{_flag}")
    _FIXED[f"UN{_flag.upper()}"] = Flag(f"\\{_flag}", False)

_DATES = {
    prefix + op.upper(): (which, op)
    for prefix, which in (("", "internal"), ("SENT", "sent"), ("SAVED", "saved"))
    for op in ("before", "on", "since")
}
_ENTRY_NAME = re.compile(rb'"/flags/[^"]+"', re.IGNORECASE)
_ENTRY_TYPE = re.compile(rb"priv|shared|all", re.IGNORECASE)
_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")


class _Program:
    """One SEARCH being parsed: its cursor and how many keys it has taken."""

    __slots__ = ("cursor", "keys")

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.keys = 0

    def value(self, what: str) -> str:
        """An astring. Octets beyond ASCII are UTF-8, whether or not CHARSET said so."""
        raw = self.cursor.astring(what)
        return self.cursor.unicode(raw, what)

    def key(self, depth: int) -> SearchKey:
        """One search key; AND is the list around it."""
        self.keys += 1
        if self.keys > MAX_SEARCH_KEYS:
            raise ImapSyntaxError(f"The search has more than {MAX_SEARCH_KEYS} keys", code="LIMIT")
        if depth > MAX_SEARCH_DEPTH:
            raise ImapSyntaxError(f"The search is nested deeper than {MAX_SEARCH_DEPTH}", code="LIMIT")
        cursor = self.cursor
        if cursor.looking_at(b"("):
            keys = cursor.paren_list(lambda: self.key(depth + 1), "search keys", limit=MAX_SEARCH_KEYS)
            return keys[0] if len(keys) == 1 else And(tuple(keys))
        if cursor.text[cursor.pos : cursor.pos + 1] in _SET_START:
            return Numbers(cursor.sequence_set(), uid=False)
        start = cursor.pos
        word = cursor.word("a search key")
        fixed = _FIXED.get(word)
        if fixed is not None:
            return fixed
        parse = _ARGUMENTS.get(word)
        if parse is None:
            cursor.pos = start
            raise cursor.error("a search key")
        cursor.space(f"the argument of {word}")
        return parse(self, word, depth)

    def or_(self, word: str, depth: int) -> SearchKey:
        left = self.key(depth + 1)
        self.cursor.space("OR's second key")
        return Or(left, self.key(depth + 1))

    def not_(self, word: str, depth: int) -> SearchKey:
        return Not(self.key(depth + 1))

    def fuzzy(self, word: str, depth: int) -> SearchKey:
        return Fuzzy(self.key(depth + 1))

    def header(self, word: str, depth: int) -> SearchKey:
        name = self.value("a header name")
        self.cursor.space("what the header contains")
        return Header(name, self.value("the search text"))

    def text(self, word: str, depth: int) -> SearchKey:
        return Text(word, self.value("the search text"))

    def date(self, word: str, depth: int) -> SearchKey:
        which, op = _DATES[word]
        return Date(which, op, self.cursor.date())

    def size(self, word: str, depth: int) -> SearchKey:
        return Size(word.lower(), self.cursor.number("a size in octets", maximum=MAX_NUMBER64))

    def keyword(self, word: str, depth: int) -> SearchKey:
        return Flag(self.cursor.atom("a keyword"), word == "KEYWORD")

    def uid(self, word: str, depth: int) -> SearchKey:
        return Numbers(self.cursor.sequence_set(), uid=True)

    def within(self, word: str, depth: int) -> SearchKey:
        return Within(word.lower(), self.cursor.number("an interval in seconds", minimum=1))

    def object_id(self, word: str, depth: int) -> SearchKey:
        return ObjectId(word, self.cursor.match(_OBJECT_ID, "an object id")[0].decode("ascii"))

    def modseq(self, word: str, depth: int) -> SearchKey:
        if self.cursor.looking_at(b'"'):
            self.cursor.match(_ENTRY_NAME, 'an entry name such as "/flags/\\\\draft"')
            self.cursor.space("priv, shared or all")
            self.cursor.match(_ENTRY_TYPE, "priv, shared or all")
            self.cursor.space("a mod-sequence")
        return Modseq(self.cursor.modseq("a mod-sequence", minimum=0))


_SET_START = frozenset(bytes((octet,)) for octet in b"0123456789*$")
_ARGUMENTS: dict[str, Callable[[_Program, str, int], SearchKey]] = {
    "OR": _Program.or_,
    "NOT": _Program.not_,
    "FUZZY": _Program.fuzzy,
    "HEADER": _Program.header,
    **dict.fromkeys(("BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"), _Program.text),
    **dict.fromkeys(_DATES, _Program.date),
    **dict.fromkeys(("LARGER", "SMALLER"), _Program.size),
    **dict.fromkeys(("KEYWORD", "UNKEYWORD"), _Program.keyword),
    "UID": _Program.uid,
    **dict.fromkeys(("OLDER", "YOUNGER"), _Program.within),
    **dict.fromkeys(("EMAILID", "THREADID"), _Program.object_id),
    "MODSEQ": _Program.modseq,
}


def check_charset(name: bytes, *, saving: bool = False) -> str:
    """The charset's canonical name. Raises ImapSyntaxError with NO [BADCHARSET (...)] for one that is not offered."""
    upper = name.upper()
    for charset in CHARSETS:
        if upper == charset.encode():
            return charset
    raise ImapSyntaxError(
        f"Only {' and '.join(CHARSETS)} can be searched for",
        status="NO",
        code=f"BADCHARSET ({' '.join(CHARSETS)})",
        saving=saving,
    )


def parse_program(cursor: Cursor) -> SearchKey:
    """search-key *(SP search-key) up to the end of the command. Raises ImapSyntaxError."""
    program = _Program(cursor)
    keys = [program.key(0)]
    while cursor.try_take(b" ") and not cursor.at_end():
        keys.append(program.key(0))
    return keys[0] if len(keys) == 1 else And(tuple(keys))


def nodes(key: SearchKey) -> list[SearchKey]:
    """Every key of the tree, left to right, the outer before the inner."""
    found: list[SearchKey] = []
    stack: list[SearchKey] = [key]
    while stack:
        node = stack.pop()
        found.append(node)
        match node:
            case And(keys=keys):
                stack.extend(reversed(keys))
            case Or(left=left, right=right):
                stack += [right, left]
            case Not(key=inner) | Fuzzy(key=inner):
                stack.append(inner)
    return found


def leaves(key: SearchKey) -> list[Leaf]:
    """Every leaf of the tree, left to right."""
    return [node for node in nodes(key) if not isinstance(node, And | Or | Not | Fuzzy)]


def fuzzy_texts(key: SearchKey) -> list[Text | Header]:
    """What is looked for in texts under FUZZY, left to right."""
    inside = [leaf for node in nodes(key) if isinstance(node, Fuzzy) for leaf in leaves(node)]
    return list(dict.fromkeys([leaf for leaf in inside if isinstance(leaf, Text | Header)]))


def uses_modseq(key: SearchKey) -> bool:
    """Whether MODSEQ occurs in the tree; the answer then carries the highest modseq (RFC 7162 §3.1.5)."""
    return any(isinstance(leaf, Modseq) for leaf in leaves(key))


def uses_star(key: SearchKey) -> bool:
    """Whether `*` occurs in a set of the tree: then the last message must be known."""
    return any(isinstance(leaf, Numbers) and any(STAR in pair for pair in leaf.numbers.ranges) for leaf in leaves(key))


def uses_sequence_numbers(key: SearchKey) -> bool:
    """Whether a bare sequence set occurs in the tree."""
    return any(isinstance(leaf, Numbers) and not leaf.uid for leaf in leaves(key))
