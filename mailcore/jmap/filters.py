"""Filters and sort orders of Email/query (RFC 8621 §4.4) in the terms of the store's search."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mailcore.jmap import ids, limits, values
from mailcore.jmap.errors import MethodError, bad_arguments
from mailcore.jmap.queries import KEYWORD_FLAGS
from mailcore.store import search
from mailcore.store.flags import DELETED
from mailcore.store.search import Criterion

Json = dict[str, Any]

SORTS = {
    "receivedAt": "arrival",
    "sentAt": "sent",
    "size": "size",
    "from": "displayfrom",
    "to": "displayto",
    "subject": "subject",
}
NEWEST_FIRST = (("arrival", True),)
_WORDS = re.compile(r'"([^"]+)"|([^\s"]+)')
_FIELD_NAME = re.compile(r"[!-9;-~]{1,200}")


def criterion(given: Any) -> Criterion:
    """The store's criterion for a filter (null = everything). Raises invalidArguments, unsupportedFilter."""
    visible = search.Flag(DELETED, False)
    if given is None:
        return visible
    wanted = _filter(given, 0)
    if isinstance(wanted, search.And):
        return search.And((*wanted.terms, visible))
    return search.And((wanted, visible))


def is_listing(wanted: Criterion) -> bool:
    """Whether indexes and the narrow table alone answer a criterion, as they do for the page of a folder."""
    if isinstance(wanted, search.And):
        return all(map(is_listing, wanted.terms))
    return isinstance(wanted, search.All | search.InMailbox | search.Flag | search.Keyword)


def _filter(given: Any, depth: int) -> Criterion:
    if not isinstance(given, dict):
        raise bad_arguments("filter must be a condition or an operator")
    if depth > limits.MAX_FILTER_DEPTH:
        raise MethodError("unsupportedFilter", "the filter is nested too deeply")
    if "operator" not in given:
        return _both(tuple(_condition(name, value) for name, value in given.items()))
    inner = given.get("conditions")
    if not isinstance(inner, list):
        raise bad_arguments("conditions must be a list")
    terms = tuple(_filter(item, depth + 1) for item in inner)
    operator = given["operator"]
    if operator == "AND":
        # One flat conjunction, so that the search sees the mailbox in it.
        flat = [part for term in terms for part in (term.terms if isinstance(term, search.And) else (term,))]
        return _both(tuple(flat))
    if operator == "OR":
        return search.Or(terms)
    if operator == "NOT":
        return search.And(tuple(search.Not(term) for term in terms))
    raise bad_arguments("the operator must be AND, OR or NOT")


def _both(terms: tuple[Criterion, ...]) -> Criterion:
    return terms[0] if len(terms) == 1 else search.And(terms)


def _condition(name: str, value: Any) -> Criterion:
    read = CONDITIONS.get(name)
    if read is None:
        raise MethodError("unsupportedFilter", f"emails cannot be filtered by {name[:100]}")
    return read(name, value)


def words(text: str) -> list[str]:
    """What a text condition looks for: its words; what stands in quotes is one."""
    return [quoted or bare for quoted, bare in _WORDS.findall(text)]


def _text(name: str, value: Any) -> Criterion:
    """Every word occurs in the field."""
    if not isinstance(value, str):
        raise bad_arguments(f"{name} must be a string")
    found = words(value)
    return _both(tuple(search.Text(name, word) for word in found)) if found else search.All()


def _mailbox(name: str, value: Any) -> Criterion:
    if not isinstance(value, str):
        raise bad_arguments(f"{name} must be an id")
    number = ids.number_of(value, "F")
    return search.InMailbox((number or 0,))


def _other_mailboxes(name: str, value: Any) -> Criterion:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_arguments(f"{name} must be a list of ids")
    return search.InMailbox(tuple(number for item in value if (number := ids.number_of(item, "F"))), other=True)


def _date(name: str, value: Any) -> Criterion:
    return search.Date("internal", "<" if name == "before" else ">=", values.parse_date(value, name))


def _size(name: str, value: Any) -> Criterion:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise bad_arguments(f"{name} must be a number of octets")
    return search.Size(">=" if name == "minSize" else "<", value)


def _keyword(name: str, value: Any) -> Criterion:
    if not isinstance(value, str) or not value:
        raise bad_arguments(f"{name} must be a keyword")
    word = value.lower()
    bit = KEYWORD_FLAGS.get(word, 0)
    if name in ("hasKeyword", "notKeyword"):
        on = name == "hasKeyword"
        return search.Flag(bit, on) if bit else search.Keyword(word, on)
    thread = search.ThreadKeyword(bit, None if bit else word, every=name.startswith("all"))
    return search.Not(thread) if name.startswith("none") else thread


def _attachment(name: str, value: Any) -> Criterion:
    if not isinstance(value, bool):
        raise bad_arguments(f"{name} must be true or false")
    return search.HasAttachment(value)


def _header(name: str, value: Any) -> Criterion:
    if not isinstance(value, list) or len(value) not in (1, 2) or not all(isinstance(item, str) for item in value):
        raise bad_arguments("header must be [name] or [name, text]")
    if not _FIELD_NAME.fullmatch(value[0]):
        raise bad_arguments("that is no name of a header field")
    return search.Text(f"header:{value[0]}", value[1] if len(value) == 2 else "")


CONDITIONS: dict[str, Callable[[str, Any], Criterion]] = {
    "inMailbox": _mailbox,
    "inMailboxOtherThan": _other_mailboxes,
    **dict.fromkeys(("before", "after"), _date),
    **dict.fromkeys(("minSize", "maxSize"), _size),
    **dict.fromkeys(("hasKeyword", "notKeyword"), _keyword),
    **dict.fromkeys((f"{n}InThreadHaveKeyword" for n in ("all", "some", "none")), _keyword),
    "hasAttachment": _attachment,
    **dict.fromkeys(("text", "from", "to", "cc", "bcc", "subject", "body"), _text),
    "header": _header,
}


def sort(given: Any) -> tuple[tuple[str, bool], ...]:
    """(key, descending) pairs for a `sort` argument. Raises invalidArguments, unsupportedSort."""
    if given is None:
        return NEWEST_FIRST
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given) or len(given) > 10:
        raise bad_arguments("sort must be a list of comparators")
    keys = []
    for item in given:
        name, ascending = item.get("property"), item.get("isAscending", True)
        if not isinstance(ascending, bool):
            raise bad_arguments("isAscending must be true or false")
        if name == "hasKeyword" and str(item.get("keyword")).lower() == "$flagged":
            key = "flagged"
        elif isinstance(name, str) and name in SORTS:
            key = SORTS[name]
        else:
            raise MethodError("unsupportedSort", f"emails cannot be sorted by {str(name)[:100]}")
        keys.append((key, not ascending))
    return tuple(keys) or NEWEST_FIRST
