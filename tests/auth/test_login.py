"""Logging in as a mail program does: what is let in, what is refused, and what costs an Argon2 check."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio
from allauth.mfa.models import Authenticator
from django.db import connections

from accounts import app_passwords, passwords, people
from accounts.models import AppPassword
from accounts.throttle import ACCOUNT_LIMIT, PAIR_LIMIT, SOURCE_LIMIT, sign_ins
from mailcore import db, wake
from mailcore.auth import login as auth
from mailcore.auth.login import Identity, login
from mailcore.errors import Code, MailError

pytestmark = [pytest.mark.django_db(transaction=True)]

ALICE, BOB, CHARLIE = "alice@example.org", "bob@example.org", "charlie@example.net"


@dataclass
class Counter:
    """The Argon2 checks that were made (the real ones, counted on their way)."""

    hashes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.hashes)


@pytest.fixture
def argon2(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter, real = Counter(), passwords.verify

    def counted(password: str, encoded: str) -> bool:
        counter.hashes.append(encoded)
        return real(password, encoded)

    monkeypatch.setattr(passwords, "verify", counted)
    return counter


@pytest.fixture(autouse=True)
def village(database_url: str) -> None:
    """Alice and Bob of example.org, Charlie of example.net."""
    auth.forget()
    sign_ins.clear()
    for name in ("example.org", "example.net"):
        people.add_domain(name)
    people.add_account(ALICE, "correct horse", name="Alice")
    people.add_account(BOB, "battery staple")
    people.add_account(CHARLIE, "staple battery")
    people.add_alias("sales@example.org", [ALICE])


@asynccontextmanager
async def pool() -> AsyncIterator[None]:
    await db.open_pool(4)
    try:
        yield
    finally:
        await db.close_pool()


async def changing(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a Django verb in a thread, as a web process would beside us."""

    def run() -> Any:
        try:
            return verb(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


def set_password(address: str, password: str) -> None:
    people.set_password(people.get_account(address), password)


async def refused(address: str, secret: str, *, source: str = "192.0.2.1") -> Code:
    with pytest.raises(MailError) as error:
        await login(address, secret, protocol="imap", source=source)
    assert not secret or secret not in f"{error.value.text} {error.value.private}"
    return error.value.code


async def enter(address: str, secret: str, *, source: str = "192.0.2.1") -> Identity:
    return await login(address, secret, protocol="imap", source=source)


async def test_alice_logs_in_with_her_address_in_any_case() -> None:
    async with pool():
        alice = await enter("Alice@EXAMPLE.org", "correct horse")
    assert (alice.address, alice.name, alice.domain, alice.via) == (ALICE, "Alice", "example.org", "password")


async def test_a_login_by_any_protocol_is_the_last_login_written_at_most_once_an_hour() -> None:
    async with pool():
        assert (await changing(people.get_account, ALICE)).last_login is None
        await login(ALICE, "correct horse", protocol="imap", source="192.0.2.1")
        first = (await changing(people.get_account, ALICE)).last_login
        assert first is not None
        auth.forget()  # as another process would: it is told by the row
        await login(ALICE, "correct horse", protocol="submission", source="192.0.2.1")
        assert (await changing(people.get_account, ALICE)).last_login == first
        assert (await changing(people.get_account, BOB)).last_login is None


@pytest.mark.parametrize(
    "address", [ALICE, "nobody@example.org", "alice@nowhere.example", "alice", "", "a\0b@c", '"@@']
)
async def test_a_wrong_secret_and_an_unknown_account_get_the_same_words_and_cost(address: str, argon2: Counter) -> None:
    async with pool():
        with pytest.raises(MailError) as error:
            await enter(address, "wrong")
    assert (error.value.code, error.value.text) == (Code.AUTH_FAILED, "the address or the password is not right")
    assert len(argon2) == 1


async def test_an_account_without_a_password_costs_the_same_too(argon2: Counter) -> None:
    await changing(people.add_account, "dave@example.org")
    async with pool():
        assert await refused("dave@example.org", "") is Code.AUTH_FAILED
        assert await refused("dave@example.org", "!") is Code.AUTH_FAILED
    assert len(argon2) == 2 and all(encoded == passwords.dummy_hash() for encoded in argon2.hashes)


async def test_an_alias_a_tag_and_a_bare_name_are_no_logins() -> None:
    async with pool():
        for address in ("sales@example.org", "alice+x@example.org", "alice", "*@example.org"):
            assert await refused(address, "correct horse") is Code.AUTH_FAILED


async def test_a_secret_of_absurd_length_is_wrong_and_costs_no_more() -> None:
    async with pool():
        started = time.process_time()
        assert await refused(ALICE, "x" * 5_000_000) is Code.AUTH_FAILED
        assert time.process_time() - started < 10


async def test_the_second_login_costs_no_argon2_until_the_password_changes(argon2: Counter) -> None:
    async with pool():
        for _ in range(5):
            await enter(ALICE, "correct horse")
        assert len(argon2) == 1
        await changing(set_password, ALICE, "new horse")
        assert await refused(ALICE, "correct horse") is Code.AUTH_FAILED
        assert (await enter(ALICE, "new horse")).via == "password"


async def test_a_wrong_secret_that_becomes_right_is_accepted_at_once() -> None:
    async with pool():
        assert await refused(ALICE, "new horse") is Code.AUTH_FAILED
        await changing(set_password, ALICE, "new horse")
        assert (await enter(ALICE, "new horse")).address == ALICE


async def test_many_connections_with_one_secret_share_one_check(argon2: Counter) -> None:
    async with pool():
        entered = await asyncio.gather(*(enter(ALICE, "correct horse") for _ in range(20)))
    assert {identity.address for identity in entered} == {ALICE}
    assert len(argon2) == 1


async def test_one_caller_hanging_up_does_not_disturb_the_others() -> None:
    async with pool():
        first = asyncio.create_task(enter(ALICE, "correct horse"))
        others = [asyncio.create_task(enter(ALICE, "correct horse")) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        assert [identity.address for identity in await asyncio.gather(*others)] == [ALICE] * 3


async def test_a_disabled_account_is_told_so_only_with_the_right_secret() -> None:
    async with pool():
        await enter(ALICE, "correct horse")
        await changing(lambda: people.disable_account(people.get_account(ALICE)))
        assert await refused(ALICE, "correct horse") is Code.DISABLED
        assert await refused(ALICE, "wrong") is Code.AUTH_FAILED
        await changing(lambda: people.enable_account(people.get_account(ALICE)))
        await enter(ALICE, "correct horse")


async def test_a_removed_account_is_unknown_at_once() -> None:
    async with pool():
        await enter(ALICE, "correct horse")
        await changing(lambda: people.remove_account(people.get_account(ALICE)))
        assert await refused(ALICE, "correct horse") is Code.AUTH_FAILED


async def test_an_app_password_works_however_it_is_typed_costs_no_argon2_and_ends_when_removed(argon2: Counter) -> None:
    secret = await changing(lambda: people.add_app_password(people.get_account(ALICE), "phone"))
    async with pool():
        for typed in (secret, secret.replace("-", ""), secret.upper().replace("-", " ")):
            assert (await enter(ALICE, typed)).via == "app password"
        assert len(argon2) == 0
        assert await refused(BOB, secret) is Code.AUTH_FAILED
        await changing(lambda: people.remove_app_password(people.get_account(ALICE), label="phone"))
        assert await refused(ALICE, secret) is Code.AUTH_FAILED


@pytest.mark.parametrize(
    ("scopes", "protocol", "welcome"),
    [
        (["imap"], "imap", True),
        (["imap"], "submission", False),
        (["smtp"], "submission", True),
        (["smtp"], "jmap", False),
        (["jmap", "smtp"], "jmap", True),
        (["imap", "pop3", "smtp", "jmap"], "managesieve", True),
        (["imap", "pop3", "smtp"], "managesieve", False),
        (None, "pop3", True),
    ],
)
async def test_an_app_password_is_good_for_what_it_was_made_for(
    scopes: list[str] | None, protocol: str, welcome: bool
) -> None:
    secret = await changing(lambda: people.add_app_password(people.get_account(ALICE), "phone", scopes))
    async with pool():
        if welcome:
            identity = await login(ALICE, secret, protocol=protocol, source="192.0.2.1")
            assert (identity.address, identity.via) == (ALICE, "app password")
        else:
            with pytest.raises(MailError) as error:
                await login(ALICE, secret, protocol=protocol, source="192.0.2.1")
            assert error.value.code is Code.DISABLED and "not for this protocol" in error.value.text
            assert (await changing(AppPassword.objects.get)).last_used_at is None


async def test_failures_in_other_processes_count_here_and_ours_there(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)

    async def nothing(accounts: list[int]) -> dict[int, int]:
        return {}

    async with pool(), redis.asyncio.Redis.from_url(valkey) as client, client.pubsub() as channel:
        await channel.subscribe(wake.CHANNEL)
        assert (await channel.get_message(timeout=60))["type"] == "subscribe"
        await wake.start(valkey, nothing)
        try:
            assert await refused(ALICE, "a guess") is Code.AUTH_FAILED
            told = None
            while told is None:
                told = await channel.get_message(timeout=60)
            _process, _changes, [(topic, content)] = json.loads(told["data"])
            assert (topic, content[:3]) == ("sign-in", ["failed", "192.0.2.1", ALICE])
            assert "guess" not in str(told)
            for n in range(PAIR_LIMIT):
                notice = ["another process", [], [["sign-in", ["failed", "198.51.100.7", BOB, f"{n:016x}"]]]]
                while not await client.publish(wake.CHANNEL, json.dumps(notice)) >= 2:
                    await asyncio.sleep(0.01)  # this process does not listen yet
            async with asyncio.timeout(60):
                while sign_ins.refusal("198.51.100.7", BOB) is None:
                    await asyncio.sleep(0.01)
            assert await refused(BOB, "battery staple", source="198.51.100.7") is Code.TOO_MANY
            assert (await enter(BOB, "battery staple")).address == BOB
        finally:
            await wake.stop()


async def test_the_use_of_an_app_password_is_noted_once_in_a_while() -> None:
    secret = await changing(lambda: people.add_app_password(people.get_account(ALICE), "phone"))
    async with pool():
        await enter(ALICE, secret)
        first = (await changing(AppPassword.objects.get)).last_used_at
        assert first is not None
        auth.forget()  # another process would write: the statement itself keeps the interval
        await enter(ALICE, secret)
        assert (await changing(AppPassword.objects.get)).last_used_at == first


async def test_with_a_second_factor_only_app_passwords_are_let_in(argon2: Counter) -> None:
    secret = await changing(lambda: people.add_app_password(people.get_account(ALICE)))
    async with pool():
        await enter(ALICE, "correct horse")
        await changing(lambda: Authenticator.objects.create(user=people.get_account(ALICE), type="totp", data={}))
        assert await refused(ALICE, "correct horse") is Code.AUTH_FAILED
        assert argon2.hashes[-1] == passwords.dummy_hash()
        assert (await enter(ALICE, secret)).via == "app password"
        await changing(lambda: Authenticator.objects.all().update(type="recovery_codes"))
        assert (await enter(ALICE, "correct horse")).via == "password"


async def test_guessing_is_refused_before_any_hash_and_other_sources_are_not(
    argon2: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    async with pool():
        for n in range(PAIR_LIMIT):
            assert await refused(ALICE, f"guess {n}") is Code.AUTH_FAILED
        spent = len(argon2)
        assert await refused(ALICE, "guess again") is Code.TOO_MANY
        assert await refused(ALICE, "correct horse") is Code.TOO_MANY
        assert len(argon2) == spent
        assert (await enter(ALICE, "correct horse", source="192.0.2.99")).address == ALICE
        assert (await enter(BOB, "battery staple")).address == BOB


async def test_guesses_sent_all_at_once_get_no_further_than_one_by_one(
    argon2: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.throttle.LONGEST_DELAY", 0.0)
    async with pool():
        codes = await asyncio.gather(*(refused(ALICE, f"guess {n}") for n in range(60)))
    assert codes.count(Code.AUTH_FAILED) <= PAIR_LIMIT + auth.THREADS
    assert len(argon2) <= PAIR_LIMIT + auth.THREADS


async def test_a_forgotten_program_with_an_old_password_locks_nobody_out(argon2: Counter) -> None:
    async with pool():
        for _ in range(3 * PAIR_LIMIT):
            assert await refused(ALICE, "last year's password") is Code.AUTH_FAILED
        assert len(argon2) == 1
        assert (await enter(ALICE, "correct horse")).address == ALICE


async def test_thousands_of_successes_are_never_throttled() -> None:
    async with pool():
        for _ in range(max(PAIR_LIMIT, SOURCE_LIMIT, ACCOUNT_LIMIT) * 3):
            await enter(ALICE, "correct horse", source="127.0.0.1")


async def test_repeated_failures_wait_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(auth.asyncio, "sleep", note)
    async with pool():
        for n in range(8):
            await refused(ALICE, f"guess {n}")
    waits = [seconds for seconds in waits if seconds]
    assert waits == sorted(waits) and waits[0] == 0.25 and waits[-1] == 3.0


async def test_a_full_queue_of_checks_asks_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "QUEUE", 0)
    async with pool():
        assert await refused(ALICE, "correct horse") is Code.UNAVAILABLE


async def test_logs_name_the_source_and_never_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="mailcore.auth")
    async with pool():
        await enter(ALICE, "correct horse")
        await refused(ALICE, "hunter-two", source="198.51.100.7")
        await refused("x\r\nforged line", "hunter-two", source="198.51.100.7")
    assert "source=198.51.100.7" in caplog.text and "account=alice@example.org source=192.0.2.1" in caplog.text
    assert "correct horse" not in caplog.text and "hunter-two" not in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_digest_of_a_former_installation_key_still_holds(settings: Any) -> None:
    secret = app_passwords.generate()
    stored = app_passwords.digest(secret)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new installation key"
    assert app_passwords.find(secret, [stored]) == stored
    settings.SECRET_KEY_FALLBACKS = []
    assert app_passwords.find(secret, [stored]) is None


async def test_everybody_coming_back_at_once_gets_the_own_identity_and_shares_a_few_statements() -> None:
    secrets = await changing(
        lambda: {
            f"u{n}@example.org": people.add_app_password(people.add_account(f"u{n}@example.org")) for n in range(40)
        }
    )
    async with pool():
        entered = await asyncio.gather(*(enter(address, secret) for address, secret in secrets.items() for _ in (1, 2)))
        hung_up = [asyncio.create_task(enter(address, secret)) for address, secret in secrets.items()]
        await asyncio.sleep(0)
        for task in hung_up[::2]:
            task.cancel()
        done = await asyncio.gather(*hung_up, return_exceptions=True)
        assert (await enter(ALICE, "correct horse")).address == ALICE
    assert [identity.address for identity in entered] == [address for address in secrets for _ in (1, 2)]
    assert [each.address for each in done[1::2]] == list(secrets)[1::2]
    assert all(isinstance(each, asyncio.CancelledError) for each in done[::2])


async def test_while_the_database_is_away_everybody_is_asked_to_come_back_and_then_let_in() -> None:
    await db.open_pool(1, timeout=0.3)
    try:
        async with db.transaction():  # nobody else gets a connection
            codes = await asyncio.gather(
                *(refused(address, "correct horse") for address in (ALICE, BOB, CHARLIE, ALICE))
            )
        assert set(codes) == {Code.UNAVAILABLE}
        assert (await enter(ALICE, "correct horse")).address == ALICE
    finally:
        await db.close_pool()
