"""What a person sees in the list and is told when something is refused, at a desk and on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.webmail.conftest import Desk, Person, letter
from tests.webmail.test_browser import open_row, rows

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

LONG = '"Maximiliane Freifrau von Hohenlohe-Schillingsfürst zu Waldenburg" <maximiliane.von.hohenlohe@schloss.test>'
FILE = (("plan.pdf", "application/pdf", b"%PDF-1.4"),)


def box(page: Page, selector: str) -> dict[str, float]:
    found = page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return dict(found)


def apart(one: dict[str, float], other: dict[str, float]) -> bool:
    return (
        one["x"] + one["width"] <= other["x"]
        or other["x"] + other["width"] <= one["x"]
        or one["y"] + one["height"] <= other["y"]
        or other["y"] + other["height"] <= one["y"]
    )


def test_a_row_keeps_its_paper_clip_in_view_under_the_pointer(desk: Desk, alice: Person) -> None:
    alice.deliver(letter(LONG, alice.address, "The plan for the garden house " * 4, "See the file.", files=FILE))
    page = desk.sign_in(alice)
    row = rows(page)
    expect(row.locator(".row-clip")).to_be_visible()
    row.hover()
    expect(page.locator(".row-actions")).to_be_visible()
    desk.picture(page, "row-hover-1280")
    assert apart(box(page, ".row-clip"), box(page, ".row-actions"))
    assert apart(box(page, ".row-star"), box(page, ".row-actions"))
    assert apart(box(page, ".row-people"), box(page, ".row-actions"))


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_a_long_name_is_read_before_its_address(desk: Desk, alice: Person, width: int, phone: bool) -> None:
    alice.deliver(letter(LONG, alice.address, "Tea", "On Sunday?", files=FILE))
    alice.deliver(letter("Bo <bo@x.test>", alice.address, "Numbers", "Here"), seen=True)
    page = desk.sign_in(alice, width=width, phone=phone)
    desk.picture(page, f"rows-{width}")
    open_row(page, "Tea")
    desk.picture(page, f"long-name-{width}")
    assert box(page, ".message-name")["width"] > 200
    if not phone:  # which has room for the name only
        assert page.locator(".message-address").bounding_box() is None or box(page, ".message-address")["width"] < 8


def test_a_name_that_fits_is_whole_and_its_address_is_cut(desk: Desk, alice: Person) -> None:
    sender = f"Maximiliane von Hohenlohe <{'maximiliane.' * 4}von.hohenlohe@schloss.example.test>"
    alice.deliver(letter(sender, alice.address, "Tea", "On Sunday?"))
    page = desk.sign_in(alice)
    open_row(page, "Tea")
    cut = "element => element.scrollWidth > element.clientWidth"
    assert not page.locator(".message-name").evaluate(cut)
    assert page.locator(".message-address").evaluate(cut)


def test_an_address_that_is_refused_says_why(desk: Desk, people: Callable[[str], Person]) -> None:
    alice = people("alice")
    domain = alice.address.partition("@")[2]
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"nobody@{domain}, other@{domain}, bo@x.test,")
    page.get_by_label("Subject").fill("x")
    page.locator(".editor").press_sequentially("Hello")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".compose-error")).to_have_text(
        "Not sent. These addresses cannot be used: "
        f"nobody@{domain} (no such user here), other@{domain} (no such user here)."
    )
    desk.picture(page, "refused-1280")
    page.set_viewport_size({"width": 390, "height": 800})
    desk.picture(page, "refused-390")


def test_words_in_quotes_are_searched_as_a_phrase(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bo <bo@x.test>", alice.address, "First", "The garden\nhouse is green."))
    alice.deliver(letter("Bo <bo@x.test>", alice.address, "Second", "The house has a garden."))
    page = desk.sign_in(alice)
    page.keyboard.press("/")
    page.keyboard.type("garden house\n")
    expect(page.locator(".list-count")).to_have_text("2 results")
    page.get_by_role("searchbox").fill('"garden house"')
    page.keyboard.press("Enter")
    expect(page.locator(".list-count")).to_have_text("1 result")
    expect(rows(page)).to_contain_text("First")
