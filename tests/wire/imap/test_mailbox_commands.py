"""ACL, METADATA, NOTIFY and QUOTA on the wire: what is read, what is refused, what is written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore.wire.imap.acl import RightsArgs, SetAclArgs, acl_line, listrights_line, myrights_line
from mailcore.wire.imap.commands import Args, MailboxArgs
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.fetch_item import FetchAttr
from mailcore.wire.imap.metadata import GetMetadataArgs, SetMetadataArgs, changed_line, metadata_line
from mailcore.wire.imap.notify import EventGroup, NotifyArgs
from mailcore.wire.imap.parse import parse_command
from mailcore.wire.imap.quota import QuotaArgs, SetQuotaArgs, quota_line, quotaroot_line
from tests.wire.imap.driving import frame_of

NEW = frozenset(("MESSAGENEW", "MESSAGEEXPUNGE"))


def args(text: bytes) -> Args:
    return parse_command(frame_of(b"A1 " + text + b"\r\n")).args


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"GETACL INBOX", MailboxArgs("INBOX")),
        (b'MYRIGHTS "Other Users/a@b.c/x"', MailboxArgs("Other Users/a@b.c/x")),
        (b"SETACL inbox fred rwi", SetAclArgs("INBOX", "fred", "=", "rwi")),
        (b'SETACL INBOX fred ""', SetAclArgs("INBOX", "fred", "=", "")),
        (b"SETACL INBOX {4+}\r\nfred +cda", SetAclArgs("INBOX", "fred", "+", "cda")),
        (b"SETACL INBOX -fred -x", SetAclArgs("INBOX", "-fred", "-", "x")),
        (b"DELETEACL INBOX Fred", RightsArgs("INBOX", "Fred")),
        (b"LISTRIGHTS ~/Mail/saved smith", RightsArgs("~/Mail/saved", "smith")),
        (b'GETQUOTA ""', QuotaArgs("")),
        (b'SETQUOTA "" (STORAGE 512 message 10)', SetQuotaArgs("", (("STORAGE", 512), ("MESSAGE", 10)))),
        (b"SETQUOTA x ()", SetQuotaArgs("x", ())),
        (b'GETMETADATA "" /Shared/Comment', GetMetadataArgs("", ("/shared/comment",))),
        (
            b'GETMETADATA (DEPTH infinity MAXSIZE 9) inbox (/private/a "/shared/b c" /private/a)',
            GetMetadataArgs("INBOX", ("/private/a", "/shared/b c"), 9, None),
        ),
        (b"GETMETADATA INBOX (MAXSIZE 0) (/private/a)", GetMetadataArgs("INBOX", ("/private/a",), 0, 0)),
        (b"GETMETADATA (DEPTH 1) INBOX /private", GetMetadataArgs("INBOX", ("/private",), None, 1)),
        (
            b'SETMETADATA x (/private/a NIL /private/b {3+}\r\n"\r\n /private/c ~{1+}\r\n\0)',
            SetMetadataArgs("x", {"/private/a": None, "/private/b": b'"\r\n', "/private/c": b"\0"}),
        ),
        (b"NOTIFY none", NotifyArgs(())),
        (
            b"NOTIFY SET STATUS (selected (MessageNew (UID FLAGS) MessageExpunge)) (subtree Lists (MessageNew"
            b" MessageExpunge FlagChange))",
            NotifyArgs(
                (
                    EventGroup("SELECTED", (), NEW, (FetchAttr("UID"), FetchAttr("FLAGS"))),
                    EventGroup("SUBTREE", ("Lists",), NEW | {"FLAGCHANGE"}),
                ),
                status=True,
            ),
        ),
        (
            b"NOTIFY SET (mailboxes (a b a) NONE) (personal (SubscriptionChange))",
            NotifyArgs(
                (
                    EventGroup("MAILBOXES", ("a", "b")),
                    EventGroup("PERSONAL", (), frozenset(("SUBSCRIPTIONCHANGE",))),
                )
            ),
        ),
    ],
)
def test_what_is_read(text: bytes, wanted: Args) -> None:
    assert args(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        b"SETACL INBOX fred R",
        b"SETACL INBOX fred 0",
        b"SETACL INBOX fred ++l",
        b"SETACL INBOX " + b"x" * 1_001 + b" l",
        b"GETMETADATA INBOX {9+}\r\n/private\xff",
        b"GETMETADATA INBOX /private/" + b"x" * 250,
        b"GETMETADATA INBOX (" + b" ".join(b"/private/%d" % n for n in range(101)) + b")",
        b"GETMETADATA (MAXSIZE -1) INBOX /private/a",
        b"GETMETADATA INBOX ()",
        b"SETMETADATA INBOX (/private/a x)",
        b"NOTIFY SET " + b" ".join([b"(personal NONE)"] * 51),
        b"NOTIFY SET (mailboxes (" + b" ".join(b"m%d" % n for n in range(501)) + b") NONE)",
        b"NOTIFY SET (selected)",
        b"NOTIFY SET (selected NONE) (personal NONE",
        b'SETQUOTA "" (STORAGE 9223372036854775808)',
        b'SETQUOTA "" (' + b" ".join([b"X 1"] * 21) + b")",
    ],
)
def test_what_is_refused(text: bytes) -> None:
    with pytest.raises(ImapSyntaxError) as refusal:
        args(text)
    assert refusal.value.status == "BAD"


TOKENS = [
    *(
        b" ",
        b" ",
        b" ",
        b"(",
        b")",
        b"()",
        b'"',
        b'""',
        b"NIL",
        b"{2+}\r\nab",
        b"~{1+}\r\n\0",
        b"\xff",
        b"+",
        b"-",
        b"*",
    ),
    *(b"INBOX", b"lrs", b"anyone", b"/private/a", b"/shared", b"//", b"DEPTH", b"MAXSIZE", b"1", b"infinity", b"NONE"),
    *(b"SET", b"STATUS", b"selected", b"subtree", b"mailboxes", b"MessageNew", b"MessageExpunge", b"STORAGE"),
]
NAMES = (b"SETACL", b"LISTRIGHTS", b"GETMETADATA", b"SETMETADATA", b"NOTIFY", b"SETQUOTA", b"GETQUOTA")


@settings(max_examples=500)
@given(st.sampled_from(NAMES), st.lists(st.sampled_from(TOKENS), max_size=14))
def test_whatever_stands_there_is_read_or_refused(name: bytes, tokens: list[bytes]) -> None:
    try:
        args(name + b" " + b"".join(tokens))
    except ImapSyntaxError as refusal:
        assert refusal.text.isprintable()


@given(st.dictionaries(st.sampled_from(["/private/a", "/shared/b c"]), st.none() | st.binary(max_size=30), min_size=1))
def test_values_come_out_as_they_went_in(values: dict[str, bytes | None]) -> None:
    line = metadata_line("INBOX", values)
    assert line.startswith(b"* METADATA INBOX (")
    said = line.removeprefix(b"* ").removesuffix(b"\r\n").replace(b"METADATA", b"SETMETADATA", 1)
    assert args(said) == SetMetadataArgs("INBOX", values)


def test_what_is_written() -> None:
    assert acl_line("INBOX", [("a@b.c", "lr"), ("anyone", "")]) == b'* ACL INBOX a@b.c lr anyone ""\r\n'
    assert listrights_line("x y", "z", "", "lr") == b'* LISTRIGHTS "x y" z "" l r\r\n'
    assert myrights_line("INBOX", "lrs") == b"* MYRIGHTS INBOX lrs\r\n"
    assert quota_line("", [("STORAGE", 10, 512)]) == b'* QUOTA "" (STORAGE 10 512)\r\n'
    assert quotaroot_line("INBOX", []) == b"* QUOTAROOT INBOX\r\n"
    assert quotaroot_line("\u65e5", ["", "a b"]) == b'* QUOTAROOT &ZeU- "" "a b"\r\n'
    assert changed_line("", ["/private/a"]) == b'* METADATA "" /private/a\r\n'
