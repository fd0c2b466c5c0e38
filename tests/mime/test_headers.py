"""Header fields: picking by name, decoding, addresses, dates, identifiers, base subject."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mailcore import mime
from mailcore.mime.types import Addr, Mailbox

BLOCK = (
    b"Received: from a\r\n\tby b;\r\n Tue, 4 Mar 2025\r\n"
    b"From: Anna <anna@example.org>\r\n"
    b"SUBJECT: one\r\n two\r\n"
    b"junk without a colon\r\n"
    b"X-From: not From\r\n"
    b"To : spaced@example.net\r\n"
    b"Subject: again\r\n"
    b"\r\n"
)


def pick(*names: bytes, exclude: bool = False, block: bytes = BLOCK) -> bytes:
    return mime.header_fields(block, frozenset(names), exclude)


def test_header_fields_come_unmodified_in_the_order_of_the_message() -> None:
    assert pick(b"subject", b"from") == (
        b"From: Anna <anna@example.org>\r\nSUBJECT: one\r\n two\r\nSubject: again\r\n\r\n"
    )


def test_header_fields_match_whole_names_only() -> None:
    assert pick(b"from") == b"From: Anna <anna@example.org>\r\n\r\n"
    assert pick(b"subj") == b"\r\n"
    assert pick(b"x-from") == b"X-From: not From\r\n\r\n"
    assert pick(b".*") == b"\r\n"


def test_header_fields_may_have_space_before_the_colon() -> None:
    assert pick(b"to") == b"To : spaced@example.net\r\n\r\n"


def test_header_fields_not() -> None:
    assert pick(b"subject", b"from", b"received", exclude=True) == (
        b"X-From: not From\r\nTo : spaced@example.net\r\n\r\n"
    )
    assert pick(exclude=True, block=b"A: 1\r\nB: 2\r\n\r\n") == b"A: 1\r\nB: 2\r\n\r\n"


def test_no_header_fields_at_all_are_a_blank_line() -> None:
    assert pick() == b"\r\n"
    assert pick(b"from", block=b"") == b"\r\n"


def test_a_last_line_without_line_end_gets_one() -> None:
    assert pick(b"a", block=b"A: 1") == b"A: 1\r\n\r\n"


def test_header_values() -> None:
    assert mime.header_values(BLOCK, b"Subject") == [b"one two", b"again"]
    assert mime.header_values(BLOCK, b"received") == [b"from a by b; Tue, 4 Mar 2025"]
    assert mime.header_values(BLOCK, b"missing") == []


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # The examples of RFC 2047, section 8.
        (b"=?US-ASCII?Q?Keith_Moore?=", "Keith Moore"),
        (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?=", "Keld Jørn Simonsen"),
        (b"=?ISO-8859-1?Q?a?=", "a"),
        (b"=?ISO-8859-1?Q?a?= b", "a b"),
        (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a_b?=", "a b"),
        (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        # RFC 2231, section 5: a language.
        (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
        # A character cut between two words.
        (b"=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "é"),
        # What breaks the rules but is meant.
        (b"=?utf-8?q?caf=c3=a9?=!", "café!"),
        (b"pre=?utf-8?q?_mid_?=post", "pre mid post"),
        (b"=?utf-8?q?with space?=", "with space"),
        (b"=?utf-8?b?w6k?=", "é"),
        (b"=?utf-8?q??=", ""),
        (b"=?utf-8?q?a=00b?=", "ab"),
        (b"=?utf-8?q?a=0D=0Ab?=", "a  b"),
        (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
        (b"=?utf-8?q?never closed", "=?utf-8?q?never closed"),
        # Without any encoding.
        ("schön".encode(), "schön"),
        ("schön".encode("latin-1"), "schön"),
        (b"5 \x80", "5 €"),
        (b"folded\r\n here\r\n\tand there", "folded here and there"),
        (b"  trimmed \t", "trimmed"),
        (b"\x00\x07", ""),
    ],
)
def test_decode_header(raw: bytes, text: str) -> None:
    assert mime.decode_header(raw) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a@b.example", [Mailbox(None, None, b"a", b"b.example")]),
        (b"<a@b>", [Mailbox(None, None, b"a", b"b")]),
        (b"A B <a@b>, c@d", [Mailbox(b"A B", None, b"a", b"b"), Mailbox(None, None, b"c", b"d")]),
        (b'"A, B" <a@b>', [Mailbox(b"A, B", None, b"a", b"b")]),
        (b'"A \\"x\\" B" <a@b>', [Mailbox(b'A "x" B', None, b"a", b"b")]),
        (b"a@b (A B)", [Mailbox(b"A B", None, b"a", b"b")]),
        (b"(A (nested) B) a@b", [Mailbox(b"A (nested) B", None, b"a", b"b")]),
        (b'"a b"@c', [Mailbox(None, None, b"a b", b"c")]),
        (b"<@r1,@r2:a@b>", [Mailbox(None, b"@r1,@r2", b"a", b"b")]),
        (b"a@[IPv6:::1]", [Mailbox(None, None, b"a", b"[IPv6:::1]")]),
        (b"a . b @ c . d", [Mailbox(None, None, b"a.b", b"c.d")]),
        (b"root", [Mailbox(None, None, b"root", b"")]),
        (b"Anna anna@b", [Mailbox(b"Anna", None, b"anna", b"b")]),
        (
            b"G: a@b, C <c@d>;, e@f",
            [
                Mailbox(None, None, b"G", None),
                Mailbox(None, None, b"a", b"b"),
                Mailbox(b"C", None, b"c", b"d"),
                Mailbox(None, None, None, None),
                Mailbox(None, None, b"e", b"f"),
            ],
        ),
        (
            b"G: a@b",
            [Mailbox(None, None, b"G", None), Mailbox(None, None, b"a", b"b"), Mailbox(None, None, None, None)],
        ),
        (b"", []),
        (b" , ,", []),
        (b"<>", []),
        (b"(nothing)", []),
    ],
)
def test_parse_addresses(value: bytes, expected: list[Mailbox]) -> None:
    assert mime.parse_addresses(value) == expected


def summary(header: bytes) -> mime.Summary:
    return mime.parse(header + b"\r\n\r\n").summary


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Anna <anna@example.org>", Addr("Anna", "anna@example.org")),
        (b"=?utf-8?Q?J=C3=BCrgen?= <j@example.org>", Addr("Jürgen", "j@example.org")),
        (b'"=?utf-8?Q?J=C3=BCrgen?=" <j@example.org>', Addr("Jürgen", "j@example.org")),
        (b'"" <j@example.org>', Addr(None, "j@example.org")),
        (b'"john doe"@example.org', Addr(None, '"john doe"@example.org')),
        (b"foo..bar@docomo.example", Addr(None, "foo..bar@docomo.example")),
        (b"Many   spaces\r\n  here <a@b>", Addr("Many spaces here", "a@b")),
        ("Zoë <zoë@exämple.org>".encode(), Addr("Zoë", "zoë@exämple.org")),
    ],
)
def test_people(value: bytes, expected: Addr) -> None:
    assert summary(b"From: " + value).from_ == (expected,)


def test_the_quick_way_through_addresses_is_the_thorough_one() -> None:
    """Simple lists are read by one pattern, all others by the tokeniser: an empty comment sends them there."""
    for value in (b"a@b, C D <c@d>", b'"Q, R" <q@r>,s.t+u@v-w.x', b"E=?utf-8?q?=C3=A9?= <e@f>", b"a@b,", b"  a@b  "):
        quick = mime.parse(b"To: " + value + b"\r\n\r\n")
        thorough = mime.parse(b"To: ()" + value + b"\r\n\r\n")
        assert quick.envelope == thorough.envelope
        assert quick.summary == thorough.summary


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Fri, 21 Nov 1997 09:55:06 -0600", datetime(1997, 11, 21, 9, 55, 6, tzinfo=timezone(-6 * HOUR))),
        (b"21 Nov 97 09:55:06 GMT", datetime(1997, 11, 21, 9, 55, 6, tzinfo=UTC)),
        (b"1 Jan 03 00:00 +0000", datetime(2003, 1, 1, tzinfo=UTC)),
        (b"1 Jan 103 00:00 +0000", datetime(2003, 1, 1, tzinfo=UTC)),
        (b"Thu, 13 Feb 1969 23:32 -0330 (NST)", datetime(1969, 2, 13, 23, 32, tzinfo=timezone(-3.5 * HOUR))),
        (
            b"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600",
            datetime(1997, 11, 21, 9, 55, 6, tzinfo=timezone(-6 * HOUR)),
        ),
        (b"Mon, 1 Jul 2024 10:00:00 EDT", datetime(2024, 7, 1, 10, tzinfo=timezone(-4 * HOUR))),
        (b"Mon, 1 Jul 2024 10:00:00 GMT+0200", datetime(2024, 7, 1, 10, tzinfo=timezone(2 * HOUR))),
        (b"Mon, 1 Jul 2024 10:00:00 A", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"Mon, 1 Jul 2024 10:00:60 +0000", datetime(2024, 7, 1, 10, 0, 59, tzinfo=UTC)),
        (b"Mon,1 Jul 2024 10:00:00 +0000", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"Monday, 1 July 2024 10:00:00 +0000", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"1-Jul-2024 10.00.00 +0000", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"Mon Jul  1 10:00:00 2024", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"Mon Jul  1 10:00:00 CEST 2024", datetime(2024, 7, 1, 10, tzinfo=timezone(2 * HOUR))),
        (b"2024-07-01T10:00:00Z", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        (b"2024-07-01 10:00:00.123+02:00", datetime(2024, 7, 1, 10, tzinfo=timezone(2 * HOUR))),
        (b"Mon, 1 Jul 2024 24:00:00 +0000", None),
        (b"Mon, 31 Jun 2024 10:00:00 +0000", None),
        (b"Mon, 1 Foo 2024 10:00:00 +0000", None),
        (b"Mon, 1 Jul 9999 10:00:00 +0000", None),
        (b"", None),
        (b"now", None),
    ],
)
def test_parse_date(value: bytes, expected: datetime | None) -> None:
    found = mime.parse_date(value)
    assert found == expected
    if found and expected:
        assert found.utcoffset() == expected.utcoffset()
        assert found.astimezone(UTC)


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("plain", "plain"),
        ("Re: one", "one"),
        ("re:re: RE :Fw: FWD: one", "one"),
        ("Re[2]: one", "one"),
        ("[list] one", "one"),
        ("Re: [list] Re: one", "one"),
        ("[one]", "[one]"),
        ("[a] [b]", "[b]"),
        ("one (fwd)", "one"),
        ("one (fwd) (FWD) ", "one"),
        ("[Fwd: one]", "one"),
        ("[fwd: Re: [x] one (fwd)]", "one"),
        ("Re:", ""),
        ("  two   spaces\tand tab", "two spaces and tab"),
        ("Regarding: this", "Regarding: this"),
        ("", ""),
    ],
)
def test_base_subject(subject: str, base: str) -> None:
    assert mime.base_subject(subject) == base


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"<a@b>", ("a@b",)),
        (b"<a@b> <c@d>\r\n <e@f>", ("a@b", "c@d", "e@f")),
        (b"<a@b><c@d>", ("a@b", "c@d")),
        (b"text <a@b> more (comment)", ("a@b",)),
        (b"<a @ b>", ("a@b",)),
        (b"a@b c@d", ("a@b", "c@d")),
        (b"", ()),
        (b"<>", ()),
        ("<ü@b>".encode(), ("ü@b",)),
    ],
)
def test_message_ids(value: bytes, expected: tuple[str, ...]) -> None:
    assert mime.message_ids(value) == expected


def test_list_id() -> None:
    assert summary(b"List-Id: The list <list.example.org>").list_id == "list.example.org"
    assert summary(b"List-Id: list.example.org").list_id == "list.example.org"
    assert summary(b"Subject: x").list_id is None


def test_summary_keeps_all_its_fields_in_json() -> None:
    full = summary(
        "From: Zoë <z@a>\r\nTo: a@b, C <c@d>\r\nCc: e@f\r\nBcc: g@h\r\nSender: i@j\r\nReply-To: k@l\r\n"
        "Subject: Re: [x] ünï\r\nMessage-ID: <1@x>\r\nIn-Reply-To: <2@x>\r\nReferences: <3@x> <2@x>\r\n"
        "Date: Tue, 4 Mar 2025 09:30:00 +0545\r\nList-Id: <l.x>".encode()
    )
    again = mime.Summary.from_json(full.to_json())
    assert again == full
    assert again.sent_at is not None and again.sent_at.utcoffset() == timedelta(hours=5, minutes=45)
    assert (again.base_subject, again.list_id, again.references) == ("ünï", "l.x", ("3@x", "2@x"))
