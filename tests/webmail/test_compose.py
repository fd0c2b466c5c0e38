"""Corners of writing: taking back, refusals, plain text, what a forged original may not do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from mailcore import db
from mailcore.store import fetch, mailboxes
from tests.webmail.conftest import Desk, Person, letter
from tests.webmail.test_browser import PIXEL, folder, open_row, rows, toast

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]


def newest(person: Person, mailbox: str) -> str:
    """The newest message of a mailbox as text."""
    with db.django_transaction() as tx:
        box = db.run_sync(mailboxes.by_name(tx, person.account_id, mailbox))
        uids = db.run_sync(fetch.uids(tx, person.account_id, box.id))
        ((message_id,),) = db.run_sync(fetch.rows(tx, person.account_id, box.id, uids[-1], uids[-1], ["message_id"]))
        return db.run_sync(fetch.raw(tx, person.account_id, message_id)).decode()


def test_sending_can_be_taken_back(desk: Desk, people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"{bob.address},")
    page.get_by_label("Subject").fill("Too soon")
    page.locator(".editor").press_sequentially("Unfinished")
    page.keyboard.press("Control+Enter")
    toast(page, "Sent.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".editor")).to_contain_text("Unfinished")
    expect(page.locator(".recipient-name")).to_have_text(bob.address)
    expect(folder(page, "Drafts")).to_have_accessible_name("Drafts, 1 drafts")
    assert (alice.count("Sent"), bob.count("INBOX")) == (0, 0)


def test_what_cannot_be_sent_says_why_and_stays(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".compose-error")).to_have_text("Please add a recipient.")
    page.get_by_role("combobox", name="To").fill("nobody, someone@example.test")
    page.get_by_label("Subject").fill("x")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".compose-error")).to_have_text("Not a mail address: nobody")
    page.get_by_label("Remove nobody").click()
    page.locator(".editor").press_sequentially("See the attached file")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Send without an attachment?")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".compose-status")).to_have_text("Draft saved")


def test_a_draft_with_half_an_address_is_kept_too(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.get_by_role("combobox", name="To").fill("some one")
    page.get_by_label("Subject").fill("Half")
    expect(page.locator(".compose-status")).to_have_text("Draft saved")
    page.keyboard.press("Escape")
    folder(page, "Drafts").click()
    rows(page).filter(has_text="Half").locator(".row-link").click()
    expect(page.locator(".compose-subject")).to_have_value("Half")


def test_plain_text_goes_out_as_plain_text(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"{alice.address},")
    page.get_by_label("Subject").fill("Plain")
    page.locator(".editor").press_sequentially("One")
    page.locator(".editor").press("Enter")
    page.locator(".editor").press_sequentially("Two")
    page.locator(".composer").get_by_label("More").click()
    page.get_by_role("menuitem", name="Plain text").click()
    area = page.locator("textarea")
    expect(area).to_have_value("One\nTwo")
    area.fill("One\nTwo\nThree")
    page.keyboard.press("Control+Enter")
    toast(page, "Sent.")
    expect(folder(page, "Drafts")).to_have_accessible_name("Drafts")
    raw = newest(alice, "Sent")
    assert "text/html" not in raw and "One\r\nTwo\r\nThree" in raw


def test_rich_text_brings_its_plain_text_along(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"{alice.address},")
    page.get_by_label("Subject").fill("Rich")
    page.locator(".editor").press_sequentially("Now ")
    page.get_by_label("Bold").click()
    page.keyboard.type("bold")
    page.get_by_label("Bold").click()
    page.locator(".editor").press("Enter")
    page.get_by_label("Bulleted list").click()
    page.keyboard.type("first")
    page.keyboard.press("Enter")
    page.keyboard.type("second")
    page.keyboard.press("Control+Enter")
    toast(page, "Sent.")
    expect(folder(page, "Drafts")).to_have_accessible_name("Drafts")
    raw = newest(alice, "Sent")
    assert "multipart/alternative" in raw
    assert "<b>bold</b>" in raw and "<li>" in raw
    assert "- first\r\n- second" in raw


def hold_editor(page: Page) -> Callable[[], None]:
    """Load the page anew without the editor's code, as on a slow line; gives what lets it through."""
    held: list[Route] = []
    may_pass = False

    def arrives(route: Route) -> None:
        if may_pass:
            route.continue_()
        else:
            held.append(route)

    page.route("**/vendor-editor*.js", arrives)
    page.reload()
    page.wait_for_selector(".list-scroll[aria-busy=false]")

    def let_through() -> None:
        nonlocal may_pass
        may_pass = True
        for route in held:
            route.continue_()

    return let_through


def test_no_key_is_lost_while_a_window_opens(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    let_through = hold_editor(page)
    # In one turn of the page, sooner than a frame can be drawn.
    focused = page.evaluate("""() => {
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "c", bubbles: true, cancelable: true }));
        return document.activeElement.getAttribute("role");
    }""")
    assert focused == "combobox"
    page.locator(".editor").focus()
    page.keyboard.type("Early words")
    let_through()
    expect(page.get_by_label("Bold")).to_be_visible()
    page.keyboard.type(" and late")
    expect(page.locator(".editor")).to_have_text("Early words and late")


def test_a_reply_takes_what_is_typed_before_the_editor_is_there(desk: Desk, alice: Person) -> None:
    alice.deliver(letter("Bob <bob@peer.example>", alice.address, "Question", "How are you?"))
    page = desk.sign_in(alice)
    let_through = hold_editor(page)
    open_row(page, "Question")
    page.keyboard.press("r")
    page.keyboard.type("Fine, thanks")
    let_through()
    expect(page.locator(".editor")).to_contain_text("How are you?")
    expect(page.locator(".editor")).to_have_text(re.compile(r"^\s*Fine, thanks"), use_inner_text=True)


def test_an_original_brings_no_script_and_no_request_into_the_composer(desk: Desk, alice: Person) -> None:
    evil = """<img src=x onerror="document.title='hacked'"><img src="https://track.test/p.gif" style="position:fixed">
    <script>document.title='hacked'</script><style>*{display:none}</style><form action="https://track.test/"><input></form>
    <a href="javascript:document.title='hacked'">click</a><svg onload="document.title='hacked'"></svg>
    <p class="composer">Words</p><math><mtext><table><mglyph><style><!--</style>
    <img title="--&gt;&lt;img src=1 onerror=document.title='hacked'&gt;">"""
    alice.deliver(letter("Mallory <m@evil.test>", alice.address, "Evil", "x", html=evil))
    page = desk.sign_in(alice)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    open_row(page, "Evil")
    page.keyboard.press("r")
    editor = page.locator(".editor")
    expect(editor).to_contain_text("Words")
    assert editor.locator("script, style, form, input, svg, math, [onerror], [style], [class], [id]").count() == 0
    assert editor.locator("a[href^='javascript']").count() == 0
    editor.press_sequentially("Hm")
    expect(page.locator(".compose-status")).to_have_text("Draft saved")
    assert not any("track.test" in url for url in asked)
    assert "hacked" not in page.title()
    assert "https://track.test/p.gif" in newest(alice, "Drafts")  # but the quote still has it


def test_a_pasted_image_travels_inside_the_message(desk: Desk, alice: Person) -> None:
    page = desk.sign_in(alice)
    page.keyboard.press("c")
    page.keyboard.type(f"{alice.address},")
    page.get_by_label("Subject").fill("Picture")
    page.locator(".editor").press_sequentially("Look: ")
    page.evaluate(
        """octets => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(octets)], "shot.png", {type: "image/png"}));
            const paste = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
            document.querySelector(".editor").dispatchEvent(paste);
        }""",
        list(PIXEL),
    )
    expect(page.locator(".editor img")).to_have_js_property("naturalWidth", 1)
    page.keyboard.press("Control+Enter")
    toast(page, "Sent.")
    folder(page, "Sent").click()
    open_row(page, "Picture")
    inside = page.frame_locator("iframe.body-frame").locator("img")
    expect(inside).to_have_js_property("naturalWidth", 1)
    expect(page.locator(".attachment")).to_have_count(0)
    raw = newest(alice, "Sent")
    assert "multipart/related" in raw and "cid:" in raw and "data-blob" not in raw
