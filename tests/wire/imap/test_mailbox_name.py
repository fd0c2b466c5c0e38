"""Mailbox names: modified UTF-7, INBOX, creation rules and wildcards."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imapclient import imap_utf7

from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.mailbox_name import (
    MailboxNameError,
    canonical,
    check_new_name,
    decode_utf7,
    encode_utf7,
    join_reference,
    matches,
    parents,
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("name", "coded"),
    [
        # RFC 3501 §5.1.3's example.
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("Hi & bye", b"Hi &- bye"),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("ü", b"&APw-"),
        ("üü", b"&APwA,A-"),
        ("a😀b", b"a&2D3eAA-b"),
        ("&", b"&-"),
        ("&ü&", b"&-&APw-&-"),
        ("", b""),
        ("\x7f", b"&AH8-"),
    ],
)
def test_modified_utf7(name: str, coded: bytes) -> None:
    assert encode_utf7(name) == coded
    assert decode_utf7(coded) == name


@pytest.mark.parametrize(
    "coded",
    [
        b"&", b"a&", b"&AP", b"&APw", b"&A-", b"&AP-", b"&APx-", b"&APwA-", b"&AGE-", b"&Jjo!", b"&APw-&APw-", b"&2D0-",
        b"&3gA-", b"&APw/-", b"\xc3\xbc", b"\x7f", b"a\nb", b"a\0b", b"&AP w-", b"&APw=-", b"&AAA=-", b"&,,,,,,-",
        b"&ACY-",
    ],
)  # fmt: skip
def test_one_spelling_per_name(coded: bytes) -> None:
    with pytest.raises(ImapSyntaxError):
        decode_utf7(coded)


@given(names)
def test_utf7_round_trip(name: str) -> None:
    coded = encode_utf7(name)
    assert coded.isascii()
    assert decode_utf7(coded) == name


@given(names)
def test_imapclient_spells_names_like_we_do(name: str) -> None:
    assert imap_utf7.encode(name) == encode_utf7(name)


@given(st.binary(max_size=20) | st.text("&-,AZaz019+/ ", max_size=12).map(str.encode))
def test_what_is_decoded_is_spelled_like_that(raw: bytes) -> None:
    try:
        name = decode_utf7(raw)
    except ImapSyntaxError:
        return
    assert encode_utf7(name) == raw


def test_inbox_in_any_case() -> None:
    assert [canonical(name) for name in ("inbox", "InBox/Sub/inbox", "INBOX", "inboxes", "a/inbox", "inbo", "")] == [
        "INBOX",
        "INBOX/Sub/inbox",
        "INBOX",
        "inboxes",
        "a/inbox",
        "inbo",
        "",
    ]


@pytest.mark.parametrize(
    "name", ["Sent", "a/b/c", "日本", "a&b", "with space", "x" * 1000, "/".join(["a"] * 50), ".hidden", "-"]
)
def test_names_that_may_be_created(name: str) -> None:
    check_new_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/a", "a/", "a//b", "a*", "50%", "#news", "a\0", "a\nb", "a\x7f", "a\x85", "a\u2028", "x" * 1001,
        "ü" * 501,
        "/".join(["a"] * 51),
    ],
)  # fmt: skip
def test_names_that_may_not(name: str) -> None:
    with pytest.raises(MailboxNameError) as caught:
        check_new_name(name)
    assert str(caught.value).startswith("The mailbox name")


def test_parents() -> None:
    assert parents("a/b/c") == ("a", "a/b")
    assert parents("a") == ()


def test_reference_and_pattern() -> None:
    assert join_reference("", "inbox") == "INBOX"
    assert join_reference("foo/", "%") == "foo/%"
    assert join_reference("InBox/", "x*") == "INBOX/x*"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["", "a", "a/b"], []),
        ("%", ["a", "INBOX"], ["a/b"]),
        ("a/%", ["a/b", "a/"], ["a", "a/b/c", "b/c"]),
        ("a/*", ["a/b", "a/b/c"], ["a", "aa/b"]),
        ("a*c", ["ac", "abc", "a/b/c", "acc"], ["acd", "bac"]),
        ("a%c", ["ac", "abc"], ["a/c", "ab"]),
        ("%%", ["a"], ["a/b"]),
        ("%*", ["a", "a/b"], []),
        ("%/%", ["a/b", "/"], ["a", "a/b/c"]),
        ("inbox", ["INBOX"], ["inbox", "Inboxes"]),
        ("inb%", ["INBOX", "inbred"], ["INBRED"]),
        ("InBoX/x", ["INBOX/x"], ["INBOX/X"]),
        ("", [""], ["a"]),
        ("sent", ["sent"], ["Sent", "sentx"]),
        (".*", [".", ".x"], ["x"]),
        ("日%", ["日本"], ["月"]),
    ],
)
def test_wildcards(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [name for name in yes + no if matches(pattern, name)] == yes


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=10))
def test_wildcards_like_a_regular_expression(pattern: str, name: str) -> None:
    model = "".join({"*": ".*", "%": "[^/]*"}.get(char, re.escape(char)) for char in pattern)
    assert matches(pattern, name) == (re.fullmatch(model, name) is not None)


def test_wildcards_do_not_backtrack() -> None:
    began = time.process_time()
    assert not matches("*a" * 300 + "b", "a" * 1000)
    assert not matches("%a*" * 200 + "b", "a" * 1000)
    assert time.process_time() - began < 5
