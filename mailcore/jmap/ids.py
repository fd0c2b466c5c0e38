"""Ids as they travel: the letter says what it is, the number is the account's own. Email, thread and mailbox ids
are those of IMAP's OBJECTID extension (RFC 8474), so that a program speaking both sees the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def account(number: int) -> str:
    return f"a{number}"


def email(number: int) -> str:
    return f"M{number}"


def thread(number: int) -> str:
    return f"T{number}"


def mailbox(number: int) -> str:
    return f"F{number}"


def number_of(text: object, letter: str) -> int | None:
    """The number in an id of that kind; None for what is no such id, and therefore nobody's."""
    if isinstance(text, str) and text[:1] == letter and _NUMBER.fullmatch(text, 1):
        return int(text[1:])
    return None


def numbers_of(texts: Iterable[str], letter: str) -> tuple[dict[int, str], list[str]]:
    """Ids by number, in order, each once; and those that can be nobody's."""
    found: dict[int, str] = {}
    missing: dict[str, None] = {}
    for text in texts:
        number = number_of(text, letter)
        if number is None:
            missing[text] = None
        else:
            found[number] = text
    return found, list(missing)
