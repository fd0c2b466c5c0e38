"""The pages of signing in and out, and the break-glass admin, as a browser meets them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from accounts import app_passwords, checks, people
from accounts.models import Account, AppPassword
from accounts.throttle import PAIR_LIMIT, SOURCE_LIMIT, sign_ins

pytestmark = pytest.mark.django_db

ALICE, BOB, ROOT = "alice@example.org", "bob@example.org", "root@example.org"


@pytest.fixture(autouse=True)
def village() -> None:
    sign_ins.clear()
    cache.clear()
    people.add_domain("example.org")
    people.add_domain("bücher.example")
    people.add_account(ALICE, "correct horse", name="Alice")
    people.add_account(BOB, "battery staple")
    people.add_account(ROOT, "root of all evil", admin=True)


def post(client: Client, login: str, password: str, **more: Any) -> Any:
    return client.post("/login/", {"login": login, "password": password, **more})


def signed_in_as(client: Client) -> str | None:
    key = client.session.get("_auth_user_id")
    return Account.objects.get(pk=key).address if key else None


def test_the_page_asks_for_address_and_password_and_nothing_else(client: Client) -> None:
    page = client.get("/login/").content.decode()
    for words in ('name="login"', 'name="password"', 'name="remember"', "Mailstead", 'autocomplete="current-password"'):
        assert words in page
    for words in ("Sign Up", "signup", "Forgot"):
        assert words not in page


def test_alice_signs_in_in_any_case_and_goes_where_she_wanted(client: Client) -> None:
    response = post(client, "  Alice@EXAMPLE.org ", "correct horse", next="/settings/")
    assert (response.status_code, response["Location"]) == (302, "/settings/")
    assert signed_in_as(client) == ALICE


def test_nobody_is_sent_to_another_site(client: Client) -> None:
    assert post(client, ALICE, "correct horse", next="https://evil.example/")["Location"] == "/"


def test_an_internationalised_domain_may_be_typed_as_it_is_read(client: Client) -> None:
    people.add_account("jürgen@bücher.example", "correct horse")
    assert post(client, "Jürgen@Bücher.example", "correct horse").status_code == 302


@pytest.mark.parametrize("login", [ALICE, "nobody@example.org", "sales@example.org", "not an address", "a\u202eb@x.y"])
def test_one_error_for_every_kind_of_wrong(client: Client, login: str) -> None:
    people.add_alias("sales@example.org", [ALICE])
    response = post(client, login, "wrong")
    assert response.status_code == 200 and signed_in_as(client) is None
    assert "The address or the password is not right." in response.content.decode()
    assert "wrong" not in response.content.decode().replace("wrong.", "")


def test_the_session_lasts_as_long_as_was_asked_for(client: Client) -> None:
    post(client, ALICE, "correct horse")
    assert client.session.get_expire_at_browser_close()
    other = Client()
    post(other, ALICE, "correct horse", remember="on")
    assert not other.session.get_expire_at_browser_close()


def test_guessing_is_refused_but_not_for_the_neighbour(client: Client) -> None:
    for number in range(PAIR_LIMIT):
        post(client, ALICE, f"guess {number}")
    refused = post(client, ALICE, "correct horse")
    assert "Too many failed attempts" in refused.content.decode() and signed_in_as(client) is None
    assert post(client, BOB, "battery staple").status_code == 302


def test_many_people_may_sign_in_from_one_place() -> None:
    for _ in range(SOURCE_LIMIT + 5):
        assert post(Client(), ALICE, "correct horse").status_code == 302


def test_a_disabled_account_is_told_so_after_the_right_password_only(client: Client) -> None:
    people.disable_account(people.get_account(ALICE))
    assert "not right" in post(client, ALICE, "wrong").content.decode()
    response = post(client, ALICE, "correct horse")
    assert response["Location"] == reverse("account_inactive") and signed_in_as(client) is None
    assert "disabled" in client.get(response["Location"]).content.decode()


def test_signing_out_needs_a_click_and_ends_the_session(client: Client) -> None:
    post(client, ALICE, "correct horse")
    page = client.get("/logout/")
    assert ALICE in page.content.decode() and signed_in_as(client) == ALICE
    assert client.post("/logout/")["Location"] == "/login/"
    assert signed_in_as(client) is None


def test_forms_are_protected_against_other_sites() -> None:
    strict = Client(enforce_csrf_checks=True)
    assert post(strict, ALICE, "correct horse").status_code == 403
    page = strict.get("/login/")
    token = page.context["csrf_token"]
    assert post(strict, ALICE, "correct horse", csrfmiddlewaretoken=str(token)).status_code == 302


def test_the_password_is_changed_with_the_old_one_and_judged(client: Client) -> None:
    post(client, ALICE, "correct horse")
    url = reverse("account_change_password")
    fields = {"oldpassword": "correct horse", "password1": "staple battery", "password2": "staple battery"}
    for wrong in (
        {"oldpassword": "x"},
        {"password2": "y"},
        {"password1": "alice@example", "password2": "alice@example"},
        {"password1": "tab\tinside it", "password2": "tab\tinside it"},
    ):
        assert client.post(url, fields | wrong).status_code == 200
    assert client.post(url, fields).status_code == 302
    assert signed_in_as(client) == ALICE
    assert post(Client(), ALICE, "correct horse").status_code == 200
    assert post(Client(), ALICE, "staple battery").status_code == 302


def test_an_address_that_leads_nowhere_leads_back_to_the_mail(client: Client) -> None:
    answer = client.get("/no/such/page/")
    assert answer.status_code == 404 and b'<a href="/">Back to mail</a>' in answer.content


def test_nobody_signs_up(client: Client) -> None:
    for path in ("/signup/", "/accounts/signup/", "/login/signup/", "/password/reset/"):
        assert client.get(path).status_code == 404


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The code of a secret; its half minute does not end between reading and typing it."""
    now = time.time()
    monkeypatch.setattr(totp, "time", SimpleNamespace(time=lambda: now))
    return lambda secret: totp.format_hotp_value(totp.hotp_value(secret, int(now) // 30))


def test_a_second_factor_is_asked_for_before_anything_is_open(client: Client, code: Callable[[str], str]) -> None:
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(people.get_account(ALICE), secret)
    assert secret not in str(Authenticator.objects.get().data), "sealed at rest"
    response = post(client, ALICE, "correct horse", next="/settings/")
    assert response["Location"].startswith(reverse("mfa_authenticate")) and signed_in_as(client) is None
    page = client.get(response["Location"]).content.decode()
    assert "card" in page and 'name="code"' in page
    assert client.post(response["Location"], {"code": "000000"}).status_code == 200
    assert signed_in_as(client) is None
    assert client.post(response["Location"], {"code": code(secret)})["Location"] == "/settings/"
    assert signed_in_as(client) == ALICE


def test_alice_switches_a_second_factor_on_and_off_in_our_own_pages(client: Client, code: Callable[[str], str]) -> None:
    post(client, ALICE, "correct horse")
    assert client.get(reverse("mfa_index")).status_code == 200
    asked = client.get(reverse("mfa_activate_totp"))
    assert asked["Location"].startswith(reverse("account_reauthenticate"))
    assert 'class="card' in client.get(asked["Location"]).content.decode()
    assert "correct password" not in client.post(asked["Location"], {"password": "correct horse"}).content.decode()
    page = client.get(reverse("mfa_activate_totp"))
    secret = page.context["form"].secret
    assert "authenticator" in page.content.decode().lower()
    done = client.post(reverse("mfa_activate_totp"), {"code": code(secret)})
    assert done.status_code == 302
    shown = client.get(done["Location"]).content.decode()
    assert "<textarea" in shown and 'class="card' in shown
    assert client.get(reverse("mfa_deactivate_totp")).status_code == 200
    assert client.post(reverse("mfa_deactivate_totp")).status_code == 302
    assert not Authenticator.objects.filter(type="totp").exists()


def test_the_break_glass_admin_is_for_superusers_signed_in_through_our_page(client: Client) -> None:
    arrived = client.get("/django-admin/", follow=True)
    assert arrived.redirect_chain[-1][0] == "/login/?next=%2Fdjango-admin%2F"
    assert (
        client.get("/django-admin/login/?next=https://evil.example/")["Location"] == "/login/?next=%2Fdjango-admin%2F"
    )
    credentials = {"username": ROOT, "password": "root of all evil"}
    assert client.post("/django-admin/login/", credentials).status_code == 302 and signed_in_as(client) is None
    Account.objects.filter(address=BOB).update(is_staff=True)
    for address, password in ((ALICE, "correct horse"), (BOB, "battery staple")):
        stranger = Client()
        post(stranger, address, password)
        assert stranger.get("/django-admin/", follow=True).status_code == 403
        assert stranger.get("/django-admin/accounts/account/", follow=True).status_code == 403
        assert stranger.post("/django-admin/login/", credentials).status_code == 403
        assert signed_in_as(stranger) == address
    root = Client()
    post(root, ROOT, "root of all evil")
    for page in ("", "accounts/domain/", "accounts/account/", "accounts/address/", "accounts/apppassword/"):
        assert root.get(f"/django-admin/{page}").status_code == 200


def test_the_break_glass_admin_shows_no_digest_and_adds_nobody() -> None:
    people.add_alias("sales@example.org", [ALICE])
    people.add_app_password(people.get_account(ALICE), "phone")
    root = Client()
    post(root, ROOT, "root of all evil")
    row = people.get_account(ALICE).app_passwords.get()
    page = root.get(f"/django-admin/accounts/apppassword/{row.pk}/change/").content.decode()
    assert "phone" in page and "digest" not in page
    page = root.get(f"/django-admin/accounts/account/{people.get_account(ALICE).pk}/change/").content.decode()
    assert "argon2" not in page
    for name in ("account", "domain", "address", "apppassword"):
        assert root.get(f"/django-admin/accounts/{name}/add/").status_code == 403


def test_settings_that_accounts_relies_on_are_checked_at_start(settings: Any) -> None:
    assert checks.session_engine() == [] and checks.password_hasher() == []
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    assert [each.id for each in checks.session_engine() + checks.password_hasher()] == [
        "accounts.E001",
        "accounts.E002",
    ]


PAGE = "/settings/security/app-passwords/"


def test_app_passwords_are_made_listed_and_removed_on_their_page(client: Client) -> None:
    assert client.get(PAGE).status_code == 302, "sign in first"
    post(client, ALICE, "correct horse")
    assert client.get(PAGE)["Location"].startswith("/login/again/"), "a browser left open makes no app passwords"
    again = client.post(f"/login/again/?next={PAGE}", {"password": "correct horse"})
    assert (again.status_code, again["Location"]) == (302, PAGE)
    made = client.post(PAGE, {"add": "1", "label": "Printer", "scopes": ["smtp"]})
    assert "no-store" in made["Cache-Control"]
    (secret,) = re.findall(r'<code id="secret">([a-z2-7-]{34})</code>', made.content.decode())
    row = AppPassword.objects.get()
    assert bytes(row.digest) == app_passwords.digest(secret) and row.scopes == ["smtp"] and row.label == "Printer"
    page = client.get(PAGE).content.decode()
    assert "Printer" in page and "SMTP" in page and secret not in page
    for wrong, words in (
        ({"add": "1", "label": "Printer", "scopes": ["imap"]}, "labelled"),
        ({"add": "1", "label": "", "scopes": ["imap"]}, "required"),
        ({"add": "1", "label": "x"}, "Choose at least one"),
        ({"add": "1", "label": "x", "scopes": ["web"]}, "not one of the available choices"),
        ({"remove": "99999999999999999999"}, "gone already"),
        ({"remove": "9" * 5000}, "gone already"),
        ({"remove": "x"}, "gone already"),
    ):
        answer = client.post(PAGE, wrong)
        assert answer.status_code == 200 and words in answer.content.decode(), wrong
    bob = Client()
    post(bob, BOB, "battery staple")
    bob.post(f"/login/again/?next={PAGE}", {"password": "battery staple"})
    bob.post(PAGE, {"remove": str(row.pk)})
    assert "Printer" not in bob.get(PAGE).content.decode() and AppPassword.objects.count() == 1, "it is Alice's"
    assert post(Client(), ALICE, secret).status_code == 200, "an app password opens no webmail"
    assert client.post(PAGE, {"remove": str(row.pk)}).status_code == 302
    assert not AppPassword.objects.exists()
