"""Where is my mail?: what people and administrators find, and what they do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Page, expect

from accounts import people as records
from accounts.models import Account, Domain
from mailcore import db
from mailcore.store import trace
from mailcore.store.trace import Event
from tests.webmail.conftest import Desk, Person, session
from tests.webmail.test_accessible import wrong

pytestmark = [pytest.mark.django_db(transaction=True)]

STRANGER = "stranger@far.example"


def add(*events: Event) -> None:
    with db.django_transaction() as tx:
        db.run_sync(trace.add(tx, events))


def received(person: Person, sender: str = STRANGER) -> str:
    """A message that came to a person, and to somebody else in the same transaction; its trace id."""
    name = trace.new_id()
    source = {"from": "192.0.2.7", "helo": "mx.far.example", "protocol": "ESMTPS", "tls": "TLSv1.3", "size": 2048}
    add(
        Event(name, "accepted", sender=sender, message_id=f"<{name}@far.example>", detail=source),
        Event(name, "stored", person.account_id, recipient=person.address, detail={"mailbox": 1, "uid": 5, "email": 6}),
        Event(name, "stored", -1, recipient="hidden@secret.example", detail={"mailbox": 9, "uid": 8, "email": 7}),
    )
    return name


def refused(recipient: str) -> str:
    name = trace.new_id()
    detail = {"from": "192.0.2.8", "helo": "spam.example", "protocol": "ESMTP", "at": "RCPT", "reply": "550 5.2.1 No"}
    add(Event(name, "refused", sender="spam@spam.example", recipient=recipient, detail=detail))
    return name


def sent(person: Person, *recipients: str, step: str = "delivered") -> str:
    name = trace.new_id()
    source = {"from": "198.51.100.1", "protocol": "HTTP", "size": 700, "to": list(recipients)}
    add(
        Event(name, "accepted", person.account_id, sender=person.address, detail=source),
        *(Event(name, "queued", person.account_id, 4, person.address, each) for each in recipients),
        *(
            Event(name, step, person.account_id, 4, person.address, each, detail={"host": "mx", "reply": "550 no"})
            for each in recipients
        ),
    )
    return name


def ask(person: Person | None, path: str, **query: str) -> tuple[int, str]:
    client = Client()
    if person is not None:
        client.cookies[settings.SESSION_COOKIE_NAME] = session(person)
    answer = client.get(path, query)
    return answer.status_code, answer.content.decode()


OWN, ALL = "/settings/history/", "/admin/trace/"


def test_alice_finds_what_came_to_her_and_what_she_sent_and_bob_finds_neither(
    people: Callable[[str], Person],
) -> None:
    alice, bob = people("alice"), people("bob")
    names = [received(alice), sent(alice, "carol@far.example"), refused(alice.address)]
    for query in ({}, {"when": "1h"}):
        status, page = ask(alice, OWN, **query)
        assert status == 200
        assert all(name in page for name in names)
        assert "hidden@secret.example" not in page, "who else got it is not hers to know"
        status, page = ask(bob, OWN, **query)
        assert status == 200 and not any(name in page for name in names)
    assert names[0] in ask(alice, OWN, q=STRANGER)[1] and names[1] not in ask(alice, OWN, q=STRANGER)[1]
    assert names[1] in ask(alice, OWN, q="carol@far.example")[1]
    assert names[0] in ask(alice, OWN, q=f"<{names[0]}@far.example>")[1]
    for text in (names[0], STRANGER, "carol@far.example", alice.address):
        assert "Nothing is known of that" in ask(bob, OWN, q=text)[1]
    assert ask(None, OWN)[0] == 302


def test_who_got_a_blind_copy_and_where_its_writer_sits_is_known_to_the_writer_alone(
    people: Callable[[str], Person],
) -> None:
    alice, bob, charlie = people("alice"), people("bob"), people("charlie")
    name, hidden = trace.new_id(), "hidden@secret.example"
    detail = {"from": "198.51.100.1", "protocol": "HTTP", "size": 700, "recipients": 2, "to": [bob.address, hidden]}
    add(
        Event(name, "accepted", alice.account_id, sender=alice.address, detail=detail),
        Event(name, "stored", bob.account_id, recipient=bob.address, detail={"mailbox": 1, "uid": 5, "email": 6}),
        Event(name, "queued", alice.account_id, 4, alice.address, hidden),
    )
    page = ask(alice, OWN, q=hidden)[1]
    assert name in page and hidden in page and "198.51.100.1" in page
    page = ask(bob, OWN, q=name)[1]
    assert name in page and "700" in page
    assert hidden not in page and "198.51.100.1" not in page and "recipients" not in page
    assert name not in ask(bob, OWN, q=hidden)[1], "not even by asking for it"
    # His administrator looks after another domain than hers.
    domain = Domain.objects.create(name="other.example")
    Account.objects.get(pk=charlie.account_id).administers.add(domain)
    add(Event(name, "stored", -1, recipient="dave@other.example", detail={"mailbox": 1, "uid": 5, "email": 6}))
    page = ask(charlie, ALL, q="dave@other.example")[1]
    assert name in page and hidden not in page and "198.51.100.1" not in page
    assert name not in ask(charlie, ALL, q=hidden)[1]


def listed(writer: Person, reader: Person, *, lead: str = "list@lists.example") -> str:
    """A message by one of us to a list of another domain with two people behind it, and to Carol."""
    name, behind = trace.new_id(), "behind@far.example"
    source = {"from": "198.51.100.1", "protocol": "ESMTPSA", "account": writer.address, "login": "password"}
    add(
        Event(
            name,
            "accepted",
            writer.account_id,
            None,
            writer.address,
            detail=source | {"to": [lead, "carol@far.example"]},
        ),
        Event(
            name, "expanded", None, None, writer.address, lead, detail={"to": [reader.address, behind], "targets": 2}
        ),
        Event(name, "stored", reader.account_id, recipient=reader.address, detail={"mailbox": 1, "uid": 5, "email": 6}),
        Event(name, "queued", writer.account_id, 4, writer.address, behind),
        Event(
            name, "failed", writer.account_id, 4, writer.address, behind, detail={"host": "mx", "reply": "550 behind"}
        ),
        Event(name, "delivered", writer.account_id, 4, writer.address, "carol@far.example", detail={"host": "mx"}),
    )
    return name


def test_who_is_behind_a_list_is_known_to_whoever_looks_after_it_and_not_to_who_wrote_to_it(
    people: Callable[[str], Person],
) -> None:
    alice, bob, charlie = people("alice"), people("bob"), people("charlie")
    name = listed(alice, bob)
    page = ask(alice, OWN)[1]
    assert name in page and "list@lists.example" in page and "carol@far.example" in page
    assert "Passed on to whoever reads mail for this address" in page
    assert bob.address not in page and "behind" not in page.replace("behind@", "behind ") and "behind@" not in page
    for hidden in (bob.address, "behind@far.example"):
        assert "Nothing is known of that" in ask(alice, OWN, q=hidden)[1], "not even by asking"
    assert name in ask(alice, OWN, q="list@lists.example")[1]
    page = ask(bob, OWN)[1]
    assert name in page and "behind@" not in page and "carol@" not in page and "198.51.100.1" not in page
    # The administrator of the writer's domain learns no more than she does; the list's own sees where it leads.
    home, lists = Domain.objects.get(name=bob.address.partition("@")[2]), Domain.objects.create(name="lists.example")
    Account.objects.get(pk=charlie.account_id).administers.set([lists])
    page = ask(charlie, ALL)[1]
    assert name in page and "behind@far.example" in page and "carol@" not in page and "198.51.100.1" not in page
    Account.objects.get(pk=charlie.account_id).administers.set([home])
    page = ask(charlie, ALL)[1]
    assert name in page and "198.51.100.1" in page and "carol@" in page and "behind@" not in page
    # Who looks after the list and writes to it sees in her own history where it leads.
    Account.objects.get(pk=alice.account_id).administers.set([lists])
    assert "behind@far.example" in ask(alice, OWN)[1]


def test_nobody_learns_where_a_colleague_sits_or_what_administrators_tell_each_other(
    people: Callable[[str], Person],
) -> None:
    alice, bob = people("alice"), people("bob")
    tried, late = trace.new_id(), trace.new_id()
    detail = {"from": "198.51.100.9", "helo": "laptop", "protocol": "ESMTPSA", "tls": "TLSv1.3", "at": "RCPT"}
    detail |= {"reply": "450 4.7.1 500 recipients an hour", "reason": "bob again", "account": bob.address}
    mail = {"from": "198.51.100.1", "protocol": "HTTP", "account": alice.address, "to": ["x@far.example"]}
    add(
        Event(tried, "refused", bob.account_id, None, bob.address, alice.address, detail=detail),
        Event(late, "accepted", alice.account_id, None, alice.address, detail=mail),
        Event(late, "queued", alice.account_id, 4, alice.address, "x@far.example"),
        Event(late, "held", alice.account_id, 4, alice.address, "x@far.example", detail={"reason": "looks stolen"}),
        Event(
            late, "redirected", alice.account_id, 4, alice.address, "x@far.example", detail={"to": "boss@far.example"}
        ),
        Event(late, "delivered", alice.account_id, 4, alice.address, "boss@far.example", detail={"host": "mx"}),
    )
    page = ask(alice, OWN)[1]
    assert tried in page and late in page and "On hold" in page and "another address" in page
    for secret in ("198.51.100.9", "laptop", "recipients an hour", "bob again", "looks stolen", "boss@far.example"):
        assert secret not in page, secret
    page = ask(bob, OWN)[1]
    assert "198.51.100.9" in page and "recipients an hour" in page and "bob again" not in page


def test_what_was_sent_as_somebody_else_is_in_the_writers_history_and_says_by_which_account(
    people: Callable[[str], Person],
) -> None:
    alice, bob, root = people("alice"), people("bob"), people("root")
    Account.objects.filter(pk=root.account_id).update(is_superuser=True)
    name = trace.new_id()
    detail = {"from": "198.51.100.1", "protocol": "ESMTPSA", "account": alice.address, "login": "app password “Phone”"}
    add(
        Event(
            name, "accepted", alice.account_id, None, "info@shared.example", detail=detail | {"to": ["x@far.example"]}
        )
    )
    page = ask(alice, OWN)[1]
    assert name in page and "app password “Phone”" in page
    assert name not in ask(bob, OWN)[1]
    page = ask(root, ALL, q=alice.address)[1]
    assert name in page and f"for account {alice.address} (app password “Phone”)" in page


def test_the_list_is_in_the_order_of_the_times_it_shows_and_goes_on_where_it_ended(
    people: Callable[[str], Person],
) -> None:
    alice = people("alice")
    now = datetime.now(UTC)
    Account.objects.filter(pk=alice.account_id).update(created_at=now - timedelta(days=30))
    names = [f"{number:015d}" for number in range(60)]
    for number, name in enumerate(names):
        at = now - timedelta(days=2, minutes=60 - number)
        add(
            Event(name, "accepted", sender=STRANGER, at=at),
            Event(name, "stored", alice.account_id, recipient=alice.address, at=at),
        )
    add(Event(names[20], "released", recipient=alice.address, at=now))
    pages = [ask(alice, OWN)[1], ask(alice, OWN, before=names[10])[1]]
    for page, wanted in zip(pages, (names[10:], names[:10]), strict=True):
        shown = [name for name in re.findall(r"trace <code>(\d{15})</code>", page)]
        assert shown == wanted[::-1]
    assert f"before={names[10]}" in pages[0] and "before=" not in pages[1]
    assert pages[0].count("last change") == 1, "and what happened since is said beside it"


def test_a_message_to_ten_thousand_is_counted_and_not_drowned_in(people: Callable[[str], Person]) -> None:
    alice = people("alice")
    name = trace.new_id()
    to = [f"p{number}@far.example" for number in range(5000)]
    add(
        Event(name, "accepted", alice.account_id, None, alice.address, detail={"protocol": "HTTP", "to": to}),
        *(Event(name, "queued", alice.account_id, 4, alice.address, each) for each in to),
        *(Event(name, "delivered", alice.account_id, 4, alice.address, each) for each in to[:-1]),
        Event(name, "failed", alice.account_id, 4, alice.address, to[-1], detail={"class": "bad-mailbox"}),
    )
    received(alice)
    page = ask(alice, OWN)[1]
    root = people("root")
    Account.objects.filter(pk=root.account_id).update(is_superuser=True)
    assert "to very many recipients" in ask(root, ALL)[1] and STRANGER in ask(root, ALL)[1]
    assert "to very many recipients" in page and f"?q={name}" in page
    page = ask(alice, OWN, q=name)[1]
    assert "4,999" in page and "9901 further steps" in page and len(page) < 200_000
    assert "there is no such mailbox" in page and "p4999@far.example" in page
    assert len(re.findall("history__steps--plain.*?</ol>", page, re.S)[0].split("history__step ")) < 120


def test_whose_mail_was_refused_by_us_sees_why_and_nobody_else_does(people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    name = trace.new_id()
    told = {"from": "198.51.100.1", "protocol": "ESMTPSA", "at": "RCPT", "reply": "450 4.7.1 500 recipients an hour"}
    add(Event(name, "refused", alice.account_id, sender=alice.address, recipient="carol@far.example", detail=told))
    assert "500 recipients an hour" in ask(alice, OWN)[1]
    assert name not in ask(bob, OWN)[1]
    forged = trace.new_id()
    add(Event(forged, "refused", bob.account_id, sender=alice.address, recipient="dave@far.example", detail=told))
    assert forged not in ask(alice, OWN)[1], "what Bob tried to send as Alice is not hers"


def test_what_was_refused_before_a_recipient_was_named_has_a_state_too(people: Callable[[str], Person]) -> None:
    alice = people("alice")
    detail = {"from": "192.0.2.8", "protocol": "ESMTPSA", "at": "MAIL", "reply": "550 5.7.1 You may not send as bob"}
    add(Event(trace.new_id(), "refused", alice.account_id, sender="bob@early.example", detail=detail))
    assert "<b>refused</b>" in ask(alice, OWN)[1]


def test_a_former_owner_of_the_address_has_left_nothing(people: Callable[[str], Person]) -> None:
    alice = people("alice")
    old = trace.new_id()
    add(Event(old, "refused", recipient=alice.address, at=datetime.now(UTC) - timedelta(days=3)))
    assert old not in ask(alice, OWN)[1]


def test_nobody_without_a_role_has_the_page_of_administrators(people: Callable[[str], Person]) -> None:
    alice = people("alice")
    assert ask(alice, ALL)[0] == 404
    assert ask(None, ALL)[0] == 302


def test_who_looks_after_a_domain_reads_that_mail_is_in_a_mailbox_and_not_in_which(
    people: Callable[[str], Person],
) -> None:
    alice, root = people("alice"), people("root")
    Account.objects.filter(pk=root.account_id).update(is_superuser=True)
    received(alice)
    assert "in a mailbox, uid 5" in ask(root, ALL, q=alice.address)[1]


def test_a_redirected_recipient_does_not_wait_for_ever(people: Callable[[str], Person]) -> None:
    alice = people("alice")
    name = sent(alice, "first@far.example", step="redirected")
    add(Event(name, "delivered", alice.account_id, 4, alice.address, "second@far.example"))
    page = ask(alice, OWN)[1]
    assert "redirected" in page and "waiting" not in page


def test_administrators_see_their_domains_and_superusers_everything(people: Callable[[str], Person]) -> None:
    alice, charlie = people("alice"), people("charlie")
    domain = Domain.objects.get(name=alice.address.partition("@")[2])
    Account.objects.get(pk=charlie.account_id).administers.add(domain)
    other = Domain.objects.create(name="elsewhere.example")
    root = records.add_account(f"root@{other.name}", "correct horse battery", admin=True)
    ours, theirs = received(alice), trace.new_id()
    add(Event(theirs, "refused", sender=STRANGER, recipient="x@elsewhere.example", detail={"from": "192.0.2.7"}))
    status, page = ask(charlie, ALL, q="192.0.2.7")
    assert status == 200 and ours in page and theirs not in page
    assert "hidden@secret.example" not in page
    status, page = ask(Person(root.pk, root.address, ""), ALL, q="192.0.2.7")
    assert status == 200 and ours in page and theirs in page and "hidden@secret.example" in page
    Account.objects.get(pk=charlie.account_id).administers.set([Domain.objects.create(name="quiet.example")])
    assert "None of the newest messages on this server is of your domains" in ask(charlie, ALL)[1]


@pytest.mark.parametrize("query", ["\0", "%", "'", "a" * 5000, "<>", "@", "9" * 30, "[::1", "\udce4", "1m8"])
def test_nonsense_finds_nothing(people: Callable[[str], Person], query: str) -> None:
    alice = people("alice")
    Account.objects.filter(pk=alice.account_id).update(is_superuser=True)
    received(alice)
    for path in (OWN, ALL):
        assert ask(alice, path, q=query.encode("utf-8", "replace").decode(), when="x")[0] == 200


def opened(desk: Desk, person: Person, path: str, **options: object) -> Page:
    page = desk.open(**options)  # type: ignore[arg-type]  # the options of open()
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session(person), "url": desk.url}])
    page.goto(desk.url + path)
    return page


@pytest.mark.programs("chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_reads_well_at_every_width(desk: Desk, alice: Person, width: int, scheme: str) -> None:
    received(alice)
    refused(alice.address)
    sent(alice, "carol@far.example", "dan@far.example", "eve@far.example", "frank@far.example", step="failed")
    sent(alice, "a.very.long.address.indeed.that.wraps@a-very-long-domain-name.example", step="deferred")
    page = opened(desk, alice, "/", width=width, scheme=scheme, phone=width < 500)
    page.get_by_role("button", name="Account").click()
    page.get_by_role("menuitem", name="Where is my mail?").click()
    expect(page.get_by_role("heading", name="Where is my mail?")).to_be_visible()
    expect(page.locator(".history__list > li > details > summary")).to_have_count(4)
    page.locator(".history__list > li > details > summary").nth(1).click()
    expect(page.locator("details[open]").get_by_text("550 no").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing scrolls sideways"
    desk.picture(page, f"history-{width}-{scheme}")
    page.get_by_label("Search").fill(STRANGER)
    page.keyboard.press("Enter")
    expect(page.locator(".history__list > li > details > summary")).to_have_count(1)
    expect(page.locator(".history__list > li > details")).to_have_attribute("open", "")
    desk.picture(page, f"history-found-{width}-{scheme}")


@pytest.mark.programs("chromium")
def test_axe_finds_nothing_wrong_with_it(desk: Desk, alice: Person) -> None:
    received(alice)
    sent(alice, "carol@far.example", step="failed")
    for scheme in ("light", "dark"):
        page = opened(desk, alice, OWN, scheme=scheme, bypass=True)
        page.locator(".history__list > li > details > summary").first.focus()
        page.keyboard.press("Enter")  # the keyboard alone unfolds it, and what is in it
        expect(page.locator("details[open]")).to_have_count(1)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("details[open] details[open]")).to_have_count(1)
        assert wrong(page) == []
