"""What holds for any octets at all: nothing raises, offsets nest, sections add up, IMAP's grammar is kept."""

from __future__ import annotations

import email
import email.message
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailcore import mime
from mailcore.mime.limits import MAX_PREVIEW
from tests.mime.generate import near_messages, trees, written
from tests.mime.imap_grammar import check_body, check_envelope, read


def check_everything(raw: bytes) -> None:
    """All promises of `parse` that can be checked without knowing the message."""
    found = mime.parse(raw)
    assert found.size == len(raw)
    assert 0 <= found.header_size <= found.size

    check_envelope(read(found.envelope))
    leaves = check_body(read(found.bodystructure), extended=True)
    assert check_body(read(mime.body_from(found.bodystructure)), extended=False) == leaves
    for imap in (found.envelope, found.bodystructure):
        imap.decode("utf-8")

    parts = mime.unpack_parts(found.parts)
    check_parts(raw, parts)
    text_body, html_body, attachments = mime.body_parts(parts)
    for row in text_body + html_body + attachments:
        assert parts[row].type != "multipart"
    assert len(set(attachments)) == len(attachments)

    names = frozenset((b"subject", b"from"))
    header = raw[: found.header_size]
    assert mime.header_fields(found.headers, names) == mime.header_fields(header, names)
    kept = found.field_index + found.headers
    for some in (names, frozenset((b"content-type", b"from", b"to")), mime.CACHED_FIELDS):
        assert mime.picker(some)(kept) == mime.header_fields(header, some)

    texts = [found.preview, *found.summary.message_id, *found.summary.references]
    texts += [getattr(found.text, name) for name in ("from_", "to", "cc", "bcc", "subject", "header", "body")]
    texts += [found.summary.subject or "", found.summary.base_subject, found.summary.list_id or ""]
    texts += [text for part in parts for text in part if isinstance(text, str)]
    for field in (found.summary.from_, found.summary.to, found.summary.cc):
        texts += [text for person in field for text in (person.name or "", person.email)]
    for text in texts:
        text.encode("utf-8")  # no lone surrogates
        assert "\0" not in text
    assert len(found.preview) <= MAX_PREVIEW
    assert "\n" not in found.preview
    assert mime.Summary.from_json(found.summary.to_json()) == found.summary


def check_parts(raw: bytes, parts: list[mime.Part]) -> None:
    assert parts[0].parent == -1 and parts[0].header_start == 0 and parts[0].body_end == len(raw)
    previous_end = [0] * len(parts)
    ids = [part.id for part in parts if part.id]
    assert len(ids) == len(set(ids))
    for row, part in enumerate(parts):
        assert 0 <= part.header_start <= part.body_start <= part.body_end <= len(raw)
        assert part.id or part.type == "multipart"
        if row:
            holder = parts[part.parent]
            assert part.parent < row
            assert holder.type == "multipart" or holder.is_message
            assert holder.body_start <= part.header_start
            assert part.body_end <= max(holder.body_end, part.header_start)
            assert previous_end[part.parent] <= part.header_start, "brothers do not overlap"
            previous_end[part.parent] = part.body_end
        content = mime.decode_part(raw, part, 1 << 20)
        if part.type != "multipart" and part.encoding != "base64":
            assert part.size == len(content)
        text = mime.decode_text(raw, part, 1000)
        assert len(text) <= 1000
        text.encode("utf-8")
        check_sections(raw, parts, part)
    whole = mime.section(raw, parts, ((), "", frozenset()))
    header = mime.section(raw, parts, ((), "HEADER", frozenset()))
    body = mime.section(raw, parts, ((), "TEXT", frozenset()))
    assert header is not None and body is not None
    assert whole == raw == header + body


def check_sections(raw: bytes, parts: list[mime.Part], part: mime.Part) -> None:
    if not part.id:
        return
    path = tuple(map(int, part.id.split(".")))
    assert mime.section(raw, parts, (path, "", frozenset())) == raw[part.body_start : part.body_end]
    assert mime.section(raw, parts, (path, "MIME", frozenset())) == raw[part.header_start : part.body_start]
    header = mime.section(raw, parts, (path, "HEADER", frozenset()))
    body = mime.section(raw, parts, (path, "TEXT", frozenset()))
    if part.is_message:
        assert header is not None and body is not None
        assert header + body == raw[part.body_start : part.body_end]
    else:
        assert header is None and body is None


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_octets(raw: bytes) -> None:
    check_everything(raw)


@given(near_messages)
@settings(max_examples=500, deadline=None)
@example(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b--")
@example(b"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\n")
@example(b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n\n--b--\n")
@example(b'To: "\\')
@example(b'Content-Type: a/b; c="\\')
def test_octets_that_are_nearly_a_message(raw: bytes) -> None:
    check_everything(raw)


@given(trees())
@settings(max_examples=150, deadline=None)
def test_well_formed_messages_have_their_structure(tree: tuple[str, Any]) -> None:
    raw = written(tree)
    check_everything(raw)
    parts = mime.unpack_parts(mime.parse(raw).parts)
    theirs = list(email.message_from_bytes(raw).walk())
    assert [f"{p.type}/{p.subtype}" for p in parts] == [p.get_content_type() for p in theirs]
    for ours, other in zip(parts, theirs, strict=True):
        if not other.is_multipart():
            payload = other.get_payload(decode=True)
            assert isinstance(payload, bytes)
            assert raw[ours.body_start : ours.body_end] == payload


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_single_fields_never_raise(value: bytes) -> None:
    for text in (mime.decode_header(value), *mime.message_ids(value), mime.base_subject(mime.decode_header(value))):
        text.encode("utf-8")
        assert "\0" not in text and "\n" not in text
    for mailbox in mime.parse_addresses(value):
        assert all(field is None or b"\n" not in field for field in mailbox)
    mime.parse_date(value)
    mime.header_values(value, b"subject")


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_folding_gives_storable_single_spaced_text(text: str) -> None:
    folded = mime.fold(text)
    folded.encode("utf-8")
    assert "\0" not in folded
    assert folded == " ".join(folded.split())
    assert mime.fold(text.upper()) == mime.fold(text.upper().lower()) or not text.isascii()


@given(
    st.text(st.characters(max_codepoint=0xFF), max_size=100), st.text(st.characters(min_codepoint=0x100), max_size=3)
)
@settings(max_examples=300, deadline=None)
def test_the_quick_fold_of_latin1_is_the_fold(latin: str, other: str) -> None:
    # A character beyond Latin-1 takes the long way round; what it adds at the end is cut off again.
    assert mime.fold(latin + " " + "\u4e00")[:-1].rstrip() == mime.fold(latin)
    mime.fold(latin + other)


_PIECES = [
    b"From",
    b"sUBJECT",
    b"X",
    b"X-Y",
    b"Fro",
    b":",
    b": a",
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b"\r\n ",
    b"junk",
    b"to:",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=16).map(b"".join), st.booleans())
@settings(max_examples=500, deadline=None)
def test_header_fields_are_those_that_a_plain_loop_picks(block: bytes, exclude: bool) -> None:
    names = frozenset((b"from", b"subject", b"to", b"x"))
    if block and not block.endswith(b"\n"):
        block += b"\r\n"
    wanted: list[bytes] = []
    taking = False
    for line in block.splitlines(keepends=True):
        name, colon, _ = line.partition(b":")
        if line[:1] not in (b" ", b"\t"):
            name = name.rstrip(b" \t")
            is_field = bool(colon) and name != b"" and b" " not in name and b"\t" not in name
            taking = is_field and (name.lower() in names) != exclude
        if taking:
            wanted.append(line)
    assert mime.header_fields(block, names, exclude) == b"".join(wanted) + b"\r\n"
