"""The real web server on loopback over the test database, a browser, and people with mail in their mailboxes."""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from accounts.models import Account
from accounts.throttle import sign_ins
from mailcore import db, mime, provision
from mailcore.auth import login as auth
from mailcore.store import mailboxes
from mailcore.store.append import Appended, Incoming, append
from mailcore.store.flags import SEEN
from tests.ports import free_ports
from tests.waiting import PATIENCE

PASSWORD = "correct horse battery"
# Set to a folder to keep pictures of the pages for looking at.
PICTURES = os.environ.get("KEEP_PICTURES")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
# Milliseconds for what is bound to come, however busy the machine.
LONG = PATIENCE * 1000
expect.set_options(timeout=LONG)
_domains = itertools.count(1)


@dataclass(frozen=True)
class Web:
    """The running server."""

    url: str


@pytest.fixture(scope="session")
def web(django_db_setup: None) -> Iterator[Web]:
    parts = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(parts._replace(path="/" + str(connection.settings_dict["NAME"])))
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--log-level", "warning", "webmail.asgi:application"],
        cwd=root,
        env={**os.environ, "DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "webmail.settings"},
    )
    try:
        _wait_until_ready(port, process)
        yield Web(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the web server ended"
        connected = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connected.request("GET", "/readyz")
            if connected.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connected.close()
        time.sleep(0.05)
    raise AssertionError("the web server does not get ready")


@dataclass(frozen=True)
class Person:
    """An account and ways to fill its mailbox."""

    account_id: int
    address: str
    name: str

    def deliver(
        self, raw: bytes | EmailMessage, *, mailbox: str = "INBOX", seen: bool = False, hours_ago: float = 0
    ) -> Appended:
        """Store a message as a delivery does; the page hears of it in the same way."""
        octets = raw if isinstance(raw, bytes) else bytes(raw).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        when = datetime.now(UTC) - timedelta(hours=hours_ago)
        with db.django_transaction() as tx:
            box = db.run_sync(mailboxes.by_name(tx, self.account_id, mailbox))
            item = Incoming(
                self.account_id, box.id, octets, mime.parse(octets), SEEN if seen else 0, internal_date=when
            )
            (stored,) = db.run_sync(append(tx, [item]))
        assert isinstance(stored, Appended)
        return stored

    def count(self, mailbox: str) -> int:
        with db.django_transaction() as tx:
            return db.run_sync(mailboxes.by_name(tx, self.account_id, mailbox)).messages


def letter(
    sender: str,
    to: str,
    subject: str,
    text: str = "",
    *,
    html: str | None = None,
    hours_ago: float = 0,
    message_id: str | None = None,
    reply_to: str | None = None,
    files: tuple[tuple[str, str, bytes], ...] = (),
    inline: tuple[tuple[str, str, bytes], ...] = (),
) -> EmailMessage:
    """A message; `files` are (name, type, octets), `inline` images of the HTML are (Content-ID, type, octets)."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC) - timedelta(hours=hours_ago))
    message["Message-ID"] = f"<{message_id or f'{time.monotonic_ns()}@elsewhere.test'}>"
    if reply_to:
        message["In-Reply-To"] = message["References"] = f"<{reply_to}>"
    message.set_content(text or "-")
    if html is not None:
        message.add_alternative(html, subtype="html")
        for cid, kind, octets in inline:
            main, sub = kind.split("/")
            message.get_payload()[1].add_related(octets, main, sub, cid=f"<{cid}>")
    for name, kind, octets in files:
        main, sub = kind.split("/")
        message.add_attachment(octets, main, sub, filename=name)
    return message


@pytest.fixture
def people(transactional_db: None) -> Callable[[str], Person]:
    """Makes a person by name, in a domain of this test."""
    auth.forget()
    sign_ins.clear()
    domain = f"web{next(_domains)}.example"
    known: dict[str, Person] = {}

    def person(name: str) -> Person:
        if name not in known:
            if not known:
                provision.add_domain(domain)
            full_name = f"{name.title()} Example"
            account = provision.add_account(f"{name}@{domain}", password=PASSWORD, name=full_name)
            known[name] = Person(account.pk, f"{name}@{domain}", full_name)
        return known[name]

    return person


@pytest.fixture
def alice(people: Callable[[str], Person]) -> Person:
    return people("alice")


class Browsers:
    """Contexts of one browser, used again by later tests: what they keep is the scripts and styles, never a cookie."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._idle: dict[tuple[object, ...], list[BrowserContext]] = {}
        self._used: list[tuple[tuple[object, ...], BrowserContext]] = []

    def context(self, width: int, height: int, scheme: str, phone: bool, bypass: bool) -> BrowserContext:
        key = (width, height, scheme, phone, bypass)
        idle = self._idle.setdefault(key, [])
        context = idle.pop() if idle else self._new(width, height, scheme, phone, bypass)
        self._used.append((key, context))
        return context

    def _new(self, width: int, height: int, scheme: str, phone: bool, bypass: bool) -> BrowserContext:
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            has_touch=phone,
            is_mobile=phone,
            locale="en-GB",
            reduced_motion="reduce",
            bypass_csp=bypass,
        )
        context.set_default_timeout(LONG)
        return context

    def put_back(self) -> None:
        """After a test: close its pages and forget who was signed in."""
        for key, context in self._used:
            for page in context.pages:
                page.close()
            context.clear_cookies()
            self._idle[key].append(context)
        self._used.clear()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browsers]:
    # Playwright's synchronous interface keeps an event loop in this thread, which Django takes for asynchronous code.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS.split(), timeout=LONG)
        yield Browsers(browser)
        browser.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@dataclass
class Desk:
    """Browsers of a test. Whatever a page complains of, errors and violated policies above all, fails the test."""

    browsers: Browsers
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    listening: list[Page] = field(default_factory=list)

    def open(
        self,
        *,
        width: int = 1280,
        height: int = 800,
        scheme: str = "light",
        phone: bool = False,
        bypass: bool = False,
        script: str = "",
    ) -> Page:
        """`script` runs before those of the page."""
        page = self.browsers.context(width, height, scheme, phone, bypass).new_page()
        page.add_init_script(script)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("response", lambda answer: self.listening.append(page) if "/jmap/events" in answer.url else None)
        return page

    def listens(self, page: Page) -> bool:
        """Whether the server has begun to tell a page what happens."""
        page.wait_for_timeout(10)  # lets Playwright hear of it
        return page in self.listening

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected):
            self.complaints.append(f"{message.type}: {message.text}")

    def sign_in(self, person: Person, path: str = "/", **options: object) -> Page:
        """A page of a person who has signed in already."""
        page = self.open(**options)  # type: ignore[arg-type]  # the options of open()
        page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session(person), "url": self.url}])
        page.goto(self.url + path)
        page.wait_for_selector(".list-scroll[aria-busy=false]")
        return page

    def picture(self, page: Page, name: str) -> None:
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}.png")


def session(person: Person) -> str:
    """The key of a session as signing in makes it."""
    account = Account.objects.get(pk=person.account_id)
    store = SessionStore()
    store[SESSION_KEY] = str(account.pk)
    store[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    store[HASH_SESSION_KEY] = account.get_session_auth_hash()
    store.create()
    return str(store.session_key)


@pytest.fixture
def desk(chromium: Browsers, web: Web) -> Iterator[Desk]:
    desk = Desk(chromium, web.url)
    yield desk
    chromium.put_back()
    assert not desk.complaints, desk.complaints
