"""Where an address leads through any tangle of aliases and groups: as a plain walk says, and it always ends."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import groups, people
from accounts.models import Account, Address, AliasTarget, Domain, Group
from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.store import accounts
from mailcore.store.accounts import Resolution

pytestmark = pytest.mark.django_db

ALIASES = [f"a{number}" for number in range(8)]
PEOPLE = ["alice", "bob", "charlie"]
TARGETS = [f"{name}@example.org" for name in (*ALIASES, *PEOPLE, "gone", "alice+tag")] + ["far@elsewhere.example"]
TANGLES = st.dictionaries(
    st.sampled_from([*ALIASES, "*"]), st.lists(st.sampled_from(TARGETS), min_size=1, max_size=4, unique=True)
)


def resolve(address: str) -> Resolution:
    with db.django_transaction() as tx:
        return db.run_sync(accounts.resolve(tx, address))


@pytest.fixture
def village() -> dict[str, int]:
    people.add_domain("example.org")
    return {name: people.add_account(f"{name}@example.org").pk for name in PEOPLE}


def walk(tangle: dict[str, list[str]], start: str) -> tuple[set[str], set[str]]:
    """The people and the addresses elsewhere that an address leads to."""
    found: set[str] = set()
    remote: set[str] = set()
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        local, _, domain = address.partition("@")
        if domain != "example.org":
            remote.add(address)
            continue
        known = next((name for name in (local, local.partition("+")[0], "*") if name in tangle or name in PEOPLE), None)
        if known in PEOPLE:
            found.add(known)
        elif known is not None:
            waiting += tangle[known]
    return found, remote


@settings(max_examples=40, deadline=None)
@given(TANGLES, st.sampled_from(TARGETS[:-1]), st.booleans())
def test_every_tangle_of_aliases_leads_where_a_plain_walk_leads(
    village: dict[str, int], tangle: dict[str, list[str]], start: str, as_groups: bool
) -> None:
    Address.objects.filter(account=None).delete()
    domain = Domain.objects.get()
    for name, targets in tangle.items():
        row = Address.objects.create(domain=domain, local_part=name)
        AliasTarget.objects.bulk_create([AliasTarget(alias=row, address=each) for each in targets])
        if as_groups and name != "*":
            Group.objects.create(address=row)
    expected, remote = walk(tangle, start)
    if not expected and not remote:
        with pytest.raises(MailError) as refused:
            resolve(start)
        known = {*tangle, *PEOPLE}
        nobody = start.partition("@")[0] not in known and "*" not in tangle
        empty = as_groups and start.partition("@")[0] in tangle
        assert refused.value.code is (Code.NO_SUCH_USER if nobody or empty else Code.LOOP)
        return
    found = resolve(start)
    assert {local.account_id for local in found.accounts} == {village[name] for name in expected}
    assert set(found.remote) == remote
    assert len(found.accounts) == len(expected) and len(found.remote) == len(remote)


def test_policies_take_tags_and_the_catch_all_away(village: dict[str, int]) -> None:
    people.add_alias("*@example.org", ["bob@example.org"])
    Account.objects.filter(pk=village["alice"]).update(policy={"plus-tags": False})
    assert resolve("alice+x@example.org").accounts[0].account_id == village["bob"]
    Domain.objects.update(policy={"catch-all": False})
    with pytest.raises(MailError) as refused:
        resolve("alice+x@example.org")
    assert refused.value.code is Code.NO_SUCH_USER
    assert resolve("bob+x@example.org").accounts[0].tag == "x"


def test_an_address_is_the_same_under_every_name_of_its_domain(village: dict[str, int]) -> None:
    people.add_domain_alias("example.net", "example.org")
    people.add_alias("sales@example.org", ["alice@example.net", "far@elsewhere.example"])
    for name in ("alice@example.net", "alice+shop@example.net", "sales@example.net"):
        found = resolve(name)
        assert [local.account_id for local in found.accounts] == [village["alice"]] and found.ours
    assert Domain.objects.filter(name="example.net").update(is_active=False)


def test_ten_thousand_members_are_found_in_less_than_a_few_seconds(village: dict[str, int]) -> None:
    domain = Domain.objects.get()
    members = Account.objects.bulk_create(
        [Account(address=f"m{number}@example.org", domain=domain, password="!") for number in range(5000)]
    )
    Address.objects.bulk_create(
        [Address(domain=domain, local_part=each.address.partition("@")[0], account=each) for each in members]
    )
    for number in range(2):
        groups.add_group(f"half{number}@example.org", [each.address for each in members[number::2]])
    strangers = [f"s{number}@elsewhere.example" for number in range(5000)]
    groups.add_group("all@example.org", ["half0@example.org", "half1@example.org", *strangers], posting="members")
    began = time.process_time()
    found = resolve("all@example.org")
    spent = time.process_time() - began
    assert (len(found.accounts), len(found.remote)) == (5000, 5000)
    assert [(len(group.members), len(group.strangers)) for group in found.groups] == [(5000, 5000)]
    assert spent < 10
