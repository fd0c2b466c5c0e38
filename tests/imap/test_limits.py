"""What one client may cost: times, sizes, connections; and what happens when the database is away."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from mailcore import db, wake
from mailcore.errors import Code, MailError
from mailcore.imap import server as imap_server
from mailcore.imap.limits import Limits
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.waiting import PATIENCE, until

# No limit of time that a busy machine could reach: the tests that are about one set it.
LIMITS = Limits(login=1_000, idle=1_000, stalled=1_000, per_address=4, per_account=2, output=64 * 1024)


@pytest.fixture
def strict(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(imap_server, "SWEEP_SECONDS", 0.1)
    running = Running(LIMITS)
    yield running
    running.stop()


class Wire:
    """A plain client."""

    def __init__(self, running: Running) -> None:
        self.socket = socket.create_connection((HOST, running.port), 60)
        self.file = self.socket.makefile("rwb")

    def line(self) -> bytes:
        return self.file.readline()

    def say(self, text: str) -> bytes:
        """Send a command; its tagged answer."""
        tag = text.split()[0].encode()
        self.file.write(text.encode() + b"\r\n")
        self.file.flush()
        while True:
            line = self.line()
            if not line or line.startswith((tag + b" ", b"+")):
                return line

    def log_in(self, person: Person) -> bytes:
        self.line()
        return self.say(f'a LOGIN {person.address} "{person.password}"')

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_a_client_that_does_not_log_in_is_sent_away(strict: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict.server, "limits", replace(LIMITS, login=0.5))
    with closing(Wire(strict)) as wire:
        assert wire.line().startswith(b"* OK")
        assert wire.line() == b"* BYE You did not log in in time\r\n"
        assert wire.line() == b""


def test_dripping_bytes_do_not_win_time_before_the_login(strict: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict.server, "limits", replace(LIMITS, login=0.5))
    with closing(Wire(strict)) as wire:
        deadline = time.monotonic() + PATIENCE
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                wire.socket.sendall(b"x")
                time.sleep(0.05)


def test_an_idle_session_is_logged_out_and_idle_too(
    strict: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Wire(strict)) as wire, closing(Wire(strict)) as idler:
        assert wire.log_in(alice).startswith(b"a OK")
        assert idler.log_in(alice).startswith(b"a OK")
        monkeypatch.setattr(strict.server, "limits", replace(LIMITS, idle=1.0))
        assert wire.say("b NOOP").startswith(b"b OK")
        assert idler.say("b IDLE") == b"+ idling\r\n"
        assert wire.line() == b"* BYE You have been idle for too long\r\n"
        assert idler.line() == b"* BYE You have been idle for too long\r\n"
        assert wire.line() == idler.line() == b""


def test_strangers_of_one_address_are_limited(strict: Running) -> None:
    wires = [Wire(strict) for _ in range(4)]
    assert all(wire.line().startswith(b"* OK") for wire in wires)
    with closing(Wire(strict)) as late:
        assert late.line().startswith(b"* BYE [LIMIT] Too many connections")
        assert late.line() == b""
    for wire in wires:
        wire.close()
    until(lambda: not strict.server.strangers and not strict.server.connections)


def _trusting_nobody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_handshakes_that_never_end_count_as_connections_of_their_address(strict: Running) -> None:
    silent = [socket.create_connection((HOST, strict.tls_port), 60) for _ in range(4)]
    until(lambda: len(strict.server.handshakes) == 4)
    with closing(Wire(strict)) as late:
        assert late.line().startswith(b"* BYE [LIMIT] Too many connections")
    with closing(socket.create_connection((HOST, strict.tls_port), 60)) as fifth, suppress(ConnectionError):
        assert fifth.recv(10) == b""
    for one in silent:
        one.close()
    until(lambda: not strict.server.handshakes and not strict.server.strangers)
    plain = socket.create_connection((HOST, strict.tls_port), 60)
    with _trusting_nobody().wrap_socket(plain) as encrypted:
        assert encrypted.recv(100).startswith(b"* OK")
        assert strict.server.strangers == {HOST: 1}
        assert [connection.tls for connection in strict.server.connections] == [True]


def test_what_comes_in_one_piece_with_the_end_of_the_handshake_is_not_lost(strict: Running) -> None:
    for port, hello in ((strict.tls_port, b""), (strict.port, b"a STARTTLS\r\n")):
        for _ in range(5):
            with socket.create_connection((HOST, port), 60) as plain:
                if hello:
                    plain.recv(1000)
                    plain.sendall(hello)
                    assert plain.recv(1000).startswith(b"a OK")
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                client = _trusting_nobody().wrap_bio(incoming, outgoing)
                while True:
                    try:
                        client.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        incoming.write(plain.recv(65536))
                client.write(b"b NOOP\r\n")
                plain.sendall(outgoing.read())  # the client's Finished and its first command
                heard = b""
                while b"b OK" not in heard:
                    try:
                        heard += client.read(1000)
                    except ssl.SSLWantReadError:
                        incoming.write(plain.recv(65536))


def test_sessions_of_one_account_are_limited(strict: Running, alice: Person) -> None:
    with closing(Wire(strict)) as one, closing(Wire(strict)) as two, closing(Wire(strict)) as three:
        assert one.log_in(alice).startswith(b"a OK")
        assert two.log_in(alice).startswith(b"a OK")
        assert three.log_in(alice).startswith(b"a NO [LIMIT]")
        assert one.say("b LOGOUT").startswith(b"b OK")
        assert one.line() == b""
        until(lambda: strict.server.sessions[alice.account_id] == 1)
        assert three.say(f'c LOGIN {alice.address} "{alice.password}"').startswith(b"c OK")


def test_a_client_that_stops_reading_costs_a_bounded_buffer_and_no_database_connection(
    strict: Running, alice: Person
) -> None:
    body = b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * 100_000
    for _ in range(30):
        strict.deliver(alice.account_id, body)
    with closing(Wire(strict)) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.log_in(alice)
        wire.say("b SELECT INBOX")
        wire.file.write(b"c FETCH 1:* BODY.PEEK[]\r\n")
        wire.file.flush()
        (connection,) = strict.server.connections
        until(lambda: connection._drained is not None)
        assert connection.transport is not None
        # One batch beyond the high-water mark at most, of 50 MB that are asked for.
        assert connection.transport.get_write_buffer_size() < 4 * 1024 * 1024
        until(lambda: strict.call(_free_connections()) > 0)

        def cut_off() -> bool:
            connection.deadline -= LIMITS.stalled  # as if so much time had passed
            return not strict.server.connections

        until(cut_off)


async def _free_connections() -> int:
    assert db._pool is not None
    stats = db._pool.get_stats()
    return stats["pool_available"]


def test_closing_the_server_says_goodbye_to_everyone(alice: Person) -> None:
    running = Running(LIMITS)
    with closing(Wire(running)) as stranger, closing(Wire(running)) as idler:
        assert stranger.line().startswith(b"* OK")
        idler.log_in(alice)
        idler.say("b SELECT INBOX")
        idler.say("c IDLE")
        running.stop()
        for wire in (stranger, idler):
            assert wire.line() == b"* BYE The server is shutting down, come back soon\r\n"
            assert wire.line() == b""


def test_sessions_survive_a_database_that_is_away(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    imap.deliver(alice.account_id, b"Subject: one\r\n\r\n1\r\n")
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        assert wire.say("b SELECT INBOX").startswith(b"b OK")
        working = db._connection

        def away() -> object:
            raise MailError(Code.UNAVAILABLE, "the database is not available, try again later", "test")

        monkeypatch.setattr(db, "_connection", away)
        for command in (
            "c FETCH 1 FLAGS",
            "d STORE 1 +FLAGS (\\Seen)",
            "e STATUS INBOX (MESSAGES)",
            "f SEARCH BODY one",
            "g COPY 1 Trash",
            "h APPEND INBOX {5+}\r\nhello",
            "i EXPUNGE",
            'j LIST "" *',
        ):
            tag = command.split()[0].encode()
            assert wire.say(command).startswith(tag + b" NO [UNAVAILABLE] "), command
        assert wire.say("k NOOP").startswith(b"k OK")
        assert wire.say("l CAPABILITY").startswith(b"l OK")
        monkeypatch.setattr(db, "_connection", working)
        assert wire.say("m STORE 1 +FLAGS (\\Seen)").startswith(b"m OK")
        assert wire.say("n FETCH 1 FLAGS").startswith(b"n OK")


def test_an_unexpected_failure_is_a_server_bug_and_not_the_end(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailcore.store import mailboxes

    async def broken(*args: object) -> object:
        raise ZeroDivisionError("secret detail")

    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        monkeypatch.setattr(mailboxes, "by_name", broken)
        answer = wire.say("b SELECT INBOX")
        assert answer.startswith(b"b NO [SERVERBUG] ")
        assert b"secret" not in answer
        monkeypatch.undo()
        assert wire.say("c SELECT INBOX").startswith(b"c OK")


def test_a_full_quota_refuses_before_and_after_the_literal(imap: Running, alice: Person) -> None:
    from mailcore.store import quota

    async def limit(octets: int | None) -> None:
        async with db.transaction() as tx:
            await quota.set_limit(tx, alice.account_id, octets)

    imap.call(limit(300))
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        assert wire.say("b APPEND INBOX {400000}").startswith(b"b NO [OVERQUOTA] ")  # too large to come in vain
        assert wire.say("b APPEND INBOX {400}").startswith(b"+ ")
        wire.file.write(b"x" * 400 + b"\r\n")
        wire.file.flush()
        assert wire.line().startswith(b"b NO [OVERQUOTA] ")
        message = "Subject: x\r\n\r\n" + "x" * 185
        assert wire.say(f"c APPEND INBOX {{{len(message)}+}}\r\n{message}").startswith(b"c OK")
        assert wire.say("d SELECT INBOX").startswith(b"d OK")
        assert wire.say("e COPY 1 Trash").startswith(b"e NO [OVERQUOTA] ")
        assert wire.say(f"f APPEND INBOX {{{len(message)}+}}\r\n{message}").startswith(b"f NO [OVERQUOTA] ")
        assert wire.say("g MOVE 1 Trash").startswith(b"g OK")
        imap.call(limit(None))
        assert wire.say(f"h APPEND INBOX {{{len(message)}+}}\r\n{message}").startswith(b"h OK")


def test_idle_hears_of_new_mail_without_asking_for_it(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "POLL_SECONDS", 3_600)
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        wire.say("b SELECT INBOX")
        wire.say("c IDLE")
        for n in range(5):
            imap.deliver(alice.account_id, b"Subject: new\r\n\r\n%d\r\n" % n)
            while b"EXISTS" not in (line := wire.line()):
                assert line


def test_messages_larger_than_memory_wants_them_pass_through(
    imap: Running, alice: Person, people: Callable[[str], Person]
) -> None:
    body = b"".join(b"%08d line of a large message\r\n" % n for n in range(45_000))
    message = b"Subject: large\r\nContent-Type: text/plain\r\n\r\n" + body
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        wire.file.write(b"b APPEND INBOX {%d}\r\n" % len(message))
        wire.file.flush()
        assert wire.line().startswith(b"+")
        wire.file.write(message + b"\r\n")
        wire.file.flush()
        assert wire.line().startswith(b"b OK [APPENDUID ")
        wire.say("c SELECT INBOX")
        wire.file.write(b"d FETCH 1 (BODY.PEEK[] BODY.PEEK[TEXT]<10.20> BINARY.PEEK[1])\r\n")
        wire.file.flush()
        assert wire.line() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(message)
        assert wire.file.read(len(message)) == message
        assert wire.line() == b" BODY[TEXT]<10> {20}\r\n"
        assert wire.file.read(20) == body[10:30]
        assert wire.line() == b" BINARY[1] {%d}\r\n" % len(body)
        assert wire.file.read(len(body)) == body
        assert wire.line() == b")\r\n"
        assert wire.line().startswith(b"d OK")


def test_a_large_message_that_cannot_be_sent_to_its_end_is_cut_off_without_a_word(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * 300_000
    imap.deliver(alice.account_id, message)
    from mailcore.store import fetch

    read = fetch.raw

    async def broken(tx: db.Tx, account_id: int, message_id: int, start: int = 0, length: int | None = None) -> bytes:
        if start:
            raise MailError(Code.UNAVAILABLE, "the database is not available, try again later")
        return await read(tx, account_id, message_id, start, length)

    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        wire.say("b SELECT INBOX")
        monkeypatch.setattr(fetch, "raw", broken)
        wire.file.write(b"c FETCH 1 BODY.PEEK[]\r\n")
        wire.file.flush()
        assert wire.line() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(message)
        rest = wire.file.read()
        # No octet that is not the message's: a client must not take an excuse for mail.
        assert 0 < len(rest) < len(message)
        assert message.startswith(rest)
