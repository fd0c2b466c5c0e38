"""What the server writes: the RFCs' lines, and no value that breaks out of its line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.imap import response
from mailcore.wire.imap.frames import Frame, Literal, Piece
from mailcore.wire.imap.numset import NumSet, parse_numset
from mailcore.wire.imap.tokens import Cursor
from tests.wire.imap.driving import frame_of


@pytest.mark.parametrize(
    ("value", "plain", "wide"),
    [
        ("", b'""', b'""'),
        ("a b", b'"a b"', b'"a b"'),
        ('say "\\"', b'"say \\"\\\\\\""', b'"say \\"\\\\\\""'),
        ("tab\there", b'"tab\there"', b'"tab\there"'),
        ("für", b"{4}\r\nf\xc3\xbcr", b'"f\xc3\xbcr"'),
        (b"f\xfcr", b"{3}\r\nf\xfcr", b"{3}\r\nf\xfcr"),
        ("a\r\nb", b"{4}\r\na\r\nb", b"{4}\r\na\r\nb"),
        ("a\0b", b"{2}\r\nab", b"{2}\r\nab"),
        ("x" * 1025, b"{1025}\r\n" + b"x" * 1025, b"{1025}\r\n" + b"x" * 1025),
        ("\ud800", b'"?"', b'"?"'),
    ],
)
def test_string(value: str | bytes, plain: bytes, wide: bytes) -> None:
    assert response.string(value) == plain
    assert response.string(value, utf8=True) == wide
    assert response.nstring(value) == plain


def test_nstring_and_astring() -> None:
    assert response.nstring(None) == b"NIL"
    assert response.astring("foo-bar") == b"foo-bar"
    assert [response.astring(text) for text in ("NIL", "nil", "", "a b", "a]", "a*")] == [
        b'"NIL"',
        b'"nil"',
        b'""',
        b'"a b"',
        b'"a]"',
        b'"a*"',
    ]


def test_literals() -> None:
    assert response.literal(b"abc") == b"{3}\r\nabc"
    assert response.literal(b"a\0c", binary=True) == b"~{3}\r\na\0c"
    assert response.literal_header(52428800) == b"{52428800}\r\n"


def test_mailbox_names() -> None:
    assert response.mailbox("INBOX") == b"INBOX"
    assert response.mailbox("Entwürfe") == b"Entw&APw-rfe"
    assert response.mailbox("Entwürfe", utf8=True) == b'"Entw\xc3\xbcrfe"'
    assert response.mailbox("a&b", utf8=True) == b"a&b"
    assert response.mailbox("My Mail/x") == b'"My Mail/x"'


def test_flags() -> None:
    assert response.flag_list(["\\Seen", "$Junk"]) == b"(\\Seen $Junk)"
    assert response.flag_list([]) == b"()"
    assert (
        response.code("PERMANENTFLAGS", response.flag_list(["\\Deleted", "\\*"])) == b"PERMANENTFLAGS (\\Deleted \\*)"
    )
    assert response.flags_line(["\\Answered"]) == b"* FLAGS (\\Answered)\r\n"


@pytest.mark.parametrize("flag", ["", "a b", "a)", "\\", "\\\\Seen", "a\r\n", "ü", "a*", "x\0"])
def test_bad_flags_are_our_error(flag: str) -> None:
    with pytest.raises(ValueError, match="flag"):
        response.flag_list([flag])


def test_internaldate() -> None:
    west = datetime(1996, 7, 17, 2, 44, 25, tzinfo=timezone(timedelta(hours=-7)))
    assert response.internaldate(west) == b'"17-Jul-1996 02:44:25 -0700"'
    assert response.internaldate(datetime(2024, 2, 1, tzinfo=UTC)) == b'" 1-Feb-2024 00:00:00 +0000"'
    odd = datetime(1990, 1, 2, tzinfo=timezone(-timedelta(hours=3, minutes=30, seconds=30)))
    assert response.internaldate(odd) == b'" 2-Jan-1990 00:00:00 -0330"'
    with pytest.raises(ValueError, match="zone"):
        response.internaldate(datetime(1990, 1, 2))


def test_status_lines() -> None:
    assert response.status_line("A1", "OK", "LOGIN completed") == b"A1 OK LOGIN completed\r\n"
    assert response.status_line(None, "BYE", "") == b"* BYE OK\r\n"
    assert response.status_line("a", "NO", "nope", "TRYCREATE") == b"a NO [TRYCREATE] nope\r\n"
    assert response.status_line("a", "OK", "[x] y") == b"a OK  [x] y\r\n"
    assert response.status_line("a", "BAD", "one\r\na OK two\0three") == b"a BAD one a OK two three\r\n"
    assert response.status_line("a", "NO", "für") == b"a NO f\xc3\xbcr\r\n"
    assert response.status_line("a", "OK", "x", response.code("UIDNEXT", b"17")) == b"a OK [UIDNEXT 17] x\r\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda: response.status_line("a b", "OK", "x"),
        lambda: response.status_line("a\r\nb", "OK", "x"),
        lambda: response.status_line("", "OK", "x"),
        lambda: response.status_line("*", "OK", "x"),
        lambda: response.status_line("+", "OK", "x"),
        lambda: response.status_line("a", "MAYBE", "x"),
        lambda: response.status_line("a", "OK", "x", "CODE] OK\r\n*"),
        lambda: response.status_line("a", "OK", "x", b""),
        lambda: response.status_line("a", "OK", "x", "CODE] x"),
        lambda: response.code("X]", b"1"),
        lambda: response.code("X", b"a]b"),
        lambda: response.code("X", b"a\r\nb"),
        lambda: response.quoted("a\r\nb"),
        lambda: response.quoted("a\0b"),
        lambda: response.quoted("ü"),
        lambda: response.quoted("a\nb", utf8=True),
        lambda: response.atom("a b"),
        lambda: response.continuation_line(b"abc\r\n* OK"),
        lambda: response.capability_line(["IMAP4rev1\r\n"]),
        lambda: response.enabled_line(["a b"]),
        lambda: response.status_data_line("x", {"MAILBOXID": "a) b"}),
        lambda: response.status_data_line("x", {"A B": 1}),
        lambda: response.list_line("x", ["\\Foo\r\n"]),
        lambda: response.list_line("x", [], command="LI ST"),
        lambda: response.esearch_line('a\r\n"', uid=False),
        lambda: response.vanished_line(NumSet()),
        lambda: response.copyuid_code(1, [], []),
    ],
)
def test_what_cannot_be_written_is_our_error(call: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (response.status_line("a]b", "OK", "x"), b"a]b OK x\r\n"),
        (response.continuation_line(), b"+ OK\r\n"),
        (response.continuation_line("Ready\r\nx"), b"+ Ready x\r\n"),
        (response.continuation_line(b""), b"+ \r\n"),
        (response.continuation_line(b"VXNlcm5hbWU6"), b"+ VXNlcm5hbWU6\r\n"),
        (response.capability_line(["IMAP4rev2", "AUTH=PLAIN"]), b"* CAPABILITY IMAP4rev2 AUTH=PLAIN\r\n"),
        (response.capability_code(["IDLE"]), b"CAPABILITY IDLE"),
        (response.enabled_line(["CONDSTORE"]), b"* ENABLED CONDSTORE\r\n"),
        (response.enabled_line([]), b"* ENABLED\r\n"),
        (response.id_line(None), b"* ID NIL\r\n"),
        (response.id_line({"name": "Mailstead", "os": None}), b'* ID ("name" "Mailstead" "os" NIL)\r\n'),
        (response.namespace_line([("", "/")]), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
        (
            response.namespace_line([("", "/")], [("Other Users/", "/")], [("#a/", "/"), ("ü/", "/")]),
            b'* NAMESPACE (("" "/")) (("Other Users/" "/")) (("#a/" "/")("&APw-/" "/"))\r\n',
        ),
        (response.list_line("Sent", ["\\HasNoChildren", "\\Sent"]), b'* LIST (\\HasNoChildren \\Sent) "/" Sent\r\n'),
        (response.list_line("", ["\\Noselect"]), b'* LIST (\\Noselect) "/" ""\r\n'),
        (response.list_line("a b", [], command="LSUB"), b'* LSUB () "/" "a b"\r\n'),
        (response.list_line("x", [], separator=None), b"* LIST () NIL x\r\n"),
        (
            response.list_line("Foo", ["\\NonExistent"], childinfo=["SUBSCRIBED"]),
            b'* LIST (\\NonExistent) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))\r\n',
        ),
        (response.list_line("NEW", [], oldname="Old One"), b'* LIST () "/" NEW ("OLDNAME" ("Old One"))\r\n'),
        (
            response.status_data_line(
                "blurdybloop", {"MESSAGES": 231, "UIDNEXT": 44292, "MAILBOXID": "F2212ea8", "APPENDLIMIT": None}
            ),
            b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 MAILBOXID (F2212ea8) APPENDLIMIT NIL)\r\n",
        ),
        (response.exists_line(23), b"* 23 EXISTS\r\n"),
        (response.recent_line(5), b"* 5 RECENT\r\n"),
        (response.expunge_line(44), b"* 44 EXPUNGE\r\n"),
        (response.vanished_line(parse_numset(b"405,407,410,425")), b"* VANISHED 405,407,410,425\r\n"),
        (
            response.vanished_line(parse_numset(b"41,43:116"), earlier=True),
            b"* VANISHED (EARLIER) 41,43:116\r\n",
        ),
        (
            response.fetch_line(23, [b"FLAGS " + response.flag_list(["\\Seen"]), b"RFC822.SIZE 44827"]),
            b"* 23 FETCH (FLAGS (\\Seen) RFC822.SIZE 44827)\r\n",
        ),
        (response.search_line([2, 3, 6]), b"* SEARCH 2 3 6\r\n"),
        (response.search_line([]), b"* SEARCH\r\n"),
        (response.search_line([2, 5], modseq=917162500), b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"),
        (
            response.esearch_line("A283", uid=False, all=parse_numset(b"2,10:15,21")),
            b'* ESEARCH (TAG "A283") ALL 2,10:15,21\r\n',
        ),
        (
            response.esearch_line("a", uid=True, minimum=7, maximum=3800, count=0, all=NumSet(), modseq=9),
            b'* ESEARCH (TAG "a") UID MIN 7 MAX 3800 COUNT 0 MODSEQ 9\r\n',
        ),
        (response.esearch_line("A284", uid=False), b'* ESEARCH (TAG "A284")\r\n'),
        (response.appenduid_code(38505, NumSet.of([3955])), b"APPENDUID 38505 3955"),
        (
            response.copyuid_code(38505, [304, 319, 320], [3956, 3957, 3958]),
            b"COPYUID 38505 304,319:320 3956:3958",
        ),
        (response.copyuid_code(1, [5, 3, 4], [9, 1, 2]), b"COPYUID 1 5,3:4 9,1:2"),
    ],
)
def test_lines(line: bytes, wanted: bytes) -> None:
    assert line == wanted


# -- what is written is read back by our own grammar


def pieces_of(coded: bytes) -> tuple[Piece, ...]:
    """A server's literal read as a client's non-synchronizing one."""
    size, _, data = coded.partition(b"}\r\n")
    frame = frame_of(b"a " + (size + b"+}\r\n" + data if coded.startswith(b"{") else coded) + b"\r\n")
    assert isinstance(frame, Frame)
    return frame.pieces


text = st.text(max_size=20)


@given(text, st.booleans())
def test_strings_are_read_back(value: str, utf8: bool) -> None:
    wanted = value.encode("utf-8", "replace").replace(b"\0", b"")
    for encode in (response.string, response.astring):
        cursor = Cursor(pieces_of(encode(value, utf8=utf8)))
        assert cursor.astring("x") == wanted
        cursor.end()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20), st.booleans())
def test_mailbox_names_are_read_back(name: str, utf8: bool) -> None:
    cursor = Cursor(pieces_of(response.mailbox(name, utf8=utf8)), utf8=utf8)
    assert cursor.reference() == name
    cursor.end()


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_dates_are_read_back(when: datetime, offset: int) -> None:
    aware = when.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    cursor = Cursor((response.internaldate(aware),))
    read = cursor.date_time()
    assert (read, read.utcoffset()) == (aware, aware.utcoffset())


@given(st.lists(st.sampled_from(["\\Seen", "\\Draft"]) | st.text("ab$-_.:+", min_size=1, max_size=5), unique=True))
def test_flags_are_read_back(flags: list[str]) -> None:
    cursor = Cursor((response.flag_list(flags),))
    assert cursor.flag_list() == tuple(flags)
    cursor.end()


@given(st.lists(st.integers(1, 30), min_size=1))
def test_copyuid_keeps_the_order(numbers: list[int]) -> None:
    coded = response.copyuid_code(1, numbers, numbers).split()
    assert coded[2] == coded[3]
    expanded = []
    for part in coded[2].split(b","):
        first, _, last = part.partition(b":")
        expanded += range(int(first), int(last or first) + 1)
    assert expanded == numbers


@given(text, text, st.booleans())
def test_no_value_breaks_out_of_its_line(one: str, two: str, utf8: bool) -> None:
    printable = one.encode("utf-8", "replace").decode()
    lines = [
        response.status_line("a", "NO", one),
        response.continuation_line(one),
        response.id_line({"name": one, "x": two}),
        response.status_data_line(printable, {"MESSAGES": 1}, utf8=utf8),
        response.list_line(printable, [], utf8=utf8, oldname=printable),
    ]
    for line in lines:
        assert line.endswith(b"\r\n")
        body = line[:-2]
        while True:
            # Outside of counted literals nothing but the end is CR, LF or NUL.
            head, brace, rest = body.partition(b"}\r\n")
            if not brace:
                assert not set(head) & {0, 10, 13}
                break
            start = head.rindex(b"{")
            assert not set(head[:start]) & {0, 10, 13}
            body = rest[int(head[start + 1 :]) :]


def test_a_literal_piece_reads_like_a_quoted_string() -> None:
    assert Cursor((b"", Literal(b"a b"), b"")).astring("x") == b"a b"
