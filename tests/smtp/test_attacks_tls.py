"""Attacks on the step from plain text to TLS, and on what stands before it (nostarttls.secvuln.info)."""

from __future__ import annotations

import asyncio
import base64
import socket
from pathlib import Path

import pytest

from tests.smtp.world import ANN, EVIL, MESSAGE, PASSWORD, Client, Village, World, gone, running, untrusting

pytestmark = [pytest.mark.django_db(transaction=True)]


async def encrypted(world: World, name: str = "mx") -> None:
    """The session of each attack, without its trick."""
    async with world.client(name) as client:
        await client.start_tls()
        await client.expect("EHLO client.example", "250-")
        if name != "mx":
            await client.login()
        sender = "far@elsewhere.example" if name == "mx" else ANN
        message = MESSAGE.replace(b"far@elsewhere.example", sender.encode())
        assert (await client.deliver(message, sender=sender)).startswith("250")


@pytest.mark.parametrize("name", ["mx", "submission"])
async def test_cve_2011_0411_commands_behind_starttls_are_not_carried_out(
    village: Village, tmp_path: Path, name: str
) -> None:
    async with running(tmp_path) as world:
        async with world.client(name) as client:
            client.say(b"STARTTLS\r\n" + EVIL)
            assert (await client.hear()).startswith("554 5.5.0")
            assert await client.closed()
        assert await world.mail(village.bob) == []
        await encrypted(world, name)


async def test_cve_2021_33515_plain_text_behind_our_220_is_no_command(village: Village, tmp_path: Path) -> None:
    """The handshake fails of it, as what arrives is read by TLS alone."""
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect("STARTTLS", "220")
            client.say(EVIL)
            assert await client.closed()
        assert await world.mail(village.bob) == []
        await encrypted(world)


async def test_cve_2024_34083_plain_text_while_our_220_waits_for_a_client_that_does_not_read(
    village: Village, tmp_path: Path
) -> None:
    """The library we descend from kept such octets for the session inside TLS, and so did we."""
    loop = asyncio.get_running_loop()
    async with running(tmp_path, max_idle_commands=1 << 20) as world:
        for evil in (b"", EVIL):
            await gone(world)
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", world.ports["mx"]))
                assert (await loop.sock_recv(sock, 1000)).startswith(b"220")
                (session,) = world.server.sessions
                session.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                await loop.sock_sendall(sock, b"EHLO client.example\r\n" + b"HELP\r\n" * 5_000 + b"STARTTLS\r\n")
                while not session._paused:  # it has said 220 behind all the rest, and nobody reads it
                    await asyncio.sleep(0.01)
                await loop.sock_sendall(sock, evil)
                while len(session.input) < len(evil):
                    await asyncio.sleep(0.01)
                heard = b""
                while not heard.endswith(b"220 2.0.0 Ready to start TLS\r\n"):
                    heard = heard[-100:] + await asyncio.wait_for(loop.sock_recv(sock, 100_000), 60)
                if evil:
                    assert await asyncio.wait_for(loop.sock_recv(sock, 1000), 60) == b"", "the connection ends"
                else:
                    reader, writer = await asyncio.open_connection(sock=sock.dup())
                    await writer.start_tls(untrusting(), server_hostname="localhost")
                    client = Client(reader, writer)
                    await client.expect("EHLO client.example", "250")
                    assert (await client.deliver(MESSAGE)).startswith("250")
                    await client.close()
            await gone(world)
        assert await world.mail(village.bob) == []


async def test_cve_2021_38371_answers_from_before_tls_are_sent_before_it(village: Village, tmp_path: Path) -> None:
    """A client must never hear inside TLS what was asked in plain text."""
    async with running(tmp_path) as world, world.client() as client:
        client.say(b"NOOP\r\nVRFY ann\r\nSTARTTLS\r\n")
        assert [(await client.hear())[:3] for _ in range(3)] == ["250", "252", "220"]
        await client.writer.start_tls(untrusting(), server_hostname="localhost")
        await client.expect("EHLO client.example", "250-mx.example.test")
        await client.expect("NOOP", "250")


async def test_what_was_said_before_tls_is_forgotten(village: Village, tmp_path: Path) -> None:
    """Otherwise a man in the middle could begin a message, or introduce himself, for the client (RFC 3207 §4.2)."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<ceo@example.org>", "250")
        await client.expect("RCPT TO:<bob@example.org>", "250")
        await client.start_tls()
        await client.expect("DATA", "503 5.5.1")
        await client.expect("MAIL FROM:<>", "503 5.5.1")
        await client.expect("EHLO client.example", "250-")
        await client.expect("RCPT TO:<bob@example.org>", "503 5.5.1")
        assert (await client.deliver(MESSAGE)).startswith("250")


async def test_a_login_before_tls_does_not_count_inside(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect(f"MAIL FROM:<{ANN}>", "250")
        await client.start_tls()
        await client.expect("EHLO client.example", "250-")
        await client.expect(f"MAIL FROM:<{ANN}>", "530 5.7.0")
        await client.login()
        await client.expect(f"MAIL FROM:<{ANN}>", "250")


async def test_starttls_stripping_gets_no_password(village: Village, tmp_path: Path) -> None:
    """Whoever takes STARTTLS out of the way is not given a login in plain text, nor is it offered."""
    token = base64.b64encode(f"\0{ANN}\0{PASSWORD}".encode()).decode()
    async with running(tmp_path, plaintext_auth="never") as world:
        async with world.client("submission") as client:
            assert "AUTH" not in await client.ask("EHLO client.example")
            for command in (f"AUTH PLAIN {token}", "AUTH PLAIN", "AUTH LOGIN"):
                await client.expect(command, "538 5.7.11")
        await encrypted(world, "submission")


async def test_starttls_with_an_argument_or_twice(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("STARTTLS now", "501 5.5.4")
        await client.start_tls()
        await client.expect("EHLO client.example", "250-")
        await client.expect("STARTTLS", "503 5.5.1")
        assert (await client.deliver(MESSAGE)).startswith("250")


async def test_talking_before_the_greeting(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        # The loop does not run between connect and send, so that the octets are there before the greeting.
        with socket.create_connection(("127.0.0.1", world.ports["mx"])) as early:
            early.sendall(b"EHLO client.example\r\n" + EVIL)
            early.setblocking(False)
            loop = asyncio.get_running_loop()
            heard = b""
            while data := await asyncio.wait_for(loop.sock_recv(early, 1000), 60):
                heard += data
        assert heard.startswith(b"554 5.5.0")
        assert heard.count(b"\r\n") == 1
        assert await world.mail(village.bob) == []
        async with world.client() as client:
            client.say(EVIL)
            assert [(await client.hear())[:3] for _ in range(4)] == ["250", "250", "354", "250"]
        assert len(await world.mail(village.bob)) == 1


@pytest.mark.parametrize("verb", ["POST", "GET", "PUT", "OPTIONS"])
async def test_cross_protocol_scripting_a_browser_is_sent_away(village: Village, tmp_path: Path, verb: str) -> None:
    """CVE-2021-3618 (ALPACA) and form posts: the body of a web request would hold our commands."""
    request = f"{verb} / HTTP/1.1\r\nHost: mail.example\r\nContent-Type: text/plain\r\n\r\n".encode()
    async with running(tmp_path) as world:
        async with world.client(hello=False) as client:
            client.say(request + b"EHLO x\r\n" + EVIL)
            assert (await client.hear()).startswith("554 5.5.0")
            assert await client.closed()
        assert await world.mail(village.bob) == []
        async with world.client(hello=False) as client:
            client.say(b"EHLO x\r\n" + EVIL)
            assert [(await client.hear())[:3] for _ in range(5)] == ["250", "250", "250", "354", "250"]
