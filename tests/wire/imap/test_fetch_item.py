"""FETCH items: parsed, labelled, and read back from their label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.imap.commands import FetchArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import (
    FetchAttr,
    FetchBinary,
    FetchBinarySize,
    FetchBody,
    FetchItem,
    FetchPreview,
    Section,
    label,
    sets_seen,
)
from mailcore.wire.imap.parse import parse_command
from tests.wire.imap.driving import frame_of


def fetch(text: bytes) -> FetchArgs:
    args = parse_command(frame_of(b"a UID FETCH 1 " + text + b"\r\n")).args
    assert isinstance(args, FetchArgs)
    return args


def names(*words: str) -> tuple[FetchItem, ...]:
    return tuple(map(FetchAttr, words))


def test_macros_expand() -> None:
    assert fetch(b"FAST").items == names("FLAGS", "INTERNALDATE", "RFC822.SIZE")
    assert fetch(b"all").items == names("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE")
    assert fetch(b"Full").items == names("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY")


@pytest.mark.parametrize(
    ("text", "wanted", "written"),
    [
        (b"uid", FetchAttr("UID"), b"UID"),
        (b"rfc822.size", FetchAttr("RFC822.SIZE"), b"RFC822.SIZE"),
        (b"RFC822", FetchAttr("RFC822"), b"RFC822"),
        (b"RFC822.HEADER", FetchAttr("RFC822.HEADER"), b"RFC822.HEADER"),
        (b"RFC822.TEXT", FetchAttr("RFC822.TEXT"), b"RFC822.TEXT"),
        (b"BODY", FetchAttr("BODY"), b"BODY"),
        (b"BODYSTRUCTURE", FetchAttr("BODYSTRUCTURE"), b"BODYSTRUCTURE"),
        (b"MODSEQ", FetchAttr("MODSEQ"), b"MODSEQ"),
        (b"EMAILID", FetchAttr("EMAILID"), b"EMAILID"),
        (b"THREADID", FetchAttr("THREADID"), b"THREADID"),
        (b"SAVEDATE", FetchAttr("SAVEDATE"), b"SAVEDATE"),
        (b"BODY[]", FetchBody(Section()), b"BODY[]"),
        (b"body.peek[]", FetchBody(Section(), peek=True), b"BODY[]"),
        (b"BODY[1.2.3]", FetchBody(Section((1, 2, 3))), b"BODY[1.2.3]"),
        (b"BODY[header]", FetchBody(Section((), "HEADER")), b"BODY[HEADER]"),
        (b"BODY[TEXT]", FetchBody(Section((), "TEXT")), b"BODY[TEXT]"),
        (b"BODY[4.2.TEXT]", FetchBody(Section((4, 2), "TEXT")), b"BODY[4.2.TEXT]"),
        (b"BODY[4.1.MIME]", FetchBody(Section((4, 1), "MIME")), b"BODY[4.1.MIME]"),
        (
            b"BODY[HEADER.FIELDS (DATE From)]",
            FetchBody(Section((), "HEADER.FIELDS", ("DATE", "From"))),
            b"BODY[HEADER.FIELDS (DATE From)]",
        ),
        (
            b'BODY.PEEK[3.HEADER.FIELDS.NOT ("X Y" {2+}\r\nZ])]<5.10>',
            FetchBody(Section((3,), "HEADER.FIELDS.NOT", ("X Y", "Z]")), True, (5, 10)),
            b'BODY[3.HEADER.FIELDS.NOT ("X Y" "Z]")]<5>',
        ),
        (b"BODY[]<0.2048>", FetchBody(Section(), partial=(0, 2048)), b"BODY[]<0>"),
        (b"BINARY[1]", FetchBinary((1,)), b"BINARY[1]"),
        (b"BINARY.PEEK[]<1.2>", FetchBinary((), True, (1, 2)), b"BINARY[]<1>"),
        (b"BINARY.SIZE[1.2]", FetchBinarySize((1, 2)), b"BINARY.SIZE[1.2]"),
        (b"PREVIEW", FetchPreview(), b"PREVIEW"),
        (b"PREVIEW (LAZY)", FetchPreview(lazy=True), b"PREVIEW"),
    ],
)
def test_items_and_their_labels(text: bytes, wanted: FetchItem, written: bytes) -> None:
    assert fetch(text).items == (wanted,)
    assert fetch(b"(" + text + b" FLAGS)").items == tuple(dict.fromkeys((wanted, FetchAttr("FLAGS"))))
    assert label(wanted) == written


def test_preview_and_a_modifier_do_not_mix_up() -> None:
    assert fetch(b"PREVIEW (CHANGEDSINCE 5)") == fetch(b"(PREVIEW) (CHANGEDSINCE 5)")
    assert fetch(b"PREVIEW (lazy) (CHANGEDSINCE 5)").changedsince == 5


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"RFC822", True), (b"RFC822.TEXT", True), (b"RFC822.HEADER", False), (b"BODY[]", True),
        (b"BODY.PEEK[]", False),
        (b"BODY", False), (b"BINARY[1]", True), (b"BINARY.PEEK[1]", False), (b"BINARY.SIZE[1]", False),
        (b"PREVIEW", False),
    ],
)  # fmt: skip
def test_which_items_set_seen(text: bytes, seen: bool) -> None:
    assert sets_seen(fetch(text).items[0]) is seen


@pytest.mark.parametrize(
    "text",
    [
        b"", b"()", b"(FAST)", b"FOO", b"BODY.PEEK", b"BODY[", b"BODY[FOO]", b"BODY[MIME]", b"BODY[0]",
        b"BODY[1.0]", b"BODY[01]",
        b"BODY[1.]", b"BODY[1.FOO]", b"BODY[1TEXT]", b"BODY[TEXT ]", b"BODY[HEADER.FIELDS]", b"BODY[HEADER.FIELDS ()]",
        b"BODY[HEADER.FIELDS (A]", b"BODY[HEADER.FIELDS (A)", b"BODY[HEADER.FIELD (A)]", b'BODY[HEADER.FIELDS ("")]',
        b"BODY[HEADER.FIELDS ({2+}\r\n\r\n)]", b'BODY[HEADER.FIELDS ("\xc3\xbc")]', b"BODY[]<0>", b"BODY[]<0.0>",
        b"BODY[]<.1>",
        b"BODY[]<0.1", b"BODY[]<9223372036854775808.1>", b"BINARY", b"BINARY[TEXT]", b"BINARY.SIZE",
        b"BINARY.SIZE[1]<0.1>",
        b"BINARY.SIZE[1", b"UID[1]", b"FLAGS FLAGS", b"(FLAGS", b"(FLAGS  UID)", b"PREVIEW (EAGER)", b"BODYSTRUCTURE[]",
        b"BODY[1" + b".1" * 100 + b"]", b"BODY[12345678901]", b"(" + b" ".join([b"UID"] * 101) + b")",
        b"BODY[HEADER.FIELDS (" + b" ".join([b"A"] * 201) + b")]", b"BODY[" + b"1." * 30_000 + b"1]",
    ],
)  # fmt: skip
def test_malformed(text: bytes) -> None:
    with pytest.raises(ImapSyntaxError):
        fetch(text)


parts = st.lists(st.integers(1, 999), max_size=5).map(tuple)
partials = st.none() | st.tuples(st.integers(0, 2**63 - 1), st.just(1))
fields = st.lists(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=8), min_size=1, max_size=3
)
sections = st.one_of(
    st.builds(Section, parts, st.sampled_from(["", "HEADER", "TEXT"])),
    st.builds(Section, parts.filter(len), st.just("MIME")),
    st.builds(Section, parts, st.sampled_from(["HEADER.FIELDS", "HEADER.FIELDS.NOT"]), fields.map(tuple)),
)


@given(
    st.builds(FetchBody, sections, st.just(False), partials) | st.builds(FetchBinary, parts, st.just(False), partials)
)
def test_a_label_names_its_item(item: FetchBody | FetchBinary) -> None:
    # An answer's label lacks the count, which a request needs.
    request = label(item).removesuffix(b">") + b".1>" if item.partial else label(item)
    assert fetch(request).items == (item,)
