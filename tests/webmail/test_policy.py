"""Every page that a person can open has a content security policy, and lives by it."""

from __future__ import annotations

import pytest

from tests.webmail.conftest import Desk, Person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

PAGES = [
    "login/?next=/",
    "logout/",
    "settings/security/password/",
    "settings/security/two-factor/",
    "settings/security/two-factor/totp/activate/",
    "no/such/page/",
]


@pytest.mark.parametrize("path", PAGES)
def test_pages_live_by_their_policy(desk: Desk, alice: Person, path: str) -> None:
    desk.expected.append("404")
    page = desk.sign_in(alice)
    answer = page.goto(f"{desk.url}/{path}")
    assert answer is not None and answer.status in (200, 404)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    page.wait_for_timeout(200)  # what the page complains of fails the test
