"""What the doctor says of certificates, and the DNS records about their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.rdata
import pytest
from cryptography.hazmat.primitives import serialization

from accounts import secrets
from mailcore import tls
from mailcore.certificates import health, material
from mailcore.conf import Conf, conf
from mailcore.delivery.tls import dane
from mailcore.store.certificates import Stored
from tests.delivery.authority import Authority, Issued

HOST = "mail.example.test"


@pytest.fixture
def ours(tmp_path: Path) -> Conf:
    made = replace(conf, data=tmp_path, hostname=HOST)
    tls.ensure_certificate(made)
    return made


def pem(issued: Issued) -> bytes:
    return issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def stored(issued: Issued, name: str = HOST, **changed: object) -> Stored:
    checked = material.check(issued.pem(), pem(issued))
    now = datetime.now(UTC)
    made = Stored(
        name,
        "acme",
        checked.names,
        checked.chain,
        secrets.seal(checked.key),
        secrets.seal(material.new_key()),
        checked.begins,
        checked.ends,
        1,
        0,
        "",
        now,
        now,
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # a test's fields


def test_what_could_not_be_had_and_what_ends_soon_is_said() -> None:
    issued = Authority().issue(HOST)
    now = datetime.now(UTC)
    cases: list[tuple[dict[str, object], bool | None, str]] = [
        ({}, None, ""),
        ({"chain": None}, None, ""),
        ({"chain": None, "error": "dns: no such host"}, True, "dns: no such host"),
        ({"not_after": now - timedelta(days=1), "error": "busy"}, True, "expired"),
        ({"not_after": now + timedelta(days=0.3)}, False, "expires"),
        ({"error": "autoconfig.example.test: unauthorized"}, False, "lacks names"),
    ]
    for changed, wrong, words in cases:
        remarks = list(health.of_database([stored(issued, **changed)]))
        assert [each[0] for each in remarks] == ([] if wrong is None else [wrong]), changed
        assert all(words in each[1] and each[2] for each in remarks)


def test_enforcing_mta_sts_needs_a_certificate_that_others_trust(ours: Conf) -> None:
    good = stored(Authority().issue(HOST))
    expired = stored(Authority().issue(HOST, days=-1))
    assert not list(health.of_mta_sts(ours, [], []))
    assert not list(health.of_mta_sts(ours, [good], ["example.test"]))
    ((wrong, text, _),) = health.of_mta_sts(ours, [], ["example.test"])
    assert wrong and "example.test" in text and "self-signed" in text
    ((_, text, _),) = health.of_mta_sts(ours, [expired], ["example.test"])
    assert "expired" in text
    assert list(health.of_mta_sts(ours, [stored(Authority().issue("other.test"))], ["example.test"]))


def test_tlsa_records_that_fit_nothing_are_wrong(ours: Conf) -> None:
    issued = Authority().issue(HOST)
    kept = stored(issued)
    present, following = (
        material.tlsa_records(HOST, [material.key_digest(secrets.unseal(key))])[0]
        for key in (kept.private_key, kept.next_key)
    )
    assert str(present).startswith(f"_25._tcp.{HOST}. IN TLSA 3 1 1 ")

    def remarks(*published: str) -> list[bool]:
        def ask(name: str) -> list[str]:
            assert name == f"_25._tcp.{HOST}"
            return list(published)

        return [wrong for wrong, _, _ in health.of_tlsa(ours, [kept], ask)]

    assert remarks() == []
    assert remarks(present.value, following.value) == []
    assert remarks(present.value.upper()) == [False], "the next key is missing"
    assert remarks(following.value) == [True]
    assert remarks("3 1 1 " + "0" * 64) == [True]
    assert remarks("2 1 1 " + "0" * 64) == []
    spaced = f"3 1 1 {present.value[6:40]} {present.value[40:]}"
    assert remarks(spaced, following.value) == []


def test_the_records_that_are_suggested_are_those_that_a_sender_with_dane_believes() -> None:
    issued = Authority().issue(HOST)
    for text in material.tlsa_texts(issued.certificate):
        record = dns.rdata.from_text("IN", "TLSA", text)
        (wanted,) = dane.usable([record])
        assert dane.check([wanted], [issued.der()], [HOST]) == wanted, text
    assert f"3 1 1 {material.spki_digest(issued.certificate)}" in material.tlsa_texts(issued.certificate)
    assert material.key_digest(pem(issued)) == material.spki_digest(issued.certificate)


def test_only_what_belongs_together_is_taken(tmp_path: Path) -> None:
    authority = Authority()
    one, two = authority.issue(HOST), authority.issue(HOST)
    protected = one.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    bad: list[tuple[bytes, bytes, str]] = [
        (one.pem(), pem(two), "does not belong"),
        (one.pem(), protected, "password"),
        (b"", pem(one), "no certificate"),
        (one.pem(), b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no certificate"),
        (one.pem()[:200], pem(one), "no certificate"),
    ]
    check: Callable[[bytes, bytes], object] = material.check
    for chain, key, words in bad:
        with pytest.raises(material.MailError, match=words):
            check(chain, key)
    assert material.check(one.pem() + authority.own.pem(), pem(one)).names == (HOST,)
