"""Domains, accounts, aliases and app passwords, as an administrator changes them."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import app_passwords, leads, passwords, people
from accounts.errors import PeopleError
from accounts.models import Account, Address, AliasTarget, AppPassword, Domain
from accounts.roles import Role, role_of, visible_accounts, visible_domains

pytestmark = pytest.mark.django_db

ALICE, BOB, CHARLIE = "alice@example.org", "bob@example.org", "charlie@example.net"


@pytest.fixture
def village() -> None:
    people.add_domain("example.org")
    people.add_domain("example.net")
    for address in (ALICE, BOB, CHARLIE):
        people.add_account(address, "correct horse")


def reason(verb, *args, **kwargs) -> str:
    """The text with which a change is refused, and proof that it changed nothing."""

    def everything() -> list[object]:
        return [
            list(model.objects.order_by("pk").values())
            for model in (Domain, Account, Address, AliasTarget, AppPassword)
        ]

    before = everything()
    with pytest.raises(PeopleError) as refused:
        verb(*args, **kwargs)
    assert everything() == before
    assert str(refused.value) == refused.value.text and "\n" not in refused.value.text
    return refused.value.text


def test_a_domain_is_stored_as_dns_has_it_and_only_once() -> None:
    assert people.add_domain("Bücher.EXAMPLE").name == "xn--bcher-kva.example"
    assert reason(people.add_domain, "xn--BCHER-kva.example") == "Domain xn--bcher-kva.example is hosted here already."
    assert "is not a domain name" in reason(people.add_domain, "-x.example")
    assert "is not a domain name" in reason(people.add_domain, "")


def test_a_domain_that_is_there_costs_no_error_in_the_log_of_postgres() -> None:
    people.add_domain("example.org")
    with CaptureQueriesContext(connection) as said:
        reason(people.add_domain, "example.org")
    assert not any("INSERT" in query["sql"] for query in said.captured_queries)


def test_an_account_needs_a_hosted_domain_and_the_text_says_how_to_get_one() -> None:
    assert reason(people.add_account, ALICE) == (
        "Domain example.org is not hosted here: `manage.py domain add example.org` adds it, `domain list` shows all."
    )


def test_an_account_comes_with_the_address_that_leads_to_it() -> None:
    people.add_domain("example.org")
    alice = people.add_account("Alice@Example.org", "correct horse", name="  Alice Ω ")
    assert (alice.address, alice.name, alice.is_superuser) == (ALICE, "Alice Ω", False)
    assert [str(row) for row in alice.addresses.all()] == [ALICE]
    assert alice.check_password("correct horse") and alice.password.startswith("argon2$argon2id$")
    assert people.get_account("ALICE@example.org") == alice
    assert people.add_account("root@example.org", "x" * 8, admin=True).is_superuser


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("alice", "is not a mail address"),
        ("alice@[127.0.0.1]", "literal"),
        ("*@example.org", "catch-all"),
        ("alice+x@example.org", "tags"),
        (ALICE, "already"),
        ("ALICE@EXAMPLE.ORG", "already"),
        ('"alice"@example.org', "already"),
        ("sales@example.org", "is an alias already"),
        ("x@nowhere.example", "not hosted here"),
    ],
)
def test_an_account_is_refused_with_a_reason(village: None, address: str, why: str) -> None:
    people.add_alias("sales@example.org", [ALICE])
    assert why in reason(people.add_account, address, "correct horse")


@pytest.mark.parametrize("password", ["", "x" * 513, "two\nlines", "nul\0"])
def test_a_password_that_no_program_can_send_is_refused(village: None, password: str) -> None:
    assert reason(people.set_password, people.get_account(ALICE), password)
    assert reason(people.add_account, "dave@example.org", password)


def test_a_name_stays_on_one_line_of_a_header(village: None) -> None:
    assert "control character" in reason(people.add_account, "dave@example.org", name="Dave\r\nBcc: all")
    assert "longer than" in reason(people.add_account, "dave@example.org", name="D" * 201)


def test_without_a_password_nobody_can_sign_in(village: None) -> None:
    dave = people.add_account("dave@example.org")
    assert not dave.has_usable_password() and not passwords.verify("", dave.password)


def test_a_quoted_local_part_is_an_address_like_any_other(village: None) -> None:
    dave = people.add_account('"Dave @ home"@example.org')
    assert dave.address == '"dave @ home"@example.org' == str(dave.addresses.get())
    assert people.get_account('"dave @ HOME"@example.org') == dave


def test_an_alias_leads_to_people_here_and_elsewhere_and_grows(village: None) -> None:
    made = people.add_alias(
        "Sales@example.org", ["ALICE@example.org", "Out.There@Elsewhere.example", "bob+s@example.org"]
    )
    assert made == people.Alias("sales@example.org", ("Out.There@elsewhere.example", ALICE, "bob+s@example.org"))
    people.add_alias("sales@example.org", [BOB, BOB, ALICE])
    assert len(people.list_aliases("sales@example.org")[0].targets) == 4
    assert [alias.address for alias in people.list_aliases_to(ALICE)] == ["sales@example.org"]


def test_a_catch_all_is_an_alias_of_everything_else(village: None) -> None:
    people.add_alias("*@example.org", [ALICE])
    people.add_alias("shop@example.org", ["whatever@example.org"])
    assert [alias.address for alias in people.list_aliases("example.org")] == ["*@example.org", "shop@example.org"]


@pytest.mark.parametrize(
    ("address", "targets", "why"),
    [
        ("sales@example.org", [], "at least one target"),
        ("sales@example.org", ["x"], "is not a mail address"),
        ("sales@example.org", ["ghost@example.org"], "does not exist here"),
        ("sales@nowhere.example", [ALICE], "not hosted here"),
        (ALICE, [BOB], "There is an account"),
        ("sales+x@example.org", [ALICE], "tags"),
        ("sales@example.org", ["sales@example.org"], "would lead to itself"),
        ("sales@example.org", ["sales+tag@example.org"], "would lead to itself"),
        ("two@example.org", [ALICE, "one@example.org"], "itself through one@example.org"),
        ("*@example.net", ["unknown@example.net"], "would lead to itself"),
    ],
)
def test_an_alias_is_refused_with_a_reason(village: None, address: str, targets: list[str], why: str) -> None:
    people.add_alias("two@example.org", [ALICE])
    people.add_alias("one@example.org", ["two@example.org"])
    assert why in reason(people.add_alias, address, targets)


def test_aliases_may_lead_through_a_few_aliases_but_not_through_many(village: None) -> None:
    target = ALICE
    for number in range(leads.MAX_ALIAS_DEPTH):
        target = people.add_alias(f"a{number}@example.org", [target]).address
    assert "more than" in reason(people.add_alias, "one-too-many@example.org", [target])


def test_removing_targets_leaves_the_others_and_removes_an_empty_alias(village: None) -> None:
    people.add_alias("sales@example.org", [ALICE, BOB])
    people.remove_alias("sales@example.org", [ALICE])
    assert people.list_aliases("sales@example.org")[0].targets == (BOB,)
    assert "does not lead to" in reason(people.remove_alias, "sales@example.org", [ALICE])
    people.remove_alias("sales@example.org", [BOB])
    assert people.list_aliases() == []
    assert "There is no alias" in reason(people.remove_alias, "sales@example.org")
    assert "is an account" in reason(people.remove_alias, ALICE)


def test_removing_an_account_takes_its_aliases_along_and_says_so(village: None) -> None:
    people.add_alias("sales@example.org", [ALICE, BOB])
    people.add_alias("ceo@example.net", [ALICE])
    people.add_app_password(people.get_account(ALICE), "phone")
    assert people.remove_account(people.get_account(ALICE)) == ["ceo@example.net", "sales@example.org"]
    assert people.list_aliases() == [people.Alias("sales@example.org", (BOB,))]
    assert not Address.objects.filter(local_part="alice").exists() and not AppPassword.objects.exists()
    assert "There is no account" in reason(people.get_account, ALICE)


def test_a_domain_with_people_cannot_be_removed_by_a_slip(village: None) -> None:
    people.add_alias("sales@example.net", [ALICE])
    assert "still has 1 account and 1 alias" in reason(people.remove_domain, "example.net")
    people.remove_alias("sales@example.net")
    people.remove_account(people.get_account(CHARLIE))
    people.remove_domain("Example.NET")
    assert "not hosted here" in reason(people.remove_domain, "example.net")


def test_an_app_password_is_shown_once_and_kept_as_a_digest(village: None) -> None:
    alice = people.get_account(ALICE)
    secret = people.add_app_password(alice, "phone")
    assert len(secret.replace("-", "")) * 5 >= 128 and all(len(group) == 4 for group in secret.split("-"))
    row = AppPassword.objects.get()
    assert bytes(row.digest) == app_passwords.digest(secret) and secret.replace("-", "").encode() not in bytes(
        row.digest
    )
    assert "labelled 'phone' already" in reason(people.add_app_password, alice, "phone")
    assert "control character" in reason(people.add_app_password, alice, "a\nb")


def test_an_app_password_is_removed_by_label_or_number_and_only_by_its_account(village: None) -> None:
    alice, bob = people.get_account(ALICE), people.get_account(BOB)
    for label in ("phone", "", ""):
        people.add_app_password(alice, label)
    numbers = [row.pk for row in people.list_app_passwords(alice)]
    assert "no app password" in reason(people.remove_app_password, bob, number=numbers[0])
    assert "no app password" in reason(people.remove_app_password, alice, label="tablet")
    assert "2 app passwords" in reason(people.remove_app_password, alice, label="")
    people.remove_app_password(alice, number=numbers[1])
    people.remove_app_password(alice, label="phone")
    assert [row.pk for row in people.list_app_passwords(alice)] == [numbers[2]]


def test_an_account_has_only_so_many_app_passwords(village: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_passwords, "MAX_PER_ACCOUNT", 2)
    alice = people.get_account(ALICE)
    people.add_app_password(alice)
    people.add_app_password(alice)
    assert "remove one first" in reason(people.add_app_password, alice)


def test_a_domain_administrator_sees_the_own_domains_and_no_superuser(village: None) -> None:
    alice, bob, charlie = (people.get_account(address) for address in (ALICE, BOB, CHARLIE))
    root = people.add_account("root@example.org", "correct horse", admin=True)
    alice.administers.add(people.get_domain("example.org"))
    assert [role_of(each) for each in (root, alice, bob)] == [Role.SUPERUSER, Role.DOMAIN_ADMIN, Role.USER]
    assert set(visible_domains(root)) == set(Domain.objects.all())
    assert {domain.name for domain in visible_domains(alice)} == {"example.org"}
    assert set(visible_accounts(alice)) == {alice, bob}
    assert not visible_domains(bob).exists() and not visible_accounts(charlie).exists()
    people.disable_account(alice)
    assert not visible_domains(alice).exists()
