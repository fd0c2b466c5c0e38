"""DKIM signatures on what comes in, against dkimpy: what it signs counts, what was changed since does not."""

from __future__ import annotations

import base64
from itertools import product

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailcore.inbound import signature

MAIL = frozenset({"email"})
RAW = (
    b"Received: from x\r\n\tby y\r\nFrom: A  <a@far.example>\r\nSubject:  two\r\n   lines\t \r\n"
    b"To: b@here.example\r\n\r\nHello  there \t\r\n\r\n.. \r\n\r\n\r\n"
)
RSA = generate_private_key(65537, 1024)
EDDSA = Ed25519PrivateKey.generate()
PEM = RSA.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
SEED = base64.b64encode(EDDSA.private_bytes_raw())


def record(kind: str = "rsa", extra: str = "") -> str:
    public = EDDSA.public_key().public_bytes_raw()
    if kind == "rsa":
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public = RSA.public_key().public_bytes(serialization.Encoding.DER, form)
    return f"v=DKIM1; k={kind}; {extra}p={base64.b64encode(public).decode()}"


def signed(raw: bytes = RAW, kind: str = "rsa", forms: tuple[bytes, bytes] = (b"relaxed", b"simple")) -> bytes:
    algorithm, key = (b"rsa-sha256", PEM) if kind == "rsa" else (b"ed25519-sha256", SEED)
    made: bytes = dkimpy.sign(raw, b"s1", b"far.example", key, canonicalize=forms, signature_algorithm=algorithm)
    return made + raw


def trouble(raw: bytes, text: str, services: frozenset[str] = MAIL) -> str:
    message = signature.split(raw)
    found = signature.signatures(message)
    return signature.trouble(message, found[0], text, services) if found else "none"


FORMS = list(product((b"simple", b"relaxed"), repeat=2))


@pytest.mark.parametrize("forms", FORMS, ids=str)
@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_what_dkimpy_signs_counts_and_what_was_changed_does_not(kind: str, forms: tuple[bytes, bytes]) -> None:
    raw = signed(kind=kind, forms=forms)
    text = record(kind)
    assert trouble(raw, text) == ""
    assert signature.signatures(signature.split(raw))[0].key_name == "s1._domainkey.far.example"
    assert "body was changed" in trouble(raw.replace(b"Hello", b"Hallo"), text)
    assert "does not fit" in trouble(raw.replace(b"two", b"three"), text)
    assert "does not fit" in trouble(raw.replace(b"A  <a@", b"B  <b@"), text)
    assert trouble(raw.replace(b"To: ", b"to:  "), text) == (
        "" if forms[0] == b"relaxed" else "it does not fit the message"
    )
    assert trouble(raw.replace(b"Hello  there", b"Hello there"), text) == (
        "" if forms[1] == b"relaxed" else "the body was changed"
    )


@settings(max_examples=60, deadline=None)
@given(st.text("ab \t\n.", max_size=40), st.text("ab \t", max_size=20), st.sampled_from(FORMS))
@example("", "", FORMS[0])
@example(" \n\t\n", " ", FORMS[3])
@example("a" + "\n" * 9000, "", FORMS[0])
@example("\n" * 4096, "", FORMS[3])
def test_whatever_the_white_space_is(body: str, subject: str, forms: tuple[bytes, bytes]) -> None:
    raw = b"From: a@far.example\r\nSubject:" + subject.encode() + b"\r\n\r\n"
    if body:  # what comes by SMTP ends with a line's end
        raw += (body + "\n").replace("\n", "\r\n").encode()
    assert trouble(signed(raw, "ed25519", forms), record("ed25519")) == ""


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("s=tlsrpt:other; ", "another service"),
        ("s=email:tlsrpt; ", ""),
        ("s=*; ", ""),
        ("h=sha1; ", "another hash"),
        ("h=sha1:sha256; n=a note; ", ""),
        ("t=y; ", "tested"),
        ("t=s; ", ""),
        ("v=DKIM2; ", "given twice"),
    ],
)
def test_a_key_says_what_it_is_for(extra: str, says: str) -> None:
    found = trouble(signed(), record(extra=extra))
    assert says in found if says else found == ""


def test_keys_that_are_none() -> None:
    raw = signed()
    for text, says in (
        ("", "no key"),
        ("v=spf1 -all", "no key"),
        ("v=DKIM1; p=", "revoked"),
        ("v=DKIM1; p=AAAA", "cannot be read"),
        ("v=DKIM1; p=!", "cannot be read"),
        (record("ed25519"), "another kind"),
        (record().replace("p=", "p=" + "A" * 20_000), "no key"),
    ):
        assert says in trouble(raw, text), text[:60]
    public = base64.b64encode(
        generate_private_key(65537, 1024)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode()
    assert trouble(raw, f"p={public}") == "it does not fit the message"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"d=far.example;", b"d=far.example; l=3;", "part of the body"),
        (b"d=far.example;", b"d=far.example; x=1;", "expired"),
        (b"d=far.example;", b"d=far.example; x=soon;", "cannot be read"),
        (b"i=@far.example;", b"i=@other.example;", "another domain"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "not to be used"),
        (b"c=relaxed", b"c=loose", "not known"),
        (b"v=1;", b"v=2;", "missing"),
        (b"from", b"form", "not over the From"),
    ],
)
def test_signatures_that_say_what_does_not_count(old: bytes, new: bytes, says: str) -> None:
    raw = signed()
    head, _, rest = raw.partition(b"\r\nReceived")
    assert old in head
    assert says in trouble(head.replace(old, new) + b"\r\nReceived" + rest, record())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.text(max_size=100))
def test_nothing_that_comes_in_ends_in_a_traceback(field: bytes, text: str) -> None:
    raw = signed()
    trouble(b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=y; h=from; b=AA; bh=" + field + b"\r\n" + raw, text)
    trouble(b"DKIM-Signature:" + field + b"\r\n" + raw, record())
