"""The dispatcher in front of Django: health, and what it believes of a proxy."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from webmail import asgi

PROXIES = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))


def scope(client: str, **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "path": "/",
        "scheme": "http",
        "client": (client, 4711),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }


@pytest.mark.parametrize(
    ("forwarded", "browser"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.0.0.3", "192.0.2.7"),
        ("203.0.113.66, 192.0.2.7, 10.0.0.3", "192.0.2.7"),  # what the browser itself claims comes first
        ("10.9.9.9", "10.9.9.9"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_a_trusted_proxy_names_the_browser(forwarded: str, browser: str) -> None:
    seen = asgi.from_proxy(scope("127.0.0.1", x_forwarded_for=forwarded, x_forwarded_proto="https"), PROXIES)
    assert seen["client"][0] == browser
    assert seen["scheme"] == "https"


def test_anybody_elses_word_is_not_believed() -> None:
    stranger = scope("192.0.2.7", x_forwarded_for="127.0.0.1", x_forwarded_proto="https")
    assert asgi.from_proxy(stranger, PROXIES) is stranger
    local = scope("127.0.0.1", x_forwarded_for="192.0.2.7", x_forwarded_proto="https")
    assert asgi.from_proxy(local, ()) is local


async def call(path: str) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await asgi.application({**scope("127.0.0.1"), "path": path, "method": "GET", "query_string": b""}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def test_health_is_answered_without_a_database_and_readiness_is_not() -> None:
    assert await call("/healthz") == (200, b"ok\n")
    assert await call("/readyz") == (503, b"the database does not answer\n")
