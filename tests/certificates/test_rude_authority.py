"""Certificate authorities that refuse, are busy, or talk nonsense. Pebble does none of that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailcore import db
from mailcore.certificates import acme, renewal
from mailcore.conf import Conf
from mailcore.delivery.mx import Resolver
from mailcore.store import certificates
from tests.certificates.conftest import stored_of
from tests.delivery.authority import Authority, WebServer

HOST = "mail.example.test"


@dataclass
class Rude:
    """Answers each path of an ACME server from a table, with nonces."""

    web: WebServer
    trust: Path
    directory: str = ""
    pages: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)


@pytest.fixture
async def rude(tmp_path: Path) -> AsyncIterator[Rude]:
    authority = Authority("Rude")
    server = await WebServer(authority.issue("localhost").context(tmp_path)).start()
    root = f"https://localhost:{server.port}"
    pages = {each: f"{root}/{each}" for each in ("newNonce", "newAccount", "newOrder")}
    server.pages["/dir"] = (200, "application/json\r\nConnection: close", json.dumps(pages).encode())
    yield Rude(server, authority.file(tmp_path), f"{root}/dir", server.pages)
    await server.stop()


PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("page", "words", "wait"),
    [
        (
            (
                429,
                f"{PROBLEM}\r\nReplay-Nonce: bm9uY2U\r\nRetry-After: 7200\r\nConnection: close",
                b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates already issued"}',
            ),
            "rateLimited: too many certificates already issued",
            7200,
        ),
        ((503, "text/plain\r\nRetry-After: 99999999\r\nConnection: close", b"busy"), "makes no sense", acme.MAX_WAIT),
        ((200, "application/json\r\nReplay-Nonce: bm9uY2U\r\nConnection: close", b"[1, 2"), "makes no sense", 0),
        (
            (302, "text/plain\r\nLocation: http://127.0.0.1:1/\r\nReplay-Nonce: bm9uY2U\r\nConnection: close", b""),
            "makes no sense",
            0,
        ),
    ],
)
async def test_an_authority_that_says_no(
    hamlet: Conf, rude: Rude, page: tuple[int, str, bytes], words: str, wait: int
) -> None:
    rude.pages["/newNonce"] = (200, "text/plain\r\nReplay-Nonce: bm9uY2U\r\nConnection: close", b"")
    rude.pages["/newAccount"] = page
    ours = replace(hamlet, acme=rude.directory, tls_ca=rude.trust)
    await renewal.want(HOST)
    done = await renewal.obtain(ours, HOST)
    assert done is not None and words in done.error
    left = ((await stored_of(HOST)).next_try_at - datetime.now(UTC)).total_seconds()
    assert max(wait, 900) - 60 < left <= max(wait, 900) + 2


async def test_an_authority_says_when_it_wants_a_certificate_renewed(hamlet: Conf, rude: Rude) -> None:
    """RFC 9773: at once when it is about to revoke it, later than we would when it has time, and never too late."""
    ours = replace(hamlet, acme=rude.directory, tls_ca=rude.trust)
    root = rude.directory.removesuffix("/dir")
    _, kind, text = rude.pages["/dir"]
    rude.pages["/dir"] = (200, kind, json.dumps(json.loads(text) | {"renewalInfo": f"{root}/ari"}).encode())
    authority = Authority("Root")
    issued = authority.issue(HOST, days=60)
    leaf = issued.certificate
    await renewal.want(HOST)

    async def due(start: str, end: str, age: float, page: tuple[int, str, bytes] | None = None) -> bool:
        """Whether it is due at this share of its life, when the authority wants it renewed between these."""
        window = {"suggestedWindow": {"start": start, "end": end}}
        path = "/ari/" + acme.client._renewal_info_path_component(leaf)
        rude.pages[path] = page or (
            *(200, "application/json\r\nRetry-After: 7\r\nConnection: close"),
            json.dumps(window).encode(),
        )
        now, life = datetime.now(UTC), timedelta(days=90)
        async with db.transaction() as tx:
            pem = (issued.pem() + authority.own.pem()).decode()
            begins = now - life * age
            await certificates.keep(tx, HOST, "acme", (HOST,), pem, b"x", b"y", (begins, begins + life))
        found = HOST in await renewal.look(ours, Resolver(ours.dns))
        async with db.read() as tx:
            assert await certificates.to_ask_about(tx) == {}, "not again within the hour"
        return found

    assert await due("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z", 0.1), "it is about to be revoked"
    assert not await due("2199-01-01T00:00:00Z", "2199-01-02T00:00:00Z", 0.7)
    assert await due("2199-01-01T00:00:00Z", "2199-01-02T00:00:00Z", 0.84), "nobody may talk us into its end"
    assert await due("nonsense", "2199", 0.7), "as without advice"
    assert not await due("nonsense", "2199", 0.5)
    for answer in (b"[]", b'{"suggestedWindow": 7}', b'{"suggestedWindow": [{"start": 1}]}', b"null"):
        odd = (200, "application/json\r\nConnection: close", answer)
        assert await due("", "", 0.7, odd), "as without advice"


async def test_an_authority_that_nobody_vouches_for_is_not_believed(hamlet: Conf, rude: Rude) -> None:
    ours = replace(hamlet, acme=rude.directory, tls_ca=None)
    await renewal.want(HOST)
    done = await renewal.obtain(ours, HOST)
    assert done is not None and "CERTIFICATE_VERIFY_FAILED" in done.error
    assert not rude.web.asked
