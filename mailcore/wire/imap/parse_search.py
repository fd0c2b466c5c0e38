"""SEARCH, SORT and THREAD: result options, sort criteria, charset and program (RFC 9051 §6.4.4; RFC 4731, 5182, 5256,
5267, 5957, 9394)."""

from __future__ import annotations

from dataclasses import dataclass

from mailcore.wire.imap.limits import MAX_SORT_KEYS
from mailcore.wire.imap.search_key import SearchKey, check_charset, parse_program
from mailcore.wire.imap.tokens import Cursor

RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE"))
ALGORITHMS = frozenset(("ORDEREDSUBJECT", "REFERENCES", "REFS"))
SORT_KEYS = frozenset(("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO"))


@dataclass(frozen=True, slots=True)
class SearchArgs:
    """SEARCH, SORT and their UID forms.

    `returns` is None without RETURN (...) and frozenset({"ALL"}) for an empty one (RFC 4731). `sort`: keys of SORT_KEYS
    with whether each is reversed; empty for SEARCH.
    """

    key: SearchKey
    charset: str = "US-ASCII"
    returns: frozenset[str] | None = None
    sort: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadArgs:
    """THREAD, UID THREAD; `algorithm` is one of ALGORITHMS."""

    algorithm: str
    key: SearchKey
    charset: str


def parse_search(cursor: Cursor) -> SearchArgs:
    """SEARCH."""
    cursor.space("a search key")
    returns = _returns(cursor)
    charset = "US-ASCII"
    if cursor.text[cursor.pos : cursor.pos + 8].upper() == b"CHARSET ":
        cursor.pos += len(b"CHARSET ")
        charset = check_charset(cursor.astring("a charset"))
        cursor.space("a search key")
    return SearchArgs(parse_program(cursor), charset, returns)


def parse_sort(cursor: Cursor) -> SearchArgs:
    """SORT (RFC 5256 §3): unlike SEARCH it always names a charset."""
    cursor.space("sort criteria")
    returns = _returns(cursor)
    sort = cursor.paren_list(lambda: _sort_key(cursor), "sort criteria", limit=MAX_SORT_KEYS)
    cursor.space("a charset")
    charset = check_charset(cursor.astring("a charset"))
    cursor.space("a search key")
    return SearchArgs(parse_program(cursor), charset, returns, tuple(sort))


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


def _returns(cursor: Cursor) -> frozenset[str] | None:
    """RETURN (option ...) and the space after it; None, and nothing taken, when there is none."""
    if cursor.text[cursor.pos : cursor.pos + 7].upper() != b"RETURN ":
        return None
    cursor.pos += len(b"RETURN ")
    options = cursor.paren_list(
        lambda: cursor.one_of(RETURNS, "a result option"), "result options", limit=20, empty=True
    )
    cursor.space("what follows the result options")
    return frozenset(options or ("ALL",))
