"""What is composed parses back to what was meant, any relay can carry it, and it has no field nobody asked for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore import mime
from mailcore.mime import Addr, compose
from mailcore.mime.compose import Leaf, Multipart

# Everything that a JSON string can bring, with what is special to mail more often than chance would have it.
ANY = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from('\r\n\t "\\<>@,;:()=?_-ü€'), max_size=200)
LINES = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=120), max_size=20)
LOCAL = st.from_regex(r"[a-z0-9!#$%&'*+/=^_`{|}~ü日-]{1,10}(\.[a-z0-9ü-]{1,10})?", fullmatch=True)
EMAIL = st.builds("{}@{}.example".format, LOCAL, st.from_regex(r"[a-zü]{1,12}", fullmatch=True))
PEOPLE = st.lists(st.builds(Addr, st.none() | ANY, EMAIL), min_size=1, max_size=8)

EXAMPLES = settings(max_examples=60, deadline=None)


def tidy(text: str) -> str:
    """What a reader may make of a text: controls are spaces, none at the ends, runs of them do not matter."""
    return " ".join(compose.clean(text).split())


def message(*fields: tuple[str, bytes], body: compose.Body | None = None) -> bytes:
    return compose.compose(fields, body or Leaf("text/plain", "Hello.\n"))


def check_carriable(raw: bytes) -> None:
    """Every line ends in CRLF and none is too long for SMTP."""
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\0" not in raw


def names(raw: bytes) -> list[str]:
    head = raw[: mime.parse(raw).header_size]
    return [line.split(b":")[0].decode().lower() for line in head.split(b"\r\n") if line and line[:1] not in b" \t"]


@given(ANY)
@EXAMPLES
def test_a_subject_comes_back_and_stays_one_field(subject: str) -> None:
    raw = message(("Subject", compose.text_value(subject)), ("X-After", b"1"))
    check_carriable(raw)
    assert names(raw) == ["subject", "x-after", "mime-version", "content-type"]
    found = mime.parse(raw).summary.subject or ""
    assert tidy(found) == tidy(subject)


@given(PEOPLE)
@EXAMPLES
def test_names_and_addresses_come_back(people: list[Addr]) -> None:
    raw = message(("To", compose.addresses_value(people)), ("X-After", b"1"))
    check_carriable(raw)
    assert names(raw) == ["to", "x-after", "mime-version", "content-type"]
    found = mime.parse(raw).summary.to
    assert [one.email for one in found] == [one.email for one in people]
    assert [tidy(one.name or "") for one in found] == [tidy(one.name or "") for one in people]


@given(st.lists(st.builds(Addr, st.none() | ANY, ANY), max_size=5))
@EXAMPLES
def test_what_is_no_address_ends_no_field_and_becomes_no_recipient(people: list[Addr]) -> None:
    raw = message(("To", compose.addresses_value(people)), ("X-After", b"1"))
    check_carriable(raw)
    assert names(raw)[-3:] == ["x-after", "mime-version", "content-type"]
    wanted = {compose.clean(one.email).strip() for one in people}
    for found in mime.parse(raw).summary.to:
        if re.fullmatch(r"[^@\s\"]+@[^@\s\"]+", found.email):
            assert found.email in wanted, (found, people)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]))
@EXAMPLES
def test_a_text_comes_back(lines: list[str], newline: str) -> None:
    raw = message(body=Leaf("text/plain", newline.join(lines)))
    check_carriable(raw)
    parts = mime.unpack_parts(mime.parse(raw).parts)
    assert mime.decode_text(raw, parts[0], 1 << 20).split("\r\n") == (lines or [""])
    assert raw[parts[0].body_start : parts[0].body_end].isascii()


@given(st.binary(max_size=3000), st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=150))
@EXAMPLES
def test_a_file_comes_back_octet_for_octet_under_its_name(content: bytes, name: str) -> None:
    attachment = Leaf("application/octet-stream", content, disposition="attachment", filename=name)
    raw = message(body=Multipart("mixed", (Leaf("text/plain", "See below."), attachment)))
    check_carriable(raw)
    parts = mime.unpack_parts(mime.parse(raw).parts)
    assert [part.id for part in parts] == ["", "1", "2"]
    assert mime.decode_part(raw, parts[2], 1 << 20) == content
    assert tidy(parts[2].filename or "") == tidy(name)
    # The standard library, which knows nothing of ours, reads the same.
    (_, other) = message_from_bytes(raw, policy=policy.default).iter_parts()  # type: ignore[attr-defined]
    assert other.get_payload(decode=True) == content


def test_a_message_with_all_there_is_has_the_shape_that_mail_readers_expect() -> None:
    body = Multipart(
        "mixed",
        (
            Multipart(
                "alternative",
                (
                    Leaf("text/plain", "Grüße"),
                    Multipart(
                        "related",
                        (
                            Leaf("text/html", "<img src=cid:a@b>"),
                            Leaf("image/png", b"\x89PNG", disposition="inline", filename="ü.png", cid="a@b"),
                        ),
                    ),
                ),
            ),
            Leaf("message/rfc822", b"Subject: inner\r\n\r\nInner.\r\n", disposition="attachment"),
        ),
    )
    raw = message(("Subject", compose.text_value("Grüße")), body=body)
    derived = mime.parse(raw)
    parts = mime.unpack_parts(derived.parts)
    shape = [(part.id, f"{part.type}/{part.subtype}") for part in parts]
    assert shape == [
        ("", "multipart/mixed"),
        ("1", "multipart/alternative"),
        ("1.1", "text/plain"),
        ("1.2", "multipart/related"),
        ("1.2.1", "text/html"),
        ("1.2.2", "image/png"),
        ("2", "message/rfc822"),
        ("2.1", "text/plain"),
    ]
    assert parts[5].cid == "a@b" and parts[5].filename == "ü.png"
    assert parts[6].encoding == "7bit", "an embedded message is never encoded (RFC 2046 §5.2.1)"
    assert derived.has_attachment


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC), b"Sun, 1 Mar 2026 09:05:07 +0000"),
        (
            datetime(2026, 3, 1, 9, 5, 7, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            b"Sun, 1 Mar 2026 09:05:07 -0330",
        ),
    ],
)
def test_a_date_keeps_its_offset(moment: datetime, written: bytes) -> None:
    assert compose.date_value(moment) == written
    assert mime.parse(message(("Date", written))).summary.sent_at == moment


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y.example", "a\nb", "a\rb", "a\0b", "a\r\n\r\nbody", "a\r\n \r\n b"])
def test_a_raw_header_value_that_would_end_its_field_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="header value"):
        compose.raw_value(value)


@pytest.mark.parametrize(
    "part",
    [
        Leaf("text/plain\r\nBcc: a@b", "x"),
        Leaf("text/plain", "x", disposition="inline\r\nBcc: a@b"),
        Leaf("image/png", b"x", cid="a@b>\r\nBcc: a@b"),
        Leaf("image/png", b"x", location="a\r\nBcc: a@b"),
        Leaf("text/html", b"x", charset="utf-8\r\nBcc: a@b"),
        Leaf("text/plain", "x", language=["en\r\nBcc: a@b"]),
        Multipart("mixed\r\nBcc: a@b", ()),
    ],
)
def test_parts_cannot_bring_header_fields(part: compose.Body) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        message(body=part)


def test_a_field_name_is_a_name() -> None:
    with pytest.raises(ValueError, match="header field"):
        message(("X: y\r\nBcc", b"a@b"))


@given(st.lists(st.tuples(st.none() | st.text("abc ü,;:<>", min_size=1, max_size=20), PEOPLE), min_size=1, max_size=4))
@EXAMPLES
def test_groups_keep_their_members(groups: list[tuple[str | None, list[Addr]]]) -> None:
    raw = message(("To", compose.groups_value(groups)))
    check_carriable(raw)
    wanted = [one.email for _, people in groups for one in people]
    assert [one.email for one in mime.parse(raw).summary.to] == wanted
