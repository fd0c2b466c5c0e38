"""The reader has a quick way for what nearly all mail looks like: it gives what the thorough way gives."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore import mime
from mailcore.mime import html
from mailcore.mime.addresses import only_address
from mailcore.mime.headers import fields
from mailcore.mime.parts import has_attachment
from mailcore.mime.text import header_text
from tests.mime.generate import FRAGMENTS, near_messages, trees, written

EXAMPLES = settings(max_examples=300, deadline=None)

VALUES = st.lists(
    st.sampled_from([b" ", b"  ", b"\t", b"\r\n ", b"\n\t", b"\r", b"\0", b"\x1b", b":", b"A", b"b c", b"\xc3\xa9",
                     b"\xe9", b"=?utf-8?q?X=C3=A9?=", b"=?"]), max_size=6
).map(b"".join)  # fmt: skip
NAMES = st.sampled_from([b"From", b"TO", b"cc", b"Subject", b"X-Other", b"X=?Y", b"From "])


@given(st.lists(st.tuples(NAMES, VALUES, st.sampled_from([b"\r\n", b"\n"])), max_size=6), st.booleans())
@EXAMPLES
def test_a_header_folded_at_once_is_its_fields_one_by_one(lines: list[tuple[bytes, bytes, bytes]], cut: bool) -> None:
    block = b"".join([name + b":" + value + end for name, value, end in lines])
    found = fields(block.rstrip(b"\n") if cut else block)
    singly = [header_text([field]) for field in found]
    header, named = header_text(found)
    assert header.split("\n") == ([one for one, _ in singly] or [""])
    for name, texts in named.items():
        assert texts == [text for _, one in singly for text in one[name]]
    for (_, name, value), (line, _) in zip(found, singly, strict=True):
        if value.isascii() and b"=?" not in value:
            text = value.replace(b"\0", b"").decode().lower()
            assert line == f"{name.decode().lower()}: {' '.join(text.split())}"
        else:
            assert line == f"{name.decode().lower()}: {mime.fold(mime.decode_header(value))}"


MARKUP = st.lists(
    st.sampled_from(
        ["one", " two ", "\r\n", "3 < 4 ", "&amp;", "<p>", "</p>", "<B>", "</b>", "<br/>", '<a href="x>y">', "</a>",
         "<td class='a'>", "<!-- <p> -->", "<style>p{}</style>", "<SCRIPT>if (a<b) {}</SCRIPT>", "<title>t</title>",
         "<strong >", "<span/>", "<table>", "<!DOCTYPE html>", "<?xml?>", "<o:p>", "</p\r\n>", '<img alt="it\'s">']
    ), max_size=70,
).map("".join)  # fmt: skip


_TAG = re.compile(rf"<[a-zA-Z/!?]{html._ATTRIBUTES}>|<[a-zA-Z/!?][^<>]*+>?")


@given(MARKUP)
@EXAMPLES
def test_runs_of_markup_leave_what_each_leaves(markup: str) -> None:
    thorough = _TAG.sub(" ", html._INLINE.sub("", html._DROPPED.sub(" ", markup)))
    thorough = thorough.replace("&amp;", "&")
    assert mime.text_of_html(markup).split() == thorough.split()


def test_markup_that_is_remembered_is_bounded() -> None:
    for number in range(5_000):
        mime.text_of_html(f"<p id={number}>x")
        mime.text_of_html(f"<p id={number}{'x' * 1_000}>x")
    assert len(html._runs) <= 2_048
    assert max(map(len, html._runs)) <= 128


@given(st.one_of(near_messages, trees().map(written)))
@EXAMPLES
def test_the_outline_is_that_of_the_part_table(raw: bytes) -> None:
    found = mime.parse(raw)
    parts = mime.unpack_parts(found.parts)
    text, shown, attachments = mime.body_parts(parts)
    assert found.has_attachment == has_attachment(parts, attachments, text + shown)


@pytest.mark.parametrize("boundary", [b"b", b'"b"', b'"=_a b.c"', b"----=_Part:1", b'"a\'b"', b'"(x)"', b"=_x?="])
@pytest.mark.parametrize("kind", [b"multipart/mixed", b"Multipart/ALTERNATIVE", b"multipart/x-own"])
def test_a_multipart_with_a_boundary_alone(kind: bytes, boundary: bytes) -> None:
    bare = boundary.strip(b'"')
    body = b"\r\n--%b\r\nContent-Type: %b; boundary=%b\r\n\r\n--%b--\r\n" % (bare, kind, boundary, bare)
    quick, thorough = (
        mime.parse(b"Content-Type: %b;\r\n\tboundary=%b%b\r\n\r\n" % (kind, boundary, end) + body)
        for end in (b"", b";")
    )
    assert len(mime.unpack_parts(quick.parts)) == 3
    assert quick.bodystructure == thorough.bodystructure
    assert [part[2:5] for part in mime.unpack_parts(quick.parts)] == [
        part[2:5] for part in mime.unpack_parts(thorough.parts)
    ]


@pytest.mark.parametrize(
    "value", [b"Tue, 4 Mar 2025 09:30:00 +0100", b"31 Feb 2025 09:30:00 GMT", b"Tue, 04 Mar 1899 24:00:61 -0000 (x)",
              b"Tue, 04 Mar 2025 23:59:60 +9900"]
)  # fmt: skip
def test_dates_as_nearly_everybody_writes_them(value: bytes) -> None:
    assert mime.parse_date(value) == mime.parse_date(value.replace(b" ", b"  "))


@given(st.lists(st.sampled_from([*FRAGMENTS, b"a@b.example", b"Ann ", b'"Q" ', b"<c@d>"]), max_size=5).map(b"".join))
@EXAMPLES
def test_an_only_address_is_the_first_of_the_list(value: bytes) -> None:
    value = b" ".join(value.split())
    if (one := only_address(value)) is not None:
        assert [(found.mailbox, found.host) for found in mime.parse_addresses(value)] == [one]


@given(
    st.lists(st.sampled_from([b"<a@b>", b" ", b"\r\n ", b"<", b">", b"c@d", b"\xe9", b"\x1b"]), max_size=4).map(
        b"".join
    )
)
@EXAMPLES
def test_message_ids(value: bytes) -> None:
    thorough = mime.message_ids(value + b" <x@y>")
    if mime.message_ids(value) and re.fullmatch(rb"\s*<[^<>]+>\s*", value):
        assert (*mime.message_ids(value), "x@y") == thorough
