"""Groups, domain aliases, rights to send as somebody else and policies, as an administrator changes them."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import groups, people, policies, rights
from accounts.errors import PeopleError
from accounts.models import Account, Address, AliasTarget, Domain, Group, SendAs

pytestmark = pytest.mark.django_db

ALICE, BOB, CHARLIE = "alice@example.org", "bob@example.org", "charlie@example.net"
TEAM = "team@example.org"


@pytest.fixture
def village() -> None:
    people.add_domain("example.org")
    people.add_domain("example.net")
    for address in (ALICE, BOB, CHARLIE):
        people.add_account(address, "correct horse")


def reason(verb, *args, **kwargs) -> str:
    """The text with which a change is refused, and proof that it changed nothing."""

    def everything() -> list[object]:
        models = (Domain, Account, Address, AliasTarget, Group, SendAs)
        return [list(model.objects.order_by("pk").values()) for model in models]

    before = everything()
    with pytest.raises(PeopleError) as refused:
        verb(*args, **kwargs)
    assert everything() == before
    assert "\n" not in refused.value.text
    return refused.value.text


# --- groups


def test_a_group_has_members_here_and_elsewhere_each_once(village: None) -> None:
    group = groups.add_group("Team@Example.org", [ALICE, "BOB@example.org", ALICE, "Far@elsewhere.example"], name="Us")
    assert (str(group), group.name, group.posting, group.send_as) == (TEAM, "Us", "anyone", False)
    assert groups.members(group) == [ALICE, BOB, "Far@elsewhere.example"]
    groups.add_group(TEAM, [CHARLIE], posting="members", send_as=True)
    changed = groups.get_group(TEAM)
    assert (changed.name, changed.posting, changed.send_as) == ("Us", "members", True)
    assert len(groups.members(changed)) == 4
    assert [(str(each.group), each.members) for each in groups.list_groups("example.org")] == [(TEAM, 4)]
    groups.remove_members(changed, [BOB, CHARLIE])
    assert groups.members(changed) == [ALICE, "Far@elsewhere.example"]
    groups.remove_group(changed)
    assert groups.list_groups() == [] and people.list_aliases() == []


def test_a_group_is_no_alias_and_an_alias_no_group(village: None) -> None:
    groups.add_group(TEAM, [ALICE])
    people.add_alias("sales@example.org", [ALICE])
    assert people.list_aliases() == [people.Alias("sales@example.org", (ALICE,))]
    assert "is a group" in reason(people.add_alias, TEAM, [BOB])
    assert "is a group" in reason(people.remove_alias, TEAM)
    assert "is a group" in reason(people.add_account, TEAM)
    assert "is an alias already" in reason(groups.add_group, "sales@example.org", [BOB])
    assert "is an alias, not a group" in reason(groups.get_group, "sales@example.org")
    assert "is an account, not a group" in reason(groups.get_group, ALICE)
    assert "There is no group" in reason(groups.get_group, "nobody@example.org")
    assert "There is an account" in reason(groups.add_group, ALICE, [BOB])
    assert "does not exist here" in reason(groups.add_group, "new@example.org", ["nobody@example.org"])
    assert "is no member" in reason(groups.remove_members, groups.get_group(TEAM), [BOB])
    assert "one of anyone, domain, members" in reason(groups.add_group, TEAM, posting="nobody")


def test_a_group_stays_without_its_last_member(village: None) -> None:
    groups.add_group(TEAM, [ALICE])
    assert people.remove_account(people.get_account(ALICE)) == [TEAM]
    assert groups.members(groups.get_group(TEAM)) == []


def test_ten_thousand_members_are_added_with_few_questions(village: None) -> None:
    members = [f"m{number}@elsewhere.example" for number in range(groups.MAX_MEMBERS)]
    with CaptureQueriesContext(connection) as said:
        groups.add_group(TEAM, members)
    assert len(said.captured_queries) < 60
    assert "at most 10000 members" in reason(groups.add_group, TEAM, ["one@too-many.example"])


def test_no_circle_is_closed_by_a_group_an_alias_a_domain_or_a_removal(village: None) -> None:
    groups.add_group(TEAM, [ALICE])
    groups.add_group("all@example.org", [TEAM, BOB])
    assert reason(groups.add_group, TEAM, ["all@example.org"]) == (
        "Group team@example.org would lead to itself through all@example.org."
    )
    assert "would lead to itself" in reason(people.add_alias, "x@example.org", [TEAM, "x+tag@example.org"])
    # Through the other name that a domain is to get.
    people.add_alias("round@example.org", ["round@example.com"])
    assert "round@example.org would lead to itself" in reason(people.add_domain_alias, "example.com", "example.org")
    # Through a catch-all that takes what led to a removed address.
    people.add_alias("mid@example.net", [ALICE])
    people.add_alias("far@example.net", ["mid@example.net"])
    people.add_alias("*@example.net", ["far@example.net"])
    assert "would lead to itself" in reason(people.remove_alias, "mid@example.net")


NAMES = [f"a{number}@example.org" for number in range(6)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20))
def test_whatever_is_added_in_whatever_order_nothing_leads_back_to_itself(
    village: None, edges: list[tuple[str, str]]
) -> None:
    Address.objects.filter(account=None).delete()
    for name in NAMES:
        groups.add_group(name, [ALICE])
    leads: dict[str, set[str]] = {name: set() for name in NAMES}

    def reaches(start: str, wanted: str) -> bool:
        return start == wanted or any(reaches(each, wanted) for each in leads[start])

    for group, member in edges:
        if reaches(member, group):
            assert "would lead to itself" in reason(groups.add_group, group, [member])
        else:
            groups.add_group(group, [member])
            leads[group].add(member)


# --- domain aliases


def test_a_domain_answers_under_another_name(village: None) -> None:
    people.add_domain_alias("Example.COM", "example.org")
    assert [(each.name, str(each.alias_of)) for each in people.list_domain_aliases()] == [
        ("example.com", "example.org")
    ]
    assert [each.name for each in people.list_domains()] == ["example.net", "example.org"]
    assert people.get_account("alice@example.com").address == ALICE
    assert people.add_alias("sales@example.com", ["bob@example.com"]) == people.Alias("sales@example.org", (BOB,))
    assert reason(people.get_domain, "example.com") == "example.com is another name of example.org: use that."
    assert "is hosted here already" in reason(people.add_domain, "example.com")
    assert "is hosted here already" in reason(people.add_domain_alias, "example.net", "example.org")
    assert "is another name of" in reason(people.add_domain_alias, "example.info", "example.com")
    assert "is a domain of its own" in reason(people.remove_domain_alias, "example.net")
    people.add_domain("empty.example")
    people.add_domain_alias("void.example", "empty.example")
    assert "void.example would lead nowhere" in reason(people.remove_domain, "empty.example")
    people.remove_domain_alias("void.example")
    people.remove_domain("empty.example")


# --- rights


def test_alice_is_let_send_as_bob_and_as_a_domain_and_it_is_taken_back(village: None) -> None:
    alice = people.get_account(ALICE)
    rights.grant(alice, BOB)
    rights.grant(alice, BOB)
    rights.grant(alice, "example.net")
    assert [str(right) for right in rights.list_rights(alice)] == [BOB, "example.net"]
    assert "nothing needs to be granted" in reason(rights.grant, alice, ALICE)
    assert "There is no address" in reason(rights.grant, alice, "nobody@example.org")
    assert "not hosted here" in reason(rights.grant, alice, "x@elsewhere.example")
    assert "not hosted here" in reason(rights.grant, alice, "elsewhere.example")
    rights.revoke(alice, BOB)
    assert "has no right to send as" in reason(rights.revoke, alice, BOB)
    people.remove_account(people.get_account(CHARLIE))
    people.remove_domain("example.net")
    assert list(rights.list_rights()) == []


# --- policies


def test_an_account_goes_before_its_domain_and_that_before_the_default(village: None) -> None:
    alice, domain = people.get_account(ALICE), people.get_domain("example.org")

    def limit() -> tuple[int | None, str]:
        (row,) = [row for row in policies.shown(people.get_account(ALICE)) if row.name == "recipients-per-hour"]
        account, above = people.get_account(ALICE), people.get_domain("example.org")
        found = policies.effective(json.dumps(above.policy), json.dumps(account.policy))
        assert found.account.recipients_per_hour == row.value
        return row.value, row.by

    assert limit() == (500, "default")
    policies.change(domain, ["recipients-per-hour=50", "blocked-senders=*@Spam.example, Eve@elsewhere.example"])
    assert domain.policy["blocked-senders"] == ["spam.example", "eve@elsewhere.example"]
    assert limit() == (50, "domain")
    policies.change(alice, ["recipients-per-hour=none"])
    assert limit() == (None, "account")
    policies.change(alice, ["recipients-per-hour=default"])
    assert limit() == (50, "domain")


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("nonsense=1", "There is no policy 'nonsense'"),
        ("plus-tags", "Say what plus-tags is to be"),
        ("plus-tags=maybe", "on or off is wanted"),
        ("max-message-size=big", "a size such as"),
        ("recipients-per-hour=-1", "a number is wanted"),
        ("blocked-senders=not an address@", "neither an address"),
        ("catch-all=off", "settled for whole domains"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_a_reason(village: None, word: str, why: str) -> None:
    assert why in reason(policies.change, people.get_account(ALICE), ["require-tls=on", word])


SENDERS = [
    ("", False),
    ("eve@spam.example", True),
    ("eve@mail.spam.example", True),
    ("good@spam.example", False),
    ("eve@notspam.example", False),
    ("mallory@elsewhere.example", True),
    ("eve@elsewhere.example", False),
]


@pytest.mark.parametrize(("sender", "blocked"), SENDERS)
def test_whoever_is_listed_more_closely_decides(sender: str, blocked: bool) -> None:
    above = {"blocked-senders": ["spam.example", "mallory@elsewhere.example"]}
    own = {"allowed-senders": ["good@spam.example"]}
    assert policies.effective(json.dumps(above), json.dumps(own)).blocks(sender) is blocked


def test_everybody_but_some_is_written_with_a_star() -> None:
    own = json.dumps({"allowed-senders": ["example.org"], "blocked-senders": ["*"]})
    found = policies.effective(None, own)
    assert found.blocks("far@elsewhere.example") and not found.blocks("bob@example.org") and not found.blocks("")


# --- commands


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_commands_say_what_they_did(village: None, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("group", "add", TEAM, ALICE, "--post", "members") == (
        "Group team@example.org: 1 member; its members may write to it, members may not send as it.\n"
    )
    (tmp_path / "members").write_text(f"# people\n{BOB}\n\n{CHARLIE}\n")
    assert "3 members" in run("group", "add", TEAM, "--members-from", str(tmp_path / "members"), "--send-as", "on")
    assert json.loads(run("group", "list", "--json")) == [
        {"address": TEAM, "name": "", "members": 3, "post": "members", "send_as": True}
    ]
    assert json.loads(run("group", "show", TEAM, "--json"))["members"] == [ALICE, BOB, CHARLIE]
    assert "2 members left" in run("group", "remove", TEAM, BOB)
    assert run("group", "remove", TEAM) == f"Group {TEAM} removed.\n"
    assert "No groups" in run("group", "list")
    with pytest.raises(CommandError, match="cannot be read"):
        run("group", "add", TEAM, "--members-from", str(tmp_path / "missing"))
    assert "example.com answers as example.org" in run("domain", "alias", "add", "example.com", "example.org")
    assert json.loads(run("domain", "alias", "list", "--json")) == [{"name": "example.com", "domain": "example.org"}]
    shown = json.loads(run("domain", "show", "example.com", "--json"))
    assert shown["alias_of"] == "example.org"
    assert [each for each in shown["records"] if each["name"].endswith("._domainkey.example.com")]
    assert run("domain", "alias", "remove", "example.com") == "example.com no longer answers as example.org.\n"
    assert run("sendas", "add", ALICE, BOB) == "alice@example.org may send as bob@example.org.\n"
    assert "any address of example.net" in run("sendas", "add", ALICE, "example.net")
    assert [row["sends_as"] for row in json.loads(run("sendas", "list", ALICE, "--json"))] == [BOB, "example.net"]
    assert json.loads(run("account", "policy", ALICE, "plus-tags=off", "--json"))["plus-tags"] == {
        "value": False,
        "set_by": "account",
    }
    assert "blocked-senders" in run("domain", "policy", "example.org", "blocked-senders=spam.example")
    assert "no longer send as" in run("sendas", "remove", ALICE, BOB)
