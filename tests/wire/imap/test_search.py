"""SEARCH: every key, the tree, its bounds, charsets and result options."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.imap import response
from mailcore.wire.imap.commands import EsearchArgs, SearchArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.limits import MAX_SEARCH_DEPTH, MAX_SEARCH_KEYS
from mailcore.wire.imap.numset import STAR, SequenceSet
from mailcore.wire.imap.parse import parse_command
from mailcore.wire.imap.search_key import (
    All,
    And,
    Date,
    Flag,
    Fuzzy,
    Header,
    Modseq,
    Not,
    Numbers,
    ObjectId,
    Or,
    SaveDateSupported,
    SearchKey,
    Size,
    Text,
    Within,
    leaves,
    uses_modseq,
    uses_sequence_numbers,
)
from tests.wire.imap.driving import frame_of


def search(text: bytes) -> SearchArgs:
    args = parse_command(frame_of(b"a UID SEARCH " + text + b"\r\n")).args
    assert isinstance(args, SearchArgs)
    return args


def key(text: bytes) -> SearchKey:
    return search(text).key


def error(text: bytes) -> ImapSyntaxError:
    with pytest.raises(ImapSyntaxError) as caught:
        search(text)
    return caught.value


FEB = date(1994, 2, 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"ALL", All()),
        (b"answered", Flag("\\Answered")),
        (b"UNANSWERED", Flag("\\Answered", False)),
        (b"DELETED", Flag("\\Deleted")),
        (b"UNDELETED", Flag("\\Deleted", False)),
        (b"DRAFT", Flag("\\Draft")),
        (b"UNDRAFT", Flag("\\Draft", False)),
        (b"FLAGGED", Flag("\\Flagged")),
        (b"UNFLAGGED", Flag("\\Flagged", False)),
        (b"SEEN", Flag("\\Seen")),
        (b"UNSEEN", Flag("\\Seen", False)),
        (b"RECENT", Flag("\\Recent")),
        (b"OLD", Flag("\\Recent", False)),
        (b"NEW", And((Flag("\\Recent"), Flag("\\Seen", False)))),
        (b"KEYWORD $Junk", Flag("$Junk")),
        (b"UNKEYWORD $Junk", Flag("$Junk", False)),
        (b"BCC x", Text("BCC", "x")),
        (b"BODY x", Text("BODY", "x")),
        (b"CC x", Text("CC", "x")),
        (b'FROM "Smith"', Text("FROM", "Smith")),
        (b"SUBJECT {7+}\r\nf\xc3\xbcr\r\nx", Text("SUBJECT", "für\r\nx")),
        (b'TEXT "string not in mailbox"', Text("TEXT", "string not in mailbox")),
        (b'TO ""', Text("TO", "")),
        (b'HEADER X-Foo ""', Header("X-Foo", "")),
        (b'HEADER "Message-ID" "<a@b>"', Header("Message-ID", "<a@b>")),
        (b"BEFORE 1-Feb-1994", Date("internal", "before", FEB)),
        (b'ON "01-Feb-1994"', Date("internal", "on", FEB)),
        (b"SINCE 1-FEB-1994", Date("internal", "since", FEB)),
        (b"SENTBEFORE 1-Feb-1994", Date("sent", "before", FEB)),
        (b"SENTON 1-Feb-1994", Date("sent", "on", FEB)),
        (b"SENTSINCE 1-Feb-1994", Date("sent", "since", FEB)),
        (b"SAVEDBEFORE 1-Feb-1994", Date("saved", "before", FEB)),
        (b"SAVEDON 1-Feb-1994", Date("saved", "on", FEB)),
        (b"SAVEDSINCE 1-Feb-1994", Date("saved", "since", FEB)),
        (b"SAVEDATESUPPORTED", SaveDateSupported()),
        (b"LARGER 0", Size("larger", 0)),
        (b"SMALLER 5000000000", Size("smaller", 5_000_000_000)),
        (b"OLDER 3600", Within("older", 3600)),
        (b"YOUNGER 86400", Within("younger", 86400)),
        (b"EMAILID M6d99ac3275bb4e", ObjectId("EMAILID", "M6d99ac3275bb4e")),
        (b"THREADID T64b478a75b7ea9", ObjectId("THREADID", "T64b478a75b7ea9")),
        (b"MODSEQ 620162338", Modseq(620162338)),
        (b'MODSEQ "/flags/\\\\draft" all 620162338', Modseq(620162338)),
        (b"MODSEQ 0", Modseq(0)),
        (b"2,4:*", Numbers(SequenceSet(((2, 2), (4, STAR))), uid=False)),
        (b"*", Numbers(SequenceSet(((STAR, STAR),)), uid=False)),
        (b"$", Numbers(SequenceSet(saved=True), uid=False)),
        (b"UID 1:5", Numbers(SequenceSet(((1, 5),)), uid=True)),
        (b"UID $", Numbers(SequenceSet(saved=True), uid=True)),
        (b"NOT SEEN", Not(Flag("\\Seen"))),
        (b"OR SEEN DRAFT", Or(Flag("\\Seen"), Flag("\\Draft"))),
        (b"OR OR SEEN DRAFT NOT ALL", Or(Or(Flag("\\Seen"), Flag("\\Draft")), Not(All()))),
        (b"(SEEN)", Flag("\\Seen")),
        (b"(SEEN DRAFT)", And((Flag("\\Seen"), Flag("\\Draft")))),
        # The examples of RFC 9051 §6.4.4.
        (
            b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"',
            And((Flag("\\Flagged"), Date("internal", "since", FEB), Not(Text("FROM", "Smith")))),
        ),
        (
            b'(OR FROM a TO b) NOT (SEEN "2") DRAFT'.replace(b'"2"', b"2"),
            And(
                (
                    Or(Text("FROM", "a"), Text("TO", "b")),
                    Not(And((Flag("\\Seen"), Numbers(SequenceSet(((2, 2),)), uid=False)))),
                    Flag("\\Draft"),
                )
            ),
        ),
    ],
)
def test_keys(text: bytes, wanted: SearchKey) -> None:
    assert key(text) == wanted


def test_result_options() -> None:
    assert search(b"ALL").returns is None
    assert search(b"RETURN () ALL").returns == {"ALL"}
    assert search(b"return (MIN count) flagged").returns == {"MIN", "COUNT"}
    assert search(b"RETURN (SAVE ALL MAX) CHARSET UTF-8 SEEN") == SearchArgs(
        Flag("\\Seen"), "UTF-8", frozenset(("SAVE", "ALL", "MAX"))
    )


def test_charsets() -> None:
    assert search(b"CHARSET utf-8 TEXT {6+}\r\n\xe6\x97\xa5\xe6\x9c\xac") == SearchArgs(Text("TEXT", "日本"), "UTF-8")
    assert search(b'CHARSET "US-ASCII" TEXT x').charset == "US-ASCII"
    # Clients forget CHARSET; the octets are still UTF-8 or nothing.
    assert key(b'TEXT "\xc3\xbc"') == Text("TEXT", "ü")
    for name in (b"ISO-8859-1", b'"x"', b"{3+}\r\nfoo"):
        caught = error(b"CHARSET " + name + b" ALL")
        assert (caught.status, caught.code) == ("NO", "BADCHARSET (US-ASCII UTF-8)")
    assert error(b'CHARSET UTF-8 TEXT "\xff"').status == "BAD"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"()", b"FOO", b"SEEN)", b"(SEEN", b"(SEEN DRAFT", b"OR SEEN", b"OR SEEN  DRAFT", b"NOT", b"NOT ",
        b"FROM", b"FROM ",
        b"HEADER x", b"SINCE 1-Foo-1994", b"SINCE 30-Feb-1994", b"SINCE 1-Feb-94", b'SINCE "1-Feb-1994',
        b"SINCE 1-Feb-0000",
        b"LARGER x", b"LARGER 9223372036854775808", b"OLDER 0", b"UID x", b"0", b"1:0", b"KEYWORD",
        b"KEYWORD \\Seen", b"MODSEQ x",
        b"MODSEQ 9223372036854775808", b'MODSEQ "x" all 1', b'MODSEQ "/flags/x" none 1', b"EMAILID a.b",
        b"CHARSET UTF-8",
        b"RETURN ALL", b"RETURN (FOO) ALL", b"RETURN (MIN)", b"CHARSET", b"SEEN SEEN(DRAFT)", b"TEXT {1+}\r\n\0",
    ],
)  # fmt: skip
def test_malformed(text: bytes) -> None:
    assert error(text).status == "BAD"


def test_depth_and_number_of_keys_are_bounded() -> None:
    for nested in (b"NOT " * MAX_SEARCH_DEPTH + b"SEEN", b"(" * MAX_SEARCH_DEPTH + b"SEEN" + b")" * MAX_SEARCH_DEPTH):
        key(nested)
    for nested in (b"NOT " * 10_000 + b"SEEN", b"(" * 10_000, b"OR " * 10_000, b"OR SEEN " * 5_000 + b"SEEN"):
        assert "deeper" in error(nested).text
    key(b" ".join([b"SEEN"] * MAX_SEARCH_KEYS))
    assert "more than" in error(b" ".join([b"SEEN"] * (MAX_SEARCH_KEYS + 1))).text
    assert "ore than" in error(b"(" + b" ".join([b"SEEN"] * (MAX_SEARCH_KEYS + 1)) + b")").text


def test_what_the_tree_uses() -> None:
    tree = key(b"OR (SEEN UID 1) NOT (MODSEQ 5 2)")
    assert [type(leaf).__name__ for leaf in leaves(tree)] == ["Flag", "Numbers", "Modseq", "Numbers"]
    assert uses_modseq(tree) and uses_sequence_numbers(tree)
    assert not uses_modseq(key(b"SEEN")) and not uses_sequence_numbers(key(b"UID 1"))


# -- what is written is read back

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
atoms = st.text("abcXYZ019$_-", min_size=1, max_size=8)
numbers = st.integers(1, 2**32 - 1)
sets = st.lists(st.tuples(st.just(STAR) | numbers, st.just(STAR) | numbers), min_size=1, max_size=4).map(
    lambda pairs: SequenceSet(tuple(pairs))
)
leaf_keys = st.one_of(
    st.just(All()),
    st.just(SaveDateSupported()),
    st.builds(
        Flag, st.sampled_from(["\\Seen", "\\Answered", "\\Deleted", "\\Draft", "\\Flagged"]) | atoms, st.booleans()
    ),
    st.builds(Text, st.sampled_from(["BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"]), texts),
    st.builds(Header, atoms, texts),
    st.builds(
        Date,
        st.sampled_from(["internal", "sent", "saved"]),
        st.sampled_from(["before", "on", "since"]),
        st.dates(),
    ),
    st.builds(Size, st.sampled_from(["larger", "smaller"]), st.integers(0, 2**63 - 1)),
    st.builds(Numbers, sets, st.booleans()),
    st.builds(Modseq, st.integers(0, 2**63 - 1)),
    st.builds(Within, st.sampled_from(["older", "younger"]), numbers),
    st.builds(ObjectId, st.sampled_from(["EMAILID", "THREADID"]), atoms.map(lambda text: text.replace("$", "_"))),
)
keys = st.recursive(
    leaf_keys,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Or, inner, inner),
        st.lists(inner, min_size=2, max_size=4).map(lambda some: And(tuple(some))),
    ),
    max_leaves=12,
)


def string(value: str) -> bytes:
    # The encoder's literals are a server's; a client marks them as non-synchronizing.
    coded = response.astring(value)
    size, _, data = coded.partition(b"}\r\n")
    return size + b"+}\r\n" + data if coded.startswith(b"{") else coded


def spell_set(numbers: SequenceSet) -> bytes:
    return b",".join(b":".join(b"%d" % n if n else b"*" for n in pair) for pair in numbers.ranges)


def spell(key: SearchKey) -> bytes:
    match key:
        case And(keys=inner):
            return b"(" + b" ".join(map(spell, inner)) + b")"
        case Or(left=left, right=right):
            return b"OR " + spell(left) + b" " + spell(right)
        case Not(key=inner):
            return b"NOT " + spell(inner)
        case All():
            return b"ALL"
        case SaveDateSupported():
            return b"SAVEDATESUPPORTED"
        case Flag(flag=flag, is_set=is_set):
            un = b"" if is_set else b"UN"
            return un + (flag[1:].upper().encode() if flag[0] == "\\" else b"KEYWORD " + flag.encode())
        case Text(field=field, value=value):
            return field.encode() + b" " + string(value)
        case Header(name=name, value=value):
            return b"HEADER " + string(name) + b" " + string(value)
        case Date(which=which, op=op, day=day):
            prefix = {"internal": "", "sent": "SENT", "saved": "SAVED"}[which]
            month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][day.month - 1]
            return f"{prefix}{op.upper()} {day.day}-{month}-{day.year:04d}".encode()
        case Size(op=op, size=size):
            return f"{op.upper()} {size}".encode()
        case Numbers(numbers=found, uid=uid):
            return (b"UID " if uid else b"") + spell_set(found)
        case Modseq(modseq=modseq):
            return b"MODSEQ %d" % modseq
        case Within(op=op, seconds=seconds):
            return f"{op.upper()} {seconds}".encode()
        case ObjectId(kind=kind, value=value):
            return f"{kind} {value}".encode()


@given(keys)
def test_a_tree_that_is_written_is_read_back(tree: SearchKey) -> None:
    read = key(spell(tree))
    # The outermost AND needs no parentheses and gets none back; that is the only freedom.
    assert read == tree


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        (b"1:3", 10, slice(0, 3)),
        (b"3:1", 10, slice(0, 3)),
        (b"8:20", 10, slice(7, 20)),
        (b"-1:-3", 10, slice(7, 10)),
        (b"-3:-1", 10, slice(7, 10)),
        (b"-8:-20", 10, slice(0, 3)),
        (b"-11:-20", 10, slice(0, 0)),
        (b"-1:-1", 0, slice(0, 0)),
    ],
)
def test_a_range_of_results_counts_from_either_end(text, count, expected):
    args = search(b"RETURN (PARTIAL " + text + b") ALL")
    assert args.returns == {"PARTIAL"}
    assert args.partial is not None
    assert args.partial.of(count) == expected
    at, size, backwards = args.partial.window
    every = list(range(count))
    passed = every[::-1][at : at + size][::-1] if backwards else every[at : at + size]
    assert passed == every[expected]
    assert str(args.partial) == text.decode()


def test_relevancy_is_for_fuzzy_searches_only():
    assert search(b"RETURN (RELEVANCY) OR SEEN FUZZY TEXT x").key == Or(Flag("\\Seen"), Fuzzy(Text("TEXT", "x")))
    with pytest.raises(ImapSyntaxError, match="FUZZY"):
        search(b"RETURN (RELEVANCY) TEXT x")


def test_esearch_names_its_mailboxes():
    args = parse_command(frame_of(b'a ESEARCH IN (mailboxes (inbox "B c") subtree D personal) RETURN () ALL\r\n')).args
    assert isinstance(args, EsearchArgs)
    assert args.sources == (("MAILBOXES", ("INBOX", "B c")), ("SUBTREE", ("D",)), ("PERSONAL", ()))
    assert args.search == SearchArgs(All(), returns=frozenset(("ALL",)))
