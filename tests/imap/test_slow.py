"""Slow-loris: whoever holds a connection and says next to nothing is sent away in time, and costs little until then."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from mailcore import entrance
from mailcore.imap import connection as imap_connection
from mailcore.imap import server as imap_server
from mailcore.imap.limits import Limits
from tests.imap.conftest import Person
from tests.imap.process import mail_process
from tests.imap.running import HOST, Running
from tests.imap.test_limits import Wire
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("db")  # a test that runs alone needs it, too

LIMITS = Limits(login=1.0, pace=64, stalled=1_000, shutdown=1.0, output=16 * 1024)
DRIP = 0.05


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    try:
        _trusting().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


HELLO = _client_hello()


@pytest.fixture(scope="module")
def hasty(database: None) -> Iterator[Running]:
    """Has no patience with strangers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imap_server, "SWEEP_SECONDS", 0.1)
        patch.setattr(entrance, "HANDSHAKE_SECONDS", 1.0)
        patch.setattr(imap_connection, "HANDSHAKE_SECONDS", 1.0)
        running = Running(LIMITS)
        yield running
        running.stop()


@pytest.fixture
def idling(hasty: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Gives strangers all the time that a busy machine needs for a login, and sessions little."""
    monkeypatch.setattr(hasty.server, "limits", replace(LIMITS, login=1_000, idle=1.5))
    return hasty


@pytest.fixture
def patient(hasty: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Sends nobody away before a quarter of an hour has passed: see `pass_by`."""
    monkeypatch.setattr(hasty.server, "limits", replace(LIMITS, login=1_000, idle=1_000))
    return hasty


def pass_by(running: Running, seconds: float) -> None:
    """Let every connection be that much nearer to its end, as if the time had passed."""

    async def hurry() -> None:
        for connection in running.server.connections:
            connection.deadline -= seconds

    running.call(hurry())


def left(running: Running) -> list[float]:
    """The seconds that each connection has, the nearest end first."""

    async def deadlines() -> list[float]:
        now = asyncio.get_running_loop().time()
        return sorted(connection.deadline - now for connection in running.server.connections)

    return running.call(deadlines())


def drip(client: socket.socket, octets: bytes) -> bytes:
    """Send them one by one, again and again, until the server closes; what it said. Fails when it never does."""
    client.settimeout(DRIP)
    said, deadline = b"", time.monotonic() + PATIENCE
    sending = cycle(octets) if octets else cycle([-1])
    while time.monotonic() < deadline:
        octet = next(sending)
        if octet >= 0:
            with suppress(OSError):  # it may be closed, and its last words not read yet
                client.send(bytes((octet,)))
        try:
            data = client.recv(4096)
            if not data:
                return said
            said += data
        except TimeoutError:
            continue
        except OSError:
            return said
    raise AssertionError(f"it was never sent away; it heard {said!r}")


@pytest.mark.parametrize(
    ("before", "octets"),
    [
        (b"", b""),
        (b"", b"x"),
        (b"a NOOP\r\n", b"a NOOP\r\n"),
        (b"a LOGIN alice {8000+}\r\n", b"x"),
        (b"a LOGIN alice {1000000+}\r\n", b"x"),
        (b"a AUTHENTICATE PLAIN\r\n", b""),
        (b"a AUTHENTICATE PLAIN\r\n", b"A"),
        (b"a STARTTLS\r\n", b""),
        (b"a STARTTLS\r\n", HELLO),
    ],
    ids=["silence", "tag", "commands", "literal", "skipped", "sasl-silence", "sasl", "starttls-silence", "starttls"],
)
def test_a_stranger_is_sent_away_whatever_it_is_slow_at(hasty: Running, before: bytes, octets: bytes) -> None:
    started = time.monotonic()
    with closing(socket.create_connection((HOST, hasty.port), 60)) as client:
        client.sendall(before)
        if b"STARTTLS" in before:
            heard = b""
            while b"Begin TLS" not in heard and (data := client.recv(4096)):
                heard += data
        said = drip(client, octets)
    if b"STARTTLS" not in before:
        assert b"* BYE You did not log in in time\r\n" in said
    assert time.monotonic() - started >= LIMITS.login * 0.8


@pytest.mark.parametrize("octets", [b"", HELLO], ids=["silence", "hello"])
def test_a_handshake_that_does_not_end_is_cut_off(hasty: Running, octets: bytes) -> None:
    with closing(socket.create_connection((HOST, hasty.tls_port), 60)) as client:
        assert drip(client, octets) == b""
    until(lambda: not hasty.server.handshakes)


@pytest.mark.parametrize(
    ("before", "octets"),
    [
        (b"", b"x"),
        (b"a APPEND INBOX {100000+}\r\n", b"x"),
        (b"a APPEND INBOX {2000000}\r\n", b"x"),
        (b"a SEARCH TEXT {20000+}\r\n", b"x"),
        (b"a IDLE\r\n", b"D"),
        (b"a NOOP\r\nb NOOP\r\nc NO", b"x"),
    ],
    ids=["line", "literal", "streamed", "kept", "idle", "behind-others"],
)
def test_octets_now_and_then_in_an_unfinished_command_do_not_keep_a_session(
    idling: Running, alice: Person, before: bytes, octets: bytes
) -> None:
    with closing(Wire(idling)) as wire:
        assert wire.log_in(alice).startswith(b"a OK")
        wire.socket.sendall(before)
        assert drip(wire.socket, octets).endswith(b"* BYE You have been idle for too long\r\n")


def test_whole_commands_and_an_upload_at_some_pace_do(patient: Running, alice: Person) -> None:
    with closing(Wire(patient)) as quick, closing(Wire(patient)) as slow:
        assert quick.log_in(alice).startswith(b"a OK")
        assert slow.log_in(alice).startswith(b"a OK")
        pieces = 12
        slow.socket.sendall(b"b APPEND INBOX {%d+}\r\n" % (LIMITS.pace * pieces))
        for _ in range(pieces):  # twice as long as a session may be idle
            pass_by(patient, 160)
            slow.socket.sendall(b"x" * LIMITS.pace)
            assert quick.say("b NOOP").startswith(b"b OK")
            until(lambda: left(patient)[0] > 900)
        slow.socket.sendall(b"\r\n")
        assert slow.line().startswith(b"b OK [APPENDUID ")


def test_a_stranger_wins_no_time_by_letting_answers_pile_up(patient: Running) -> None:
    until(lambda: not patient.server.connections)  # those of the tests before may still be leaving
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((HOST, patient.port))
    with closing(client):
        assert client.recv(10) == b"* OK [CAPA"
        (connection,) = patient.server.connections
        transport = connection.transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.sendall(b"a CAPABILITY\r\n" * 1000)
        until(lambda: connection._drained is not None)  # so much that the server waits
        pass_by(patient, 1_000)
        # Now it reads, and the server could write on.
        drip(client, b"")
    until(lambda: connection.closed)


def test_much_at_once_before_the_login_ends_the_connection(patient: Running, alice: Person) -> None:
    with closing(Wire(patient)) as wire:
        wire.line()
        wire.socket.sendall(b'a LOGIN %b "%b"\r\n' % (alice.address.encode(), b"wrong") + b"b NOOP\r\n" * 30_000)
        said = drip(wire.socket, b"")
    assert said.count(b"b OK") < 10_000
    with closing(Wire(patient)) as wire:
        wire.line()
        # A refused literal is skipped, not kept: here size is no harm.
        wire.socket.sendall(b"a LOGIN x {300000+}\r\n")
        time.sleep(0.1)
        wire.socket.sendall(b"x" * 300_000 + b" y\r\nb NOOP\r\n")
        assert wire.line().startswith(b"a BAD [TOOBIG] ")
        assert wire.line().startswith(b"b OK")


def test_three_hundred_of_them_cost_little_and_nobody_waits_for_them(
    people: Callable[[str], Person], tmp_path: Path
) -> None:
    alice = people("alice")
    with mail_process(tmp_path) as server, ExitStack() as stack:

        def connect(number: int, port: int) -> socket.socket:
            client = socket.socket()
            client.bind((f"127.0.0.{2 + number % 6}", 0))  # one address may have 200 of them
            client.connect((HOST, port))
            stack.callback(client.close)
            return client

        def healthy(port: int) -> None:
            """Logs in and works as if nobody else was there."""
            plain = socket.create_connection((HOST, port), 60)
            with closing(_trusting().wrap_socket(plain)) as client, client.makefile("rwb") as file:
                for command in (f'a LOGIN {alice.address} "{alice.password}"', "b SELECT INBOX", "c NOOP"):
                    file.write(command.encode() + b"\r\n")
                    file.flush()
                    while not (line := file.readline()).startswith(command[:2].encode()):
                        assert line
                    assert line[2:4] == b"OK"

        for _ in range(3):
            healthy(server.tls_port)
        before = server.memory_kb()
        starts = (b"", b"a LOGIN alice {8000+}\r\n" + b"x" * 7_000, b"a " + b"x" * 8_000, b"a AUTHENTICATE PLAIN\r\n")
        slow = []
        for number in range(300):
            client = connect(number, server.tls_port if number % 3 == 0 else server.port)
            if number % 3:
                client.sendall(starts[number % 4])
            slow.append(client)
        for _ in range(3):
            for number, client in enumerate(slow):
                if number % 3:
                    client.sendall(b"x")
            healthy(server.tls_port)
        grown = server.memory_kb() - before
        print(f"300 slow clients: {grown} kB")
        assert grown < 300 * 100, grown
