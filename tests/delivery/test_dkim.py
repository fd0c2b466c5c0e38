"""Signatures that others can verify, and keys that only we can open."""

from __future__ import annotations

import re
from collections.abc import Callable

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import secrets
from mailcore import db
from mailcore.delivery import content, dkim
from mailcore.store import signing_keys
from mailcore.wire.smtp import data

Lookup = Callable[..., bytes | None]


@pytest.fixture(scope="module")
def keys(rsa_key: rsa.RSAPrivateKey) -> tuple[dkim.Key, ...]:
    ed25519 = Ed25519PrivateKey.generate()
    return (dkim.Key("example.test", "one", "rsa", rsa_key), dkim.Key("example.test", "two", "ed25519", ed25519))


def lookup(keys: tuple[dkim.Key, ...]) -> Lookup:
    records = {
        f"{key.selector}._domainkey.{key.domain}.".encode(): (
            f"v=DKIM1; k={key.algorithm}; p={dkim._public(key.private)}".encode()
        )
        for key in keys
    }
    return lambda name, timeout=5: records.get(name)


def verified(raw: bytes, keys: tuple[dkim.Key, ...]) -> list[bool]:
    message = dkimpy.DKIM(raw)
    return [message.verify(index, dnsfunc=lookup(keys)) for index in range(len(keys))]


WHITE = st.sampled_from([b"a", b"b", b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b" \r\n", b".", "é".encode()])
BODIES = st.lists(WHITE, max_size=20).map(b"".join)
VALUES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"  b", b"\r\n c", b"\r\n\t", b":"]), max_size=8).map(b"".join)
NAMES = st.sampled_from([b"Subject", b"subject", b"To", b"Cc", b"X-Other", b"Message-ID", b"References", b"List-Id"])
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)


@settings(max_examples=150, deadline=None)
@given(HEADERS, BODIES, st.sampled_from([1, 3, data.PIECE]))
def test_dkimpy_verifies_what_we_sign(
    keys: tuple[dkim.Key, ...], fields: list[tuple[bytes, bytes]], body: bytes, piece: int
) -> None:
    lines = [b"From: Ann <ann@example.test>", *(name + b":" + value.rstrip() + b"." for name, value in fields)]
    raw = b"\r\n".join(re.sub(rb"\r\n[ \t]*(?=\r\n)", b"", line) for line in lines) + b"\r\n\r\n" + body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PIECE", piece)
        signature = dkim.sign(raw, keys)
    sent = signature + (raw if raw.endswith(b"\r\n") else raw + b"\r\n")  # as DATA sends it
    assert verified(sent, keys) == [True, True]


MESSAGE = b"From: Ann <ann@example.test>\r\nSubject: hello\r\nDate: today\r\n\r\nHello  Bob\t\r\n\r\n\r\n"


def test_a_changed_message_does_not_verify(keys: tuple[dkim.Key, ...]) -> None:
    signed = dkim.sign(MESSAGE, keys) + MESSAGE
    assert verified(signed, keys) == [True, True]
    assert verified(signed.replace(b"Subject: hello", b"Subject: hullo"), keys) == [False, False]
    with pytest.raises(dkimpy.ValidationError, match="body hash"):
        verified(signed.replace(b"Hello  Bob", b"Hello Rob"), keys)


@pytest.mark.parametrize("extra", [b"From: Eve <eve@example.net>\r\n", b"Subject: pay this\r\n"])
def test_nobody_can_add_a_second_sender_or_subject(keys: tuple[dkim.Key, ...], extra: bytes) -> None:
    assert verified(dkim.sign(MESSAGE, keys) + extra + MESSAGE, keys) == [False, False]


def test_other_fields_may_be_added_on_the_way(keys: tuple[dkim.Key, ...]) -> None:
    assert verified(b"Received: from a by b\r\n" + dkim.sign(MESSAGE, keys) + MESSAGE, keys) == [True, True]


def test_a_message_without_a_sender_is_not_signed(keys: tuple[dkim.Key, ...]) -> None:
    assert dkim.sign(b"Subject: hello\r\n\r\nx\r\n", keys) == b""


def test_lines_are_folded(keys: tuple[dkim.Key, ...]) -> None:
    many = b"From: a@example.test\r\n" + b"References: <x@y>\r\n" * 30 + b"\r\nx\r\n"
    assert max(len(line) for line in dkim.sign(many, keys).split(b"\r\n")) <= 100
    assert verified(dkim.sign(many, keys) + many, keys) == [True, True]


def test_a_body_of_nothing_but_line_ends_costs_no_time(keys: tuple[dkim.Key, ...]) -> None:
    raw = b"From: a@example.test\r\n\r\n" + b"\r\n" * 200_000
    assert verified(dkim.sign(raw, keys) + raw, keys) == [True, True]


@pytest.mark.django_db
def test_a_domain_gets_a_key_of_each_kind_and_keeps_them() -> None:
    with db.django_transaction() as tx:
        db.run_sync(dkim.create_keys(tx, "example.org"))
        db.run_sync(dkim.create_keys(tx, "example.org"))
        stored = db.run_sync(signing_keys.of_domain(tx, "example.org"))
        opened = db.run_sync(dkim.load_keys(tx, "example.org"))
        assert db.run_sync(dkim.load_keys(tx, "other.example")) == ()
        records = db.run_sync(dkim.dns_records(tx, "example.org"))
    assert sorted(key.algorithm for key in stored) == ["ed25519", "rsa"]
    assert all(re.fullmatch(r"ms-(rsa|ed25519)-20\d\da", key.selector) for key in stored)
    assert all(b"PRIVATE" not in key.private_key for key in stored), "sealed"
    assert all(b"BEGIN PRIVATE KEY" in secrets.unseal(key.private_key) for key in stored)
    assert [key.algorithm for key in opened] == ["rsa", "ed25519"], "the first is the one that everybody understands"
    assert opened[0].private.key_size == 2048  # type: ignore[union-attr]
    texts = [str(record) for record in records]
    assert any(text.startswith("ms-rsa-20") and '"v=DKIM1; k=rsa; p=' in text for text in texts)
    assert all(len(piece) <= 255 for text in texts for piece in re.findall(r'"([^"]*)"', text))
    names = {record.name: record.value.encode() for record in records if record.name.startswith("ms-")}
    signed = dkim.sign(MESSAGE, opened) + MESSAGE
    message = dkimpy.DKIM(signed)
    for index in (0, 1):
        assert message.verify(index, dnsfunc=lambda name, timeout=5: names[name.decode().rstrip(".")])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Bcc: a@x\r\nFrom: b\r\n\r\nBcc: c\r\n", b"From: b\r\n\r\nBcc: c\r\n"),
        (b"From: b\r\nbcc : a@x,\r\n\tb@y\r\nTo: c\r\n\r\n", b"From: b\r\nTo: c\r\n\r\n"),
        (b"From: b\r\nResent-Bcc: a@x\r\nX-Bcc: no\r\n\r\n", b"From: b\r\nX-Bcc: no\r\n\r\n"),
        (b"From: b\r\nTo: c\r\n bcc: not a field\r\n\r\n", b"From: b\r\nTo: c\r\n bcc: not a field\r\n\r\n"),
        (b"From: b\r\nBCC: a", b"From: b\r\n"),
    ],
)
def test_blind_copies_stay_blind(before: bytes, after: bytes) -> None:
    assert content.without_bcc(before) == after


@given(st.binary().map(lambda raw: raw.replace(b"x", b"\r\n").replace(b"y", b"\n").replace(b"z", b"\r")))
def test_what_is_sent_has_crlf_line_ends_only(raw: bytes) -> None:
    repaired = content.crlf(raw)
    assert repaired.count(b"\r\n") == repaired.count(b"\n") == repaired.count(b"\r")
    assert content.crlf(repaired) == repaired
    if b"\n" not in raw.replace(b"\r\n", b"") and b"\r" not in raw.replace(b"\r\n", b""):
        assert repaired == raw
