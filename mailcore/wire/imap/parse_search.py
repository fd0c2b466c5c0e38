"""SEARCH, SORT, THREAD, ESEARCH, CANCELUPDATE: where, result options, criteria, charset and program (RFC 9051 §6.4.4;
RFC 4731, 5182, 5256, 5267, 5957, 6203, 7377, 9394)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_SORT_KEYS, MAX_SOURCES, MAX_TAGS
from mailcore.wire.imap.search_key import Fuzzy, SearchKey, check_charset, nodes, parse_program
from mailcore.wire.imap.tokens import MAX_NUMBER, Cursor

RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE", "PARTIAL", "CONTEXT", "UPDATE", "RELEVANCY"))
ALGORITHMS = frozenset(("ORDEREDSUBJECT", "REFERENCES", "REFS"))
SORT_KEYS = frozenset(
    ("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO", "RELEVANCY")
)
# Where ESEARCH searches; those with names first.
_NAMED = frozenset(("SUBTREE", "SUBTREE-ONE", "MAILBOXES"))
SOURCES = _NAMED | {"SELECTED", "SELECTED-DELAYED", "INBOXES", "PERSONAL", "SUBSCRIBED"}


_PARTIAL = re.compile(rb"(-?)([0-9]+):(-?)([0-9]+)")


@dataclass(frozen=True, slots=True)
class Partial:
    """A range of results (RFC 9394): 1 is the first one, -1 the last."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"

    @property
    def window(self) -> tuple[int, int, bool]:
        """How many results to pass over, how many to take, and whether from the end."""
        near, far = sorted((abs(self.first), abs(self.last)))
        return near - 1, far - near + 1, self.first < 0

    def of(self, count: int) -> slice:
        """Which of `count` results."""
        low, high = sorted((self.first, self.last))
        return slice(low - 1, high) if low > 0 else slice(max(0, count + low), max(0, count + high + 1))


@dataclass(frozen=True, slots=True)
class SearchArgs:
    """SEARCH, SORT and their UID forms.

    `returns` is None without RETURN (...) and frozenset({"ALL"}) for an empty one (RFC 4731); with PARTIAL in it,
    `partial` is the range. `sort`: keys of SORT_KEYS with whether each is reversed; empty for SEARCH.
    """

    key: SearchKey
    charset: str | None = None
    returns: frozenset[str] | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class EsearchArgs:
    """ESEARCH (RFC 7377): `sources` are words of SOURCES with mailbox names, None without IN: the selected mailbox."""

    search: SearchArgs
    sources: tuple[tuple[str, tuple[str, ...]], ...] | None


@dataclass(frozen=True, slots=True)
class ThreadArgs:
    """THREAD, UID THREAD; `algorithm` is one of ALGORITHMS."""

    algorithm: str
    key: SearchKey
    charset: str


@dataclass(frozen=True, slots=True)
class TagsArgs:
    """CANCELUPDATE."""

    tags: tuple[str, ...]


def parse_tags(cursor: Cursor) -> TagsArgs:
    """CANCELUPDATE (RFC 5267 §4.3.5): one quoted tag or several."""
    tags: list[str] = []
    while not tags or not cursor.at_end():
        cursor.space("a tag in quotes")
        tags.append(cursor.string("a tag in quotes").decode("ascii", "replace"))
        if len(tags) > MAX_TAGS:
            raise ImapSyntaxError(f"More than {MAX_TAGS} tags", code="LIMIT")
    return TagsArgs(tuple(tags))


def parse_search(cursor: Cursor) -> SearchArgs:
    """SEARCH."""
    cursor.space("a search key")
    return _search(cursor)


def parse_esearch(cursor: Cursor) -> EsearchArgs:
    """ESEARCH: where, which is no part of SEARCH, then the same."""
    cursor.space("a search key")
    sources = None
    if cursor.text[cursor.pos : cursor.pos + 3].upper() == b"IN ":
        cursor.pos += len(b"IN ")
        sources = tuple(cursor.paren_list(lambda: _source(cursor), "mailboxes to search", limit=MAX_SOURCES))
        cursor.space("a search key")
    return EsearchArgs(_search(cursor), sources)


def _source(cursor: Cursor) -> tuple[str, tuple[str, ...]]:
    kind = cursor.one_of(SOURCES, "mailboxes to search")
    if kind not in _NAMED:
        return kind, ()
    cursor.space("a mailbox name, or several in parentheses")
    if cursor.looking_at(b"("):
        return kind, tuple(cursor.paren_list(cursor.mailbox, "mailbox names", limit=MAX_SOURCES))
    return kind, (cursor.mailbox(),)


def _search(cursor: Cursor) -> SearchArgs:
    returns, partial = _returns(cursor)
    charset = None
    if cursor.text[cursor.pos : cursor.pos + 8].upper() == b"CHARSET ":
        cursor.pos += len(b"CHARSET ")
        charset = check_charset(cursor.astring("a charset"), saving=returns is not None and "SAVE" in returns)
        cursor.space("a search key")
    return _checked(SearchArgs(parse_program(cursor), charset, returns, (), partial))


def parse_sort(cursor: Cursor) -> SearchArgs:
    """SORT (RFC 5256 §3): unlike SEARCH it always names a charset."""
    cursor.space("sort criteria")
    returns, partial = _returns(cursor)
    sort = cursor.paren_list(lambda: _sort_key(cursor), "sort criteria", limit=MAX_SORT_KEYS)
    cursor.space("a charset")
    charset = check_charset(cursor.astring("a charset"), saving=returns is not None and "SAVE" in returns)
    cursor.space("a search key")
    return _checked(SearchArgs(parse_program(cursor), charset, returns, tuple(sort), partial))


def _checked(args: SearchArgs) -> SearchArgs:
    wanted = "RELEVANCY" in (args.returns or ()) or any(key == "RELEVANCY" for key, _ in args.sort)
    if wanted and not any(isinstance(key, Fuzzy) for key in nodes(args.key)):
        raise ImapSyntaxError("RELEVANCY needs a FUZZY search key (RFC 6203)")
    return args


def parse_thread(cursor: Cursor) -> ThreadArgs:
    """THREAD (RFC 5256 §3)."""
    cursor.space("a threading algorithm")
    algorithm = cursor.one_of(ALGORITHMS, "a threading algorithm")
    cursor.space("a charset")
    charset = check_charset(cursor.astring("a charset"))
    cursor.space("a search key")
    return ThreadArgs(algorithm, parse_program(cursor), charset)


def _sort_key(cursor: Cursor) -> tuple[str, bool]:
    key = cursor.one_of(SORT_KEYS | {"REVERSE"}, "a sort key")
    if key != "REVERSE":
        return key, False
    cursor.space("the key to reverse")
    return cursor.one_of(SORT_KEYS, "a sort key"), True


def _returns(cursor: Cursor) -> tuple[frozenset[str] | None, Partial | None]:
    """RETURN (option ...) and the space after it; None, and nothing taken, when there is none."""
    if cursor.text[cursor.pos : cursor.pos + 7].upper() != b"RETURN ":
        return None, None
    cursor.pos += len(b"RETURN ")
    partial: Partial | None = None

    def option() -> str:
        nonlocal partial
        name = cursor.one_of(RETURNS if partial is None else RETURNS - {"PARTIAL"}, "a result option")
        if name == "PARTIAL":
            cursor.space("a range of results")
            partial = parse_partial(cursor)
        return name

    options = cursor.paren_list(option, "result options", limit=20, empty=True)
    cursor.space("what follows the result options")
    if partial is not None and "ALL" in options:
        raise ImapSyntaxError("Either PARTIAL or ALL (RFC 9394 section 3.1)")
    return frozenset(options or ("ALL",)), partial


def parse_partial(cursor: Cursor) -> Partial:
    """1:100, or -1:-100 from the end."""
    start = cursor.pos
    sign, first, other_sign, last = cursor.match(_PARTIAL, "a range of results such as 1:100 or -1:-100").groups()
    if sign == other_sign and all(len(digits) <= 10 and 0 < int(digits) <= MAX_NUMBER for digits in (first, last)):
        return Partial(int(sign + first), int(sign + last))
    cursor.pos = start
    raise cursor.error("a range of results such as 1:100 or -1:-100")
