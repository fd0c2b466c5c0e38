"""ACL on the wire (RFC 4314): arguments of its commands, and its responses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.response import astring, mailbox, untagged_line
from mailcore.wire.imap.tokens import Cursor

MAX_IDENTIFIER_OCTETS = 1_000
_LETTERS = frozenset("lrswipkxteacd")


@dataclass(frozen=True, slots=True)
class RightsArgs:
    """DELETEACL, LISTRIGHTS: a mailbox and an identifier."""

    mailbox: str
    identifier: str


@dataclass(frozen=True, slots=True)
class SetAclArgs:
    """SETACL; `how` is "=", "+" or "-", `rights` known letters."""

    mailbox: str
    identifier: str
    how: str
    rights: str


def parse_rights(cursor: Cursor) -> RightsArgs:
    """mailbox identifier."""
    return RightsArgs(*_who(cursor))


def parse_setacl(cursor: Cursor) -> SetAclArgs:
    """mailbox identifier [+-]rights; an unknown right is an error of grammar (RFC 4314 §3.1)."""
    name, who = _who(cursor)
    cursor.space("rights")
    text = cursor.unicode(cursor.astring("rights such as lrs, +w or -e"), "the rights")
    how, letters = (text[0], text[1:]) if text[:1] in ("+", "-") else ("=", text)
    if not _LETTERS.issuperset(letters):
        raise ImapSyntaxError("Rights are letters of lrswipkxtea, perhaps after + or -")
    return SetAclArgs(name, who, how, letters)


def _who(cursor: Cursor) -> tuple[str, str]:
    cursor.space("a mailbox name")
    name = cursor.mailbox()
    cursor.space("an identifier")
    raw = cursor.astring("an identifier")
    if not raw or len(raw) > MAX_IDENTIFIER_OCTETS:
        raise ImapSyntaxError("An identifier is neither empty nor that long")
    return name, cursor.unicode(raw, "the identifier")


def acl_line(name: str, entries: Iterable[tuple[str, str]], *, utf8: bool = False) -> bytes:
    """* ACL INBOX alice@example.org lrswipkxteacd."""
    words = [astring(word) for entry in entries for word in entry]
    return untagged_line(b"ACL", mailbox(name, utf8=utf8), *words)


def listrights_line(name: str, identifier: str, required: str, optional: Iterable[str], *, utf8: bool = False) -> bytes:
    """* LISTRIGHTS INBOX bob@example.org "" l r s: what the identifier has always, and groups that go together."""
    words = (astring(identifier), astring(required), *map(astring, optional))
    return untagged_line(b"LISTRIGHTS", mailbox(name, utf8=utf8), *words)


def myrights_line(name: str, rights: str, *, utf8: bool = False) -> bytes:
    """* MYRIGHTS INBOX lrswipkxteacd."""
    return untagged_line(b"MYRIGHTS", mailbox(name, utf8=utf8), astring(rights))
