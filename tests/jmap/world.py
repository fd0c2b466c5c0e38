"""The endpoint over the test run's Postgres, and a client that speaks ASGI to it as the web server does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from mailcore import db, mime
from mailcore.conf import conf
from mailcore.jmap import app, ids
from mailcore.store.append import Incoming
from mailcore.store.ingest import Ingest

PASSWORD = "correct horse battery"
ALICE, BOB, CHARLIE = "alice@example.org", "bob@example.org", "charlie@example.net"
USING = [
    "urn:ietf:params:jmap:core",
    "urn:ietf:params:jmap:mail",
    "urn:ietf:params:jmap:submission",
]


@dataclass
class Village:
    """Alice and Bob of example.org (owner and colleague), Charlie of example.net (outsider), with their cookies."""

    alice: int
    bob: int
    charlie: int
    cookies: dict[int, str]


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class MethodFailed(AssertionError):
    """A method call was answered with an error that the test did not expect."""


@dataclass
class Client:
    """One person's browser (cookie) or program (Basic)."""

    application: app.App
    account: int
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return ids.account(self.account)

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, pieces: int = 1
    ) -> Answer:
        path, _, query = path.partition("?")
        fields = {**self.headers, **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "scheme": "http",
            "client": ("192.0.2.7", 40000),
            "server": ("127.0.0.1", 8000),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
        }
        size = max(1, -(-len(body) // pieces))
        chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        incoming: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": n < len(chunks) - 1} for n, chunk in enumerate(chunks)
        ]
        answer = Answer(0, {}, b"")

        async def receive() -> dict[str, Any]:
            if not incoming:
                await self.hangs_up.wait()
                return {"type": "http.disconnect"}
            return incoming.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {n.decode(): v.decode("latin-1") for n, v in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await asyncio.wait_for(self.application(scope, receive, send), 60)
        return answer

    async def api(self, request: Any, **headers: str) -> Answer:
        octets = request if isinstance(request, bytes) else json.dumps(request).encode()
        return await self.request("POST", "/jmap/", octets, {"content-type": "application/json", **headers})

    async def calls(self, *calls: tuple[str, dict[str, Any]], account: str | None = None) -> list[tuple[str, Any]]:
        """Method calls c0, c1 … in one request; their (name, arguments)."""
        whole = [[name, {"accountId": account or self.id, **args}, f"c{n}"] for n, (name, args) in enumerate(calls)]
        answer = await self.api({"using": USING, "methodCalls": whole})
        assert answer.status == 200, answer.body
        return [(name, args) for name, args, _ in answer.json["methodResponses"]]

    async def call(self, name: str, **args: Any) -> Any:
        """One method call's answer; an error fails the test."""
        ((answered, answer), *_rest) = await self.calls((name, args))
        if answered == "error":
            raise MethodFailed(f"{name}: {answer}")
        return answer

    async def error(self, name: str, **args: Any) -> str:
        """The type of the error that a call is answered with."""
        ((answered, answer), *_rest) = await self.calls((name, args))
        assert answered == "error", answer
        return str(answer["type"])

    async def mailboxes(self) -> dict[str, str]:
        """Mailbox ids by name."""
        found = await self.call("Mailbox/get", ids=None)
        return {mailbox["name"]: mailbox["id"] for mailbox in found["list"]}

    async def inbox(self) -> str:
        return (await self.mailboxes())["INBOX"]

    async def email(self, email_id: str, **args: Any) -> Any:
        (found,) = (await self.call("Email/get", ids=[email_id], **args))["list"]
        return found


@dataclass
class World:
    """A running endpoint."""

    application: app.App
    ingest: Ingest
    village: Village

    def client(self, account: int) -> Client:
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.village.cookies[account]}"
        return Client(self.application, account, {"cookie": cookie, "x-mailstead": "1"})

    def stranger(self) -> Client:
        return Client(self.application, 0)

    def program(self, account: int, address: str, password: str = PASSWORD) -> Client:
        token = base64.b64encode(f"{address}:{password}".encode()).decode()
        return Client(self.application, account, {"authorization": f"Basic {token}"})

    @property
    def alice(self) -> Client:
        return self.client(self.village.alice)

    @property
    def bob(self) -> Client:
        return self.client(self.village.bob)

    @property
    def charlie(self) -> Client:
        return self.client(self.village.charlie)

    async def deliver(self, account: int, raw: bytes | str, mailbox: int = 1, **fields: Any) -> str:
        """Store a message; returns its email id."""
        octets = raw.replace("\n", "\r\n").encode() if isinstance(raw, str) else raw
        (stored,) = await self.ingest.add([Incoming(account, mailbox, octets, mime.parse(octets), **fields)])
        if isinstance(stored, Exception):
            raise stored
        return ids.email(stored.message_id)


@asynccontextmanager
async def running(village: Village) -> AsyncIterator[World]:
    await db.open_pool(8)
    try:
        ingest = Ingest()
        yield World(app.create(ingest, conf), ingest, village)
        await ingest.close()
    finally:
        await db.close_pool()


SIMPLE = """From: Zoe <zoe@far.example>
To: alice@example.org
Subject: {subject}
Date: Mon, 02 Mar 2026 10:00:00 +0100
Message-ID: <{subject}@far.example>

Hello Alice.
"""
