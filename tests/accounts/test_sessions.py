"""A session cookie outside Django's middleware: worth exactly what Django itself would give for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import people, sessions
from accounts.models import Account

pytestmark = pytest.mark.django_db

ALICE, BOB = "alice@example.org", "bob@example.org"


class Reader:
    """The same connection as the test's, so that it sees what the test did; counts statements."""

    def __init__(self) -> None:
        self.statements = 0

    async def one(self, query: str, params: Any = ()) -> tuple[Any, ...] | None:
        self.statements += 1
        connection.ensure_connection()
        return connection.connection.execute(query, params).fetchone()


def who(cookie: str | None, reader: Reader | None = None) -> int | None:
    """What the asynchronous code would learn; nothing in it waits, so one step finishes it."""
    step = sessions.account_id(reader or Reader(), cookie)
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited for something")


@pytest.fixture
def alice() -> Account:
    sessions._seen.clear()
    people.add_domain("example.org")
    people.add_account(BOB, "battery staple")
    return people.add_account(ALICE, "correct horse")


def signed_in(client: Client, address: str = ALICE, password: str = "correct horse") -> str:
    response = client.post("/login/", {"login": address, "password": password})
    assert response.status_code == 302, response.content
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


def test_a_signed_in_browser_is_recognised_with_one_statement_from_the_second_time_on(
    alice: Account, client: Client
) -> None:
    cookie, reader = signed_in(client), Reader()
    assert who(cookie, reader) == alice.pk
    before = reader.statements
    assert who(cookie, reader) == alice.pk
    assert reader.statements == before + 1


@pytest.mark.parametrize("cookie", [None, "", "x", "a" * 32, "a" * 5000, "' OR 1=1 --", "\0", "ä" * 32])
def test_anything_else_is_nobody(alice: Account, cookie: str | None) -> None:
    assert who(cookie) is None


def test_signing_out_ends_it_at_once(alice: Account, client: Client) -> None:
    cookie = signed_in(client)
    assert who(cookie) == alice.pk
    client.post("/logout/")
    assert who(cookie) is None


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_changed_password_ends_every_other_session(alice: Account, client: Client, seen_before: bool) -> None:
    other = signed_in(Client())
    mine = signed_in(client)
    if seen_before:
        assert who(other) == who(mine) == alice.pk
    response = client.post(
        "/settings/security/password/",
        {"oldpassword": "correct horse", "password1": "staple battery", "password2": "staple battery"},
    )
    assert response.status_code == 302, response.content
    assert who(other) is None
    assert who(client.cookies[django_settings.SESSION_COOKIE_NAME].value) == alice.pk


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_disabled_account_or_domain_and_a_removed_account_are_nobody(
    alice: Account, client: Client, seen_before: bool
) -> None:
    cookie = signed_in(client)
    if seen_before:
        assert who(cookie) == alice.pk
    people.disable_account(alice)
    assert who(cookie) is None
    people.enable_account(alice)
    assert who(cookie) == alice.pk
    people.list_domains().update(is_active=False)
    assert who(cookie) is None
    people.list_domains().update(is_active=True)
    assert who(cookie) == alice.pk
    people.remove_account(alice)
    assert who(cookie) is None


@pytest.mark.parametrize("seen_before", [True, False])
def test_an_expired_session_is_nobody(alice: Account, client: Client, seen_before: bool) -> None:
    cookie = signed_in(client)
    if seen_before:
        assert who(cookie) == alice.pk
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert who(cookie) is None


def test_a_row_that_we_did_not_sign_is_nobody(alice: Account, client: Client) -> None:
    cookie = signed_in(client)
    row = Session.objects.get()
    Session.objects.update(session_data=row.session_data[:-2] + "xx")
    assert who(cookie) is None


def test_a_session_under_a_new_account_is_the_new_account(alice: Account, client: Client) -> None:
    cookie = signed_in(client)
    assert who(cookie) == alice.pk
    foreign = signed_in(Client(), BOB, "battery staple")
    data = Session.objects.get(session_key=foreign).session_data
    Session.objects.filter(session_key=cookie).update(session_data=data)
    assert who(cookie) == people.get_account(BOB).pk


def test_a_session_signed_under_a_former_key_holds_while_that_key_is_listed(
    alice: Account, client: Client, settings: Any
) -> None:
    cookie = signed_in(client)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new installation key"
    assert who(cookie) == alice.pk
    settings.SECRET_KEY_FALLBACKS = []
    assert who(cookie) is None
    sessions._seen.clear()
    assert who(cookie) is None


def test_somebody_who_has_not_given_the_second_factor_yet_is_nobody(alice: Account, client: Client) -> None:
    from allauth.mfa.models import Authenticator
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    TOTP.activate(alice, generate_totp_secret())
    assert Authenticator.objects.exists()
    assert client.post("/login/", {"login": ALICE, "password": "correct horse"}).status_code == 302
    cookie = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    assert Session.objects.filter(session_key=cookie).exists()
    assert who(cookie) is None
