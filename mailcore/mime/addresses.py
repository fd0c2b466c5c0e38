"""Address lists of header fields: RFC 5322 §3.4 with groups, comments and obsolete syntax, and what else occurs.

For display and IMAP's ENVELOPE only: an address that decides where mail goes or what somebody may do is parsed by the
strict parser of its protocol, never by this lenient one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mailcore.mime.headers import decode_header, unfold
from mailcore.mime.imaplex import nstring
from mailcore.mime.limits import MAX_ADDRESS_VALUE, MAX_ADDRESSES
from mailcore.mime.types import Addr, Mailbox

_GROUP_END = Mailbox(None, None, None, None)

_TOKEN = re.compile(
    rb"(?P<space>\s+)"
    rb"|(?P<atom>=\?[^?\s]{1,80}\?[bBqQ]\?[^?\s]*\?=|[^\s()<>@,;:\"\[\]]+)"
    rb"|\"(?P<quoted>[^\"\\]*(?:\\.[^\"\\]*)*)\\?(?:\"|\Z)"
    rb"|(?P<literal>\[[^\[\]\\\s]*\])"
    rb"|(?P<special>[()<>@,;:\"\[\]])",
    re.S,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.S)
_COMMENT_EDGE = re.compile(rb"\\.|[()]", re.S)
_NEEDS_QUOTES = re.compile(r'[\x00-\x20()<>@,;:"\[\]\\\x7f]')


class _Element:
    """What has been read of one list element."""

    __slots__ = ("angle", "at", "comment", "phrase", "spec")

    def __init__(self) -> None:
        self.phrase: list[tuple[bytes, bool]] = []  # (word, white space before it), outside <>
        self.at = -1  # index of the last @ in phrase
        self.spec: list[tuple[bytes, bool]] | None = None  # (token, is special) inside <>
        self.comment: bytes | None = None
        self.angle = False  # inside <>


def parse_addresses(value: bytes, limit: int = MAX_ADDRESSES) -> list[Mailbox]:
    """The elements of an address list, in order, at most `limit` (and one more to close a group). Never raises."""
    value = unfold(value[:MAX_ADDRESS_VALUE])
    found: list[Mailbox] = []
    element = _Element()
    in_group = False
    spaced = False
    pos = 0
    while (match := _TOKEN.match(value, pos)) and len(found) < limit:
        pos = match.end()
        kind = match.lastgroup or ""
        if kind == "space":
            spaced = True
            continue
        token = match.group(kind)
        special = kind == "special"
        if kind == "quoted":
            token = _QUOTED_PAIR.sub(rb"\1", token)
        elif special and token == b"(":
            pos, comment = _comment(value, pos)
            element.comment = element.comment or comment
            spaced = True
            continue
        elif special and not element.angle and token in b",;:<":
            if token == b"<":
                element.angle, element.spec = True, []
            elif token == b":" and not in_group and element.at < 0:
                found.append(Mailbox(None, None, _phrase(element.phrase) or b"", None))
                element, in_group = _Element(), True
            elif token != b":":
                _finish(element, found)
                element = _Element()
                if token == b";" and in_group:
                    found.append(_GROUP_END)
                    in_group = False
            spaced = False
            continue
        spec = element.spec
        if element.angle and spec is not None:
            if special and token == b">":
                element.angle = False
            elif special and token in b",;" and not (spec and spec[0] == (b"@", True)):
                _finish(element, found)  # "<" without ">"
                element = _Element()
            else:
                spec.append((token, special))
        elif not special or token == b"@":
            if special:
                element.at = len(element.phrase)
            element.phrase.append((token, spaced))
        spaced = False
    _finish(element, found)
    if in_group:
        found.append(_GROUP_END)
    return found


def _comment(value: bytes, pos: int) -> tuple[int, bytes]:
    """End and text of the comment whose `(` is before `pos`; an unclosed one ends with the value."""
    depth = 1
    end = len(value)
    for edge in _COMMENT_EDGE.finditer(value, pos):
        if edge.group() == b"(":
            depth += 1
        elif edge.group() == b")":
            depth -= 1
            if not depth:
                end = edge.start()
                break
    return end + 1, _QUOTED_PAIR.sub(rb"\1", value[pos:end]).strip()


def _phrase(words: list[tuple[bytes, bool]]) -> bytes:
    return b"".join([b" " + word if spaced else word for word, spaced in words]).strip()


def _finish(element: _Element, found: list[Mailbox]) -> None:
    """Append the address that `element` holds, if it holds one."""
    if element.spec is not None:
        route, local, host = _addr_spec(element.spec)
        name = _phrase(element.phrase) or element.comment or None
        if name or local or host:
            found.append(Mailbox(name, route, local, host))
        return
    words = element.phrase
    at = element.at
    if at >= 0:
        start = at
        while start > 0 and (start == at or not words[start][1] or _dotted(words[start - 1][0], words[start][0])):
            start -= 1  # the word before @, and what hangs on it by dots
        local = b"".join(word for word, _ in words[start:at])
        host = b"".join(word for word, _ in words[at + 1 :])
        name = _phrase(words[:start]) or element.comment or None
        found.append(Mailbox(name, None, local, host))
    elif words:
        found.append(Mailbox(element.comment, None, _phrase(words), b""))


def _dotted(left: bytes, right: bytes) -> bool:
    return left.endswith(b".") or right.startswith(b".")


def _addr_spec(tokens: list[tuple[bytes, bool]]) -> tuple[bytes | None, bytes, bytes]:
    """(route, local part, domain) of the tokens between < and > (RFC 5322 §4.4 obs-route)."""
    route: bytes | None = None
    if tokens and tokens[0] == (b"@", True):
        colon = next((i for i, token in enumerate(tokens) if token == (b":", True)), -1)
        if colon >= 0:
            route = b"".join(token for token, _ in tokens[:colon])
            tokens = tokens[colon + 1 :]
    at = next((i for i in range(len(tokens) - 1, -1, -1) if tokens[i] == (b"@", True)), -1)
    if at < 0:
        return route, b"".join(token for token, _ in tokens), b""
    return route, b"".join(token for token, _ in tokens[:at]), b"".join(token for token, _ in tokens[at + 1 :])


def people(mailboxes: list[Mailbox]) -> tuple[Addr, ...]:
    """The addresses of a list for people: group names and markers left out (RFC 8621 §4.1.2.3)."""
    return tuple([_person(m) for m in mailboxes if m.host is not None])


def _person(m: Mailbox) -> Addr:
    local = decode_header(m.mailbox) if m.mailbox else ""
    if _NEEDS_QUOTES.search(local) and m.host:
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    email = f"{local}@{decode_header(m.host)}" if m.host else local
    return Addr(decode_header(m.name) or None if m.name else None, email)


# --- both forms at once ---------------------------------------------------------------------------------------------


class AddressList(NamedTuple):
    """An address field as ENVELOPE shows it, and its people."""

    imap: bytes
    people: tuple[Addr, ...]
    size: int


NO_ADDRESSES = AddressList(b"NIL", (), 0)

# The forms of nearly all mail: `a@b`, `Name <a@b>`, `"Name" <a@b>`. No alternatives overlap, nothing backtracks, and
# no part needs quoting in IMAP.
_SIMPLE = re.compile(
    rb"\s*+(?:(?:\"([ !#-\[\]-~]*+)\"\s*+|([\w !#$%&'*+\-/=?^`{|}~.]*+))<([\w!#$%&'*+\-/=?^`{|}~.]++)@([\w.\-]++)>"
    rb"|([\w!#$%&'*+\-/=?^`{|}~.]++)@([\w.\-]++))\s*+(?:,|\Z)"
)


def only_address(value: bytes) -> tuple[bytes, bytes] | None:
    """Local part and domain of a field value that is one address in one of the usual forms; None: see
    `parse_addresses`, which gives the same for it."""
    match = _SIMPLE.match(value) if len(value) <= _SHORT else None
    if match is None or match.end() < len(value) or value.endswith(b","):
        return None
    _, _, local, domain, bare_local, bare_domain = match.groups()
    return local or bare_local, domain or bare_domain


_SHORT = 200  # octets of a field that is remembered: the same people write to the same people


def address_list(value: bytes, limit: int) -> AddressList:
    """At most `limit` addresses of a raw field value, for ENVELOPE and for people."""
    if len(value) <= _SHORT < limit:
        return _short_list(value)
    return _address_list(value, limit)


@lru_cache(maxsize=4096)
def _short_list(value: bytes) -> AddressList:
    return _address_list(value, _SHORT)


def _address_list(value: bytes, limit: int) -> AddressList:
    imap: list[bytes] = []
    persons: list[Addr] = []
    pos = 0
    end = len(value)
    if end > MAX_ADDRESS_VALUE:
        return render(parse_addresses(value, limit))
    while pos < end and len(persons) < limit:
        match = _SIMPLE.match(value, pos)
        if match is None:
            return NO_ADDRESSES if value.isspace() else render(parse_addresses(value, limit))
        fragment, person = _simple_address(*match.groups())
        imap.append(fragment)
        persons.append(person)
        pos = match.end()
    if not persons:
        return NO_ADDRESSES
    return AddressList(b"(" + b"".join(imap) + b")", tuple(persons), len(persons))


@lru_cache(maxsize=4096)
def _simple_address(
    quoted: bytes | None,
    phrase: bytes | None,
    local: bytes | None,
    domain: bytes | None,
    bare_local: bytes | None,
    bare_domain: bytes | None,
) -> tuple[bytes, Addr]:
    """One match of _SIMPLE. The same correspondents come again and again, hence the cache."""
    name = b" ".join((quoted or phrase or b"").split())
    local, domain = local or bare_local or b"", domain or bare_domain or b""
    imap = b'("%b" NIL "%b" "%b")' % (name, local, domain) if name else b'(NIL NIL "%b" "%b")' % (local, domain)
    return imap, Addr(decode_header(name) or None, f"{local.decode('ascii')}@{domain.decode('ascii')}")


def render(found: list[Mailbox]) -> AddressList:
    """Both forms of a parsed address list."""
    if not found:
        return NO_ADDRESSES
    imap = b"".join(
        [b"(%b %b %b %b)" % (nstring(m.name), nstring(m.route), nstring(m.mailbox), nstring(m.host)) for m in found]
    )
    return AddressList(b"(" + imap + b")", people(found), len(found))
