"""Input made to cost: time grows in proportion to size, and bounds hold."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mailcore import mime
from mailcore.mime import limits
from tests.mime.golden import CORPUS
from tests.mime.test_properties import check_everything

MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
HTML = b"Content-Type: text/html\r\n\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"


def nested(count: int) -> bytes:
    out = [b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"]
    out += [b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (i, i + 1) for i in range(count)]
    return b"".join(out)


def repeated(before: bytes, unit: bytes, after: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: before + unit * (size // len(unit)) + after


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "dashes": repeated(MIXED, b"--\r\n"),
    "delimiters": repeated(MIXED, b"--b\r\n"),
    "false delimiters": repeated(MIXED, b"--bX\r\n"),
    "padded delimiters": repeated(MIXED, b"--b" + b" " * 500 + b"x\r\n"),
    "nested multiparts": lambda size: nested(size // 60),
    "nested multiparts, LF": lambda size: nested(size // 60).replace(b"\r", b""),
    "nested multiparts, same boundary": repeated(MIXED, b"--b\r\n" + MIXED),
    "nested messages": repeated(b"", b"Content-Type: message/rfc822\r\n\r\n"),
    "a digest of address lists": repeated(
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n", b"--b\r\n\r\nTo: " + b"a@b," * 500 + b"\r\n\r\n"
    ),
    "a long line": repeated(b"Subject: ", b"a", b"\r\n\r\n"),
    "a long name": repeated(b"", b"a", b"\r\n\r\n"),
    "spaces before a colon": repeated(b"a", b" ", b":\r\n\r\n"),
    "carriage returns": repeated(b"Subject: x", b"\r", b"\r\n\r\n"),
    "folds": repeated(b"Subject: x", b"\r\n ", b"\r\n\r\n"),
    "many fields": repeated(b"", b"a:\n", b"\n"),
    "fields without values": repeated(b"", b"to: \n", b"\n"),
    "fields that end in spaces": repeated(b"", b"a: b  \r\n", b"\r\n"),
    "many From fields": repeated(b"", b"From: a@b\r\n", b"\r\n"),
    "addresses": repeated(b"To: ", b"a@b,", b"\r\n\r\n"),
    "open comments": repeated(b"To: ", b"(", b"\r\n\r\n"),
    "open angles": repeated(b"To: ", b"<", b"\r\n\r\n"),
    "quotes": repeated(b"To: ", b'"\\', b"\r\n\r\n"),
    "escaped brackets": repeated(b"To: ", b"\\[", b"\r\n\r\n"),
    "groups": repeated(b"To: ", b"a:;", b"\r\n\r\n"),
    "colons after an address": lambda size: b"To: " + b"w " * (size // 4) + b"@" + b":" * (size // 2) + b"\r\n\r\n",
    "words": repeated(b"To: ", b"a ", b"\r\n\r\n"),
    "dots": repeated(b"To: ", b". ", b"@x\r\n\r\n"),
    "encoded words": repeated(b"Subject: ", b"=?utf-8?q?a?= ", b"\r\n\r\n"),
    "open encoded words": repeated(b"X-A: ", b"=?a?q?", b"\r\n\r\n"),
    "half encoded words": repeated(b"X-A: ", b"=?", b"\r\n\r\n"),
    "a large encoded word": repeated(b"Subject: =?utf-8?b?", b"AAAA", b"?=\r\n\r\n"),
    "subject blobs": repeated(b"Subject: ", b"[a]", b"\r\n\r\n"),
    "subject forwards": lambda size: b"Subject: " + b"[fwd: " * (size // 7) + b"]" * (size // 7) + b"\r\n\r\n",
    "parameters": repeated(b"Content-Type: text/plain", b"; a=b", b"\r\n\r\n"),
    "parameter spaces": repeated(b"Content-Type: text/plain; ", b" ", b"\r\n\r\n"),
    "parameter words": repeated(b"Content-Type: text/plain; a=", b"b ", b"\r\n\r\n"),
    "parameter quotes": repeated(b"Content-Type: text/plain; ", b'a="\\', b"\r\n\r\n"),
    "parameter stars": repeated(b"Content-Type: text/plain; a", b"*", b"=x\r\n\r\n"),
    "parameter comments": repeated(b"Content-Type: text/plain; charset=", b"(", b"\r\n\r\n"),
    "date": repeated(b"Date: ", b"1 ", b"\r\n\r\n"),
    "references": repeated(b"References: ", b"<a@b> ", b"\r\n\r\n"),
    "references without brackets": repeated(b"References: ", b"a", b"\r\n\r\n"),
    "references of at signs": repeated(b"References: ", b"a@", b"\r\n\r\n"),
    "html angles": repeated(HTML, b"<"),
    "html open tags": repeated(HTML, b"<a "),
    "html open quotes": repeated(HTML, b'<a "'),
    "html crossed quotes": repeated(HTML, b'<a \'"<a "y'),
    "html tags of words": repeated(HTML, b"<b>"),
    "html tags and spaces": repeated(HTML, b"<b a='x'> "),
    "html tags unlike each other": lambda size: HTML + b"".join(b"<b a%d>" % i for i in range(size // 8)),
    "html tags with open attributes": repeated(HTML, b"<b 'x' \"y\" "),
    "html comments": repeated(HTML, b"<!--"),
    "html scripts": repeated(HTML, b"<script>"),
    "html styles": repeated(HTML, b"<style><"),
    "html entity digits": repeated(HTML + b"&#", b"9"),
    "html entities": repeated(HTML, b"&amp"),
    "html titles": repeated(HTML, b"<title>"),
    "html quotes of mail": repeated(HTML, b"<div class="),
    "html metas": repeated(HTML, b"<meta "),
    "combining marks": repeated(TEXT, "\u0301\u0316".encode()),
    "words of combining marks": repeated(TEXT, b"a" + "\u0301\u0316".encode() * 120 + b" "),
    "characters that expand": repeated(TEXT, "\ufdfa".encode()),
    "white space": repeated(TEXT, b" \t"),
    "invisible characters": repeated(TEXT, "\u200c".encode()),
    "attributions": repeated(TEXT + b">", b"on aaa\n"),
    "rules": repeated(TEXT + b">", b"----"),
    "padding of base64": repeated(b"Content-Transfer-Encoding: base64\r\n\r\n", b"="),
    "pieces of base64": repeated(b"Content-Transfer-Encoding: base64\r\n\r\n", b"QQ==\r\n"),
    "soft breaks": repeated(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", b"=\r\n"),
    "uuencode": repeated(b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n", b"M\r\n"),
    "uuencode begins": repeated(b"Content-Transfer-Encoding: x-uuencode\r\n\r\n", b"begin 644 a"),
    "utf-7": repeated(b"Content-Type: text/plain; charset=utf-7\r\n\r\n", b"+2AA"),
    "iso-2022": repeated(b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n", b"\x1b$B"),
    "damaged utf-8": repeated(TEXT, b"\xff\xc3\xa9"),
    "punycode": repeated(b"Content-Type: text/plain; charset=punycode\r\n\r\n", b"a"),
}

SIZE = 40_000
# Seconds for the larger message that need no further look: quicker than any quadratic behaviour at this size, and too
# quick to be measured on a busy machine.
HARMLESS = 0.06


def seconds(raw: bytes) -> float:
    started = time.process_time()
    mime.parse(raw)
    return time.process_time() - started


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_in_proportion_to_size(name: str) -> None:
    build = HOSTILE[name]
    small, large = build(SIZE), build(4 * SIZE)
    for _ in range(5):
        took = seconds(large)
        if took < HARMLESS:
            return
        ratio = took / min(seconds(small) for _ in range(2))
        if ratio < 7:  # linear is 4, quadratic is 16
            return
    pytest.fail(f"{took:.3f} s, {ratio:.1f} times as long for 4 times the size")


@pytest.mark.parametrize("name", HOSTILE)
def test_promises_hold_for_hostile_messages(name: str) -> None:
    check_everything(HOSTILE[name](6_000))


def test_depth_is_bounded_and_what_is_deeper_is_opaque() -> None:
    parts = mime.unpack_parts(mime.parse(nested(200)).parts)
    assert len(parts) == limits.MAX_DEPTH + 1
    assert (parts[-1].type, parts[-1].subtype) == ("application", "octet-stream")
    raw = b"Content-Type: message/rfc822\r\n\r\n" * 200
    parts = mime.unpack_parts(mime.parse(raw).parts)
    assert len(parts) == limits.MAX_DEPTH + 1
    assert parts[-1].body_end == len(raw)


def test_parts_are_bounded_and_the_last_takes_the_rest() -> None:
    raw = MIXED + b"--b\r\n\r\ntext\r\n" * 5_000 + b"--b--\r\n"
    parts = mime.unpack_parts(mime.parse(raw).parts)
    assert len(parts) == limits.MAX_PARTS
    assert parts[-1].body_end == len(raw)
    check_everything(raw)


def test_parts_are_bounded_over_several_multiparts() -> None:
    inner = b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + b"--c\r\n\r\nx\r\n" * 400
    raw = MIXED + inner * 5
    assert len(mime.unpack_parts(mime.parse(raw).parts)) <= limits.MAX_PARTS
    check_everything(raw)


def test_derived_texts_are_bounded() -> None:
    raw = b"Subject: " + b"s" * 500_000 + b"\r\nX-Pad: " + b"p" * 300_000 + b"\r\n\r\n" + b"b" * 5_000_000
    found = mime.parse(raw)
    assert len(found.envelope) < 2 * limits.MAX_VALUE
    assert len(found.text.header) <= limits.MAX_HEADER_TEXT
    assert len(found.text.body) <= limits.MAX_BODY_TEXT
    # What IMAP answers from is whole.
    assert found.headers == raw[: raw.index(b"X-Pad")]


def test_padding_does_not_hide_the_sender_from_search() -> None:
    raw = b"X-Pad: " + b"p" * 100_000 + b"\r\nFrom: anna@example.org\r\nSubject: found\r\n\r\n"
    found = mime.parse(raw)
    assert (found.text.from_, found.text.subject) == ("anna@example.org", "found")


def test_many_addresses_are_cut_off_but_valid() -> None:
    raw = b"To: " + b"a@b.example, " * 200_000 + b"\r\nCc: c@d.example\r\n\r\n"
    found = mime.parse(raw)
    assert len(found.summary.to) <= limits.MAX_ADDRESSES
    check_everything(raw)


def test_a_huge_header_is_still_answered_from_exactly() -> None:
    raw = b"From: a@b\r\n" + b"X-Fill: x\r\n" * 50_000 + b"Subject: late\r\nX-Last: y\r\n\r\nbody"
    found = mime.parse(raw)
    assert found.headers == b"From: a@b\r\nSubject: late\r\n"
    assert found.header_size == len(raw) - 4


@pytest.mark.parametrize("name", ["nested-four-levels", "rfc822-attached", "digest", "filename-forms"])
def test_a_message_cut_off_anywhere(name: str) -> None:
    raw = (CORPUS / f"{name}.eml").read_bytes()
    for end in range(0, len(raw), 3):
        check_everything(raw[:end])
