"""The sign-in page in a real browser: wide and narrow, light and dark, by keyboard alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts import people
from accounts.throttle import sign_ins

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

# Set to keep pictures of the pages for looking at.
PICTURES = os.environ.get("KEEP_PICTURES")


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    # Playwright's synchronous interface keeps an event loop in this thread, which Django takes for asynchronous code.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(autouse=True)
def alice(db: None) -> None:
    sign_ins.clear()
    people.add_domain("example.org")
    people.add_account("alice@example.org", "correct horse")


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def keep(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def test_the_pages_fit_a_phone_and_a_desk_by_day_and_by_night(browser: Browser, live_server: Any) -> None:
    for width, scheme in ((360, "light"), (1280, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
        page.goto(f"{live_server.url}/login/")
        keep(page, f"sign-in-{width}-{scheme}")
        assert fits(page) and page.locator("h1").inner_text() == "Sign in"
        page.get_by_label("Address").fill("alice@example.org")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The address or the password is not right.")
        keep(page, f"sign-in-wrong-{width}-{scheme}")
        assert fits(page) and page.get_by_label("Password").input_value() == ""
        page.keyboard.type("correct horse")  # the password has the focus now
        with page.expect_request(lambda request: request.url == f"{live_server.url}/"):
            page.get_by_role("button", name="Sign in").click()
        for path in ("settings/security/password/", "settings/security/two-factor/", "logout/"):
            page.goto(f"{live_server.url}/{path}")
            keep(page, f"{path.strip('/').replace('/', '-')}-{width}-{scheme}")
            assert fits(page) and page.locator(".card h1").is_visible()
        page.context.close()


def test_signing_in_works_by_keyboard_from_the_moment_the_page_is_there(browser: Browser, live_server: Any) -> None:
    page = browser.new_page()
    page.goto(f"{live_server.url}/login/?next=/settings/security/password/")
    page.keyboard.type("alice@example.org")
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse")
    page.keyboard.press("Enter")
    page.wait_for_url("**/settings/security/password/")
    assert page.locator("h1").inner_text() == "Change password"
