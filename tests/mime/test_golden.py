"""Every message of the corpus gives exactly what its golden file says, and agrees with Python's email package."""

from __future__ import annotations

import email
import email.message
import json
from pathlib import Path

import pytest

from mailcore import mime
from tests.mime.golden import CORPUS, derived, golden_path
from tests.mime.imap_grammar import check_body, check_envelope, read

MESSAGES = sorted(CORPUS.glob("*.eml"))

# Where the email package does otherwise than the RFCs or Dovecot, or than we do by intent.
EMAIL_DIFFERS = {
    "bare-cr-in-header": "only LF ends a line",
    "base64-damaged": "damaged base64 is decoded as far as it goes",
    "boundary-adjacent": "an empty piece between two delimiters is a part (Dovecot: too)",
    "boundary-at-end-of-file": "a delimiter at the very end begins no part (Dovecot: too)",
    "boundary-closes-only": "a body that cannot be divided is one text part, as IMAP needs a part",
    "boundary-follows-header": "the header ends at the blank line, not at a line that is no field (Dovecot: too)",
    "boundary-never-occurs": "a body that cannot be divided is one text part",
    "boundary-param-missing": "the same",
    "boundary-same-when-nested": "the outer delimiter ends what is inside",
    "content-type-comment": "comments are no part of the type (RFC 2045, section 5.1)",
    "content-type-missing-semicolon": "the semicolon is supplied",
    "dsn-headers-only": "message/delivery-status has no parts in IMAP",
    "dsn-report": "the same",
    "eightbit-header-latin1": "raw 8-bit file names are read",
    "filename-forms": "RFC 2047 words in file names are read",
    "junk-header-lines": "the header ends at the blank line",
    "mdn-report": "message/disposition-notification has no parts in IMAP",
    "nul-bytes": "NUL is dropped: no IMAP string and no database column may hold it",
    "rfc2231-charset": "the extended form of a parameter goes before the plain one (RFC 6266, section 4.3)",
    "rfc2231-continuations": "message/external-body has no parts in IMAP",
    "rfc822-base64": "an encoded message is not opened (RFC 2046, section 5.2.1)",
    "smtputf8": "raw UTF-8 file names are read (RFC 6532)",
}


@pytest.fixture(params=MESSAGES, ids=lambda path: path.stem)
def message(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_derives_what_the_golden_file_says(message: Path) -> None:
    assert derived(message.read_bytes()) == json.loads(golden_path(message).read_text())


def test_every_golden_file_has_its_message() -> None:
    assert {path.stem for path in CORPUS.glob("*.json")} == {path.stem for path in MESSAGES}
    assert len(MESSAGES) >= 60


def test_imap_forms_keep_the_grammar(message: Path) -> None:
    found = mime.parse(message.read_bytes())
    check_envelope(read(found.envelope))
    leaves = check_body(read(found.bodystructure), extended=True)
    assert check_body(read(mime.body_from(found.bodystructure)), extended=False) == leaves


def test_agrees_with_the_email_package_on_structure_and_content(message: Path) -> None:
    difference = _difference(message.read_bytes())
    if message.stem in EMAIL_DIFFERS:
        assert difference, "they agree: take it off the list"
    else:
        assert not difference, difference


def _difference(raw: bytes) -> str | None:
    """Where the email package and we take a message apart differently; None when nowhere."""
    parts = mime.unpack_parts(mime.parse(raw).parts)
    theirs = list(email.message_from_bytes(raw).walk())
    kinds = [f"{part.type}/{part.subtype}" for part in parts]
    if kinds != [other.get_content_type() for other in theirs]:
        return f"{kinds} != {[other.get_content_type() for other in theirs]}"
    for ours, other in zip(parts, theirs, strict=True):
        name = other.get_filename() or None
        if ours.filename != name:
            return f"{ours.filename!r} != {name!r}"
        if other.is_multipart():
            continue
        content = other.get_payload(decode=True)
        assert isinstance(content, bytes)
        if mime.decode_part(raw, ours, 1 << 20).replace(b"\r\n", b"\n") != content.replace(b"\r\n", b"\n"):
            return f"{mime.decode_part(raw, ours, 1 << 20)!r} != {content!r}"
    return None
