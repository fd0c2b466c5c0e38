"""Scripts and styles: right types, kept for good below their digest, nothing from outside their folder."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from webmail import env, static_files

ROOT = Path(__file__).resolve().parents[2] / "static"


async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asked = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await static_files.mount({"type": "http", "method": method, "path": path, "headers": asked}, receive, send)
    found = {bytes(name).decode(): bytes(value).decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


async def test_files_below_their_digest_are_kept_for_good() -> None:
    status, headers, body = await get(f"{settings.STATIC_URL}js/app.js")
    assert status == 200 and body == (ROOT / "js/app.js").read_bytes()
    assert headers["content-type"].startswith("text/javascript")
    assert "immutable" in headers["cache-control"] and headers["x-content-type-options"] == "nosniff"
    status, _, body = await get(f"{settings.STATIC_URL}js/app.js", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")


async def test_files_below_another_digest_are_asked_for_again() -> None:
    for path in ("/static/js/app.js", "/static/v-000000000000/js/app.js"):
        status, headers, _ = await get(path)
        assert status == 200 and headers["cache-control"] == "no-cache"


async def test_text_is_packed_for_who_understands_it() -> None:
    status, headers, body = await get("/static/css/webmail.css", accept_encoding="gzip, br")
    assert status == 200 and headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == (ROOT / "css/webmail.css").read_bytes()
    assert "content-encoding" not in (await get("/static/icons/mailstead-192.png", accept_encoding="gzip"))[1]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../manage.py",
        "/static/js/../../manage.py",
        "/static//etc/passwd",
        "/static/js",
        "/static/",
        "/static/js/\0",
        "/static/none.js",
    ],
)
async def test_nothing_from_outside_the_folder(path: str) -> None:
    assert (await get(path))[0] == 404


async def test_only_reading() -> None:
    assert (await get("/static/js/app.js", "POST"))[0] == 405
    status, headers, body = await get("/static/js/app.js", "HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 100


def test_the_digest_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    first = env.static_url(tmp_path, False)
    (tmp_path / "a.js").write_text("2")
    assert env.static_url(tmp_path, False) != first
    assert env.static_url(tmp_path, True) == "/static/"


def test_vendored_files_are_what_was_published() -> None:
    import hashlib

    listed = dict(line.split("  ")[::-1] for line in (ROOT / "vendor/SHA256SUMS").read_text().splitlines())
    present = {f"./{path.relative_to(ROOT / 'vendor')}" for path in (ROOT / "vendor").rglob("*") if path.is_file()}
    assert present - {"./README.md", "./SHA256SUMS"} == listed.keys()
    for name, digest in listed.items():
        assert hashlib.sha256((ROOT / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_every_icon_that_is_named_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([\w-]+)"', (ROOT / "icons/sprite.svg").read_text()))
    source = "".join(path.read_text() for path in (ROOT / "js").rglob("*.js"))
    named = set(re.findall(r'icon(?:\(|: )"([a-z0-9-]+)"', source))
    assert len(named) > 40 and named <= sprite, named - sprite


def test_no_module_is_long_and_each_says_what_it_is_for() -> None:
    for path in (ROOT / "js").rglob("*.js"):
        lines = path.read_text().splitlines()
        assert len(lines) < 400, path
        assert lines[0].startswith("// "), path
