"""From a frame to a typed command: the table of commands and their argument grammars.

To add a command: its dataclass in commands.py, its row in COMMANDS, its argument parser here (or in a parse_*.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailcore.wire.imap import acl, metadata, notify, quota
from mailcore.wire.imap.commands import (
    AppendArgs,
    Args,
    AuthenticateArgs,
    BatchesArgs,
    Command,
    CopyArgs,
    CreateArgs,
    EnableArgs,
    FetchArgs,
    IdArgs,
    LoginArgs,
    MailboxArgs,
    NoArgs,
    NumbersArgs,
    QresyncParams,
    RenameArgs,
    ReplaceArgs,
    SelectArgs,
    StatusArgs,
    StoreArgs,
    WordArgs,
)
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import parse_items
from mailcore.wire.imap.frames import Frame, Piece
from mailcore.wire.imap.limits import MAX_FLAGS, MAX_ID_FIELDS
from mailcore.wire.imap.mailbox_name import SEPARATOR
from mailcore.wire.imap.numset import NumSet
from mailcore.wire.imap.parse_append import parse_append, parse_append_pieces, parse_replace
from mailcore.wire.imap.parse_list import STATUS_ITEMS, parse_list, parse_lsub, status_items
from mailcore.wire.imap.parse_search import (
    Partial,
    parse_esearch,
    parse_partial,
    parse_search,
    parse_sort,
    parse_tags,
    parse_thread,
)
from mailcore.wire.imap.tokens import Cursor

_NO_ARGS = NoArgs()
_SPECIAL_USES = {
    use.upper(): use
    for use in ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash")
}
_SELECT_PARAMS = frozenset(("CONDSTORE", "QRESYNC"))
_FETCH_MODIFIERS = frozenset(("CHANGEDSINCE", "VANISHED", "PARTIAL"))
_STORE_ACTIONS = {
    sign + b"FLAGS" + silent: (action, bool(silent))
    for sign, action in ((b"", "replace"), (b"+", "add"), (b"-", "remove"))
    for silent in (b"", b".SILENT")
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """One command's row. `parse` starts after the name and takes the space before its first argument itself.

    `secret`: the arguments hold a secret: neither they nor any part of them may be logged or quoted.
    """

    parse: Callable[[Cursor], Args]
    usage: str
    secret: bool = False


def _no_args(cursor: Cursor) -> Args:
    return _NO_ARGS


def _arguments(shape: Callable[..., Args], *readers: tuple[str, Callable[[Cursor], Any]]) -> Callable[[Cursor], Args]:
    """Arguments that simply follow each other, each after a space, in the order of the dataclass's fields."""

    def parse(cursor: Cursor) -> Args:
        values = []
        for what, read in readers:
            cursor.space(what)
            values.append(read(cursor))
        return shape(*values)

    return parse


_MAILBOX = ("a mailbox name", Cursor.mailbox)
_SET = ("a sequence set", Cursor.sequence_set)
_USER = ("a user name", lambda cursor: cursor.unicode(cursor.astring("a user name"), "the user name"))
_PASSWORD = ("a password", lambda cursor: cursor.unicode(cursor.astring("a password"), "the password"))


def _id(cursor: Cursor) -> Args:
    cursor.space("a list of fields or NIL")
    if not cursor.looking_at(b"("):
        if cursor.word("a list of fields or NIL") != "NIL":
            raise ImapSyntaxError("Expected a list of fields or NIL")
        return IdArgs(None)

    def field() -> tuple[str, str | None]:
        name = cursor.string("a field name in quotes")
        cursor.space("the field's value")
        value = cursor.nstring("a string or NIL")
        return name.decode("utf-8", "replace"), None if value is None else value.decode("utf-8", "replace")

    return IdArgs(tuple(cursor.paren_list(field, "fields", limit=MAX_ID_FIELDS, empty=True)))


def _enable(cursor: Cursor) -> Args:
    names: dict[str, None] = {}
    cursor.space("a capability")
    names[cursor.word("a capability")] = None
    while cursor.try_take(b" ") and not cursor.at_end():
        names[cursor.word("a capability")] = None
    return EnableArgs(tuple(names))


def _authenticate(cursor: Cursor) -> Args:
    cursor.space("a mechanism")
    mechanism = cursor.word("a mechanism")
    initial = None
    if cursor.try_take(b" "):
        initial = cursor.base64() or None
    return AuthenticateArgs(mechanism, initial)


def _select(cursor: Cursor) -> Args:
    cursor.space("a mailbox name")
    mailbox = cursor.mailbox()
    condstore, qresync = False, None
    if cursor.try_take(b" ") and not cursor.at_end():
        cursor.expect(b"(", "'(' and parameters")
        seen: set[str] = set()
        while True:
            param = cursor.one_of(_SELECT_PARAMS - seen, "a parameter")
            seen.add(param)
            if param == "CONDSTORE":
                condstore = True
            else:
                qresync = _qresync(cursor)
            if cursor.try_take(b")"):
                break
            cursor.space("another parameter, or ')'")
    return SelectArgs(mailbox, condstore, qresync)


def _qresync(cursor: Cursor) -> QresyncParams:
    """(uidvalidity SP modseq [SP known-uids] [SP (seq-set SP uid-set)]), RFC 7162 §7."""
    cursor.space("QRESYNC's values")
    cursor.expect(b"(", "'(' and UIDVALIDITY")
    uidvalidity = cursor.number("UIDVALIDITY", minimum=1)
    cursor.space("a mod-sequence")
    modseq = cursor.modseq("a mod-sequence")
    known = match = None
    if cursor.looking_at(b" ") and not cursor.looking_at(b" ("):
        cursor.space("known UIDs")
        known = cursor.known_set("the known UIDs")
    if cursor.try_take(b" "):
        cursor.expect(b"(", "'(' and sequence match data")
        numbers = cursor.known_set("the sequence match data")
        cursor.space("the matching UIDs")
        uids = cursor.known_set("the sequence match data")
        if len(NumSet.from_ranges(numbers.ranges)) != len(NumSet.from_ranges(uids.ranges)):
            raise ImapSyntaxError("The sequence match data has more of one than of the other: they are pairs")
        match = numbers, uids
        cursor.expect(b")", "')'")
    cursor.expect(b")", "')'")
    return QresyncParams(uidvalidity, modseq, known, match)


def _create(cursor: Cursor) -> Args:
    cursor.space("a mailbox name")
    mailbox = cursor.mailbox()
    if len(mailbox) > 1:
        # The trailing separator only says that children will follow (RFC 9051 §6.3.4).
        mailbox = mailbox.removesuffix(SEPARATOR)
    uses: list[str] = []
    if cursor.try_take(b" ") and not cursor.at_end():
        cursor.expect(b"(", "'(' and USE")
        cursor.one_of(frozenset(("USE",)), "a parameter")
        cursor.space("special uses")
        uses = cursor.paren_list(lambda: _special_use(cursor), "special uses", limit=MAX_FLAGS, empty=True)
        cursor.expect(b")", "')'")
    return CreateArgs(mailbox, tuple(dict.fromkeys(uses)))


def _special_use(cursor: Cursor) -> str:
    cursor.expect(b"\\", "a special use such as \\Archive")
    use = "\\" + cursor.atom("a special use")
    return _SPECIAL_USES.get(use.upper(), use)


def _status(cursor: Cursor) -> Args:
    cursor.space("a mailbox name")
    mailbox = cursor.mailbox()
    cursor.space(f"the items ({', '.join(sorted(STATUS_ITEMS))})")
    return StatusArgs(mailbox, status_items(cursor))


def _fetch(cursor: Cursor) -> FetchArgs:
    cursor.space("a sequence set")
    numbers = cursor.sequence_set()
    cursor.space("FETCH items")
    items = parse_items(cursor)
    changedsince, vanished = None, False
    partial: Partial | None = None
    if cursor.try_take(b" ") and not cursor.at_end():
        cursor.expect(b"(", "'(' and modifiers")
        seen: set[str] = set()
        while True:
            modifier = cursor.one_of(_FETCH_MODIFIERS - seen, "a modifier")
            seen.add(modifier)
            if modifier == "CHANGEDSINCE":
                cursor.space("a mod-sequence")
                # The grammar begins at 1, but Thunderbird says 0 of a mailbox that it has never seen.
                changedsince = cursor.modseq("a mod-sequence", minimum=0)
            elif modifier == "PARTIAL":
                cursor.space("a range of messages")
                partial = parse_partial(cursor)
            else:
                vanished = True
            if cursor.try_take(b")"):
                break
            cursor.space("another modifier, or ')'")
    if vanished and changedsince is None:
        raise ImapSyntaxError("VANISHED needs CHANGEDSINCE (RFC 7162 section 3.2.6)")
    return FetchArgs(numbers, items, changedsince, vanished, partial)


def _batches(cursor: Cursor) -> Args:
    cursor.space("the size of a batch")
    size = cursor.number("the size of a batch", minimum=1)
    if not cursor.try_take(b" ") or cursor.at_end():
        return BatchesArgs(size)
    first = cursor.number("the first batch", minimum=1)
    cursor.expect(b":", "':' and the last batch")
    return BatchesArgs(size, (first, cursor.number("the last batch", minimum=1)))


def _fetch_by_seq(cursor: Cursor) -> Args:
    args = _fetch(cursor)
    if args.vanished:
        raise ImapSyntaxError("VANISHED is for UID FETCH only (RFC 7162 section 3.2.6)")
    if args.partial is not None:
        raise ImapSyntaxError("PARTIAL is for UID FETCH only (RFC 9394 section 3.3)")
    return args


def _store(cursor: Cursor) -> Args:
    cursor.space("a sequence set")
    numbers = cursor.sequence_set()
    unchangedsince = None
    cursor.space("FLAGS, +FLAGS or -FLAGS")
    if cursor.try_take(b"("):
        cursor.one_of(frozenset(("UNCHANGEDSINCE",)), "a modifier")
        cursor.space("a mod-sequence")
        unchangedsince = cursor.modseq("a mod-sequence", minimum=0)
        cursor.expect(b")", "')'")
        cursor.space("FLAGS, +FLAGS or -FLAGS")
    start = cursor.pos
    action = _STORE_ACTIONS.get(cursor.word("FLAGS, +FLAGS or -FLAGS").encode())
    if action is None:
        cursor.pos = start
        raise cursor.error("FLAGS, +FLAGS or -FLAGS, with or without .SILENT")
    cursor.space("flags")
    if cursor.looking_at(b"("):
        flags = cursor.flag_list()
    else:
        bare = [cursor.flag()]
        while cursor.try_take(b" ") and not cursor.at_end():
            bare.append(cursor.flag())
        flags = tuple(dict.fromkeys(bare))
    return StoreArgs(numbers, action[0], flags, action[1], unchangedsince)


_NUMBERS_ITEMS = "sequence-set item | (item ...) | ALL | FULL | FAST [(CHANGEDSINCE modseq [VANISHED])]"
_STORE_USAGE = "sequence-set [(UNCHANGEDSINCE modseq)] FLAGS|+FLAGS|-FLAGS[.SILENT] (flag ...)"
_SEARCH_USAGE = "[RETURN (MIN MAX ALL COUNT SAVE PARTIAL first:last UPDATE)] [CHARSET charset] key ..."
_THREAD_USAGE = "ORDEREDSUBJECT | REFERENCES | REFS charset key ..."
_SORT_USAGE = "[RETURN (MIN MAX ALL COUNT)] ([REVERSE] sort-key ...) charset key ..."
_SELECT_USAGE = "mailbox [(CONDSTORE) | (QRESYNC (uidvalidity modseq [known-uids] [(seqs uids)]))]"

COMMANDS: Mapping[str, Grammar] = {
    **{
        name: Grammar(_no_args, "")
        for name in (
            "CAPABILITY",
            "NOOP",
            "LOGOUT",
            "STARTTLS",
            "CHECK",
            "CLOSE",
            "UNSELECT",
            "EXPUNGE",
            "IDLE",
            "NAMESPACE",
            "GETJMAPACCESS",
        )
    },
    "ID": Grammar(_id, '("name" "value" ...) | NIL'),
    "ENABLE": Grammar(_enable, "capability ..."),
    "LOGIN": Grammar(_arguments(LoginArgs, _USER, _PASSWORD), "user password", secret=True),
    "AUTHENTICATE": Grammar(_authenticate, "mechanism [initial-response]", secret=True),
    "COMPRESS": Grammar(_arguments(WordArgs, ("DEFLATE", lambda cursor: cursor.word("DEFLATE"))), "DEFLATE"),
    "SELECT": Grammar(_select, _SELECT_USAGE),
    "EXAMINE": Grammar(_select, _SELECT_USAGE),
    "CREATE": Grammar(_create, "mailbox [(USE (\\Archive ...))]"),
    "DELETE": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "RENAME": Grammar(_arguments(RenameArgs, _MAILBOX, _MAILBOX), "mailbox new-name"),
    "SUBSCRIBE": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "UNSUBSCRIBE": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "LIST": Grammar(parse_list, "[(selection ...)] reference pattern | (pattern ...) [RETURN (option ...)]"),
    "LSUB": Grammar(parse_lsub, "reference pattern"),
    "STATUS": Grammar(_status, "mailbox (item ...)"),
    "NOTIFY": Grammar(notify.parse_notify, "NONE | SET [STATUS] (filter (event ...)|NONE) ..."),
    "GETACL": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "MYRIGHTS": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "SETACL": Grammar(acl.parse_setacl, "mailbox identifier [+|-]rights"),
    "DELETEACL": Grammar(acl.parse_rights, "mailbox identifier"),
    "LISTRIGHTS": Grammar(acl.parse_rights, "mailbox identifier"),
    "GETMETADATA": Grammar(metadata.parse_get, "[(MAXSIZE octets DEPTH 0|1|infinity)] mailbox (entry ...)"),
    "SETMETADATA": Grammar(metadata.parse_set, "mailbox (entry value ...)"),
    "GETQUOTA": Grammar(quota.parse_root, "quota-root"),
    "GETQUOTAROOT": Grammar(_arguments(MailboxArgs, _MAILBOX), "mailbox"),
    "SETQUOTA": Grammar(quota.parse_set, "quota-root (resource limit ...)"),
    "APPEND": Grammar(parse_append, 'mailbox [(flag ...)] ["date-time"] {size}'),
    **{
        name: Grammar(parse_replace, 'message mailbox [(flag ...)] ["date-time"] {size}')
        for name in ("REPLACE", "UID REPLACE")
    },
    "SEARCH": Grammar(parse_search, _SEARCH_USAGE),
    "UID SEARCH": Grammar(parse_search, _SEARCH_USAGE),
    "SORT": Grammar(parse_sort, _SORT_USAGE),
    "UID SORT": Grammar(parse_sort, _SORT_USAGE),
    "ESEARCH": Grammar(parse_esearch, f"[IN (mailboxes|subtree|personal|... name ...)] {_SEARCH_USAGE}"),
    "CANCELUPDATE": Grammar(parse_tags, '"tag" ...'),
    "THREAD": Grammar(parse_thread, _THREAD_USAGE),
    "UID THREAD": Grammar(parse_thread, _THREAD_USAGE),
    "FETCH": Grammar(_fetch_by_seq, _NUMBERS_ITEMS),
    "UID FETCH": Grammar(_fetch, _NUMBERS_ITEMS),
    "STORE": Grammar(_store, _STORE_USAGE),
    "UID STORE": Grammar(_store, _STORE_USAGE),
    **{
        name: Grammar(_arguments(CopyArgs, _SET, _MAILBOX), "sequence-set mailbox")
        for name in ("COPY", "UID COPY", "MOVE", "UID MOVE")
    },
    "UIDBATCHES": Grammar(_batches, "size [first:last]"),
    "UID EXPUNGE": Grammar(_arguments(NumbersArgs, _SET), "uid-set"),
}


def _name(cursor: Cursor) -> str:
    name = cursor.word("a command name")
    if name == "UID":
        cursor.space("FETCH, STORE, SEARCH, COPY, MOVE or EXPUNGE")
        name = "UID " + cursor.word("FETCH, STORE, SEARCH, COPY, MOVE or EXPUNGE")
    return name


def parse_command(frame: Frame, *, utf8: bool = False) -> Command:
    """Parse a frame. `utf8`: the client enabled IMAP4rev2 or UTF8=ACCEPT, so names are UTF-8 instead of modified UTF-7.

    Raises ImapSyntaxError for an unknown command or arguments that do not fit; nothing else.
    """
    cursor = Cursor(frame.pieces, utf8=utf8)
    name = _name(cursor)
    grammar = COMMANDS.get(name)
    if grammar is None:
        raise ImapSyntaxError(f"Unknown command {name[:40]}")
    cursor.quiet = grammar.secret
    try:
        args = grammar.parse(cursor)
        cursor.end()
    except ImapSyntaxError as error:
        if error.status == "BAD" and error.code is None:
            error.text += f" (usage: {name} {grammar.usage}".rstrip() + ")"
        raise
    return Command(frame.tag, name, args)


def command_name(frame: Frame) -> str:
    """The command's name in upper case ("UID FETCH"), "" if there is none: for logs and state checks before parsing."""
    try:
        return _name(Cursor(frame.pieces))
    except ImapSyntaxError:
        return ""


def parse_append_head(pieces: Sequence[Piece], *, utf8: bool = False) -> AppendArgs | ReplaceArgs:
    """Parse an APPEND or REPLACE up to a literal that is only announced: its last message then has no part yet.

    For LiteralOffer: check mailbox, flags and date before the client sends the octets. Raises ImapSyntaxError.
    """
    return parse_append_pieces(pieces, utf8=utf8)
