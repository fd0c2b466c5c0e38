"""SCRAM-SHA-256 as the server sees it: RFC 7677's example, channel binding, and messages that are none."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire import sasl, scram
from mailcore.wire.sasl import Challenge, Keys, KeysWanted, Mechanism, Proven, SaslError, Verifier
from tests.scram import ScramClient

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
NAME = "SCRAM-SHA-256"
END_POINT = {"tls-server-end-point": b"\x01\x02the hash of a certificate"}


def verifier(password: str, secret_id: bytes = b"1") -> Verifier:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Verifier(hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"), secret_id)


def known(*passwords: str) -> Keys:
    return Keys(SALT, 4096, [verifier(password, password.encode()) for password in passwords])


def test_the_example_of_rfc_7677() -> None:
    run = scram.mechanism(NAME, nonce=lambda: b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    exchange = sasl.Exchange(Mechanism(NAME, run), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", {})
    assert exchange.step == KeysWanted("user")
    assert exchange.respond(Keys(SALT, 4096, [verifier("pencil")])) == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = exchange.respond(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert exchange.respond(b"") == Proven(NAME, "user", b"1")


def _play(client: ScramClient, keys: Keys, name: str = NAME, bindings: dict[str, bytes] | None = None) -> sasl.Step:
    exchange = sasl.start(name, None, bindings)
    assert exchange.step == Challenge(b"")
    assert isinstance(exchange.respond(client.first()), KeysWanted)
    step = exchange.respond(keys)
    assert isinstance(step, Challenge)
    step = exchange.respond(client.final(step.data))
    if isinstance(step, Challenge):
        assert client.accepts(step.data)
        step = exchange.respond(b"")
    return step


def test_any_of_several_secrets_is_found_and_no_other() -> None:
    keys = known("one", "two", "three")
    assert _play(ScramClient("a,b=c", "two"), keys) == Proven(NAME, "a,b=c", b"two")
    assert _play(ScramClient("alice", "four"), keys) == Proven(NAME, "alice", None)
    assert _play(ScramClient("alice", "one"), known()) == Proven(NAME, "alice", None)


def test_an_authorization_identity_is_passed_on() -> None:
    assert _play(ScramClient("alice", "one", header=b"n,a=bob,"), known("one")) == Proven(NAME, "alice", b"one", "bob")


def test_the_plus_mechanism_binds_to_the_channel() -> None:
    header, octets = b"p=tls-server-end-point,,", END_POINT["tls-server-end-point"]
    client = ScramClient("alice", "one", header=header, binding=octets)
    plus = "SCRAM-SHA-256-PLUS"
    assert _play(client, known("one"), plus, END_POINT) == Proven(plus, "alice", b"one")
    other = ScramClient("alice", "one", header=header, binding=b"the certificate of somebody between us")
    with pytest.raises(SaslError, match="channel binding does not fit"):
        _play(other, known("one"), plus, END_POINT)


@pytest.mark.parametrize(
    ("name", "header", "bindings"),
    [
        ("SCRAM-SHA-256-PLUS", b"n,,", END_POINT),
        ("SCRAM-SHA-256-PLUS", b"y,,", END_POINT),
        ("SCRAM-SHA-256-PLUS", b"p=tls-unique,,", END_POINT),
        ("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,", {}),
        ("SCRAM-SHA-256", b"p=tls-server-end-point,,", END_POINT),
        ("SCRAM-SHA-256", b"y,,", END_POINT),  # somebody took -PLUS out of what we announced
    ],
)
def test_a_header_that_does_not_fit_is_refused(name: str, header: bytes, bindings: dict[str, bytes]) -> None:
    with pytest.raises(SaslError):
        sasl.start(name, header + b"n=alice,r=abc", bindings)


def test_a_client_that_could_bind_but_was_not_offered_to_gets_in() -> None:
    assert _play(ScramClient("alice", "one", header=b"y,,"), known("one")) == Proven(NAME, "alice", b"one")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=alice",
        b"n,,n=,r=abc",
        b"n,,n=alice,r=",
        b"n,,n=al=ice,r=abc",
        b"n,,n=al=2cice,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=a\x00b,r=abc",
        b"n,,m=ext,n=alice,r=abc",
        b"x,,n=alice,r=abc",
        b"n,b=c,n=alice,r=abc",
        b"n,,n=alice,r=a bc",
        b"n,,n=" + b"x" * 2000 + b",r=abc",
    ],
)
def test_a_first_message_that_is_none_is_refused(first: bytes) -> None:
    with pytest.raises(SaslError):
        sasl.start(NAME, first)


@pytest.mark.parametrize(
    "change",
    [
        lambda final: b"",
        lambda final: final.replace(b"c=biws", b"c=eSws"),
        lambda final: final.replace(b"c=biws", b"c=!"),
        lambda final: final.replace(b"r=", b"r=x"),
        lambda final: final.split(b",p=")[0],
        lambda final: final.split(b",p=")[0] + b",p=A",
    ],
)
def test_a_final_message_that_is_none_is_refused(change) -> None:
    client = ScramClient("alice", "one")
    exchange = sasl.start(NAME, client.first())
    step = exchange.respond(known("one"))
    assert isinstance(step, Challenge)
    with pytest.raises(SaslError):
        exchange.respond(change(client.final(step.data)))


def test_a_proof_of_the_wrong_size_proves_nothing() -> None:
    client = ScramClient("alice", "one")
    exchange = sasl.start(NAME, client.first())
    step = exchange.respond(known("one"))
    assert isinstance(step, Challenge)
    short = client.final(step.data).split(b",p=")[0] + b",p=AAAA"
    assert exchange.respond(short) == Proven(NAME, "alice", None)


@given(st.binary(max_size=80), st.binary(max_size=120))
def test_any_octets_are_refused_or_prove_nothing(first: bytes, final: bytes) -> None:
    try:
        exchange = sasl.start(NAME, first)
        exchange.respond(known("one"))
        assert exchange.respond(final) == Proven(NAME, "x", None)
    except SaslError as error:
        assert error.text


def test_mechanisms_are_offered_where_they_can_be_used() -> None:
    assert sasl.offered({}, scram=False) == ["PLAIN", "LOGIN"]
    assert sasl.offered(END_POINT, scram=False) == ["PLAIN", "LOGIN"]
    assert sasl.offered({}, scram=True) == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert sasl.offered(END_POINT, scram=True) == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
