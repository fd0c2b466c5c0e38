"""Our strict parser of mail addresses, wherever an address decides who may do what or where mail goes.

It takes the Mailbox of RFC 5321 §4.1.2 (dot-string or quoted local part, domain or address literal) with UTF-8 local
parts and U-label domains (RFC 6531), and nothing else: no display names, comments, source routes or space around it.
A parsed local part is what the quotes mean, not the quotes: `"ann"@example.org` and `ann@example.org` are one address.
Header addresses, which only get displayed, are read by mailcore.mime instead.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import idna

from accounts.errors import AddressError

# Octets (RFC 5321 §4.5.3.1, and its path limit of 256 with the angle brackets).
MAX_LOCAL = 64
MAX_DOMAIN = 253
MAX_ADDRESS = 254
# Longest text we look at: a quoted local part may hold every octet escaped.
MAX_TEXT = 1024

TAG_SEPARATOR = "+"
CATCH_ALL = "*"

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff"
_DOT_STRING = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_COMMON = re.compile(r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63})")

_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp", "Zs"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """An address: `local` without quotes or escapes (case as given), `domain` lower-case A-labels or `[literal]`."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{quote_local(self.local)}@{self.domain}"

    @property
    def is_literal(self) -> bool:
        """The domain is an address literal such as `[192.0.2.1]`."""
        return self.domain.startswith("[")

    @property
    def is_ascii(self) -> bool:
        """It can be sent without SMTPUTF8 (the domain always can)."""
        return self.local.isascii()

    def without_tag(self) -> Parsed:
        """The address that a plus-tag was added to, or this one when there is none."""
        return Parsed(split_tag(self.local)[0], self.domain)


@lru_cache(maxsize=4096)
def parse_address(text: str, *, literal: bool = True) -> Parsed:
    """Parse one address; `literal=False` refuses address literals. Raises AddressError.

    The local part keeps its case (it is another domain's business, RFC 5321 §2.4); for our own domains see `normalise`.
    """
    if match := _COMMON.fullmatch(text):
        local, domain = match.groups()
        if len(text) <= MAX_ADDRESS and ".." not in local and local[0] != "." and local[-1] != ".":
            return Parsed(local, domain_name(domain))
    if len(text) > MAX_TEXT:
        raise AddressError("the address is too long")
    _refuse_controls(text)
    local, rest = _quoted(text) if text.startswith('"') else _dot_string(text)
    if not rest.startswith("@"):
        raise AddressError("an address has the form name@domain")
    parsed = Parsed(local, _domain_or_literal(rest[1:], literal))
    if len(parsed.local.encode()) > MAX_LOCAL:
        raise AddressError(f"the part before @ is longer than {MAX_LOCAL} octets")
    if len(str(parsed).encode()) > MAX_ADDRESS:
        raise AddressError(f"the address is longer than {MAX_ADDRESS} octets")
    return parsed


def normalise(text: str) -> str:
    """The form in which an address of our own domains is stored and compared: lower-case local part, A-label domain.

    Raises AddressError; refuses address literals, which are never ours.
    """
    parsed = parse_address(text, literal=False)
    lowered = Parsed(fold_local(parsed.local), parsed.domain)
    if len(lowered.local.encode()) > MAX_LOCAL or len(str(lowered).encode()) > MAX_ADDRESS:
        raise AddressError("the address is too long")
    return str(lowered)


def fold_local(local: str) -> str:
    """A local part of our own domains as it is stored: lower case, composed (NFC)."""
    if local.isascii():
        return local.lower()
    # Twice, because composing can bring back a character that has a lower case of its own.
    for _ in range(2):
        local = unicodedata.normalize("NFC", local.lower())
    return local


def split_tag(local: str) -> tuple[str, str | None]:
    """Split `ann+news` into `ann` and `news`; None when there is no tag (or nothing before it)."""
    base, separator, tag = local.partition(TAG_SEPARATOR)
    return (base, tag) if separator and base else (local, None)


def quote_local(local: str) -> str:
    """Write a local part for the wire: as it is when it is a dot-string, else quoted."""
    if _DOT_STRING.fullmatch(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=4096)
def domain_name(text: str) -> str:
    """A domain name as lower-case A-labels (`Bücher.example` gives `xn--bcher-kva.example`). Raises AddressError.

    Underscores pass, although the grammar has none: names with them exist and send mail.
    """
    if not text:
        raise AddressError("the domain is missing")
    if len(text) > MAX_DOMAIN:
        raise AddressError(f"the domain is longer than {MAX_DOMAIN} octets")
    if text.isascii():
        name = text.lower()
    else:
        _refuse_controls(text)
        try:
            name = idna.encode(text, uts46=True, std3_rules=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            raise AddressError("the domain is not a valid internationalised name") from None
        if len(name) > MAX_DOMAIN:
            raise AddressError(f"the domain is longer than {MAX_DOMAIN} octets")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise AddressError("the domain is not a valid name")
    if labels[-1].isdigit():
        raise AddressError("the domain ends in a number; an address literal needs brackets")
    return name


def hosted_domain_name(text: str) -> str:
    """As `domain_name`, for a domain that we host: letters, digits and hyphens only, as DNS registries have it."""
    name = domain_name(text)
    if "_" in name:
        raise AddressError("a mail domain has no underscore")
    return name


def display_domain(name: str) -> str:
    """A domain as people write it (U-labels), when it can be shown so; else as it is."""
    if "xn--" not in name:
        return name
    try:
        return idna.decode(name)
    except (idna.IDNAError, UnicodeError):
        return name


def _refuse_controls(text: str) -> None:
    if text.isascii() and text.isprintable():
        return
    for char in text:
        if (char != " " and unicodedata.category(char) in _REFUSED_CATEGORIES) or char in _BIDI_CONTROLS:
            raise AddressError("the address contains a control or space character")


def _dot_string(text: str) -> tuple[str, str]:
    match = _DOT_STRING.match(text)
    if match is None:
        if text.startswith("@"):
            raise AddressError("the part before @ is missing")
        raise AddressError("an address has the form name@domain")
    return match.group(), text[match.end() :]


def _quoted(text: str) -> tuple[str, str]:
    """Read a Quoted-string at the start; return its meaning and what follows."""
    out: list[str] = []
    index = 1
    while index < len(text):
        char = text[index]
        if char == '"':
            if not out:
                raise AddressError("the part before @ is empty")
            return "".join(out), text[index + 1 :]
        if char == "\\":
            index += 1
            if index == len(text) or not " " <= text[index] <= "~":
                raise AddressError("a backslash in the quoted part needs a printable character after it")
            char = text[index]
        out.append(char)
        index += 1
    raise AddressError("the quoted part does not end")


def _domain_or_literal(text: str, literal_allowed: bool) -> str:
    if not text.startswith("["):
        return domain_name(text)
    if not literal_allowed:
        raise AddressError("a literal network address cannot be used here")
    inner = text[1:-1]
    if not text.endswith("]") or not inner.isascii() or "%" in inner:
        raise AddressError("the address literal is not valid")
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError("the address literal is not valid") from None
