"""The server that a module's tests share, and people who live on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.core.management import call_command
from pytest_django.plugin import DjangoDbBlocker

from accounts.throttle import sign_ins
from mailcore import provision
from mailcore.auth import login as auth
from tests.imap.running import Running

PASSWORD = "correct horse battery"
_domains = itertools.count(1)


@dataclass(frozen=True)
class Person:
    """An account of the test."""

    account_id: int
    address: str
    password: str = PASSWORD


@pytest.fixture(scope="module")
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database for a whole module: its tests do not meet, because each has a domain of its own."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def db(database: None) -> None:
    """pytest-django's fixture of this name would empty fifty tables after each test."""


@pytest.fixture(scope="module")
def imap(database: None) -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


@pytest.fixture
def people(db: None) -> Callable[[str], Person]:
    """Makes a person by name, in a domain of this test: the server remembers more than one test.

    "eve@elsewhere" is one of another domain.
    """
    auth.forget()
    sign_ins.clear()
    domain = f"t{next(_domains)}.example"
    known: dict[str, Person] = {}

    def person(name: str) -> Person:
        if name not in known:
            local, _, elsewhere = name.partition("@")
            its = f"{elsewhere}.{domain}" if elsewhere else domain
            if not any(one.address.endswith(f"@{its}") for one in known.values()):
                provision.add_domain(its)
            account = provision.add_account(f"{local}@{its}", password=PASSWORD)
            known[name] = Person(account.pk, f"{local}@{its}")
        return known[name]

    return person


@pytest.fixture
def alice(people: Callable[[str], Person]) -> Person:
    return people("alice")
