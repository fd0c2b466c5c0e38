"""Uploads and downloads (RFC 8620 §6): the octets of messages, of their parts, and of what is to become part of one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from mailcore import db, mime
from mailcore.db import sql
from mailcore.errors import Code, MailError
from mailcore.jmap import ids, limits, queries
from mailcore.jmap.auth import Caller, Slots
from mailcore.jmap.blob_ids import BlobId, parse_blob_id, upload_blob_id
from mailcore.jmap.errors import Problem, SetError
from mailcore.jmap.http import Request, Send, respond, respond_json
from mailcore.mime import Part
from mailcore.mime.decode import decode_range
from mailcore.store import fetch, queue

# Uploads of one account at a time, each in memory while it comes in.
UPLOADS = Slots(limits.MAX_CONCURRENT_UPLOAD, "maxConcurrentUpload")
INLINE_OCTETS = 300_000

# What a browser may show by itself when the webmail asks for it; everything else is a file to keep.
INLINE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain"})
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
CONTENT_POLICY = (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:")
# A blob never changes; whether one may have it is asked anew in another session, which has another cache key for us.
FOREVER = (b"cache-control", b"private, max-age=31536000, immutable")

TOUCH = sql("""
    INSERT INTO blob (hash, size, data) VALUES (%b::bytea, %s::bigint, %b::bytea)
    ON CONFLICT (hash) DO UPDATE SET touched_at = now()""")


@dataclass(frozen=True, slots=True)
class Content:
    """The octets of a blob and the type that the message says they have."""

    octets: bytes
    type: str
    name: str | None = None


async def load_all(account_id: int, blob_ids: Iterable[str]) -> dict[str, bytes]:
    """The octets of blobs by id; those that are not the account's are left out. Raises SetError tooLarge, MailError."""
    found: dict[str, bytes] = {}
    total = 0
    for text in blob_ids:
        try:
            found[text] = (await load(account_id, text)).octets
        except MailError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            continue
        total += len(found[text])
        if total > limits.MAX_ATTACHMENTS:
            raise SetError("tooLarge", f"attachments have {limits.MAX_ATTACHMENTS} octets at most in all")
    return found


async def load(account_id: int, text: str) -> Content:
    """A blob of the account. Raises MailError NOT_FOUND for what is missing and for what is somebody else's."""
    blob = parse_blob_id(account_id, text)
    if blob is None:
        raise MailError(Code.NOT_FOUND, "there is no such blob")
    async with db.read() as tx:
        if blob.upload is not None:
            return Content(await queue.blob(tx, blob.upload), "application/octet-stream")
        if blob.email_id not in await queries.presences(tx, account_id, [blob.email_id]):
            raise MailError(Code.NOT_FOUND, "there is no such blob")
        if blob.part_id is None:
            return Content(await fetch.raw(tx, account_id, blob.email_id), "message/rfc822")
        part = await _part(tx, account_id, blob)
        piece = await fetch.raw(tx, account_id, blob.email_id, part.body_start, part.body_end - part.body_start)
    if len(piece) > INLINE_OCTETS:
        octets = await asyncio.to_thread(decode_range, piece, 0, len(piece), part.encoding, len(piece))
    else:
        octets = decode_range(piece, 0, len(piece), part.encoding, len(piece))
    return Content(octets, f"{part.type}/{part.subtype}", part.filename)


async def _part(tx: db.Tx, account_id: int, blob: BlobId) -> Part:
    rows = await fetch.messages(tx, account_id, [blob.email_id], ("parts",))
    for part in mime.unpack_parts(bytes(rows[0][0])) if rows else ():
        if part.id == blob.part_id and part.type != "multipart":
            return part
    raise MailError(Code.NOT_FOUND, "there is no such part")


async def upload(request: Request, caller: Caller, account: str, send: Send) -> None:
    """POST /jmap/upload/{accountId}/: keep the body; a message that uses it must be written within a day."""
    _own(caller, account)
    with UPLOADS.taken(caller.account_id):
        body = await request.body(limits.MAX_SIZE_UPLOAD, "maxSizeUpload", limits.UPLOAD_SECONDS)
        if len(body) > INLINE_OCTETS:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(body).digest())
        else:
            digest = hashlib.sha256(body).digest()
        async with db.transaction() as tx:
            await tx.execute(TOUCH, (digest, len(body), body))
    kind = request.header(b"content-type").partition(";")[0].strip().lower()
    answer = {
        "accountId": account,
        "blobId": upload_blob_id(caller.account_id, digest),
        "type": kind if _TYPE.fullmatch(kind) else "application/octet-stream",
        "size": len(body),
    }
    await respond_json(send, answer, 201)


async def download(request: Request, caller: Caller, account: str, blob_id: str, name: str, send: Send) -> None:
    """GET /jmap/download/{accountId}/{blobId}/{name}?type=: the octets, as a file to keep."""
    _own(caller, account)
    tag = f'"{blob_id}"'.encode("ascii", "replace")
    if parse_blob_id(caller.account_id, blob_id) is None:
        raise Problem(404, "about:blank", "there is no such blob")
    try:
        content = await load(caller.account_id, blob_id)
    except MailError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        raise Problem(404, "about:blank", "there is no such blob") from None
    if tag in [item.strip() for item in request.headers.get(b"if-none-match", b"").split(b",")]:
        await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", tag), FOREVER]})
        await send({"type": "http.response.body", "body": b""})
        return
    query = request.query()
    asked = query.get("type", "").strip().lower()
    kind = asked if _TYPE.fullmatch(asked) else content.type
    inline = query.get("disposition") == "inline" and kind in INLINE_TYPES
    if kind.startswith("text/"):
        kind += "; charset=utf-8" if kind == "text/plain" and inline else ""
    headers = [
        (b"content-disposition", _disposition("inline" if inline else "attachment", name)),
        (b"etag", tag),
        (b"accept-ranges", b"bytes"),
        (b"cross-origin-resource-policy", b"same-origin"),
        CONTENT_POLICY,
        FOREVER,
    ]
    status, octets = 200, content.octets
    if (span := _span(request, len(octets))) is not None:
        start, end = span
        if start >= end:
            raise Problem(416, "about:blank", "there are no such octets")
        headers.append((b"content-range", f"bytes {start}-{end - 1}/{len(octets)}".encode()))
        status, octets = 206, octets[start:end]
    if request.method == "HEAD":
        fields = [(b"content-type", kind.encode()), (b"content-length", str(len(octets)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b""})
        return
    await respond(send, status, octets, kind.encode(), headers)


def _own(caller: Caller, account: str) -> None:
    if account != ids.account(caller.account_id):
        raise Problem(404, "about:blank", "there is no such account")


def _span(request: Request, size: int) -> tuple[int, int] | None:
    """The one range asked for as (start, end); None when the whole is meant (RFC 9110 §14)."""
    match = _RANGE.fullmatch(request.header(b"range"))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    end = min(size, int(last) + 1) if last else size
    if last and int(last) < int(first):
        return None
    return int(first), end


def _disposition(kind: str, name: str) -> bytes:
    """Content-Disposition with a name that is no path and has no surprises (RFC 6266)."""
    cleaned = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)[:200].strip(". ")
    cleaned = cleaned or "attachment"
    plain = cleaned.encode("ascii", "replace").decode().replace("?", "_")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(cleaned, safe='')}".encode()
