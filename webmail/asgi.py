"""The web process: a small dispatcher in front of Django.

What must be quick or long-lived (JMAP, push, health) is an ASGI application of its own in MOUNTS and never passes
Django's middleware; everything else is Django. The pool of the async store is opened and closed with the process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webmail.settings")

from django.core.asgi import get_asgi_application

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

_django = cast(App, get_asgi_application())

# After Django is set up: these import models and the store.
from mailcore import db, wake
from mailcore.conf import Network, conf
from mailcore.delivery import doorbell
from mailcore.errors import MailError
from mailcore.jmap import app as jmap
from mailcore.jmap import push
from mailcore.store import changes
from mailcore.store.ingest import Ingest
from webmail import static_files
from webmail.views import message_body

_ingest = Ingest()
_jmap = jmap.create(_ingest, conf)


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _healthz(scope: Scope, receive: Receive, send: Send) -> None:
    """The process is alive."""
    await _answer(send, 200, "ok\n")


async def _readyz(scope: Scope, receive: Receive, send: Send) -> None:
    """The process can serve: its database answers."""
    try:
        async with db.read() as tx:
            await tx.one("SELECT 1")
    except (MailError, RuntimeError):
        await _answer(send, 503, "the database does not answer\n")
        return
    await _answer(send, 200, "ready\n")


# Longest first; a path belongs to a mount when it equals it or continues with a slash.
MOUNTS: tuple[tuple[str, App], ...] = (
    ("/healthz", _healthz),
    ("/readyz", _readyz),
    ("/jmap", _jmap),
    ("/static", static_files.mount),
    ("/mail/body", message_body.mount),
    ("/.well-known/jmap", _jmap),
)


async def _modseqs(accounts: list[int]) -> dict[int, int]:
    async with db.read() as tx:
        return await changes.states(tx, accounts)


def _end_streams_when_asked_to_stop() -> None:
    """The web server waits for open connections before it says shutdown, and event streams never end by themselves."""
    loop = asyncio.get_running_loop()

    def watch(number: signal.Signals) -> None:
        before = signal.getsignal(number)

        def stop(*args: Any) -> None:
            loop.call_soon_threadsafe(push.end_all)
            if callable(before):
                before(*args)

        signal.signal(number, stop)

    if threading.current_thread() is threading.main_thread():
        watch(signal.SIGTERM)
        watch(signal.SIGINT)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await db.open_pool()
                await wake.start(conf.redis_url, _modseqs)
                wake.on_queue(doorbell.ring)
                _end_streams_when_asked_to_stop()
            except MailError as error:
                log.error("the web process cannot start: %s", error.private or error.text)
                await send({"type": "lifespan.startup.failed", "message": error.text})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await _ingest.close()
            await wake.stop()
            await db.close_pool()
            await send({"type": "lifespan.shutdown.complete"})
            return


def from_proxy(scope: Scope, proxies: tuple[Network, ...]) -> Scope:
    """The request as the browser made it, where a trusted proxy tells; anybody else's X-Forwarded-* mean nothing."""
    client = scope.get("client")
    if not proxies or not client or not _within(client[0], proxies):
        return scope
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name.startswith(b"x-forwarded-")}
    changed = dict(scope)
    # Each proxy appends whom it saw: the last one that is not a proxy of ours is the browser.
    for hop in reversed(headers.get(b"x-forwarded-for", "").split(",")):
        if hop.strip():
            changed["client"] = (hop.strip(), 0)
            if not _within(hop.strip(), proxies):
                break
    if headers.get(b"x-forwarded-proto", "").strip().lower() == "https":
        changed["scheme"] = "https"
    return changed


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Entry point for the ASGI server."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    scope = from_proxy(scope, conf.proxies)
    path = scope.get("path", "")
    for prefix, app in MOUNTS:
        if path == prefix or path.startswith(prefix + "/"):
            await app(scope, receive, send)
            return
    await _django(scope, receive, send)
