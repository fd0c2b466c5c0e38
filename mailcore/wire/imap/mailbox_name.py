"""Mailbox names: modified UTF-7 (RFC 3501 §5.1.3), INBOX, what may be created, and LIST's wildcards."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from functools import lru_cache

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_NAME_LEVELS, MAX_NAME_OCTETS

SEPARATOR = "/"

_PLAIN = re.compile(rb"[\x20-\x25\x27-\x7e]*")
_ENCODE = re.compile(r"&|[^\x20-\x7e]+")
_SHIFT = re.compile(rb"&([A-Za-z0-9+,]*)-|[\x20-\x25\x27-\x7e]+")
# What no name holds: controls (C0, DEL, C1) and the line and paragraph separators (RFC 5198).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class MailboxNameError(ValueError):
    """The name cannot be a mailbox; str(error) tells a person why (the session answers NO [CANNOT])."""


def encode_utf7(name: str) -> bytes:
    """Name -> modified UTF-7."""
    return _ENCODE.sub(_shift, name).encode("ascii")


def _shift(match: re.Match[str]) -> str:
    run = match[0]
    if run == "&":
        return "&-"
    coded = binascii.b2a_base64(run.encode("utf-16-be"), newline=False).rstrip(b"=")
    return "&" + coded.decode("ascii").replace("/", ",") + "-"


def decode_utf7(raw: bytes) -> str:
    """Modified UTF-7 -> name, strictly (one spelling per name). Raises ImapSyntaxError."""
    if _PLAIN.fullmatch(raw):
        return raw.decode("ascii")
    parts: list[str] = []
    position = 0
    while position < len(raw):
        match = _SHIFT.match(raw, position)
        if match is None:
            break
        position = match.end()
        coded = match[1]
        if coded is None:
            parts.append(match[0].decode("ascii"))
        elif not coded:
            parts.append("&")
        else:
            try:
                packed = coded.replace(b",", b"/")
                parts.append(binascii.a2b_base64(packed + b"=" * (-len(packed) % 4)).decode("utf-16-be"))
            except (binascii.Error, UnicodeDecodeError):
                break
    else:
        name = "".join(parts)
        # Encoding again finds every other spelling: shifted ASCII, adjacent shifts, loose bits.
        if encode_utf7(name) == raw:
            return name
    raise ImapSyntaxError("The mailbox name is not valid modified UTF-7 (RFC 3501 section 5.1.3)")


def canonical(name: str) -> str:
    """INBOX in any case, alone or as the first level, becomes "INBOX"; the rest stays as it is."""
    if name[:5].upper() == "INBOX" and (len(name) == 5 or name[5] == SEPARATOR):
        return "INBOX" + name[5:]
    return name


def has_control(name: str) -> bool:
    """Whether the name holds a character that no mailbox name may have."""
    return _CONTROL.search(name) is not None


def check_new_name(name: str) -> None:
    """Raise MailboxNameError unless a mailbox may be created with this (canonical) name."""
    if not name:
        raise MailboxNameError("The mailbox name is empty")
    if len(name.encode()) > MAX_NAME_OCTETS:
        raise MailboxNameError("The mailbox name is too long")
    if name.count(SEPARATOR) >= MAX_NAME_LEVELS:
        raise MailboxNameError("The mailbox name has too many levels")
    if has_control(name):
        raise MailboxNameError("The mailbox name contains control characters")
    if "*" in name or "%" in name:
        raise MailboxNameError("The mailbox name contains a wildcard ('*' or '%')")
    if name.startswith("#"):
        raise MailboxNameError("The mailbox name starts with '#', which is kept for namespaces")
    if not all(name.split(SEPARATOR)):
        raise MailboxNameError("The mailbox name has an empty level ('/' at an end, or twice in a row)")


def join_reference(reference: str, pattern: str) -> str:
    """LIST's reference and pattern as one canonical pattern: concatenated (RFC 9051 §6.3.9)."""
    return canonical(reference + pattern)


def parents(name: str) -> tuple[str, ...]:
    """The names above this one: ("a", "a/b") for "a/b/c"."""
    levels = name.split(SEPARATOR)
    return tuple(SEPARATOR.join(levels[:count]) for count in range(1, len(levels)))


def matches(pattern: str, name: str) -> bool:
    """LIST matching: `*` is anything, `%` anything but the separator; INBOX ignores case.

    Time is linear in len(name), with words of len(pattern) bits.
    """
    return matcher(pattern)(name)


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool]:
    """`matches` with the pattern prepared, for many names."""
    pattern = canonical(pattern)
    if pattern == "*":
        return lambda name: True
    if pattern == "%":
        return lambda name: SEPARATOR not in name
    match = _automaton(pattern)
    upper = pattern.upper()
    if upper == pattern:
        return match
    match_upper = _automaton(upper)
    return lambda name: match(name) or (name == "INBOX" and match_upper(name))


def _automaton(pattern: str) -> Callable[[str], bool]:
    """A nondeterministic automaton whose set of states is one integer: no backtracking, whatever the wildcards."""
    # Of a run of wildcards one stays, so that one shift is the whole closure over empty wildcards.
    tokens = re.sub(r"[*%]{2,}", lambda run: "*" if "*" in run[0] else "%", pattern)
    accept = 1 << len(tokens)
    stars = percents = 0
    chars: dict[str, int] = {}
    for index, token in enumerate(tokens):
        bit = 1 << index
        if token == "*":
            stars |= bit
        elif token == "%":
            percents |= bit
        else:
            chars[token] = chars.get(token, 0) | bit
    wild = stars | percents
    initial = 1 | ((1 & wild) << 1)

    def match(name: str) -> bool:
        states = initial
        for char in name:
            stay = stars if char == SEPARATOR else wild
            states = ((states & chars.get(char, 0)) << 1) | (states & stay)
            states |= (states & wild) << 1
            if not states:
                return False
        return states & accept != 0

    return match
