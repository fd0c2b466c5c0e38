"""Each command's grammar, with the examples of the RFCs where they have one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore.wire.imap.commands import (
    AppendArgs,
    AppendMessage,
    Args,
    AuthenticateArgs,
    CatenateUrl,
    Command,
    CopyArgs,
    CreateArgs,
    EnableArgs,
    FetchArgs,
    IdArgs,
    ListArgs,
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
)
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import FetchAttr
from mailcore.wire.imap.frames import Frame
from mailcore.wire.imap.numset import STAR, SequenceSet
from mailcore.wire.imap.parse import COMMANDS, command_name, parse_append_head, parse_command
from tests.wire.imap.driving import ROOMY, Literal, LiteralOffer, StreamedLiteral, by_size, events_of, frame_of


def parsed(text: bytes, *, utf8: bool = False) -> Command:
    return parse_command(frame_of(b"A1 " + text + b"\r\n"), utf8=utf8)


def args(text: bytes, *, utf8: bool = False) -> Args:
    return parsed(text, utf8=utf8).args


def error(text: bytes, *, utf8: bool = False) -> ImapSyntaxError:
    with pytest.raises(ImapSyntaxError) as caught:
        parsed(text, utf8=utf8)
    assert caught.value.text and caught.value.text.isascii() and caught.value.text.isprintable()
    return caught.value


def seqs(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ONE = seqs((1, 1))


@pytest.mark.parametrize(
    "name", ["CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "IDLE", "NAMESPACE"]
)
def test_commands_without_arguments(name: str) -> None:
    assert parsed(name.lower().encode()) == Command("A1", name, NoArgs())
    assert parsed(name.encode() + b" ").args == NoArgs()
    assert "end of the command" in error(name.encode() + b" x").text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"LOGIN SMITH SESAME", LoginArgs("SMITH", "SESAME")),
        (b'login "jo\\"e" "a\\\\b c"', LoginArgs('jo"e', "a\\b c")),
        (b"LOGIN {3+}\r\nbob {6+}\r\np\xc3\xa4ss\r", LoginArgs("bob", "päss\r")),
        (b"LOGIN a]b NIL", LoginArgs("a]b", "NIL")),
        (b'LOGIN u ""', LoginArgs("u", "")),
        (b"AUTHENTICATE GSSAPI", AuthenticateArgs("GSSAPI", None)),
        (b"AUTHENTICATE plain dGVzdAB0ZXN0AHRlc3Q=", AuthenticateArgs("PLAIN", b"dGVzdAB0ZXN0AHRlc3Q=")),
        (b"AUTHENTICATE EXTERNAL =", AuthenticateArgs("EXTERNAL", b"=")),
        (b"ENABLE CONDSTORE x-good-idea CONDSTORE", EnableArgs(("CONDSTORE", "X-GOOD-IDEA"))),
        (b'ID ("name" "sodr" "version" NIL)', IdArgs((("name", "sodr"), ("version", None)))),
        (b"ID nil", IdArgs(None)),
        (b"ID ()", IdArgs(())),
        (b'ID ("os" "\xff")', IdArgs((("os", "\ufffd"),))),
        (b"SELECT INBOX", SelectArgs("INBOX")),
        (b"EXAMINE blurdybloop", SelectArgs("blurdybloop")),
        (b"SELECT inbox (CONDSTORE)", SelectArgs("INBOX", condstore=True)),
        (b"SELECT inBOX/Sub", SelectArgs("INBOX/Sub")),
        (b"SELECT inboxes", SelectArgs("inboxes")),
        (
            b"SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
            SelectArgs(
                "INBOX",
                qresync=QresyncParams(67890007, 20050715194045000, seqs((41, 41), (43, 211), (214, 541)), None),
            ),
        ),
        (
            b"SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1:171 41:211)) CONDSTORE)",
            SelectArgs(
                "INBOX",
                condstore=True,
                qresync=QresyncParams(
                    67890007, 90060115194045000, seqs((41, 211), (214, 541)), (seqs((1, 171)), seqs((41, 211)))
                ),
            ),
        ),
        (
            b"SELECT INBOX (QRESYNC (1 2 (1 41)))",
            SelectArgs("INBOX", qresync=QresyncParams(1, 2, None, (ONE, seqs((41, 41))))),
        ),
        (b"SELECT INBOX (QRESYNC (1 2))", SelectArgs("INBOX", qresync=QresyncParams(1, 2, None, None))),
        (b"CREATE owatagusiam/", CreateArgs("owatagusiam")),
        (b"CREATE /", CreateArgs("/")),
        (b"CREATE owatagusiam/blurdybloop", CreateArgs("owatagusiam/blurdybloop")),
        (b"CREATE MySpecial (USE (\\Drafts \\sent \\Foo))", CreateArgs("MySpecial", ("\\Drafts", "\\Sent", "\\Foo"))),
        (b"CREATE x (USE ())", CreateArgs("x")),
        (b"DELETE foo/bar", MailboxArgs("foo/bar")),
        (b"RENAME INBOX old-mail", RenameArgs("INBOX", "old-mail")),
        (b"SUBSCRIBE #news.comp.mail.mime", MailboxArgs("#news.comp.mail.mime")),
        (b'UNSUBSCRIBE "with space"', MailboxArgs("with space")),
        (b"DELETE &U,BTFw-/&ZeVnLIqe-", MailboxArgs("台北/日本語")),
        (b'LIST "" ""', ListArgs("", ("",))),
        (b"LIST ~/Mail/ %", ListArgs("~/Mail/", ("%",))),
        (b'LIST "" inbox*]', ListArgs("", ("inbox*]",))),
        (b'LSUB "#news." "comp.mail.*"', ListArgs("#news.", ("comp.mail.*",))),
        (b'LIST "" &U,BTFw-%', ListArgs("", ("台北%",))),
        (
            b'LIST (SUBSCRIBED recursivematch) "" ("INBOX" "Drafts" "Sent/%")',
            ListArgs(
                "",
                ("INBOX", "Drafts", "Sent/%"),
                selection=frozenset(("SUBSCRIBED", "RECURSIVEMATCH")),
                extended=True,
            ),
        ),
        (b'LIST () "" "*"', ListArgs("", ("*",), extended=True)),
        (
            b'LIST "" % RETURN (STATUS (MESSAGES UNSEEN) CHILDREN)',
            ListArgs("", ("%",), returns=frozenset(("CHILDREN",)), status_items=("MESSAGES", "UNSEEN"), extended=True),
        ),
        (
            b'LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE SUBSCRIBED)',
            ListArgs(
                "",
                ("*",),
                selection=frozenset(("SPECIAL-USE",)),
                returns=frozenset(("SPECIAL-USE", "SUBSCRIBED")),
                extended=True,
            ),
        ),
        (b'LIST "" * return ()', ListArgs("", ("*",), extended=True)),
        (b"STATUS blurdybloop (UIDNEXT MESSAGES UIDNEXT)", StatusArgs("blurdybloop", ("UIDNEXT", "MESSAGES"))),
        (
            b"STATUS x (deleted size highestmodseq unseen uidvalidity recent mailboxid appendlimit)",
            StatusArgs(
                "x",
                ("DELETED", "SIZE", "HIGHESTMODSEQ", "UNSEEN", "UIDVALIDITY", "RECENT", "MAILBOXID", "APPENDLIMIT"),
            ),
        ),
        (b"FETCH 2:4 FLAGS", FetchArgs(seqs((2, 4)), (FetchAttr("FLAGS"),))),
        (b"FETCH 1 (FLAGS UID FLAGS)", FetchArgs(ONE, (FetchAttr("FLAGS"), FetchAttr("UID")))),
        (b"FETCH $ (FLAGS)", FetchArgs(SequenceSet(saved=True), (FetchAttr("FLAGS"),))),
        (b"FETCH 1 FLAGS (CHANGEDSINCE 0)", FetchArgs(ONE, (FetchAttr("FLAGS"),), 0)),
        (
            b"UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)",
            FetchArgs(seqs((300, 500)), (FetchAttr("FLAGS"),), 12345, True),
        ),
        (
            b"UID FETCH 1:* FLAGS (VANISHED CHANGEDSINCE 9223372036854775807)",
            FetchArgs(seqs((1, STAR)), (FetchAttr("FLAGS"),), 2**63 - 1, True),
        ),
        (b"STORE 2:4 +FLAGS (\\Deleted)", StoreArgs(seqs((2, 4)), "add", ("\\Deleted",))),
        (b"STORE 1 flags.silent (\\SEEN $Junk \\seen)", StoreArgs(ONE, "replace", ("\\Seen", "$Junk"), True)),
        (b"STORE 1 -FLAGS \\Seen keyword", StoreArgs(ONE, "remove", ("\\Seen", "keyword"))),
        (b"STORE 1 FLAGS ()", StoreArgs(ONE, "replace", ())),
        (
            b"UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)",
            StoreArgs(seqs((6, 6), (4, 4), (8, 8)), "add", ("\\Deleted",), True, 12121230045),
        ),
        (b"STORE 12 (UNCHANGEDSINCE 0) +FLAGS ($MDNSent)", StoreArgs(seqs((12, 12)), "add", ("$MDNSent",), False, 0)),
        (b"COPY 2:4 MEETING", CopyArgs(seqs((2, 4)), "MEETING")),
        (b"UID COPY *:4 {7+}\r\nMEETING", CopyArgs(seqs((STAR, 4)), "MEETING")),
        (b"MOVE 1 inbox", CopyArgs(ONE, "INBOX")),
        (b"UID MOVE 42:69 foo", CopyArgs(seqs((42, 69)), "foo")),
        (b"UID EXPUNGE 3000:3002", NumbersArgs(seqs((3000, 3002)))),
    ],
)
def test_arguments(text: bytes, wanted: Args) -> None:
    assert args(text) == wanted
    assert args(text + b" ") == wanted, "one trailing space is harmless"


def test_names_are_upper_case_with_one_space() -> None:
    command = parsed(b"uid fetch 1 flags")
    assert command.name == "UID FETCH" and command.uid
    assert not parsed(b"fetch 1 flags").uid
    assert command_name(frame_of(b"a uId  x\r\n")) == ""
    assert command_name(frame_of(b"a uId expunge 1\r\n")) == "UID EXPUNGE"
    assert command_name(frame_of(b"a frobnicate (\r\n")) == "FROBNICATE"


def test_names_are_utf8_once_the_client_said_so() -> None:
    assert args('SELECT "日本/&-"'.encode(), utf8=True) == SelectArgs("日本/&-")
    assert args('LIST "" "日%"'.encode(), utf8=True) == ListArgs("", ("日%",))
    assert "modified UTF-7" in error('SELECT "日本"'.encode()).text
    assert "UTF-8" in error(b'SELECT "\xff"', utf8=True).text


@pytest.mark.parametrize(
    "text",
    [
        b"FROBNICATE",
        b"UID",
        b"UID NOOP",
        b"UID  FETCH 1 FLAGS",
        b"(",
        b" NOOP",
        b"LOGIN",
        b"LOGIN a",
        b"LOGIN  a b",
        b"LOGIN a b c",
        b'LOGIN "a b',
        b'LOGIN "a\\n" b',
        b"LOGIN a {1+}\r\n\0",
        b"LOGIN a ~{1+}\r\nb",
        b"LOGIN \xe9 b",
        b'LOGIN "\xe9" b',
        b"LOGIN a*b c",
        b"AUTHENTICATE",
        b"AUTHENTICATE PLAIN a=b",
        b"ENABLE",
        b"ENABLE (",
        b"ID",
        b"ID name",
        b'ID ("a")',
        b'ID ("a" b)',
        b'ID (' + b" ".join([b'"a" "b"'] * 31) + b")",
        b"SELECT",
        b"SELECT a b",
        b"SELECT &bad",
        b"SELECT &AAA-",
        b"SELECT {3+}\r\na\nb",
        b"SELECT " + b"x" * 1001,
        b"SELECT x ()",
        b"SELECT x (CONDSTORE CONDSTORE)",
        b"SELECT x (QRESYNC)",
        b"SELECT x (QRESYNC (0 1))",
        b"SELECT x (QRESYNC (1 0))",
        b"SELECT x (QRESYNC (1 1 1:*))",
        b"SELECT x (QRESYNC (1 1 $))",
        b"SELECT x (QRESYNC (1 1 (1)))",
        b"SELECT x (QRESYNC (1 1 (1:3 1,5)))",
        b"SELECT x (QRESYNC (1 1 1:9 (1,3 5)))",
        b"SELECT x (QRESYNC (1 9223372036854775808))",
        b"CREATE x (USE)",
        b"CREATE x (USE (Sent))",
        b"CREATE x (FOO (x))",
        b"RENAME a",
        b"LIST",
        b'LIST ""',
        b'LIST "" ()',
        b'LIST "" % (x)',
        b'LIST "" % RETURN',
        b'LIST "" % RETURN (FOO)',
        b'LIST "" % RETURN (STATUS)',
        b'LIST (FOO) "" %',
        b'LIST (RECURSIVEMATCH) "" %',
        b'LIST (RECURSIVEMATCH REMOTE) "" %',
        b'LIST "" (' + b" ".join([b"x"] * 26) + b")",
        b"LIST % %",
        b"STATUS x",
        b"STATUS x ()",
        b"STATUS x MESSAGES",
        b"STATUS x (FOO)",
        b"FETCH",
        b"FETCH 0 FLAGS",
        b"FETCH 1:2:3 FLAGS",
        b"FETCH 1,,2 FLAGS",
        b"FETCH 4294967296 FLAGS",
        b"FETCH 01 FLAGS",
        b"FETCH 1 FLAGS (CHANGEDSINCE -1)",
        b"FETCH 1 FLAGS (CHANGEDSINCE 5 VANISHED)",
        b"UID FETCH 1 FLAGS (VANISHED)",
        b"STORE 1 FLAGS",
        b"STORE 1 FLAG (\\Seen)",
        b"STORE 1 +FLAGS (\\Recent)",
        b"STORE 1 +FLAGS (\\Foo)",
        b"STORE 1 +FLAGS (\\*)",
        b"STORE 1 +FLAGS (a)(b)",
        b"STORE 1 +FLAGS (" + b" ".join(b"k%d" % n for n in range(201)) + b")",
        b"STORE 1 (UNCHANGEDSINCE -1) FLAGS ()",
        b"COPY 1",
        b"COPY x y",
        b"UID EXPUNGE",
        b"UID EXPUNGE x",
        b"APPEND",
        b"APPEND x",
        b"APPEND x y",
        b"APPEND x (\\Seen)",
        b"APPEND x {1+}\r\na {1+}\r\nb y",
        b'APPEND x "17-Jul-1996 02:44:25" {1+}\r\na',
        b"APPEND x {1+}\r\na(\\Seen) {1+}\r\nb",
        b"APPEND x UTF8 ({1+}\r\na)",
        b"APPEND x UTF8 (~{1+}\r\na",
        b"APPEND x CATENATE ()",
        b"APPEND x CATENATE (FOO {1+}\r\na)",
        b"APPEND {1+}\r\n\0 {1+}\r\na",
        b"APPEND x UTF8 (a)",
        b"APPEND x CATENATE (TEXT a)",
        b"APPEND x" + b" {0+}\r\n" * 1001,
        b"SELECT &" + b"A" * 5000 + b"-",
    ],
)  # fmt: skip
def test_bad_arguments(text: bytes) -> None:
    assert error(text).status in ("BAD", "NO")


def test_a_known_command_with_bad_arguments_says_what_was_expected() -> None:
    assert error(b"LOGIN bob").text == "Expected a space and a password (usage: LOGIN user password)"
    assert error(b"RENAME a {3+}\r\na\nb").text.startswith("The mailbox name is not valid modified UTF-7")
    assert error(b"FETCH x FLAGS").text.startswith("Expected a sequence set such as 1:5,7,9:*, got 'x FLAGS'")
    assert error(b"COPY 1").text.startswith("Expected a space and a mailbox name, got the end of the line")
    assert error(b"COPY {1+}\r\n1 x").text.startswith("Expected a sequence set such as 1:5,7,9:*, got a literal")
    assert error(b"FOO bar").text == "Unknown command FOO"
    assert error(b"UID NOOP").text == "Unknown command UID NOOP"


@pytest.mark.parametrize("text", [b"LOGIN bob hunter2 x", b"LOGIN bob (hunter2", b"AUTHENTICATE PLAIN hunter2*"])
def test_errors_never_quote_a_secret(text: bytes) -> None:
    assert "hunter2" not in error(text).text


def test_secrets_do_not_show_in_repr() -> None:
    assert "hunter2" not in repr(parsed(b"LOGIN bob hunter2"))
    assert "hunter2" not in repr(parsed(b"AUTHENTICATE PLAIN hunter2="))
    assert {name for name, grammar in COMMANDS.items() if grammar.secret} == {"LOGIN", "AUTHENTICATE"}


WHEN = datetime(1994, 2, 7, 21, 52, 25, tzinfo=timezone(timedelta(hours=-8)))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (b"{3+}\r\nabc", [AppendMessage((), None, (Literal(b"abc"),))]),
        (b"(\\Seen) {3+}\r\nabc", [AppendMessage(("\\Seen",), None, (Literal(b"abc"),))]),
        (
            b'(\\Seen) " 7-Feb-1994 21:52:25 -0800" ~{3+}\r\na\0c',
            [AppendMessage(("\\Seen",), WHEN, (Literal(b"a\0c", binary=True),))],
        ),
        (b'"07-feb-1994 21:52:25 -0800" {0+}\r\n', [AppendMessage((), WHEN, (Literal(b""),))]),
        (
            b"(\\Seen) {1+}\r\na () {1+}\r\nb",
            [AppendMessage(("\\Seen",), None, (Literal(b"a"),)), AppendMessage((), None, (Literal(b"b"),))],
        ),
        (b"UTF8 (~{2+}\r\nab)", [AppendMessage((), None, (Literal(b"ab", binary=True),), utf8=True)]),
        (
            b'CATENATE (URL "/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER" TEXT {2+}\r\nhi TEXT {0+}\r\n)',
            [
                AppendMessage(
                    (),
                    None,
                    (
                        CatenateUrl("/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER"),
                        Literal(b"hi"),
                        Literal(b""),
                    ),
                    catenate=True,
                )
            ],
        ),
    ],
)
def test_append(text: bytes, messages: list[AppendMessage]) -> None:
    assert args(b"APPEND inbox " + text) == AppendArgs("INBOX", tuple(messages))
    assert args(b"APPEND inbox " + text + b" ") == AppendArgs("INBOX", tuple(messages))
    assert args(b"APPEND {5+}\r\ninbox " + text) == AppendArgs("INBOX", tuple(messages))


def test_append_with_streamed_messages() -> None:
    frame = events_of([b"a APPEND x {1+}\r\na {2+}\r\nbb\r\n"])[-1]
    assert isinstance(frame, Frame)
    wanted = (
        AppendMessage((), None, (StreamedLiteral(0, 1),)),
        AppendMessage((), None, (StreamedLiteral(1, 2),)),
    )
    assert parse_command(frame).args == AppendArgs("x", wanted)


def test_the_head_of_an_append_is_known_before_its_octets() -> None:
    data = (
        b'a APPEND inbox (\\Seen) " 7-Feb-1994 21:52:25 -0800" {1+}\r\na (\\Draft) {2+}\r\nbb'
        b" CATENATE (TEXT {1+}\r\nx TEXT {1+}\r\ny) UTF8 (~{1+}\r\nz)\r\n"
    )
    offers = [event for event in events_of([data]) if isinstance(event, LiteralOffer)]
    heads = [parse_append_head(offer.pieces).messages for offer in offers]
    assert heads[0] == (AppendMessage(("\\Seen",), WHEN, ()),)
    assert heads[1][1] == AppendMessage(("\\Draft",), None, ())
    assert heads[2][2] == AppendMessage((), None, (), catenate=True)
    assert heads[3][2] == AppendMessage((), None, (StreamedLiteral(2, 1),), catenate=True)
    assert heads[4][3] == AppendMessage((), None, (), utf8=True)


def test_the_head_of_a_replace_is_known_before_its_octets() -> None:
    data = b"a UID REPLACE 7 {3+}\r\nbox (\\Draft) {1+}\r\na\r\nb REPLACE * x CATENATE (TEXT {1}\r\nc)\r\n"
    offers = [event for event in events_of([data]) if isinstance(event, LiteralOffer)]
    assert [parse_append_head(offer.pieces) for offer in offers] == [
        ReplaceArgs(7, "box", AppendMessage(("\\Draft",), None, ())),
        ReplaceArgs(0, "x", AppendMessage((), None, (), catenate=True)),
    ]
    for text in (b"APPEND", b"APPEND x y ", b"APPEND (x) ", b"APPEND x (\\Recent) ", b"NOOP "):
        with pytest.raises(ImapSyntaxError):
            parse_append_head((text,))


@pytest.mark.parametrize(
    "date",
    [
        b"31-Feb-1994 21:52:25 -0800",
        b" 7-Foo-1994 21:52:25 -0800",
        b" 7-Feb-1994 24:00:00 -0800",
        b" 7-Feb-1994 21:52:61 -0800",
        b" 7-Feb-1994 21:52:25 -0860",
        b" 7-Feb-1994 21:52:25 +2400",
        b" 1-Jan-0001 00:00:00 +0100",
        b"31-Dec-9999 23:59:59 -0100",
        b" 7-Feb-0000 21:52:25 -0800",
        b"7-Feb-1994 21:52:25 -0800",
        b" 7-Feb-94 21:52:25 -0800",
    ],
)
def test_dates_that_do_not_exist(date: bytes) -> None:
    assert "date and time" in error(b'APPEND x "' + date + b'" {1+}\r\na').text


def test_a_leap_second_becomes_the_one_before() -> None:
    (message,) = args(b'APPEND x "31-Dec-2016 23:59:60 +0000" {1+}\r\na').messages
    assert message.internaldate.second == 59


WORDS = sorted({word.encode() for name in COMMANDS for word in name.split()})
TOKENS = [
    *WORDS, b" ", b" ", b" ", b"(", b")", b'"', b'""', b"\\", b"\\Seen", b"*", b"1", b"1:*", b"$", b"x", b"INBOX",
    b"&", b"&-",
    b"RETURN ", b"CHARSET ", b"UTF-8", b"NIL", b"BODY[", b"]", b"<0.1>", b"HEADER.FIELDS (", b"CHANGEDSINCE ",
    b"+FLAGS",
    b"OR", b"NOT", b"FROM", b"SINCE", b"1-Feb-1994", b'"17-Jul-1996 02:44:25 -0700"', b"UTF8", b"CATENATE", b"TEXT",
    b"{3+}\r\nabc", b"~{2+}\r\n\0\0", b"{0+}\r\n", b"\xff", b"\0", b"99999999999999999999999", b"QRESYNC (", b"USE (",
]  # fmt: skip


@settings(max_examples=600)
@given(
    st.sampled_from(sorted(COMMANDS)),
    st.lists(st.sampled_from(TOKENS) | st.binary(max_size=3), max_size=15),
    st.booleans(),
)
def test_no_arguments_raise_anything_else(name: str, tokens: list[bytes], utf8: bool) -> None:
    data = b"a " + name.encode() + b" " + b"".join(tokens) + b"\r\n"
    for event in events_of([data], ROOMY, by_size):
        if isinstance(event, LiteralOffer):
            try:
                parse_append_head(event.pieces, utf8=utf8)
            except ImapSyntaxError:
                pass
        elif isinstance(event, Frame):
            command_name(event)
            try:
                parse_command(event, utf8=utf8)
            except ImapSyntaxError as caught:
                assert "\r" not in caught.text and "\n" not in caught.text
