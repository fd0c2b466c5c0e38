"""Which addresses an account may send as."""

from __future__ import annotations

import re

import pytest
from django.db import connection

from accounts import people
from mailcore import db
from mailcore.auth import login, lookup, senders
from mailcore.auth.senders import sender_addresses, sender_allowed

pytestmark = pytest.mark.django_db


@pytest.fixture
def ids() -> dict[str, int]:
    people.add_domain("example.org")
    people.add_domain("bücher.example")
    accounts = {name: people.add_account(f"{name}@example.org") for name in ("alice", "bob", "charlie", '"d e"')}
    people.add_alias("sales@example.org", ["alice@example.org", "bob+sales@example.org", "out@elsewhere.example"])
    people.add_alias("team@example.org", ["sales@example.org"])
    people.add_alias("shop@bücher.example", ["charlie@example.org"])
    people.add_alias("*@bücher.example", ["alice@example.org"])
    return {name: account.id for name, account in accounts.items()}


def allowed(account_id: int, address: str) -> bool:
    with db.django_transaction() as tx:
        return db.run_sync(sender_allowed(tx, account_id, address))


@pytest.mark.parametrize(
    ("who", "address", "may"),
    [
        ("alice", "alice@example.org", True),
        ("alice", "Alice+shop@Example.ORG", True),
        ("alice", "bob@example.org", False),
        ("alice", "sales@example.org", True),
        ("alice", "sales+x@example.org", True),
        ("bob", "sales@example.org", True),
        ("charlie", "sales@example.org", False),
        ("alice", "team@example.org", False),
        ("charlie", "shop@BÜCHER.example", True),
        ("charlie", "shop@xn--bcher-kva.example", True),
        ("alice", "shop@bücher.example", False),
        ("alice", "anything@bücher.example", True),
        ("bob", "anything@bücher.example", False),
        ("alice", "unknown@example.org", False),
        ("alice", "alice@elsewhere.example", False),
        ("alice", "out@elsewhere.example", False),
        ("alice", "", False),
        ("alice", "alice", False),
        ("alice", "alice@example.org\r\nX: y", False),
        ("alice", "alice@[127.0.0.1]", False),
        ('"d e"', '"D E"@example.org', True),
        ("alice", '"d e"@example.org', False),
    ],
)
def test_own_addresses_and_aliases_that_lead_to_the_account_tags_included(
    ids: dict[str, int], who: str, address: str, may: bool
) -> None:
    assert allowed(ids[who], address) is may


def test_a_switched_off_domain_sends_nothing(ids: dict[str, int]) -> None:
    people.list_domains().filter(name="example.org").update(is_active=False)
    assert not allowed(ids["alice"], "alice@example.org")


def test_the_addresses_to_choose_from_begin_with_the_own_one(ids: dict[str, int]) -> None:
    with db.django_transaction() as tx:
        assert db.run_sync(sender_addresses(tx, ids["alice"])) == ["alice@example.org", "sales@example.org"]
        assert db.run_sync(sender_addresses(tx, ids["charlie"])) == [
            "charlie@example.org",
            "shop@xn--bcher-kva.example",
        ]


@pytest.mark.parametrize("statement", [lookup.WHO, login.USED, senders.ALLOWED, senders.ADDRESSES])
def test_statement_is_prepared(statement: str) -> None:
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1] or f'#{len(names)}', len(names) + 1)}"

    connection.ensure_connection()
    connection.connection.execute("PREPARE one AS " + re.sub(r"%(?:\((\w+)\))?s", number, statement))
    connection.connection.execute("DEALLOCATE one")
