"""Who lives on the server that these tests talk to, and the event loop that it runs on in production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from accounts import people
from accounts.throttle import sign_ins
from mailcore import provision
from mailcore.auth import login as auth
from tests.smtp.world import ANN, BOB, CHARLIE, PASSWORD, Village


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def village(database_url: str) -> Village:
    auth.forget()
    sign_ins.clear()
    people.add_domain("example.org")  # without DKIM keys, which take long to make
    people.add_domain("example.net")
    ann = provision.add_account(ANN, password=PASSWORD, name="Ann", admin=True)
    bob = provision.add_account(BOB, password=PASSWORD)
    charlie = provision.add_account(CHARLIE, password=PASSWORD)
    people.add_alias("sales@example.org", [ANN, BOB])
    people.add_alias("away@example.org", ["far@elsewhere.example"])
    people.add_alias("both@example.org", [ANN, "far@elsewhere.example"])
    return Village(ann.pk, bob.pk, charlie.pk)
