"""The endpoint in the real web server (granian) over TCP: what ASGI in a test cannot show."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.db import connection

from mailcore import db
from mailcore.jmap import ids, limits
from mailcore.store.ingest import Ingest
from tests.jmap.world import ALICE, PASSWORD, SIMPLE, Village, World
from tests.ports import free_ports

pytestmark = pytest.mark.django_db(transaction=True)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """A web process over the test database; yields its port."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(parts._replace(path="/" + str(connection.settings_dict["NAME"])))
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--loop", "uvloop", "--log-level", "warning", "webmail.asgi:application"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "webmail.settings"},
    )
    try:
        async with asyncio.timeout(60):
            while b"200 OK" not in await ask(port, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
                assert process.poll() is None, "the web server has ended"
                await asyncio.sleep(0.1)
        yield port
        process.terminate()
        await asyncio.to_thread(process.wait, 60)
    finally:
        process.kill()


async def ask(port: int, request: str, body: bytes = b"") -> bytes:
    """One request on a connection of its own; b"" while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    writer.write(request.encode() + body)
    try:
        return await asyncio.wait_for(reader.read(-1), 60)
    finally:
        writer.close()


def head(method: str, path: str, auth: str, *lines: str) -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: mail.example.org", auth, *lines, "", ""])


async def open_stream(port: int, auth: str) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("GET", "/jmap/events?types=*&closeafter=no&ping=0", auth).encode())
    status = await asyncio.wait_for(reader.readline(), 60)
    assert status.split()[1] == b"200", status
    await until(reader, b": welcome")
    return reader, writer


async def until(reader: asyncio.StreamReader, what: bytes) -> bytes:
    while what not in (line := await asyncio.wait_for(reader.readline(), 60)):
        assert line, "the stream has ended"
    return line


async def test_push_uploads_and_basic_over_tcp(village: Village) -> None:
    cookie = f"Cookie: {settings.SESSION_COOKIE_NAME}={village.cookies[village.alice]}"
    token = base64.b64encode(f"{ALICE}:{PASSWORD}".encode()).decode()
    close = "Connection: close"
    account = ids.account(village.alice)
    async with server() as port:
        answer = await ask(port, head("GET", "/.well-known/jmap", f"Authorization: Basic {token}", close))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["apiUrl"] == "http://mail.example.org/jmap/"

        body = os.urandom(3_000_000)
        answer = await ask(
            port,
            head("POST", f"/jmap/upload/{account}/", cookie, "X-Mailstead: 1", f"Content-Length: {len(body)}", close),
            body,
        )
        blob = json.loads(answer.partition(b"\r\n\r\n")[2])["blobId"]
        answer = await ask(port, head("GET", f"/jmap/download/{account}/{blob}/a%2Fb%20%C3%BC.bin", cookie, close))
        headers, _, octets = answer.partition(b"\r\n\r\n")
        assert octets == body
        assert b"filename*=UTF-8''a_b%20%C3%BC.bin" in headers

        # A delivery by another process (this one), through Redis or at the latest by the poll, is told.
        await db.open_pool(2)
        world = World(None, Ingest(), village)  # type: ignore[arg-type]  # only its store is used
        try:
            streams = [await open_stream(port, cookie)]
            await world.deliver(village.alice, SIMPLE.format(subject="New"))
            data = await until(streams[0][0], b"data: ")
            assert json.loads(data[6:])["changed"][account]["Email"]
            # Streams that were left are forgotten: their places can be taken again.
            streams += [await open_stream(port, cookie) for _ in range(limits.MAX_EVENT_STREAMS - 1)]
            refused = await ask(port, head("GET", "/jmap/events", cookie, close))
            assert refused.split()[1] == b"429"
            for _, writer in streams:
                writer.close()
            async with asyncio.timeout(60):
                while True:
                    try:
                        reader, writer = await open_stream(port, cookie)
                        break
                    except AssertionError:
                        await asyncio.sleep(0.1)
        finally:
            await world.ingest.close()
            await db.close_pool()
    # An open stream has not kept the server from stopping.
    assert await reader.read() is not None
    writer.close()
