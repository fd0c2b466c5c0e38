"""Uploads and downloads over HTTP (RFC 8620 §6.1, §6.2); large ones neither fill the memory nor hold a connection."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from urllib.parse import quote

from mailcore.errors import Code, MailError
from mailcore.jmap import blobs, ids, limits
from mailcore.jmap.auth import Caller, Slots
from mailcore.jmap.blob_ids import upload_blob_id
from mailcore.jmap.blobs import Located
from mailcore.jmap.context import Services
from mailcore.jmap.errors import Problem
from mailcore.jmap.http import NOSNIFF, Request, Send, respond_json

UPLOADS = Slots(limits.MAX_CONCURRENT_UPLOAD, "maxConcurrentUpload")

# Read and sent at a time; a multiple of four, as base64 wants it.
CHUNK = 1 << 20
# Encoded parts up to this size are decoded whole; larger base64 goes out as it is decoded, its length not known before.
DECODED_WHOLE = 4 << 20
# Uploads are on disk beyond this.
IN_MEMORY = 1 << 20

# What a browser may show by itself when the webmail asks for it; everything else is a file to keep.
INLINE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain"})
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
CONTENT_POLICY = (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:")
# A blob never changes.
FOREVER = (b"cache-control", b"private, max-age=31536000, immutable")


async def upload(request: Request, services: Services, caller: Caller, account: str, send: Send) -> None:
    """POST /jmap/upload/{accountId}/: keep the body; a message that uses it must be written within a day.

    Raises Problem 429 `limit` when the account has uploaded too much within an hour that is in no message.
    """
    _own(caller, account)
    services.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (
        UPLOADS.taken(caller.account_id),
        tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(services.spool)) as file,
    ):
        async for piece in request.pieces(limits.MAX_SIZE_UPLOAD, "maxSizeUpload", limits.UPLOAD_SECONDS):
            digest.update(piece)
            file.write(piece)
        size = file.tell()
        async with services.large:
            file.seek(0)
            await blobs.keep(caller.account_id, digest.digest(), file.read())
    kind = request.header(b"content-type").partition(";")[0].strip().lower()
    answer = {
        "accountId": account,
        "blobId": upload_blob_id(caller.account_id, digest.digest()),
        "type": kind if _TYPE.fullmatch(kind) else "application/octet-stream",
        "size": size,
    }
    await respond_json(send, answer, 201)


async def download(
    request: Request, services: Services, caller: Caller, account: str, blob_id: str, name: str, send: Send
) -> None:
    """GET /jmap/download/{accountId}/{blobId}/{name}?type=: the octets, as a file to keep."""
    _own(caller, account)
    try:
        blob = await blobs.locate(caller.account_id, blob_id)
    except MailError as error:
        if error.code is not Code.NOT_FOUND:
            raise
        raise Problem(404, "about:blank", "there is no such blob") from None
    tag = f'"{blob_id}"'.encode()
    if tag in [item.strip() for item in request.headers.get(b"if-none-match", b"").split(b",")]:
        await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", tag), FOREVER]})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [*_headers(request, blob, name), (b"etag", tag)]
    if request.method == "HEAD":
        size = [] if blob.is_encoded else [(b"content-length", str(blob.length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, *size]})
        await send({"type": "http.response.body", "body": b""})
    elif not blob.is_encoded:
        await _send_range(request, headers, blob.length, partial(blobs.read, blob), send)
    elif blob.length <= DECODED_WHOLE or blob.encoding != "base64":
        async with services.large:
            octets = await blobs.whole(blob)
        await _send_range(request, headers, len(octets), partial(_slice, octets), send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in _decoded(blob):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _headers(request: Request, blob: Located, name: str) -> list[tuple[bytes, bytes]]:
    query = request.query()
    asked = query.get("type", "").strip().lower()
    kind = asked if _TYPE.fullmatch(asked) else blob.type
    inline = query.get("disposition") == "inline" and kind in INLINE_TYPES
    if inline and kind == "text/plain":
        kind += "; charset=utf-8"
    return [
        (b"content-type", kind.encode()),
        (b"content-disposition", _disposition("inline" if inline else "attachment", name)),
        (b"cross-origin-resource-policy", b"same-origin"),
        NOSNIFF,
        CONTENT_POLICY,
        FOREVER,
    ]


Read = Callable[[int, int], Awaitable[bytes]]  # (start, length)


async def _send_range(request: Request, headers: list[tuple[bytes, bytes]], size: int, read: Read, send: Send) -> None:
    """The whole, or the one range of it that is asked for (RFC 9110 §14)."""
    start, end, status = 0, size, 200
    if (span := _span(request, size)) is not None:
        (start, end), status = span, 206
        if start >= end:
            raise Problem(416, "about:blank", "there are no such octets")
        headers = [*headers, (b"content-range", f"bytes {start}-{end - 1}/{size}".encode())]
    fields = [*headers, (b"accept-ranges", b"bytes"), (b"content-length", str(end - start).encode())]
    piece = await read(start, min(CHUNK, end - start))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    while True:
        start += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": start < end})
        if start >= end or not piece:
            return
        piece = await read(start, min(CHUNK, end - start))


async def _decoded(blob: Located) -> AsyncIterator[bytes]:
    """Base64 decoded on the way; what is none is skipped, as mime.decode does it."""
    rest = b""
    for start in range(0, blob.length, CHUNK):
        piece = await blobs.read(blob, start, min(CHUNK, blob.length - start))
        symbols = rest + piece.translate(None, _NOT_BASE64)
        usable = len(symbols) - len(symbols) % 4
        rest = symbols[usable:]
        yield base64.b64decode(symbols[:usable])
        await asyncio.sleep(0)
    if len(rest) > 1:
        yield base64.b64decode(rest + b"=" * (4 - len(rest)))


async def _slice(octets: bytes, start: int, length: int) -> bytes:
    return octets[start : start + length]


def _own(caller: Caller, account: str) -> None:
    if account != ids.account(caller.account_id):
        raise Problem(404, "about:blank", "there is no such account")


def _span(request: Request, size: int) -> tuple[int, int] | None:
    """The one range asked for as (start, end); None when the whole is meant."""
    match = _RANGE.fullmatch(request.header(b"range"))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _disposition(kind: str, name: str) -> bytes:
    """Content-Disposition with a name that is no path and has no surprises (RFC 6266)."""
    cleaned = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)[:200].strip(". ")
    cleaned = cleaned or "attachment"
    plain = cleaned.encode("ascii", "replace").decode().replace("?", "_")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(cleaned, safe='')}".encode()
