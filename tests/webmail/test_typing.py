"""Quick hands: what is typed while a window opens is no shortcut."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.webmail.conftest import Desk, Person, letter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]


def test_what_is_typed_while_a_window_opens_does_nothing_to_the_mail(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "Hello", "Words"))
    page = desk.sign_in(alice)
    page.locator(".row .row-link").click()
    expect(page.locator(".thread-subject")).to_have_text("Hello")
    for opens in ("c", "r"):
        # Without a pause for the window: e archives, s stars, # deletes, ! is for junk, f forwards.
        page.evaluate(
            "keys => { for (const key of keys) document.activeElement.dispatchEvent("
            "new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true})); }",
            [opens, "e", "s", "#", "!", "f"],
        )
        expect(page.locator(".composer")).to_have_count(1)
        expect(page.locator(".composer :focus")).to_have_count(1)
        expect(page.locator(".toast")).to_have_count(0)
        if opens == "r":  # the caret had to wait for the quoted text
            expect(page.locator(".editor")).to_contain_text("es#!f")
        page.keyboard.press("Escape")
        expect(page.locator(".composer")).to_have_count(0)
    expect(page.locator(".row-star[aria-pressed=true]")).to_have_count(0)
    assert (alice.count("INBOX"), alice.count("Archive"), alice.count("Trash"), alice.count("Junk")) == (1, 0, 0, 0)
    page.locator(".row .row-link").focus()
    page.keyboard.press("e")  # shortcuts are back
    expect(page.locator(".toast").filter(has_text="archived")).to_be_visible()
