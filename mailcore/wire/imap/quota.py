"""QUOTA on the wire (RFC 9208): the arguments of its commands and its two responses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mailcore.wire.imap.response import astring, atom, mailbox, paren, untagged_line
from mailcore.wire.imap.tokens import MAX_NUMBER64, Cursor

MAX_RESOURCES = 20


@dataclass(frozen=True, slots=True)
class QuotaArgs:
    """GETQUOTA: the name of a quota root."""

    root: str


@dataclass(frozen=True, slots=True)
class SetQuotaArgs:
    """SETQUOTA: the limits wanted for a quota root, by resource."""

    root: str
    limits: tuple[tuple[str, int], ...]


def parse_root(cursor: Cursor) -> QuotaArgs:
    """GETQUOTA root."""
    return QuotaArgs(_root(cursor))


def parse_set(cursor: Cursor) -> SetQuotaArgs:
    """SETQUOTA root (STORAGE 512)."""
    root = _root(cursor)
    cursor.space("a list of limits")

    def limit() -> tuple[str, int]:
        resource = cursor.word("a resource such as STORAGE")
        cursor.space("its limit")
        return resource, cursor.number("a limit", maximum=MAX_NUMBER64)

    return SetQuotaArgs(root, tuple(cursor.paren_list(limit, "limits", limit=MAX_RESOURCES, empty=True)))


def _root(cursor: Cursor) -> str:
    cursor.space("a quota root")
    return cursor.unicode(cursor.astring("a quota root"), "the quota root")


def quota_line(root: str, resources: Iterable[tuple[str, int, int]]) -> bytes:
    """* QUOTA "" (STORAGE 10 512), from (resource, usage, limit)."""
    values = paren(atom(name) + b" %d %d" % (usage, limit) for name, usage, limit in resources)
    return untagged_line(b"QUOTA", astring(root), values)


def quotaroot_line(name: str, roots: Iterable[str], *, utf8: bool = False) -> bytes:
    """* QUOTAROOT INBOX "": the quota roots of a mailbox, perhaps none."""
    return untagged_line(b"QUOTAROOT", mailbox(name, utf8=utf8), *map(astring, roots))
