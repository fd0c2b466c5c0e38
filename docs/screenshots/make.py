"""Makes the pictures of the README: fills a mailbox with sample mail and photographs the webmail.

While Mailstead runs (`make up`) and after `make test` has installed what it needs, in the same environment:
`.venv/bin/python docs/screenshots/make.py`. It hosts tidewater.example and makes nora@tidewater.example anew.
"""

from __future__ import annotations

import imaplib
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from mailcore.conf import conf  # noqa: E402  # the path comes first

DOMAIN = "tidewater.example"
NORA = f"Nora Lindqvist <nora@{DOMAIN}>"
JONAS = f"Jonas Weber <jonas@{DOMAIN}>"
AMARA = "Amara Okafor <amara@okaforbindery.example>"
MIKAEL = "Mikael Ström <mikael@strom.example>"

COVER = """<body style="margin:0;width:600px;height:200px;display:flex;align-items:center;padding-left:48px;
box-sizing:border-box;background:linear-gradient(115deg,#12343b,#2d6a6a 55%,#e0b65c);color:#fff;
font:700 38px/1.15 serif">Paper &amp; Ink<br>Weekly</body>"""
POSTER = """<body style="margin:0;width:480px;height:640px;background:#f4ead7;color:#12343b;font:700 56px/1 serif">
<div style="padding:56px 40px">Winter<br>Reading<br>Night<div style="height:180px;margin-top:48px;
background:linear-gradient(#12343b,#e0b65c)"></div></div></body>"""
NEWSLETTER = """<div style="background:#f4f1ea;padding:24px 0;color:#23302f">
<div style="max-width:600px;margin:0 auto;background:#fff"><img src="cid:cover" width="600" style="width:100%" alt="">
<div style="padding:16px 36px 28px"><h1 style="font-size:24px;line-height:1.25">Five small presses to watch</h1>
<p style="line-height:1.6">From a one-room print shop in Porto to a co-operative of translators in Gda&#324;sk: these
houses print fewer than ten titles a year, and booksellers keep asking for more.</p>
<p><a href="https://paperandink.example/48" style="display:inline-block;background:#2d6a6a;color:#fff;padding:11px 22px;
text-decoration:none">Read the issue</a></p><p style="color:#6d7876;font-size:13px">You get this letter because you
subscribed as nora@tidewater.example.</p><img src="https://paperandink.example/open.gif" width="1" height="1" alt="">
</div></div></div>"""


@dataclass(frozen=True, slots=True)
class Mail:
    """One sample mail; `ago` is its age in minutes, `answers` the key of the mail that it replies to."""

    key: str
    ago: int
    sender: str
    subject: str
    text: str
    to: str = NORA
    mailbox: str = "INBOX"
    flags: str = r"\Seen"
    answers: str = ""
    html: str = ""
    files: tuple[str, ...] = ()


MAILS = (
    Mail("fair", 7900, "Leipzig Book Fair <exhibitors@buchmesse.example>", "Your stand is confirmed: hall 5, D 218",
         "Dear exhibitor,\n\nyour stand is confirmed. Set-up starts on Wednesday at 8.\n", files=("floor-plan.pdf",)),
    Mail("bank", 5600, "Sparkasse Nord <noreply@sparkasse-nord.example>", "Your statement for October",
         "Your new statement is ready. For your security, this mail contains no link.\n"),
    Mail("paper", 4200, "Łucja Wiśniewska <lucja@papiernia.example>", "Paper samples are on their way",
         "Dear Nora,\n\nthe samples left Kraków this morning; the tracking number follows.\n\nŁucja\n"),
    Mail("hours", 3100, JONAS, "Opening hours over the holidays",
         "Shall we close at 2 on the 24th, like last year?\n\nJonas\n", flags=r"\Seen \Answered"),
    Mail("hours2", 3050, NORA, "Re: Opening hours over the holidays", "Yes, and back on the 27th.\n\nNora\n",
         to=JONAS, mailbox="Sent", answers="hours"),
    Mail("letter", 1500, "Paper & Ink Weekly <letter@paperandink.example>", "No. 48: five small presses to watch",
         "From a one-room print shop in Porto to a co-operative of translators\n", html=NEWSLETTER),
    Mail("order", 380, "Kasper Holm <kasper@holm-antikvariat.example>", "Order 2291: three first editions",
         "Hello Nora,\n\nall three are in good condition, the Blixen has a small tear in the jacket. Shall I put them\n"
         "aside?\n\nKasper\n", flags=r"\Seen \Flagged"),
    Mail("night", 300, AMARA, "Poster for the reading night",
         "Hi Nora,\n\nhere is a first version of the poster, in the colours of the shop front. Two questions:\n\n"
         "  1. Does the date go above or below the picture?\n  2. Matt or uncoated paper?\n\nAmara\n",
         flags=r"\Seen \Answered", files=("poster-v1.png",)),
    Mail("night2", 210, NORA, "Re: Poster for the reading night",
         "Dear Amara,\n\nI love it. Date below the picture, please, and uncoated: it hangs behind glass anyway.\n\n"
         "Could you make 40 of them, and 200 postcards?\n\nNora\n", to=AMARA, mailbox="Sent", answers="night"),
    Mail("night3", 24, AMARA, "Re: Poster for the reading night",
         "Date below it is. The quote for 40 posters and 200 postcards is attached; the postcards come on the same "
         "stock.\n\nIf you say yes by tonight, you can collect everything on Friday after 3.\n\nAmara\n",
         flags="", answers="night2", files=("poster-v2.png", "quote-1107.pdf")),
    Mail("ship", 95, "Postbud <track@postbud.example>", "Your parcel arrives tomorrow between 9 and 11",
         "Parcel 3S-4471 from Kraków is at the depot.\n", flags=""),
    Mail("club", 12, MIKAEL, "Book club on Tuesday: can we be fourteen?",
         "Hej Nora,\n\ntwo more people want to join. Is the back room big enough, or shall we bring chairs?\n\n"
         "Mikael\n",
         flags=""),
    Mail("draft", 5, NORA, "Chairs for Tuesday", "Hej Mikael,\n\n", to=MIKAEL, mailbox="Drafts", flags=r"\Seen \Draft"),
)  # fmt: skip


def message(mail: Mail, pictures: dict[str, bytes]) -> bytes:
    """The mail as it goes over the wire."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = mail.sender, mail.to, mail.subject
    made["Date"] = format_datetime(datetime.now(UTC) - timedelta(minutes=mail.ago))
    made["Message-ID"] = f"<{mail.key}@sample.{DOMAIN}>"
    if mail.answers:
        made["In-Reply-To"] = made["References"] = f"<{mail.answers}@sample.{DOMAIN}>"
    made.set_content(mail.text)
    if mail.html:
        made.add_alternative(mail.html, subtype="html")
        made.get_payload()[1].add_related(pictures["cover"], "image", "png", cid="<cover>")
    for name in mail.files:
        if name.endswith(".pdf"):
            made.add_attachment(b"%PDF-1.4\n" + b"%" * 38_000 + b"\n%%EOF\n", "application", "pdf", filename=name)
        else:
            made.add_attachment(pictures["poster"], "image", "png", filename=name)
    return made.as_bytes()


def manage(*arguments: str, may_fail: bool = False, stdin: str = "") -> None:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    subprocess.run(command, check=not may_fail, input=stdin, text=True, capture_output=may_fail, timeout=60)


def fill(password: str, pictures: dict[str, bytes]) -> None:
    """Make Nora's account anew and append the samples by IMAP."""
    manage("domain", "add", DOMAIN, may_fail=True)
    manage("account", "remove", f"nora@{DOMAIN}", "--yes", may_fail=True)
    manage("account", "add", f"nora@{DOMAIN}", "--name", "Nora Lindqvist", "--password-stdin", stdin=password)
    with imaplib.IMAP4("127.0.0.1", conf.imap_port, timeout=20) as client:
        client.login(f"nora@{DOMAIN}", password)
        for mailbox in ("Book fair", "Suppliers", "Suppliers/Paper"):
            client.create(f'"{mailbox}"')
        for mail in sorted(MAILS, key=lambda each: -each.ago):
            when = datetime.now(UTC) - timedelta(minutes=mail.ago)
            answer, _ = client.append(
                mail.mailbox, mail.flags, imaplib.Time2Internaldate(when), message(mail, pictures)
            )
            assert answer == "OK", mail.key


def sign_in(browser: Browser, password: str, width: int, height: int, *, phone: bool = False) -> Page:
    """The inbox in a window of that size, some time after five in the afternoon."""
    east = (17 - datetime.now(UTC).hour + 12) % 24 - 12
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=2 if phone else 1.5,
        has_touch=phone,
        is_mobile=phone,
        locale="en-GB",
        timezone_id=f"Etc/GMT{-east:+d}",
    )
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{conf.http_port}/")
    page.fill("[name=login]", f"nora@{DOMAIN}")
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.get_by_text("Book club on Tuesday").first.wait_for()
    return page


def main() -> int:
    password = secrets.token_hex(12)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        canvas = browser.new_page()
        pictures = {}
        for name, html, width, height in (("cover", COVER, 600, 200), ("poster", POSTER, 480, 640)):
            canvas.set_viewport_size({"width": width, "height": height})
            canvas.set_content(html)
            pictures[name] = canvas.screenshot()
        fill(password, pictures)
        desktop = sign_in(browser, password, 1280, 800)
        desktop.get_by_text("Poster for the reading night").first.click()
        desktop.get_by_text("quote-1107.pdf").first.wait_for()
        desktop.mouse.move(900, 760)
        desktop.wait_for_timeout(1000)  # what fades and settles
        desktop.screenshot(path=HERE / "desktop.png")
        phone = sign_in(browser, password, 390, 780, phone=True)
        phone.wait_for_timeout(1000)
        phone.screenshot(path=HERE / "phone-list.png")
        phone.get_by_text("No. 48").first.tap()
        phone.frame_locator("iframe").get_by_text("Read the issue").wait_for()
        phone.wait_for_timeout(1000)
        phone.screenshot(path=HERE / "phone-letter.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
