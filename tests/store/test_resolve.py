"""Where mail to an address goes: accounts, plus-tags, aliases of aliases, catch-alls."""

from __future__ import annotations

import time

import pytest

from accounts.models import Account, Address, AliasTarget, Domain
from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.store import accounts

pytestmark = pytest.mark.django_db


def resolve(address):
    with db.django_transaction() as tx:
        return db.run_sync(accounts.resolve(tx, address))


def refused(address) -> Code:
    with pytest.raises(MailError) as error:
        resolve(address)
    return error.value.code


@pytest.fixture
def people(db):
    domain = Domain.objects.create(name="example.org")
    ids = {}
    for name in ("alice", "bob"):
        account = Account.objects.create(address=f"{name}@example.org", domain=domain)
        Address.objects.create(domain=domain, local_part=name, account=account)
        ids[name] = account.pk
    return ids


def alias(local: str, *targets: str) -> None:
    address = Address.objects.create(domain=Domain.objects.get(), local_part=local)
    for target in targets:
        AliasTarget.objects.create(alias=address, address=target)


def test_an_account_and_its_tags(people):
    assert resolve("alice@example.org").accounts == (accounts.Local(people["alice"], "alice@example.org"),)
    assert resolve("ALICE@example.org").accounts == (accounts.Local(people["alice"], "alice@example.org"),)
    assert resolve("alice+shop@example.org").accounts == (accounts.Local(people["alice"], "alice@example.org", "shop"),)


def test_other_domains_are_elsewhere(people):
    assert resolve("eve@example.net") == accounts.Resolution((), ("eve@example.net",))


def test_nobody_of_that_name(people):
    assert refused("eve@example.org") is Code.NO_SUCH_USER


def test_aliases_lead_through_aliases_to_each_target_once(people):
    alias("team", "alice@example.org", "more@example.org", "eve@example.net")
    alias("more", "bob@example.org", "alice@example.org", "team@example.org", "gone@example.org")
    found = resolve("team+x@example.org")
    assert {local.account_id for local in found.accounts} == set(people.values())
    assert found.remote == ("eve@example.net",)


def test_an_alias_of_itself_is_a_loop(people):
    alias("a", "b@example.org")
    alias("b", "a@example.org")
    assert refused("a@example.org") is Code.LOOP


def test_the_catch_all_comes_last(people):
    alias("*", "bob@example.org")
    assert resolve("eve@example.org").accounts[0].account_id == people["bob"]
    assert resolve("alice+x@example.org").accounts[0].account_id == people["alice"]


def test_switched_off(people):
    Account.objects.filter(pk=people["bob"]).update(is_active=False)
    assert refused("bob@example.org") is Code.DISABLED
    Domain.objects.update(is_active=False)
    assert refused("alice@example.org") is Code.DISABLED


def test_many_ways_to_one_mailbox_are_walked_once(people):
    names = [[f"l{level}n{n}@example.org" for n in range(8)] for level in range(8)]
    for level, row in enumerate(names):
        for name in row:
            alias(name.partition("@")[0], *(names[level + 1] if level < 7 else ["alice@example.org"]))
    begun = time.monotonic()
    assert [local.account_id for local in resolve(names[0][0]).accounts] == [people["alice"]]
    assert time.monotonic() - begun < 120  # 8^7 questions would take half an hour
