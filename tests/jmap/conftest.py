"""Who lives on the server that these tests talk to, and the event loop that it runs on in production."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from accounts import people
from accounts.models import Account
from accounts.throttle import sign_ins
from mailcore import provision
from mailcore.auth import login as auth
from tests.jmap.world import ALICE, BOB, CHARLIE, PASSWORD, Village, World, running


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def sign_in(account: Account) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(account.pk)
    session[BACKEND_SESSION_KEY] = "allauth.account.auth_backends.AuthenticationBackend"
    session[HASH_SESSION_KEY] = account.get_session_auth_hash()
    session.create()
    return str(session.session_key)


@pytest.fixture
def village(database_url: str) -> Village:
    auth.forget()
    sign_ins.clear()
    people.add_domain("example.org")
    people.add_domain("example.net")
    alice = provision.add_account(ALICE, password=PASSWORD, name="Alice Ångström", admin=True)
    bob = provision.add_account(BOB, password=PASSWORD, name="Bob")
    charlie = provision.add_account(CHARLIE, password=PASSWORD)
    people.add_alias("sales@example.org", [ALICE, BOB])
    cookies = {account.pk: sign_in(account) for account in (alice, bob, charlie)}
    return Village(alice.pk, bob.pk, charlie.pk, cookies)


@pytest.fixture
async def world(village: Village) -> AsyncIterator[World]:
    async with running(village) as started:
        yield started
