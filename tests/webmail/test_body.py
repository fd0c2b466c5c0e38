"""Who may see a body, and what its answer says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext

from tests.webmail.conftest import Desk, Person, letter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]


def signed_in(desk: Desk, person: Person) -> BrowserContext:
    return desk.sign_in(person).context


def test_only_the_owner_sees_a_body(desk: Desk, people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    stored = alice.deliver(letter("x@y.test", alice.address, "Secret", "the secret", html="<p>the secret</p>"))
    address = f"{desk.url}/mail/body/a{alice.account_id}/M{stored.message_id}/2"
    own = signed_in(desk, alice).request.get(address)
    assert own.status == 200 and "the secret" in own.text()
    context = signed_in(desk, bob)
    foreign = context.request.get(address)
    as_own = context.request.get(address.replace(f"/a{alice.account_id}/", f"/a{bob.account_id}/"))
    missing = context.request.get(f"{desk.url}/mail/body/a{bob.account_id}/M999/1")
    assert (foreign.status, as_own.status, missing.status) == (404, 404, 404)
    assert as_own.text() == missing.text()  # a foreign id answers like a missing one
    stranger = desk.open().context.request.get(address)
    assert stranger.status == 401 and "secret" not in stranger.text()


def test_headers_tell_what_the_page_cannot_see(desk: Desk, alice: Person) -> None:
    html = '<p>Hello</p><img src="https://a.test/1.png"><img src="https://a.test/2.png">'
    stored = alice.deliver(letter("x@y.test", alice.address, "Images", "x", html=html))
    request = signed_in(desk, alice).request
    address = f"{desk.url}/mail/body/a{alice.account_id}/M{stored.message_id}/2"
    told = request.head(f"{address}?images=0")
    assert told.headers["x-remote-images"] == "2" and int(told.headers["x-estimated-height"]) > 20
    assert told.body() == b""
    shown = request.get(f"{address}?images=1")
    assert "https:" in shown.headers["content-security-policy"] and 'src="https://a.test/1.png"' in shown.text()


@pytest.mark.parametrize("place", ["2/../../x", "99", "", "2?use=nonsense", "%00", "1%2F2"])
def test_odd_places_are_not_found(desk: Desk, alice: Person, place: str) -> None:
    stored = alice.deliver(letter("x@y.test", alice.address, "x", "x", html="<p>x</p>"))
    answer = signed_in(desk, alice).request.get(
        f"{desk.url}/mail/body/a{alice.account_id}/M{stored.message_id}/{place}"
    )
    assert answer.status == 404


def test_the_page_is_for_signed_in_people_and_carries_its_policy(desk: Desk, alice: Person) -> None:
    page = desk.open()
    page.goto(f"{desk.url}/mail/F1/T5?q=x")
    assert page.url == f"{desk.url}/login/?next=/mail/F1/T5%3Fq%3Dx"
    answer = signed_in(desk, alice).request.get(f"{desk.url}/mail/F1/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "style-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"].startswith("max-age=0, no-cache, no-store")
