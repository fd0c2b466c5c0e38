"""Scripts, styles and icons, from memory and beside Django: a page asks for sixty of them at once.

Their address contains a digest of all of them (`env.static_url`), so a browser keeps them for good and asks for none
of them again until an upgrade. Relative addresses inside them (imports of modules) stay below the same digest. A page
that was loaded before the upgrade may ask below the old digest: it gets today's file, to be kept for a moment only.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.exceptions import SuspiciousFileOperation

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_VERSIONED = re.compile(r"/static/(?:v-([0-9a-f]{12})/)?(.{1,300})\Z")
_COMPRESSIBLE = ("text/", "application/json", "application/manifest+json", "image/svg+xml")
# The system's own table differs from machine to machine, and a wrong type keeps a module from being loaded.
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    content_type: bytes
    etag: bytes
    plain: bytes
    packed: bytes | None  # gzip, where it is smaller


def _load(name: str) -> File | None:
    try:
        found = finders.find(name)
    except (SuspiciousFileOperation, ValueError):
        return None
    path = Path(found) if isinstance(found, str) else None
    if path is None or not path.is_file():
        return None
    plain = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = gzip.compress(plain, 9, mtime=0) if kind.startswith(_COMPRESSIBLE) else None
    if packed is not None and len(packed) >= len(plain):
        packed = None
    return File(kind.encode(), f'"{hashlib.sha256(plain).hexdigest()[:20]}"'.encode(), plain, packed)


@lru_cache(maxsize=1000)
def _kept(name: str) -> File | None:
    return _load(name)


async def mount(scope: Scope, receive: Receive, send: Send) -> None:
    """GET or HEAD /static/…"""
    match = _VERSIONED.match(str(scope["path"]))
    file = (_load if settings.DEBUG else _kept)(match.group(2)) if match else None
    if scope["method"] not in ("GET", "HEAD") or match is None or file is None:
        status = 404 if scope["method"] in ("GET", "HEAD") else 405
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    asked = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
    lasting = match.group(1) is not None and f"/v-{match.group(1)}/" in settings.STATIC_URL
    packed = file.packed if b"gzip" in asked.get(b"accept-encoding", b"") else None
    body = file.plain if packed is None else packed
    headers = [
        (b"content-type", file.content_type),
        (b"cache-control", b"public, max-age=31536000, immutable" if lasting else b"no-cache"),
        (b"etag", file.etag),
        (b"vary", b"accept-encoding"),
        (b"x-content-type-options", b"nosniff"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    if asked.get(b"if-none-match") == file.etag:
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    headers.append((b"content-length", str(len(body)).encode()))
    if packed is not None:
        headers.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
