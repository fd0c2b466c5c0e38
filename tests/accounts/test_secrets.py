"""Sealing, password judging, and the throttle: plain computation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import app_passwords, passwords
from accounts.secrets import SealError, key_for, seal, unseal
from accounts.throttle import (
    ACCOUNT_LIMIT,
    KNOWN_FOR,
    LONGEST_DELAY,
    PAIR_LIMIT,
    SOURCE_LIMIT,
    WINDOW,
    Throttle,
    network,
)


@given(st.binary(max_size=5000))
def test_what_is_sealed_comes_back_and_looks_different_each_time(plain: bytes) -> None:
    assert unseal(seal(plain)) == plain and seal(plain) != seal(plain)
    assert not plain[:8] or len(plain) < 8 or plain not in seal(plain)


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x02" + b"x" * 40, b"\x01" + b"x" * 40])
def test_what_was_not_sealed_by_us_is_refused(damage: bytes) -> None:
    with pytest.raises(SealError):
        unseal(damage)


def test_one_changed_octet_is_noticed() -> None:
    sealed = bytearray(seal(b"secret"))
    sealed[-1] ^= 1
    with pytest.raises(SealError):
        unseal(bytes(sealed))


def test_the_installation_key_can_be_changed_while_the_old_one_is_still_listed(settings: Any) -> None:
    sealed = seal(b"secret")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"
    assert unseal(sealed) == b"secret"
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(SealError):
        unseal(sealed)


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert len({key_for("a"), key_for("b"), key_for("")}) == 3 and len(key_for("a")) == 32


@given(st.text(max_size=60))
def test_text_that_is_no_app_password_is_never_found(text: str) -> None:
    assert app_passwords.find(text, [b"\0" * 32]) is None


def test_generated_secrets_differ_and_survive_sloppy_typing() -> None:
    assert len({app_passwords.generate() for _ in range(50)}) == 50
    assert len({passwords.generate_password() for _ in range(50)}) == 50
    secret = app_passwords.generate()
    assert app_passwords.digest(f" {secret.upper().replace('-', ' ')} ") == app_passwords.digest(secret)


@pytest.mark.parametrize("weak", ["password", "12345678", "short", "alice@example.org", "alice"])
def test_a_weak_password_is_called_weak(weak: str) -> None:
    assert passwords.weakness(weak, "alice@example.org")
    assert passwords.weakness(passwords.generate_password(), "alice@example.org") is None


def test_a_hash_of_another_kind_matches_nothing() -> None:
    for encoded in ("", "!", "!unusable", "argon2$", "argon2$argon2id$x", "pbkdf2_sha256$1$a$b", "plain"):
        assert not passwords.verify(encoded, encoded)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_guessing_one_account_from_one_source_is_refused_for_a_while(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(PAIR_LIMIT):
        assert throttle.refusal("192.0.2.1", "Alice@example.org") is None
        throttle.failed("192.0.2.1", "alice@example.org")
    assert throttle.refusal("192.0.2.1", "alice@example.org") == WINDOW
    assert throttle.refusal("192.0.2.1", "bob@example.org") is None
    assert throttle.refusal("192.0.2.2", "alice@example.org") is None
    clock.now += WINDOW + 1
    assert throttle.refusal("192.0.2.1", "alice@example.org") is None


def test_guessing_many_accounts_from_one_source_is_refused_except_where_it_is_known(clock: Clock) -> None:
    throttle = Throttle(clock)
    throttle.succeeded("192.0.2.1", "alice@example.org")
    for number in range(SOURCE_LIMIT):
        throttle.failed("192.0.2.1", f"user{number}@example.org")
    assert throttle.refusal("192.0.2.1", "fresh@example.org")
    assert throttle.refusal("192.0.2.1", "alice@example.org") is None
    clock.now += KNOWN_FOR + 1
    for number in range(SOURCE_LIMIT):
        throttle.failed("192.0.2.1", f"user{number}@example.org")
    assert throttle.refusal("192.0.2.1", "alice@example.org")


def test_many_sources_against_one_account_cannot_lock_its_owner_out(clock: Clock) -> None:
    throttle = Throttle(clock)
    throttle.succeeded("198.51.100.1", "alice@example.org")
    for number in range(ACCOUNT_LIMIT):
        throttle.failed(f"203.0.113.{number}", "alice@example.org")
    assert throttle.refusal("192.0.2.1", "alice@example.org")
    assert throttle.refusal("198.51.100.1", "alice@example.org") is None


def test_the_same_wrong_secret_again_is_no_guess_but_another_one_is(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(PAIR_LIMIT * 2):
        assert throttle.failed("192.0.2.1", "alice@example.org", b"old") == 0
    assert throttle.refusal("192.0.2.1", "alice@example.org") is None
    delays = [throttle.failed("192.0.2.1", "alice@example.org", b"%d" % number) for number in range(PAIR_LIMIT)]
    assert delays == sorted(delays) and delays[-1] == LONGEST_DELAY
    assert throttle.refusal("192.0.2.1", "alice@example.org")


def test_a_success_forgives_the_failures_before_it(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(PAIR_LIMIT - 1):
        throttle.failed("192.0.2.1", "alice@example.org")
    throttle.succeeded("192.0.2.1", "alice@example.org")
    assert throttle.failed("192.0.2.1", "alice@example.org") == 0


def test_what_one_process_counts_the_others_count_too(clock: Clock) -> None:
    one, two = Throttle(clock), Throttle(clock)
    told: list[list[str]] = []

    def wire(source: Throttle, target: Throttle) -> None:
        def share(content: list[str]) -> None:
            told.append(content)
            target.hear(json.loads(json.dumps(content)))

        source.share = share

    wire(one, two)
    wire(two, one)
    for n in range(PAIR_LIMIT):
        assert one.refusal("2001:db8::1", "alice@example.org") is None
        (one, two)[n % 2].failed("2001:db8::1", "Alice@example.org", b"guess %d" % n)
    assert one.refusal("2001:db8::1", "alice@example.org") == two.refusal("2001:db8::1", "alice@example.org") == WINDOW
    told.clear()
    one.failed("192.0.2.9", "alice@example.org", b"old")
    for throttle in (one, two):
        assert throttle.failed("192.0.2.9", "alice@example.org", b"old") == 0
    assert len(told) == 1, "the same wrong secret is told once"
    one.succeeded("2001:db8::1", "alice@example.org")
    assert two.refusal("2001:db8::1", "alice@example.org") is None
    for _ in range(1000):
        one.succeeded("2001:db8::1", "alice@example.org")
        two.succeeded("2001:db8::1", "alice@example.org")
    assert len(told) == 2, "and successes hardly ever"


@pytest.mark.parametrize(
    "content", [None, 1, "x", {}, [], ["failed"], ["failed", "a", "b", "no hex"], ["failed", 1, 2, 3]]
)
def test_what_is_no_news_is_ignored(content: object) -> None:
    throttle = Throttle()
    throttle.hear(content)
    assert not throttle._failures


def test_memory_is_bounded_however_many_names_are_tried(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.throttle.MAX_KEYS", 100)
    throttle = Throttle(clock)
    for number in range(1000):
        throttle.failed(f"192.0.2.{number % 250}", f"user{number}@example.org")
        throttle.succeeded("192.0.2.1", f"user{number}@example.org")
    assert len(throttle._failures) <= 100 and len(throttle._known_until) <= 100


@pytest.mark.parametrize(
    ("source", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix socket", "unix socket"),
    ],
)
def test_an_ipv6_neighbourhood_is_one_source(source: str, counted_as: str) -> None:
    assert network(source) == counted_as
