"""IMAP sections (RFC 9051 §6.4.5.1) and the part table."""

from __future__ import annotations

import pytest

from mailcore import mime
from tests.mime.golden import CORPUS

# The message of the RFC's example: HEADER, TEXT, 1 text/plain, 2 application/octet-stream, 3 message/rfc822 (3.1
# text/plain, 3.2 application/octet-stream), 4 multipart/mixed (4.1 image/gif, 4.2 message/rfc822 (4.2.1 text/plain,
# 4.2.2 multipart/alternative (4.2.2.1 text/plain, 4.2.2.2 text/richtext))).
RAW = b"""From: outer@example.org
Subject: outer
Content-Type: multipart/mixed; boundary=a

--a
Content-Type: text/plain

part 1
--a
Content-Type: application/octet-stream

part 2
--a
Content-Type: message/rfc822

Subject: inner 3
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

part 3.1
--b
Content-Type: application/octet-stream

part 3.2
--b--
--a
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: image/gif

part 4.1
--c
Content-Type: message/rfc822

Subject: inner 4.2
X-Mailer: x
Content-Type: multipart/mixed; boundary=d

--d
Content-Type: text/plain

part 4.2.1
--d
Content-Type: multipart/alternative; boundary=e

--e
Content-Type: text/plain

part 4.2.2.1
--e
Content-Type: text/richtext

part 4.2.2.2
--e--
--d--
--c--
--a--
""".replace(b"\n", b"\r\n")


def fetch(text: str, raw: bytes = RAW) -> bytes | None:
    """BODY[text] in the notation of IMAP."""
    path: list[int] = []
    words = text.split(".")
    while words and words[0].isdigit():
        path.append(int(words.pop(0)))
    what, _, names = ".".join(words).partition(" ")
    wanted = frozenset(names.lower().strip("()").encode().split())
    parts = mime.unpack_parts(mime.parse(raw).parts)
    section = mime.section(raw, parts, (tuple(path), what, wanted))
    span = mime.section_range(parts, (tuple(path), what, wanted))
    assert (section is None) == (span is None)
    if span is not None:
        assert section == mime.pick(raw[span[0] : span[1]], mime.Section(tuple(path), what, wanted))
    return section


@pytest.mark.parametrize("number", ["1", "2", "3.1", "3.2", "4.1", "4.2.1", "4.2.2.1", "4.2.2.2"])
def test_leaves_by_their_numbers(number: str) -> None:
    assert fetch(number) == f"part {number}".encode()


def test_the_whole_message() -> None:
    assert fetch("") == RAW
    header, text = fetch("HEADER"), fetch("TEXT")
    assert header is not None and text is not None
    assert header == RAW[: RAW.index(b"\r\n\r\n") + 4]
    assert header + text == RAW


def test_header_and_text_of_embedded_messages() -> None:
    assert fetch("3.HEADER") == b"Subject: inner 3\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert fetch("3.TEXT") == (
        b"--b\r\nContent-Type: text/plain\r\n\r\npart 3.1\r\n"
        b"--b\r\nContent-Type: application/octet-stream\r\n\r\npart 3.2\r\n--b--"
    )
    assert fetch("3") == (fetch("3.HEADER") or b"") + (fetch("3.TEXT") or b"")
    assert fetch("4.2.HEADER.FIELDS (Subject)") == b"Subject: inner 4.2\r\n\r\n"
    assert fetch("4.2.HEADER.FIELDS.NOT (Subject Content-Type)") == b"X-Mailer: x\r\n\r\n"
    assert fetch("HEADER.FIELDS (SUBJECT X-None)") == b"Subject: outer\r\n\r\n"


def test_mime_headers() -> None:
    assert fetch("1.MIME") == b"Content-Type: text/plain\r\n\r\n"
    assert fetch("3.MIME") == b"Content-Type: message/rfc822\r\n\r\n"
    assert fetch("4.MIME") == b"Content-Type: multipart/mixed; boundary=c\r\n\r\n"
    assert fetch("4.2.2.MIME") == b"Content-Type: multipart/alternative; boundary=e\r\n\r\n"


def test_a_multipart_inside() -> None:
    found = fetch("4.2.2")
    assert found is not None and found.startswith(b"--e\r\n") and found.endswith(b"--e--")


@pytest.mark.parametrize("text", ["5", "1.1", "1.HEADER", "1.TEXT", "4.HEADER", "3.3", "4.2.2.3", "0", "9.9.9.MIME"])
def test_what_does_not_exist(text: str) -> None:
    assert fetch(text) is None


def test_a_message_without_parts_has_part_1() -> None:
    raw = b"Subject: x\r\n\r\nbody\r\n"
    assert fetch("1", raw) == fetch("TEXT", raw) == b"body\r\n"
    assert fetch("1.MIME", raw) == b"Subject: x\r\n\r\n"
    assert fetch("2", raw) is None


def test_a_message_whose_body_is_a_message() -> None:
    raw = (CORPUS / "rfc822-in-rfc822.eml").read_bytes()
    assert fetch("1.1.1", raw) == b"the innermost text\r\n"
    assert fetch("1.1.HEADER", raw) == b"From: inner@example.org\r\nSubject: inner\r\n\r\n"
    assert fetch("1.HEADER.FIELDS (SUBJECT)", raw) == b"Subject: middle\r\n\r\n"


def test_the_part_table_is_compact() -> None:
    usual = mime.parse((CORPUS / "mixed-attachment.eml").read_bytes())
    assert len(usual.parts) < 600
    assert len(mime.parse(RAW).parts) < 1_000


def test_parts_come_back_as_they_were() -> None:
    header = (
        b"Content-Type: text/plain; charset=UTF-8; format=flowed; name=a.txt\r\nContent-ID: <c@x>\r\n"
        b"Content-Transfer-Encoding: Quoted-Printable\r\nContent-Disposition: INLINE\r\nContent-Language: de\r\n"
        b"Content-Location: b\r\n\r\n"
    )
    (part,) = mime.unpack_parts(mime.parse(header + b"=C3=A9\r\n").parts)
    assert part == mime.Part(
        id="1",
        parent=-1,
        type="text",
        subtype="plain",
        encoding="quoted-printable",
        header_start=0,
        body_start=len(header),
        body_end=len(header) + 8,
        lines=1,
        size=4,
        is_message=False,
        charset="utf-8",
        disposition="inline",
        filename="a.txt",
        cid="c@x",
        location="b",
        language="de",
        flow="flowed",
    )
