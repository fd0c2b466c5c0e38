"""Mailbox names: modified UTF-7 (RFC 3501 §5.1.3), INBOX, what may be created, and LIST's wildcards."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = "/"


class MailboxNameError(ValueError):
    """The name cannot be a mailbox; str(error) tells a person why (the session answers NO [CANNOT])."""


def encode_utf7(name: str) -> bytes:
    """Name -> modified UTF-7."""
    raise NotImplementedError


def decode_utf7(raw: bytes) -> str:
    """Modified UTF-7 -> name, strictly (one spelling per name). Raises ImapSyntaxError."""
    raise NotImplementedError


def canonical(name: str) -> str:
    """INBOX in any case, alone or as the first level, becomes "INBOX"; the rest stays as it is (NFC is the store's)."""
    raise NotImplementedError


def check_new_name(name: str) -> None:
    """Raise MailboxNameError unless the name may be created: length, levels, no empty level, no control characters, no wildcards."""
    raise NotImplementedError


def matches(pattern: str, name: str) -> bool:
    """LIST matching: `*` is anything, `%` anything but the separator; INBOX ignores case. Time O(len(pattern)·len(name)) at worst."""
    raise NotImplementedError


def join_reference(reference: str, pattern: str) -> str:
    """LIST's reference and pattern as one canonical pattern: simple concatenation (RFC 9051 §6.3.9)."""
    raise NotImplementedError


def parents(name: str) -> Sequence[str]:
    """"a/b/c" -> ("a", "a/b")."""
    raise NotImplementedError
