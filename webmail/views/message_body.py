"""One part of a mail as a document of its own: for reading, printing, quoting and forwarding (DESIGN §8).

Every path that shows a mail's HTML comes through `message_body`. The document runs no script, has no origin
(sandbox), loads nothing but what its policy names, and is framed by our own page only. Inline images (cid:) are put
into it as data: addresses, because a document without origin sends no cookie with which it could fetch them.
"""

from __future__ import annotations

import asyncio
import base64
import html
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import unquote

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.jmap import ids
from mailcore.jmap.auth import authenticate
from mailcore.jmap.errors import Problem
from mailcore.jmap.http import Receive, Request, Scope, Send
from mailcore.store import fetch
from webmail.sanitize import MAX_HTML, Clean, is_reasonable, sanitise

Use = Literal["read", "page", "quote", "forward"]
USES: dict[str, Use] = {"read": "read", "page": "page", "quote": "quote", "forward": "forward"}

MAX_TEXT = 2_000_000  # characters of a plain text part
MAX_INLINE = 25_000_000  # octets of all images put into one document
MAX_IMAGES = 100
KEEP_SECONDS = 30  # the page asks for a body's headers and for the body at about the same time
KEEP = 32


_RASTER = frozenset({"png", "jpeg", "jpg", "pjpeg", "gif", "webp", "bmp"})
_CID = re.compile(r"""cid:([^"'\s<>)]{1,400})""", re.I)
_LINK = re.compile(r"""https?://[^\s<>"']{1,2000}[^\s<>"'.,;:!?)\]]""")

_READ_CSS = """
:root{color-scheme:%(scheme)s}
body{background:%(sheet)s;margin:0;padding:4px 12px 16px;overflow-wrap:anywhere;
font:15px/1.55 Inter,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
img{max-width:100%%}
img:not([src]){display:inline-block;box-sizing:border-box;min-width:1.5em;min-height:1.5em;
border:1px dashed rgba(128,128,128,.55);border-radius:4px;color:gray;font-size:12px}
img:not([src]):is([width="0"],[width="1"],[height="0"],[height="1"]){display:none}
blockquote{margin:.4em 0 .4em .2em;padding-left:.8em;border-left:2px solid rgba(128,128,128,.4)}
pre{white-space:pre-wrap}
.plain-text{white-space:pre-wrap;max-width:46rem}
"""
# After the mail's own rules: sheets made for 600 pixels and more fit a phone.
_NARROW_CSS = (
    "@media(max-width:560px){img{max-width:100%!important;height:auto!important}"
    "img:not([src]){max-width:calc(100vw - 9em)!important;max-height:8em}"
    "table{max-width:100%!important}table[width]{width:100%!important}td,th{min-width:0!important}}"
)
_PAGE_CSS = """
body{padding:24px}
.print-head{max-width:46rem;margin-bottom:20px;padding-bottom:12px;border-bottom:1px solid #999}
.print-head h1{font-size:20px;margin:0 0 10px}
.print-head dl{display:grid;grid-template-columns:auto 1fr;gap:2px 14px;margin:0;font-size:13px}
.print-head dt{color:#666}.print-head dd{margin:0}
.print-hint{margin:0 0 20px;padding:8px 12px;border-radius:6px;background:#eef3ef;font-size:13px}
@media print{.print-hint{display:none}body{padding:0}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read from the store for one document."""

    text: str
    is_html: bool
    summary: mime.Summary
    received_at: datetime
    images: dict[str, str]  # Content-ID -> data: address


def policy(images: bool) -> str:
    """The content security policy of a body document; `images` admits remote ones."""
    sources = "data: https:" if images else "data:"
    return (
        f"default-src 'none'; img-src {sources}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
        + ("; upgrade-insecure-requests" if images else "")
    )


def _answer(status: int, text: str, *, images: bool = False, facts: dict[str, int] | None = None) -> Answer:
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy(images)),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
        *[(name, str(value)) for name, value in (facts or {}).items()],
    ]
    return Answer(status, headers, text.encode("utf-8", "replace"))


def _message(status: int, text: str) -> Answer:
    style = _READ_CSS % {"scheme": "light dark", "sheet": "transparent"}
    return _answer(
        status,
        f"<!doctype html><html><head><style>{style}</style></head><body><p>{html.escape(text)}</p></body></html>",
    )


_kept: OrderedDict[tuple[int, int, str, bool, str], tuple[float, asyncio.Task[Answer]]] = OrderedDict()


async def mount(scope: Scope, receive: Receive, send: Send) -> None:
    """GET or HEAD /mail/body/<accountId>/<emailId>/<partId>?images=0|1&use=read|page|quote|forward, beside Django."""
    request = Request.of(scope, receive)
    answer = await _respond(request)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})


async def _respond(request: Request) -> Answer:
    if request.method not in ("GET", "HEAD"):
        return _message(405, "This address can only be read.")
    try:
        caller = await authenticate(request)
    except Problem as problem:
        return _message(
            problem.status, "Please sign in again." if problem.status == 401 else "This is not to be had right now."
        )
    place = str(request.scope["path"]).removeprefix("/mail/body/").split("/")
    query = request.query()
    use = USES.get(query.get("use", "read"))
    if len(place) != 3 or use is None or ids.number_of(place[0], "a") != caller.account_id:
        return _message(404, "There is nothing here.")
    email_id = ids.number_of(place[1], "M")
    if email_id is None:
        return _message(404, "This message is no longer here.")
    return await message_body(caller.account_id, email_id, place[2], query.get("images") == "1", use)


async def message_body(account_id: int, email_id: int, part_id: str, images: bool = False, use: Use = "read") -> Answer:
    """The document of part `part_id` (JMAP partId) of an email that belongs to `account_id`.

    read: for the frame in the reading pane. page: with the message's header, to print. quote: the bare markup
    without styles, forward: with them; both keep cid: and remote addresses for the message that will carry them.
    The headers X-Remote-Images and X-Estimated-Height tell the page around it what it cannot see.
    """
    key = (account_id, email_id, part_id, images, use)
    now = time.monotonic()
    while _kept and (len(_kept) > KEEP or next(iter(_kept.values()))[0] < now - KEEP_SECONDS):
        _kept.popitem(last=False)
    kept = _kept.get(key)
    if kept is None:
        kept = _kept[key] = (now, asyncio.ensure_future(_document(account_id, email_id, part_id, images, use)))
    try:
        return await asyncio.shield(kept[1])
    except MailError as error:
        _kept.pop(key, None)
        return _message(404 if error.code is Code.NOT_FOUND else 503, error.text)
    except BaseException:
        _kept.pop(key, None)
        raise


async def _document(account_id: int, email_id: int, part_id: str, images: bool, use: Use) -> Answer:
    part = await _read(account_id, email_id, part_id, inline=use in ("read", "page"))
    return await asyncio.to_thread(_render, part, images, use)  # milliseconds of parsing: not on the event loop


async def _read(account_id: int, message_id: int, part_id: str, *, inline: bool) -> _Part:
    async with db.read() as tx:
        rows = await fetch.messages(tx, account_id, [message_id], ["parts", "summary", "received_at"])
        placed = await fetch.placements(tx, account_id, [message_id])
        if not rows or not placed:
            raise MailError(Code.NOT_FOUND, "This message is no longer here.")
        packed, summary, received_at = rows[0]
        parts = mime.unpack_parts(bytes(packed))
        part = next((one for one in parts if one.id == part_id and one.type == "text"), None)
        if part is None:
            raise MailError(Code.NOT_FOUND, "This message has no such part.")
        is_html = part.subtype == "html"
        raw, moved = await _body_of(tx, account_id, message_id, part, 4 * MAX_HTML)
        text = mime.decode_text(raw, moved, MAX_HTML + 1 if is_html else MAX_TEXT)
        found: dict[str, str] = {}
        if is_html and inline:
            found = await _inline_images(tx, account_id, message_id, parts, text)
    return _Part(text, is_html, mime.Summary.from_json(summary), received_at, found)


async def _body_of(tx: db.Tx, account_id: int, message_id: int, part: mime.Part, limit: int) -> tuple[bytes, mime.Part]:
    """The encoded octets of one part, and the part as it lies in them."""
    length = min(part.body_end - part.body_start, limit)
    raw = await fetch.raw(tx, account_id, message_id, part.body_start, length)
    return raw, part._replace(header_start=0, body_start=0, body_end=len(raw))


async def _inline_images(
    tx: db.Tx, account_id: int, message_id: int, parts: list[mime.Part], text: str
) -> dict[str, str]:
    wanted = {unquote(found) for found in _CID.findall(text)} | set(_CID.findall(text))
    found: dict[str, str] = {}
    room = MAX_INLINE
    for part in parts:
        if (
            part.cid is None
            or part.cid not in wanted
            or part.cid in found
            or part.type != "image"
            or part.subtype not in _RASTER
        ):
            continue
        if part.size > room or len(found) >= MAX_IMAGES:
            continue
        raw, moved = await _body_of(tx, account_id, message_id, part, 3 * room)
        data = mime.decode_part(raw, moved, room)
        room -= len(data)
        found[part.cid] = f"data:image/{part.subtype};base64,{base64.b64encode(data).decode()}"
    return found


def _render(part: _Part, images: bool, use: Use) -> Answer:
    if use in ("quote", "forward"):
        return _answer(200, _fragment(part, use))
    if part.is_html and is_reasonable(part.text):
        clean = sanitise(
            part.text, images=images, cid_url=lambda cid: part.images.get(cid) or part.images.get(unquote(cid))
        )
    else:
        clean = Clean(_plain(part), "", 0, False, 0)
    sheet = (
        {"scheme": "light", "sheet": "#fff"}
        if clean.styled or use == "page"
        else {"scheme": "light dark", "sheet": "transparent"}
    )
    own = _READ_CSS % sheet + (_PAGE_CSS if use == "page" else "")
    # Beside our own header, the mail's rules reach its own part only, so that no mail can repaint its sender's name.
    rules = f"@scope (.mail-body){{{clean.css}}}" if use == "page" and clean.css else clean.css
    content = f'<div class="mail-body">{clean.body}</div>' if use == "page" else clean.body
    title = html.escape(part.summary.subject or "(no subject)")
    head = _head(part, title) if use == "page" else ""
    text = (
        f'<!doctype html><html lang="und"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{own}</style><style>{rules}</style><style>{_NARROW_CSS}</style></head>"
        f"<body>{head}{content}</body></html>"
    )
    return _answer(
        200, text, images=images, facts={"X-Remote-Images": clean.remote, "X-Estimated-Height": clean.height}
    )


def _fragment(part: _Part, use: Use) -> str:
    if not part.is_html or not is_reasonable(part.text):
        return _plain(part)
    clean = sanitise(part.text, images=True, cid_url=lambda cid: f"cid:{cid}", styles=use == "forward")
    return f"<style>{clean.css}</style>{clean.body}" if clean.css else clean.body


def _plain(part: _Part) -> str:
    text = mime.text_of_html(part.text[:MAX_TEXT]) if part.is_html else part.text
    if part.is_html:
        text = re.sub(r"\n\s*\n\s*", "\n\n", text).strip()
    escaped = html.escape(text, quote=False)
    return f'<div class="plain-text">{_LINK.sub(_link, escaped)}</div>'


def _link(found: re.Match[str]) -> str:
    address = found.group().replace('"', "&quot;")  # the rest is escaped already
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer nofollow">{found.group()}</a>'


def _head(part: _Part, title: str) -> str:
    summary = part.summary

    def people(addresses: tuple[mime.Addr, ...]) -> str:
        return html.escape(", ".join(f"{one.name} <{one.email}>" if one.name else one.email for one in addresses))

    sent = (summary.sent_at or part.received_at).strftime("%A, %d %B %Y, %H:%M %z")
    lines = [
        ("From", people(summary.from_)),
        ("To", people(summary.to)),
        ("Cc", people(summary.cc)),
        ("Date", html.escape(sent)),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in lines if value)
    return (
        '<p class="print-hint">Print this page with your browser (Ctrl+P, or Share on a phone).</p>'
        f'<header class="print-head"><h1>{title}</h1><dl>{rows}</dl></header>'
    )
