"""Delivery status notifications as messages: whatever goes in, their structure stands."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore.mime import parse
from mailcore.mime.report import Fate, Report, compose

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
ODD = st.sampled_from(["a\r\nBcc: x", "=?utf-8?q?x?=", "", "é" * 300])
TEXT = st.text(st.characters(codec=None), max_size=60) | ODD


def report(original: bytes = b"Subject: x\r\n\r\n", full: bool = True, utf8: bool = False, **more: str) -> Report:
    fate = replace(Fate("bob@example.org", "failed", "5.1.1", ""), **more)
    return Report("ann@example.test", "mx.example.test", [fate], original, full, NOW, NOW, utf8=utf8)


@settings(max_examples=150, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT, st.binary(max_size=300), st.booleans(), st.booleans())
def test_nothing_in_a_report_can_break_out_of_its_place(
    address: str, diagnostic: str, remote: str, subject: str, tail: bytes, full: bool, utf8: bool
) -> None:
    original = b"Subject: " + subject.encode("utf-8", "replace").replace(b"\r\n", b" ") + b"\r\n\r\n" + tail
    raw = compose(report(original, full, utf8, address=address, diagnostic=diagnostic, remote=remote))
    header, _, _ = raw.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in header.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert names == [
        *(b"From", b"To", b"Subject", b"Date", b"Message-ID"),
        *(b"Auto-Submitted", b"MIME-Version", b"Content-Type"),
    ]
    assert header.isascii()
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    types = [part.get_content_type() for part in message.get_payload()]  # type: ignore[union-attr]
    status = "message/global-delivery-status" if utf8 else "message/delivery-status"
    whole = "message/global" if utf8 else "message/rfc822"
    header_only = "message/global-headers" if utf8 else "text/rfc822-headers"
    assert types == ["text/plain", status, whole if full else header_only]
    assert raw.count(b"Final-Recipient:") >= 1
    derived = parse(raw)
    assert derived.summary.from_[0].email == "MAILER-DAEMON@mx.example.test"


def test_the_subject_of_the_message_stays_readable() -> None:
    raw = compose(report(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= an alle, die das lesen\r\n\r\n"))
    assert parse(raw).summary.subject == "Not delivered: Grüße an alle, die das lesen"


def test_the_original_is_returned_octet_by_octet() -> None:
    original = b"Subject: x\r\nX: \xff\r\n\r\n\x00\x01 8-bit \xe9\r\n.\r\n"
    raw = compose(report(original))
    assert original in raw
    assert b"Content-Transfer-Encoding: 8bit\r\n\r\nSubject: x" in raw


def test_a_machine_readable_part_of_ordinary_mail_is_ascii() -> None:
    raw = compose(report(diagnostic="550 Zürich sagt nein", address="bob@example.org"))
    status = raw.split(b"Content-Type: message/delivery-status")[1].split(b"\r\n--")[0]
    assert status.isascii()
    assert b"Z?rich" in status
