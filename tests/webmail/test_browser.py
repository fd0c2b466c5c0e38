"""The webmail as people use it: a real browser, the real web server, the real store."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.waiting import until
from tests.webmail.conftest import PASSWORD, Desk, Person, letter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
NEWSLETTER = """<html><head><style>h1{color:#4a2c1a} @import url(https://track.test/a.css);</style></head>
<body bgcolor="#f4efe6"><h1>Seven things</h1>
<img src="https://track.test/hero.png" width="300" height="100" alt="A lighthouse">
<img src="cid:logo@x" width="20" height="20" alt="Logo"><p>Read <a href="https://example.test/more">more</a></p>
<script>document.title = 'hacked'</script></body></html>"""


def rows(page: Page):  # type: ignore[no-untyped-def]  # a Locator
    return page.locator(".row:not(.row--bone)")


def open_row(page: Page, text: str) -> None:
    rows(page).filter(has_text=text).locator(".row-link").first.click()
    expect(page.locator(".thread-subject")).to_be_visible()


def folder(page: Page, name: str):  # type: ignore[no-untyped-def]  # a Locator
    return page.get_by_role("navigation", name="Folders").get_by_role("link", name=re.compile(rf"^{name}\b"))


def toast(page: Page, text: str) -> None:
    expect(page.locator(".toast").filter(has_text=text)).to_be_visible()


def test_signing_in_leads_to_the_mail(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Priya <priya@lumen.test>", alice.address, "Numbers", "Here"))
    page = desk.open()
    page.goto(desk.url)
    page.get_by_label("Address").fill(alice.address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Account").click()
    expect(page.locator(".menu-heading")).to_have_text(alice.address)
    page.get_by_role("menuitem", name="Two-factor sign-in").click()
    expect(page.get_by_role("heading", name="Two-Factor Authentication")).to_be_visible()
    page.get_by_role("link", name="Back to mail").click()
    page.get_by_role("button", name="Account").click()
    page.get_by_role("menuitem", name="Sign out").click()
    page.wait_for_url("**/login/**")


def test_reading_marks_as_read_and_survives_a_reload(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Priya <priya@lumen.test>", alice.address, "Numbers", "See https://lumen.test/x.\n\nPriya"))
    alice.deliver(letter("Mei <mei@tanaka.test>", alice.address, "Grüße 湖", "Hello"), seen=True, hours_ago=2)
    page = desk.sign_in(alice)
    expect(rows(page)).to_have_count(2)
    expect(folder(page, "Inbox")).to_have_accessible_name("Inbox, 1 unread")
    expect(page.locator(".row--unread")).to_have_count(1)
    open_row(page, "Numbers")
    expect(page.locator(".plain-text")).to_contain_text("See https://lumen.test/x.")
    link = page.locator(".plain-text a")
    expect(link).to_have_attribute("href", "https://lumen.test/x")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(page.locator(".row--unread")).to_have_count(0)
    expect(folder(page, "Inbox")).to_have_accessible_name("Inbox")
    desk.picture(page, "read")
    page.reload()
    expect(page.locator(".thread-subject")).to_have_text("Numbers")
    expect(page.locator(".row--unread")).to_have_count(0)
    page.go_back()
    expect(page.locator(".thread-subject")).to_have_count(0)


def test_html_mail_is_a_document_without_scripts_and_remote_images(desk: Desk, alice: Person) -> None:
    desk.expected.append("ERR_NAME_NOT_RESOLVED")  # where the remote image is said to be
    desk.expected.append("ERR_INTERNET_DISCONNECTED")
    alice.deliver(
        letter(
            "News <n@news.test>",
            alice.address,
            "Seven",
            "text",
            html=NEWSLETTER,
            inline=(("logo@x", "image/png", PIXEL),),
        )
    )
    page = desk.sign_in(alice)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    open_row(page, "Seven")
    frame = page.locator("iframe.body-frame")
    expect(frame).to_have_attribute("sandbox", "allow-popups allow-popups-to-escape-sandbox")
    inside = page.frame_locator("iframe.body-frame")
    expect(inside.locator("h1")).to_have_text("Seven things")
    expect(inside.locator("h1")).to_have_css("color", "rgb(74, 44, 26)")
    expect(inside.locator("script")).to_have_count(0)
    expect(inside.locator("img[alt=Logo]")).to_have_js_property("naturalWidth", 1)
    expect(page.get_by_text("1 remote image blocked")).to_be_visible()
    assert not any("track.test" in url for url in asked)
    desk.picture(page, "html")
    page.get_by_role("button", name="Show images").click()
    expect(page.get_by_text("remote image blocked")).to_have_count(0)
    expect(page.frame_locator("iframe.body-frame").locator("img[alt='A lighthouse']")).to_have_attribute(
        "src", "https://track.test/hero.png"
    )
    assert not any("a.css" in url for url in asked)
    assert page.title().startswith("Seven")


def test_a_conversation_shows_the_newest_and_opens_the_others(desk: Desk, alice: Person) -> None:
    alice.deliver(
        letter("Sofia <sofia@garden.test>", alice.address, "Garden house", "The first.", message_id="1@g"), hours_ago=9
    )
    alice.deliver(
        letter(
            "Jonas <jonas@werk.test>",
            alice.address,
            "Re: Garden house",
            "The second.",
            message_id="2@g",
            reply_to="1@g",
        ),
        hours_ago=5,
    )
    alice.deliver(
        letter(
            "Sofia <sofia@garden.test>",
            alice.address,
            "Re: Garden house",
            "The third.\n\nJonas wrote:\n> The second.\n> and\n> more\n> of it",
            message_id="3@g",
            reply_to="2@g",
        ),
        hours_ago=1,
    )
    page = desk.sign_in(alice)
    expect(rows(page)).to_have_count(1)
    expect(page.locator(".row-number")).to_have_text("3")
    expect(page.locator(".row-people")).to_contain_text("Sofia, Jonas")
    open_row(page, "Garden house")
    expect(page.locator(".message--open")).to_have_count(1)
    expect(page.locator(".message--open")).to_contain_text("The third.")
    expect(page.locator(".quoted-text")).to_be_hidden()
    page.get_by_label("Show quoted text").click()
    expect(page.locator(".quoted-text")).to_be_visible()
    page.locator(".message-line").first.click()
    expect(page.locator(".message--open")).to_have_count(2)
    desk.picture(page, "conversation")


def test_a_reply_goes_out_quotes_and_is_filed(desk: Desk, people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    alice.deliver(
        letter(
            f"Bob Example <{bob.address}>",
            alice.address,
            "Lunch?",
            "At noon?",
            message_id="lunch@g",
            html="<p style='color:red'>At <b>noon</b>?</p>",
        )
    )
    page = desk.sign_in(alice)
    open_row(page, "Lunch?")
    page.keyboard.press("r")
    expect(page.locator(".editor blockquote")).to_contain_text("At noon?")
    expect(page.locator(".recipient-name")).to_have_text("Bob Example")
    expect(page.locator(".compose-subject")).to_have_value("Re: Lunch?")
    page.locator(".editor").press_sequentially("Gladly, see you there")
    desk.picture(page, "reply")
    page.keyboard.press("Control+Enter")
    toast(page, "Sent.")
    expect(page.locator(".composer")).to_have_count(0)
    expect(page.locator(".message-line, .message--open")).to_have_count(2)
    expect(page.locator(".row .row-mark")).to_be_visible()  # answered
    folder(page, "Sent").click()
    expect(rows(page).filter(has_text="Lunch?")).to_have_count(1)
    expect(page.locator(".row-people")).to_contain_text("Bob Example")
    until(lambda: alice.count("Drafts") == 0)


def test_what_is_written_is_kept_as_a_draft_until_sent_or_discarded(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    expect(page.get_by_role("combobox", name="To")).to_be_focused()
    page.keyboard.type("oskar@nord.test,")
    page.get_by_label("Subject").fill("Sauna")
    page.locator(".editor").press_sequentially("Dear Oskar")
    expect(page.locator(".compose-status")).to_have_text("Draft saved")
    until(lambda: alice.count("Drafts") == 1)
    page.locator(".editor").press_sequentially(", about Friday")
    page.keyboard.press("Escape")
    expect(page.locator(".composer")).to_have_count(0)
    until(lambda: alice.count("Drafts") == 1)
    folder(page, "Drafts").click()
    rows(page).filter(has_text="Sauna").locator(".row-link").click()
    expect(page.locator(".editor")).to_contain_text("Dear Oskar, about Friday")
    expect(page.locator(".recipient-name")).to_have_text("oskar@nord.test")
    page.get_by_label("Discard draft").click()
    toast(page, "Draft discarded.")
    expect(page.get_by_text("No drafts")).to_be_visible()
    until(lambda: alice.count("Drafts") == 0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".editor")).to_contain_text("Dear Oskar, about Friday")


def test_a_window_that_was_not_written_in_leaves_nothing(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "Hello", "Words"))
    page = desk.sign_in(alice)
    open_row(page, "Hello")
    page.keyboard.press("r")
    expect(page.locator(".editor")).to_contain_text("Words")
    page.wait_for_timeout(2500)
    page.locator(".editor").press("Escape")
    expect(page.locator(".composer")).to_have_count(0)
    until(lambda: alice.count("Drafts") == 0)


def test_forwarding_takes_the_original_and_its_attachments_along(desk: Desk, people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    alice.deliver(
        letter(
            "News <n@news.test>",
            alice.address,
            "Offer",
            "plain words",
            html=NEWSLETTER,
            inline=(("logo@x", "image/png", PIXEL),),
            files=(("Angebot ä.pdf", "application/pdf", b"%PDF-1.4 offer"),),
        )
    )
    page = desk.sign_in(alice)
    open_row(page, "Offer")
    page.keyboard.press("f")
    expect(page.locator(".forwarded-card")).to_contain_text("News")
    expect(page.locator(".compose-file")).to_contain_text("Angebot ä.pdf")
    page.keyboard.type(f"{bob.address},")
    page.locator(".editor").press_sequentially("Look at this")
    page.get_by_role("button", name="Send", exact=True).first.click()
    toast(page, "Sent.")
    folder(page, "Sent").click()
    open_row(page, "Fwd: Offer")
    inside = page.frame_locator("iframe.body-frame")
    expect(inside.get_by_text("Look at this")).to_be_visible()
    expect(inside.locator(".forwarded-message h1")).to_have_css("color", "rgb(74, 44, 26)")
    expect(inside.locator("img[alt=Logo]")).to_have_js_property("naturalWidth", 1)
    expect(page.locator(".attachment")).to_contain_text("Angebot ä.pdf")


def test_attachments_upload_preview_and_download(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"{alice.address},")
    page.get_by_label("Subject").fill("Files")
    with page.expect_file_chooser() as chooser:
        page.get_by_label("Attach files").click()
    chooser.value.set_files(
        [
            {"name": "pixel.png", "mimeType": "image/png", "buffer": PIXEL},
            {"name": "page.html", "mimeType": "text/html", "buffer": b"<script>x</script>"},
        ]
    )
    expect(page.locator(".compose-file")).to_have_count(2)
    expect(page.locator(".compose-file progress")).to_have_count(0)
    page.get_by_role("button", name="Send", exact=True).first.click()
    toast(page, "Sent.")
    folder(page, "Sent").click()
    open_row(page, "Files")
    expect(page.locator(".attachment")).to_have_count(2)
    page.get_by_title("Show pixel.png").click()
    expect(page.get_by_role("dialog", name="pixel.png").locator("img")).to_have_js_property("naturalWidth", 1)
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_label("Download page.html").click()
    assert download.value.suggested_filename == "page.html"
    assert download.value.path().read_bytes() == b"<script>x</script>"


def test_moving_archiving_deleting_and_undoing(desk: Desk, alice: Person) -> None:
    for number in range(5):
        alice.deliver(
            letter("Bob <bob@x.test>", alice.address, f"Subject {number}", "x", message_id=f"{number}@m"),
            seen=True,
            hours_ago=number,
        )
    page = desk.sign_in(alice)
    expect(rows(page)).to_have_count(5)
    open_row(page, "Subject 0")
    page.keyboard.press("e")
    toast(page, "1 conversation archived.")
    expect(page.locator(".thread-subject")).to_have_text("Subject 1")  # goes on to the next
    expect(rows(page)).to_have_count(4)
    page.keyboard.press("z")
    expect(rows(page)).to_have_count(5)
    rows(page).filter(has_text="Subject 2").locator(".row-check").check(force=True)
    rows(page).filter(has_text="Subject 4").locator(".row-check").click(modifiers=["Shift"], force=True)
    expect(page.locator(".list-bar--selection")).to_contain_text("3 selected")
    page.locator(".list-bar--selection").get_by_label("Move to").click()
    page.get_by_placeholder("Find a folder").fill("arch")
    page.keyboard.press("Enter")
    toast(page, "3 conversations moved to Archive.")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("#")
    toast(page, "moved to Trash")
    expect(rows(page)).to_have_count(1)
    until(lambda: (alice.count("INBOX"), alice.count("Archive"), alice.count("Trash")) == (1, 3, 1))
    folder(page, "Trash").click()
    rows(page).first.locator(".row-check").check(force=True)
    page.keyboard.press("#")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("Trash is empty")).to_be_visible()
    until(lambda: alice.count("Trash") == 0)


def test_stars_and_unread_marks(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "One", "x"), seen=True)
    page = desk.sign_in(alice)
    page.keyboard.press("j")
    page.keyboard.press("s")
    expect(page.locator(".row-star")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Shift+U")
    expect(page.locator(".row--unread")).to_have_count(1)
    page.reload()
    expect(page.locator(".row--unread")).to_have_count(1)
    expect(page.locator(".row-star")).to_have_attribute("aria-pressed", "true")


def test_new_mail_appears_by_itself(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice, script="window.setInterval = () => 0")  # nothing polls
    expect(page.get_by_text("Nothing new")).to_be_visible()
    until(lambda: desk.listens(page))
    alice.deliver(letter("Noor <noor@x.test>", alice.address, "Fresh", "Just now", message_id="n@n"))
    expect(rows(page).filter(has_text="Fresh")).to_have_count(1)
    expect(page).to_have_title(re.compile(r"^\(1\)"))
    open_row(page, "Fresh")
    alice.deliver(letter("Noor <noor@x.test>", alice.address, "Re: Fresh", "And more", reply_to="n@n"))
    expect(page.locator(".message")).to_have_count(2)


def test_folders_are_made_renamed_filled_and_deleted(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "Ticket", "x"), seen=True)
    page = desk.sign_in(alice)
    page.get_by_label("New folder").click()
    page.get_by_role("textbox", name="Name").fill("Holidays")
    page.keyboard.press("Enter")
    expect(folder(page, "Holidays")).to_be_visible()
    page.get_by_label("Actions for Holidays").click()
    page.get_by_role("menuitem", name="Rename…").click()
    page.get_by_role("textbox", name="Name").fill("Journeys")
    page.keyboard.press("Enter")
    expect(folder(page, "Journeys")).to_be_visible()
    expect(folder(page, "Holidays")).to_have_count(0)
    rows(page).first.drag_to(folder(page, "Journeys"))
    toast(page, "1 conversation moved to Journeys.")
    folder(page, "Journeys").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Actions for Journeys").click()
    page.get_by_role("menuitem", name="Delete…").click()
    page.get_by_role("button", name="Delete folder").click()
    expect(folder(page, "Journeys")).to_have_count(0)
    expect(page.locator(".list-title")).to_have_text("Inbox")
    until(lambda: alice.count("Trash") == 1)


def test_search_finds_by_field_and_everywhere(desk: Desk, alice: Person) -> None:
    alice.deliver(
        letter(
            "Sofia <sofia@garden.test>",
            alice.address,
            "Roof",
            "tiles and gutters",
            files=(("a.txt", "text/plain", b"x"),),
        )
    )
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "About Sofia", "nothing"), mailbox="Archive")
    page = desk.sign_in(alice)
    page.keyboard.press("/")
    page.keyboard.type("sofia")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Search mail").fill("from:sofia has:attachment gutters")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?q=from%3Asofia"))
    page.reload()
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Clear search").click()
    expect(page.locator(".list-title")).to_have_text("Inbox")


def test_a_phone_shows_one_pane_at_a_time(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Priya <priya@lumen.test>", alice.address, "Numbers", "Here they are"))
    page = desk.sign_in(alice, width=380, phone=True)
    expect(page.locator(".reader")).to_be_hidden()
    page.get_by_role("button", name="Folders").tap()
    expect(folder(page, "Archive")).to_be_visible()
    desk.picture(page, "phone-folders")
    folder(page, "Inbox").tap()
    rows(page).first.locator(".row-link").tap()
    expect(page.locator(".list-pane")).to_be_hidden()
    expect(page.locator(".plain-text")).to_have_text("Here they are")
    until(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    desk.picture(page, "phone-reading")
    page.get_by_label("Back to the list").tap()
    expect(page.locator(".list-pane")).to_be_visible()
    page.get_by_role("button", name="Compose").tap()
    expect(page.locator(".composer")).to_be_visible()
    box = {"x": 0, "y": 0, "width": 380}
    until(lambda: box.items() <= (page.locator(".composer").bounding_box() or {}).items())
    desk.picture(page, "phone-compose")


def width(shown: Locator) -> float:
    box = shown.bounding_box()
    return box["width"] if box is not None else 0


def test_a_sheet_made_for_a_desktop_fills_a_phone_and_no_more(desk: Desk, alice: Person) -> None:
    picture = '<img src="cid:wide@x" width="600" height="240" style="width:100%" alt="wide">'
    sheets = {
        "block": f'<div style="max-width:600px;margin:0 auto">{picture}</div>',
        "columns": f'<table width="600"><tr><td>{picture}</td><td>{picture}</td></tr></table>',
        "nested": f'<table width="100%"><tr><td style="padding:20px"><table width="600"><tr><td>{picture}</td></tr>'
        "</table></td></tr></table>",
    }
    for name, html in sheets.items():
        inline = (("wide@x", "image/png", PIXEL),)
        alice.deliver(letter("News <n@news.test>", alice.address, name, "text", html=html, inline=inline))
    page = desk.sign_in(alice, width=390, phone=True)
    for name in sheets:
        open_row(page, name)
        inside = page.frame_locator("iframe.body-frame")
        images = inside.locator("img[alt=wide]")
        expect(images.first).to_be_visible()
        narrow = "() => document.documentElement.scrollWidth <= innerWidth"
        until(lambda: images.first.evaluate(narrow), story=lambda: name)  # noqa: B023  # it is called at once
        if name == "block":
            image, sheet = images.first, inside.locator("div").first
            until(lambda: width(image) == width(sheet) > 340)  # noqa: B023
        page.get_by_label("Back to the list").tap()


def test_a_long_list_loads_what_is_looked_at(desk: Desk, alice: Person) -> None:
    for number in range(160):
        alice.deliver(
            letter("Bob <bob@x.test>", alice.address, f"Message {number:03}", "x", message_id=f"{number}@l"),
            seen=True,
            hours_ago=number,
        )
    page = desk.sign_in(alice)
    expect(page.locator(".list-count")).to_have_text("160 conversations")
    assert page.locator(".row").count() < 40
    page.locator(".list-scroll").evaluate("element => element.scrollTop = element.scrollHeight")
    expect(rows(page).filter(has_text="Message 159")).to_be_visible()
    before = rows(page).filter(has_text="Message 155").bounding_box()
    alice.deliver(letter("Noor <noor@x.test>", alice.address, "Fresh", "new"))
    expect(page.locator(".list-count")).to_have_text("161 conversations")
    page.wait_for_timeout(300)
    after = rows(page).filter(has_text="Message 155").bounding_box()
    assert before is not None and after is not None and abs(before["y"] - after["y"]) < 2, "nothing jumped"
    page.locator(".select-all").check()
    expect(page.locator(".list-bar--selection")).to_contain_text("161 selected")


def test_an_ended_session_leads_to_signing_in_and_back(desk: Desk, alice: Person) -> None:
    desk.expected.append("401")
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "Hello", "x"))
    page = desk.sign_in(alice)
    expect(rows(page)).to_have_count(1)
    page.context.clear_cookies()
    open_row_link = rows(page).first.locator(".row-link")
    open_row_link.click()
    page.wait_for_url("**/login/?next=**")
    page.get_by_label("Address").fill(alice.address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".thread-subject")).to_have_text("Hello")


def test_a_lost_connection_is_said_and_what_failed_can_be_repeated(desk: Desk, alice: Person) -> None:
    desk.expected += ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "net::"]
    alice.deliver(letter("Bob <bob@x.test>", alice.address, "Hello", "x"), seen=True)
    page = desk.sign_in(alice)
    expect(rows(page)).to_have_count(1)
    page.context.set_offline(True)
    page.keyboard.press("j")
    page.keyboard.press("s")
    expect(page.get_by_text("You are offline")).to_be_visible()
    toast(page, "The star was not saved.")
    expect(page.locator(".row-star")).to_have_attribute("aria-pressed", "false")
    page.context.set_offline(False)
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".row-star")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("You are offline")).to_have_count(0)
