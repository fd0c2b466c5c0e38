"""Out: an answer written in the browser reaches another mail server, signed; what that server refuses comes back."""

from __future__ import annotations

import email
import email.policy
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage

import dkim
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e import names
from tests.e2e.gate import gate
from tests.e2e.world import ANN, CAROL, FAR, HOME, HOST, NOBODY, PASSWORD, SLOW, World, trace_id
from tests.waiting import PATIENCE, until

pytestmark = [
    pytest.mark.programs("swaks", "postfix", "dnsmasq", "curl", "chromium"),
]

QUESTION = (
    "From: Carol Far <carol@far.example>\r\n"
    "To: Ann <ann@home.example>\r\n"
    "Subject: =?utf-8?Q?Caf=C3=A9?= at noon?\r\n"
    "Message-ID: <question@far.example>\r\n"
    "Date: Sun, 22 Nov 2026 08:00:00 +0000\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n"
    "Wollen wir uns im Café treffen?\r\n"
).encode()
ANSWER = "Gerne – bis später im Café ☕"
# Milliseconds for what is bound to come, however busy the machine.
LONG = PATIENCE * 1000
expect.set_options(timeout=LONG)


def written_by_ann(name: str) -> bytes:
    """The same words from Ann, with a Message-ID of their own."""
    return QUESTION.replace(CAROL.encode(), ANN.encode()).replace(b"<question@", f"<{name}@".encode())


@dataclass(frozen=True, slots=True)
class Story:
    """A question that came in and the answer that went out, by their trace ids; `raw` as the other server got it."""

    question: str
    answer: str
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        found = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        return found


@pytest.fixture(scope="module")
def page(world: World) -> Iterator[Page]:
    """A browser; whatever the page complains of fails the tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=world.find("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic"],
            timeout=LONG,
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-GB")
        page.set_default_timeout(LONG)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        yield page
        browser.close()
        assert not complaints


@pytest.fixture(scope="module")
def story(world: World, page: Page) -> Story:
    """Carol asks by swaks; Ann signs in, reads and answers in the browser; Postfix takes the answer."""
    question = world.send(QUESTION, ANN)
    page.goto(f"http://127.0.0.1:{world.made.ports['HTTP']}/login/")
    page.get_by_label("Address").fill(ANN)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.locator(".row", has_text="Café at noon?").locator(".row-link").click()
    expect(page.locator(".thread-subject")).to_have_text("Café at noon?")
    expect(page.locator(".plain-text")).to_contain_text("Wollen wir uns im Café treffen?")
    page.keyboard.press("r")
    expect(page.locator(".editor blockquote")).to_contain_text("Wollen wir uns")
    page.locator(".editor").press_sequentially(ANSWER)
    page.get_by_role("button", name="Send", exact=True).first.click()
    expect(page.locator(".toast").filter(has_text="Sent.")).to_be_visible()
    expect(page.locator(".composer")).to_have_count(0)
    (raw,) = world.await_far("carol")
    found = re.search(rb"\r\n\tby " + re.escape(HOST).encode() + rb" with \w+ id ([0-9a-z]{15})", raw)
    assert found, raw
    return Story(question, found[1].decode(), raw)


def test_the_answer_reaches_the_other_server_over_tls(story: Story) -> None:
    message = story.message
    assert message["From"] == f"Ann Example <{ANN}>"
    assert message["To"] == f"Carol Far <{CAROL}>"
    assert message["Subject"] == "Re: Café at noon?"
    assert message["In-Reply-To"] == message["References"] == "<question@far.example>"
    assert message["Return-Path"] == f"<{ANN}>"
    assert message["Delivered-To"] == CAROL
    body = message.get_body(("plain",))
    assert body is not None
    words = body.get_content()
    assert words.startswith(ANSWER)
    assert "> Wollen wir uns im Café treffen?" in words
    handed_over = message.get_all("Received", [])[0]
    assert handed_over.startswith(f"from {HOST} (")
    assert "using TLSv1.3" in handed_over
    assert b"127.0.0.1" not in story.raw.partition(f"by {HOST}".encode())[2].partition(b"\r\n\r\n")[0]


def test_its_signatures_verify_with_the_keys_that_domain_show_prints(world: World, story: Story) -> None:
    """The name server answers with the records exactly as `manage.py domain show` printed them."""
    resolver = names.resolver(world.dns_port)
    asked = []

    def lookup(name: bytes, timeout: float = 5) -> bytes:
        asked.append(name.decode().rstrip("."))
        (record,) = resolver.resolve(name.decode(), "TXT", lifetime=timeout)
        return b"".join(record.strings)

    fields = story.message.get_all("DKIM-Signature", [])
    assert sorted(re.findall(r"\ba=([\w-]+)", field)[0] for field in fields) == ["ed25519-sha256", "rsa-sha256"]
    assert {re.findall(r"\bd=([\w.-]+)", field)[0] for field in fields} == {HOME}

    def holds(raw: bytes) -> list[bool]:
        return [verified(raw, index, lookup) for index in range(2)]

    assert holds(story.raw) == [True, True]
    assert sorted(asked) == sorted(record.name for record in world.records if "._domainkey." in record.name)
    for forged in (story.raw.replace(b"<question@", b"<request@"), story.raw + b"more\r\n"):
        assert forged != story.raw
        assert holds(forged) == [False, False]


def verified(raw: bytes, index: int, lookup: Callable[..., bytes]) -> bool:
    try:
        return bool(dkim.DKIM(raw).verify(index, dnsfunc=lookup))
    except dkim.ValidationError:  # it says more than no
        return False


def test_both_are_filed_where_the_writer_looks_for_them(world: World, story: Story) -> None:
    with world.imap(ANN) as client:
        (uid,) = client.search(["HEADER", "Message-ID", "<question@far.example>"])
        assert set(client.get_flags([uid])[uid]) >= {rb"\Seen", rb"\Answered"}
        client.select_folder("Sent", readonly=True)
        (uid,) = client.search(["SUBJECT", "noon"])
        item = client.fetch([uid], ["BODY[]", "FLAGS"])[uid]
        assert rb"\Seen" in item[b"FLAGS"] and rb"\Draft" not in item[b"FLAGS"]
        assert client.folder_status("Drafts", ["MESSAGES"])[b"MESSAGES"] == 0
    kept = email.message_from_bytes(item[b"BODY[]"], policy=email.policy.default)
    assert kept["Message-ID"] == story.message["Message-ID"]
    assert story.raw.endswith(item[b"BODY[]"].partition(b"\r\n\r\n")[2]), "what is kept is what was sent"


def test_the_trace_shows_each_step_of_both(world: World, story: Story) -> None:
    assert [step["step"] for step in world.trace(story.question)] == ["accepted", "stored"]
    steps = world.await_steps(story.answer, "delivered")
    assert [step["step"] for step in steps] == ["accepted", "queued", "delivered"]
    accepted, queued, delivered = steps
    assert (accepted["sender"], accepted["detail"]["protocol"]) == (ANN, "HTTP")
    assert queued["recipient"] == delivered["recipient"] == CAROL
    assert queued["outbound_id"] == delivered["outbound_id"] is not None
    assert delivered["detail"]["host"] == f"mx.{FAR} [127.0.0.1]"
    assert delivered["detail"]["tls"].startswith("TLSv1.3")
    number = re.search(r"queued as (\w+)", delivered["detail"]["reply"])
    assert number and f"with ESMTPS id {number[1]}" in story.message.get_all("Received", [])[0]
    lines = world.made.run("trace", story.answer).stdout.splitlines()
    assert lines[0] == f"{story.answer}  from {ANN}  {story.message['Message-ID'].strip()}"
    assert [line.split()[2:4] for line in lines[1:]] == [["accepted", ANN], ["queued", CAROL], ["delivered", CAROL]]
    assert f"mx.{FAR} [127.0.0.1] (TLSv1.3" in lines[3] and "said: 250 2.0.0 Ok: queued as" in lines[3]


def test_a_refused_recipient_comes_back_as_a_report(world: World) -> None:
    done = world.submit(written_by_ann("refused"), CAROL, NOBODY)
    assert done.returncode == 0, done.stderr
    name = trace_id(done.stderr)
    raw = world.await_message(ANN, lambda each: b"multipart/report" in each and name.encode() in each)
    report = email.message_from_bytes(raw, policy=email.policy.default)
    assert report["Return-Path"] == "<>"
    assert report["From"].addresses[0].addr_spec == f"MAILER-DAEMON@{HOST}"
    assert report["To"].addresses[0].addr_spec == ANN
    assert report["Auto-Submitted"] == "auto-replied"
    assert report.get_param("report-type") == "delivery-status"
    words, status, original = report.iter_parts()
    assert [part.get_content_type() for part in (words, status, original)] == [
        *("text/plain", "message/delivery-status", "message/rfc822")
    ]
    assert NOBODY in words.get_content() and CAROL not in words.get_content()
    about, recipient = status.get_payload()
    assert about["Reporting-MTA"] == f"dns; {HOST}"
    assert recipient["Final-Recipient"] == f"rfc822; {NOBODY}"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Remote-MTA"] == f"dns; mx.{FAR}"
    assert recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1")
    assert "User unknown in virtual mailbox table" in recipient["Diagnostic-Code"]
    (returned,) = original.iter_parts()
    assert returned["Message-ID"] == "<refused@far.example>"
    assert raw.partition(b"message/rfc822")[2].count(QUESTION.partition(b"\r\n\r\n")[2]) == 1

    world.await_steps(name, "delivered")
    steps = world.await_steps(name, "dsn")
    assert sorted((step["step"], step["recipient"]) for step in steps) == [
        *(("accepted", None), ("delivered", CAROL), ("dsn", ANN), ("failed", NOBODY)),
        *(("queued", CAROL), ("queued", NOBODY)),
    ]
    told = next(step for step in steps if step["step"] == "dsn")
    failed = next(step for step in steps if step["step"] == "failed")
    assert failed["detail"]["status"] == "5.1.1" and "550 5.1.1" in failed["detail"]["reply"]
    report_steps = world.trace(told["detail"]["id"])
    assert [(step["step"], step["recipient"]) for step in report_steps] == [("stored", ANN), ("dsn", ANN)]
    assert f"told the sender: failed ({NOBODY})" in world.made.run("trace", name).stdout


def test_a_worker_killed_in_mid_delivery_loses_nothing(world: World) -> None:
    with world.database() as database, gate(world.gate_port) as far:
        done = world.submit(written_by_ann("slow"), SLOW)
        assert done.returncode == 0, done.stderr
        name = trace_id(done.stderr)
        until(far.asked.is_set, story=world.made.output)
        before = world.made.output().count("worker runs again")
        os.kill(world.made.children()["worker"], signal.SIGKILL)
        until(lambda: world.made.output().count("worker runs again") > before, story=world.made.output)
        wanted = "SELECT r.state, r.attempts FROM outbound_recipient r, outbound o"
        wanted += " WHERE o.id = r.outbound_id AND o.trace_id = %s"
        assert database.execute(wanted, (name,)).fetchone() == ("queued", 1)
        # Two minutes pass.
        database.execute("UPDATE outbound_recipient SET lease_until = now() WHERE lease_until IS NOT NULL")
        far.open.set()
        (raw,) = world.await_far("slow")
    assert name.encode() in raw
    assert [step["step"] for step in world.await_steps(name, "delivered")] == ["accepted", "queued", "delivered"]
    assert len(world.await_far("slow")) == 1


def test_what_redis_forgets_is_delivered_all_the_same(world: World) -> None:
    worker = world.made.children()["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        done = world.submit(written_by_ann("forgotten"), CAROL)
        assert done.returncode == 0, done.stderr
        time.sleep(0.2)
        with world.valkey() as valkey:
            valkey.flushall()
    finally:
        os.kill(worker, signal.SIGCONT)
    steps = world.await_steps(trace_id(done.stderr), "delivered")
    assert [step["step"] for step in steps] == ["accepted", "queued", "delivered"]


def test_what_the_domain_needs_is_published_as_doctor_wants_it(world: World) -> None:
    text = world.made.run("doctor").stdout
    assert f"dns: {HOME}" not in text and f"_domainkey.{HOME}" not in text
