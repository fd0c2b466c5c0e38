"""What axe-core finds wrong with the pages (nothing), and what the keyboard alone can do."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.webmail.conftest import Desk, Person, letter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

AXE = Path(__file__).parent / "vendor/axe-core-4.14.1/axe.min.js"
# Menus stand beside the landmarks, which is where assistive programs expect them.
CHECK = """async () => (await axe.run(document, {iframes: false, rules: {region: {enabled: false}}})).violations
    .map(found => `${found.id}: ${found.nodes.slice(0, 3).map(node => node.html.slice(0, 200)).join(' | ')}`)"""


def wrong(page: Page) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    return list(page.evaluate(CHECK))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(desk: Desk, alice: Person, scheme: str) -> None:
    first = letter(
        "Sofia <sofia@x.test>",
        alice.address,
        "Roof",
        "One",
        message_id="1@a",
        files=(("a.pdf", "application/pdf", b"%PDF"),),
    )
    alice.deliver(first, hours_ago=3)
    alice.deliver(
        letter("Jonas <jonas@x.test>", alice.address, "Re: Roof", "Two\n\n> One\n> a\n> b\n> c", reply_to="1@a")
    )
    page = desk.sign_in(alice, scheme=scheme, bypass=True)
    assert wrong(page) == []
    page.locator(".row-link").first.click()
    expect(page.locator(".message--open")).to_be_visible()
    assert wrong(page) == []
    page.keyboard.press("r")
    expect(page.locator(".editor")).to_contain_text("One")
    page.get_by_role("combobox", name="To").fill("sof")
    expect(page.get_by_role("listbox")).to_be_visible()
    assert wrong(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Minimise").click()
    page.get_by_role("button", name="Account").click()
    assert wrong(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    assert wrong(page) == []


def test_the_keyboard_alone_reads_and_files(desk: Desk, alice: Person) -> None:
    for number in range(4):
        alice.deliver(
            letter("Bob <bob@x.test>", alice.address, f"Subject {number}", "x", message_id=f"{number}@k"),
            seen=True,
            hours_ago=number,
        )
    page = desk.sign_in(alice)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the messages")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".row-link").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".row-link").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".thread-subject")).to_have_text("Subject 1")
    page.keyboard.press("j")
    expect(page.locator(".thread-subject")).to_have_text("Subject 2")
    page.keyboard.press("u")
    expect(page.locator(".thread-subject")).to_have_count(0)
    page.keyboard.press("x")
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.locator(".list-bar--selection")).to_contain_text("2 selected")
    page.keyboard.press("v")
    page.keyboard.type("arch")
    page.keyboard.press("Enter")
    expect(page.locator(".row")).to_have_count(2)
    page.keyboard.press("g")
    page.keyboard.press("a")
    expect(page.locator(".list-title")).to_have_text("Archive")
