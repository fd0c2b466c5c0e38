"""The ASGI application: mounted beside Django at /jmap and /.well-known/jmap, it passes none of Django's middleware."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mailcore.conf import Conf
from mailcore.errors import Code, MailError
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory
from mailcore.jmap import auth, engine, limits, push, session, transfer
from mailcore.jmap.auth import Caller, Slots
from mailcore.jmap.context import Context, Services
from mailcore.jmap.errors import Problem, request_problem
from mailcore.jmap.http import Gone, Receive, Request, Scope, Send, respond_json, respond_problem
from mailcore.store.ingest import Ingest

log = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A larger request is read beside the event loop.
INLINE_OCTETS = 300_000
REQUESTS = Slots(limits.MAX_CONCURRENT_REQUESTS, "maxConcurrentRequests")


def create(ingest: Ingest, conf: Conf) -> App:
    """The application of a process, over its batcher."""
    receiver = Receiver(ingest, conf.hostname, checks_on=conf.checks != ("off",))
    services = Services(ingest, receiver, Directory(), conf.hostname, conf.message_size, conf.data / "spool")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        started = False

        async def sending(message: dict[str, object]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await _route(request, services, receive, sending)  # type: ignore[arg-type]  # a message is a mapping
        except Problem as problem:
            await respond_problem(send, problem, auth.challenge(request, problem))
        except Gone:
            return
        except MailError as error:
            log.warning("%s %s: %r", request.method, scope.get("path"), error)
            status = 503 if error.code is Code.UNAVAILABLE else 500
            if not started:
                await respond_problem(send, Problem(status, "about:blank", error.text))
        except Exception:
            log.exception("%s %s failed", request.method, scope.get("path"))
            if started:
                raise
            await respond_problem(send, Problem(500, "about:blank", "something went wrong here; it has been logged"))

    return application


async def _route(request: Request, services: Services, receive: Receive, send: Send) -> None:
    path = request.scope["path"]
    caller = await auth.authenticate(request)
    match path.rstrip("/").split("/")[1:]:
        case [".well-known", "jmap"] | ["jmap", "session"]:
            _require(request, "GET")
            await respond_json(send, await session.session(request, caller))
        case ["jmap"]:
            _require(request, "POST")
            await _call(request, services, caller, receive, send)
        case ["jmap", "events"]:
            _require(request, "GET")
            await push.events(request, caller, receive, send)
        case ["jmap", "upload", account]:
            _require(request, "POST")
            await transfer.upload(request, services, caller, account, send)
        case ["jmap", "download", account, blob_id, *name]:
            _require(request, "GET", "HEAD")
            await transfer.download(request, services, caller, account, blob_id, "/".join(name), send)
        case _:
            raise Problem(404, "about:blank", "there is nothing here")


def _require(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        raise Problem(405, "about:blank", f"only {' and '.join(allowed)} here")


async def _call(request: Request, services: Services, caller: Caller, receive: Receive, send: Send) -> None:
    """POST /jmap/: a request of method calls."""
    kind = request.header(b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise request_problem("notJSON", "the content type must be application/json")
    async with REQUESTS.awaited(caller.account_id):
        body = await request.body(limits.MAX_SIZE_REQUEST, "maxSizeRequest", limits.REQUEST_SECONDS)
        if len(body) > INLINE_OCTETS:
            parsed = await asyncio.to_thread(engine.parse, body)
        else:
            parsed = engine.parse(body)
        await respond_json(send, await engine.run(parsed, Context(caller, services, receive=receive)))
