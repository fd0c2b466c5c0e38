"""SASL exchanges as the server sees them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire import sasl
from mailcore.wire.sasl import Challenge, Credentials, SaslError


def test_plain_with_initial_response() -> None:
    # The example of RFC 4616 §4.
    assert sasl.start("PLAIN", b"\0tim\0tanstaaftanstaaf").step == Credentials("PLAIN", "tim", "tanstaaftanstaaf")


def test_plain_with_authorization_identity_after_an_empty_challenge() -> None:
    exchange = sasl.start("plain")
    assert exchange.step == Challenge(b"")
    wanted = Credentials("PLAIN", "Kurt", "xipj3plmq", "Ursel")
    assert exchange.respond(b"Ursel\0Kurt\0xipj3plmq") == wanted
    assert exchange.step == wanted


def test_login_asks_for_both() -> None:
    exchange = sasl.start("LOGIN")
    assert exchange.step == Challenge(b"Username:")
    assert exchange.respond("zoë".encode()) == Challenge(b"Password:")
    assert exchange.respond("pä ss".encode()) == Credentials("LOGIN", "zoë", "pä ss")


def test_login_takes_the_user_name_as_initial_response() -> None:
    exchange = sasl.start("LOGIN", b"alice")
    assert exchange.step == Challenge(b"Password:")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"alice",
        b"\0alice",
        b"\0alice\0pass\0more",
        b"\0\0pass",
        b"\0alice\0",
        b"\0\xff\0pass",
        b"\0a\0" + b"x" * 1025,
    ],
)
def test_a_malformed_plain_message_is_refused(message: bytes) -> None:
    with pytest.raises(SaslError) as caught:
        sasl.start("PLAIN", message)
    assert not caught.value.cancelled


def test_login_refuses_nul_and_empty_answers() -> None:
    for user, password in ((b"", b"x"), (b"x", b""), (b"a\0b", b"x"), (b"a", b"x\0")):
        exchange = sasl.start("LOGIN", user)
        with pytest.raises(SaslError):
            exchange.respond(password)


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(SaslError):
        sasl.start("CRAM-MD5")


def test_an_asterisk_cancels() -> None:
    with pytest.raises(SaslError) as caught:
        sasl.decode_response(b"*")
    assert caught.value.cancelled


@pytest.mark.parametrize("line", [b"=", b"AA", b"AAA", b"A===", b"AA==AA==", b" QQ==", b"QQ==\n", b"Q\xffQ=", b"-_=="])
def test_bad_base64_is_refused(line: bytes) -> None:
    with pytest.raises(SaslError) as caught:
        sasl.decode_response(line)
    assert not caught.value.cancelled


def test_responses_have_a_length_limit() -> None:
    assert sasl.decode_response(b"QUFB" * 3072) == b"AAA" * 3072
    with pytest.raises(SaslError):
        sasl.decode_response(b"QUFB" * 3073)
    with pytest.raises(SaslError):
        sasl.decode_response(b"QUFB", limit=3)


def test_the_initial_response_spells_empty_as_equals() -> None:
    assert sasl.decode_initial(b"=") == b""
    assert sasl.decode_initial(b"QQ==") == b"A"


def test_no_secret_in_repr() -> None:
    assert "hunter2" not in repr(Credentials("PLAIN", "alice", "hunter2"))


@given(st.binary(max_size=200))
def test_base64_round_trip(data: bytes) -> None:
    coded = sasl.encode_challenge(data)
    assert coded == base64.b64encode(data)
    assert sasl.decode_response(coded) == data


@given(st.sampled_from(sorted(sasl.MECHANISMS)), st.none() | st.binary(max_size=50), st.lists(st.binary(max_size=50)))
def test_no_input_raises_anything_else(mechanism: str, initial: bytes | None, answers: list[bytes]) -> None:
    try:
        exchange = sasl.start(mechanism, initial)
        for answer in answers:
            if isinstance(exchange.step, Credentials | sasl.KeysWanted):
                break
            exchange.respond(answer)
    except SaslError:
        pass


@given(st.binary(max_size=60))
def test_no_base64_line_raises_anything_else(line: bytes) -> None:
    try:
        sasl.decode_initial(line)
    except SaslError:
        pass
