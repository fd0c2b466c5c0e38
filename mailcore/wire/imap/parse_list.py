"""LIST with its extensions (RFC 9051 §6.3.9, 5258, 5819, 6154), LSUB, and STATUS items."""

from __future__ import annotations

from mailcore.wire.imap import metadata
from mailcore.wire.imap.commands import Args, ListArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_LIST_PATTERNS
from mailcore.wire.imap.tokens import Cursor

_SELECTION = frozenset(("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"))
_RETURNS = frozenset(("SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "MYRIGHTS", "STATUS", "METADATA"))
STATUS_ITEMS = frozenset(
    (
        "MESSAGES",
        "RECENT",
        "UIDNEXT",
        "UIDVALIDITY",
        "UNSEEN",
        "DELETED",
        "DELETED-STORAGE",
        "SIZE",
        "HIGHESTMODSEQ",
        "APPENDLIMIT",
        "MAILBOXID",
    )
)


def parse_list(cursor: Cursor) -> Args:
    """LIST: selection options, reference, one pattern or several, return options."""
    cursor.space("a reference name")
    selection: frozenset[str] = frozenset()
    extended = cursor.looking_at(b"(")
    if extended:
        options = cursor.paren_list(
            lambda: cursor.one_of(_SELECTION, "a selection option"), "selection options", limit=20, empty=True
        )
        selection = frozenset(options)
        if "RECURSIVEMATCH" in selection and selection <= {"RECURSIVEMATCH", "REMOTE"}:
            raise ImapSyntaxError("RECURSIVEMATCH needs another selection option such as SUBSCRIBED (RFC 5258)")
        cursor.space("a reference name")
    reference = cursor.reference()
    cursor.space("a mailbox pattern")
    if cursor.looking_at(b"("):
        extended = True
        patterns = cursor.paren_list(cursor.pattern, "mailbox patterns", limit=MAX_LIST_PATTERNS)
    else:
        patterns = [cursor.pattern()]
    returns: set[str] = set()
    status: tuple[str, ...] | None = None
    entries: tuple[str, ...] = ()
    if cursor.try_take(b" ") and not cursor.at_end():
        extended = True
        cursor.one_of(frozenset(("RETURN",)), "return options")
        cursor.space("a list of return options")

        def option() -> None:
            nonlocal status, entries
            name = cursor.one_of(_RETURNS, "a return option")
            if name == "STATUS":
                cursor.space("STATUS items")
                status = status_items(cursor)
            elif name == "METADATA":
                cursor.space("entries")
                entries = metadata.entries(cursor)
            else:
                returns.add(name)

        cursor.paren_list(option, "return options", limit=20, empty=True)
    return ListArgs(reference, tuple(dict.fromkeys(patterns)), selection, frozenset(returns), status, extended, entries)


def parse_lsub(cursor: Cursor) -> Args:
    """LSUB: reference and pattern."""
    cursor.space("a reference name")
    reference = cursor.reference()
    cursor.space("a mailbox pattern")
    return ListArgs(reference, (cursor.pattern(),))


def status_items(cursor: Cursor) -> tuple[str, ...]:
    """(MESSAGES UNSEEN ...) without repeats."""
    items = cursor.paren_list(lambda: cursor.one_of(STATUS_ITEMS, "a STATUS item"), "STATUS items", limit=30)
    return tuple(dict.fromkeys(items))
