"""APPEND (RFC 9051 §6.3.12), MULTIAPPEND (RFC 3502), CATENATE (RFC 4469), UTF8 (RFC 6855), REPLACE (RFC 8508)."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.wire.imap.commands import AppendArgs, AppendMessage, Args, CatenateUrl, ReplaceArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import Literal, Piece, StreamedLiteral
from mailcore.wire.imap.limits import MAX_APPEND_MESSAGES, MAX_CATENATE_PARTS
from mailcore.wire.imap.tokens import Cursor

# Stands for the literal that was announced and has not come yet; no real one has this index.
_ANNOUNCED = StreamedLiteral(index=-1, size=0)

Part = Literal | StreamedLiteral | CatenateUrl


class _HeadEnds(Exception):
    """The announced literal was reached inside a message; carries the message so far."""

    def __init__(self, message: AppendMessage) -> None:
        self.message = message


def parse_append(cursor: Cursor) -> Args:
    """The arguments of a whole APPEND."""
    mailbox, messages = _append(cursor)
    return AppendArgs(mailbox, tuple(messages))


def parse_replace(cursor: Cursor) -> ReplaceArgs:
    """The arguments of a whole REPLACE, or of one up to an announced literal."""
    cursor.space("the number of a message")
    number = 0 if cursor.try_take(b"*") else cursor.number("the number of a message", minimum=1)
    cursor.space("a mailbox name")
    mailbox = cursor.mailbox()
    cursor.space("flags, a date or a message literal")
    try:
        return ReplaceArgs(number, mailbox, _message(cursor))
    except _HeadEnds as head:
        return ReplaceArgs(number, mailbox, head.message)


def parse_append_pieces(pieces: Sequence[Piece], *, utf8: bool = False) -> AppendArgs | ReplaceArgs:
    """An APPEND or REPLACE up to an announced literal, see parse.parse_append_head."""
    cursor = Cursor((*pieces, _ANNOUNCED), utf8=utf8)
    name = cursor.word("APPEND or REPLACE")
    if name == "UID":
        cursor.space("REPLACE")
        name = cursor.word("REPLACE")
    if name == "REPLACE":
        return parse_replace(cursor)
    if name != "APPEND":
        raise ImapSyntaxError("Expected APPEND or REPLACE")
    mailbox, messages = _append(cursor)
    return AppendArgs(mailbox, tuple(messages))


def _append(cursor: Cursor) -> tuple[str, list[AppendMessage]]:
    cursor.space("a mailbox name")
    mailbox = cursor.mailbox()
    messages: list[AppendMessage] = []
    while True:
        cursor.space("flags, a date or a message literal")
        if messages and cursor.at_end():
            break
        try:
            messages.append(_message(cursor))
        except _HeadEnds as head:
            messages.append(head.message)
            break
        if len(messages) > MAX_APPEND_MESSAGES:
            raise ImapSyntaxError(f"More than {MAX_APPEND_MESSAGES} messages in one APPEND", code="LIMIT")
        if cursor.at_end():
            break
    return mailbox, messages


def _message(cursor: Cursor) -> AppendMessage:
    flags: tuple[str, ...] = ()
    when = None
    if cursor.looking_at(b"("):
        flags = cursor.flag_list()
        cursor.space("a date or a message literal")
    if cursor.looking_at(b'"'):
        when = cursor.date_time()
        cursor.space("a message literal")
    literal = cursor.take_literal()
    if literal is _ANNOUNCED:
        raise _HeadEnds(AppendMessage(flags, when, ()))
    if literal is not None:
        return AppendMessage(flags, when, (literal,))
    word = cursor.word("flags, a date or a message literal {size}")
    if word == "UTF8":
        cursor.space("a message literal in parentheses")
        cursor.expect(b"(", "'(' and a binary literal")
        literal = cursor.take_literal()
        if literal is None:
            raise cursor.error("a binary literal ~{size}")
        if literal is _ANNOUNCED:
            raise _HeadEnds(AppendMessage(flags, when, (), utf8=True))
        if not literal.binary:
            raise ImapSyntaxError("UTF8 needs a binary literal ~{size} (RFC 6855)")
        cursor.expect(b")", "')'")
        return AppendMessage(flags, when, (literal,), utf8=True)
    if word == "CATENATE":
        cursor.space("the parts of the message")
        parts: list[Part] = []

        def part() -> None:
            found = _catenate_part(cursor)
            if found is _ANNOUNCED:
                raise _HeadEnds(AppendMessage(flags, when, tuple(parts), catenate=True))
            parts.append(found)

        cursor.paren_list(part, "TEXT or URL parts", limit=MAX_CATENATE_PARTS)
        return AppendMessage(flags, when, tuple(parts), catenate=True)
    raise ImapSyntaxError("Expected flags, a date or a message literal {size}")


def _catenate_part(cursor: Cursor) -> Part:
    if cursor.one_of(frozenset(("TEXT", "URL")), "a part") == "URL":
        cursor.space("a URL")
        return CatenateUrl(cursor.unicode(cursor.astring("a URL"), "the URL"))
    cursor.space("a literal")
    literal = cursor.take_literal()
    if literal is None:
        raise cursor.error("a literal {size}")
    return literal
