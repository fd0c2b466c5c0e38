"""HTTP over ASGI, as little of it as the endpoint needs: a request to look at, a body within a limit, a whole
answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from mailcore.jmap.errors import Problem, limit_problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPE = b"application/json; charset=utf-8"
PROBLEM_TYPE = b"application/problem+json; charset=utf-8"
NO_STORE = (b"cache-control", b"no-store")
NOSNIFF = (b"x-content-type-options", b"nosniff")
# What is sent to a slow reader at a time.
CHUNK = 256 * 1024


class Gone(Exception):
    """The client has hung up."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: method, path below nothing (as it came, percent-decoded), headers in lower case."""

    scope: Scope
    receive: Receive
    headers: dict[bytes, bytes]

    @staticmethod
    def of(scope: Scope, receive: Receive) -> Request:
        return Request(scope, receive, {bytes(name).lower(): bytes(value) for name, value in scope["headers"]})

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def source(self) -> str:
        """The client's network address."""
        client = self.scope.get("client")
        return str(client[0]) if client else "unknown"

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie; the first one counts."""
        for part in self.header(b"cookie").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value.strip('"')
        return None

    def query(self) -> dict[str, str]:
        """The query string's parameters, the last of each name."""
        octets = bytes(self.scope.get("query_string", b""))[:8192]
        return dict(parse_qsl(octets.decode("latin-1"), keep_blank_values=True, max_num_fields=20))

    async def body(self, limit: int, limit_name: str, seconds: float) -> bytes:
        """The whole body; raises as `pieces`."""
        return b"".join([piece async for piece in self.pieces(limit, limit_name, seconds)])

    async def pieces(self, limit: int, limit_name: str, seconds: float) -> AsyncIterator[bytes]:
        """The body as it comes; raises Problem for more than `limit` octets and when it takes too long, Gone."""
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise limit_problem(limit_name, f"at most {limit} octets are accepted", 413)
        deadline = asyncio.get_running_loop().time() + seconds
        size = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self.receive()
            except TimeoutError:
                raise Problem(408, "about:blank", "the request took too long to arrive") from None
            if message["type"] == "http.disconnect":
                raise Gone
            piece = bytes(message.get("body", b""))
            size += len(piece)
            if size > limit:
                raise limit_problem(limit_name, f"at most {limit} octets are accepted", 413)
            yield piece
            if not message.get("more_body"):
                return


async def disconnected(receive: Receive) -> None:
    """Returns when the client hangs up, after its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers = ()) -> None:
    """A whole answer, sent in pieces."""
    fields = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), NOSNIFF, *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    start = 0
    while len(body) - start > CHUNK:
        await send({"type": "http.response.body", "body": body[start : start + CHUNK], "more_body": True})
        start += CHUNK
    await send({"type": "http.response.body", "body": body[start:] if start else body})


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def respond_json(send: Send, value: Any, status: int = 200) -> None:
    await respond(send, status, encode(value), JSON_TYPE, (NO_STORE,))


async def respond_problem(send: Send, problem: Problem, headers: Headers = ()) -> None:
    await respond(send, problem.status, encode(problem.body), PROBLEM_TYPE, (NO_STORE, *headers))
