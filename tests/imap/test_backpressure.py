"""A client that stops reading costs a bounded buffer and no database connection, whatever it has asked for."""

from __future__ import annotations

import os
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connection as database

from mailcore.imap import server as imap_server
from mailcore.imap.limits import Limits
from tests.imap.conftest import Person
from tests.imap.process import MailProcess, mail_process
from tests.imap.running import HOST, Running
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("db")  # a test that runs alone needs it, too

MEGABYTE = 1024 * 1024
COPIES, SMALL = 100, 4_000
NOISE = os.urandom(MEGABYTE).hex().encode()
BODY = b"Subject: noise\r\n\r\n" + b"\r\n".join(NOISE[at : at + 76] for at in range(0, len(NOISE), 76)) + b"\r\n"
# Growth of the mail process, in kB: a fraction of what was asked for.
ALLOWED = 16 * 1024
QUIET_SAMPLES = 40


class Reader:
    """A client that reads when it is told to."""

    def __init__(self, port: int, person: Person, way: str = "plain", *, window: int = 8192) -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.settimeout(60)
        plain.connect((HOST, port))
        self.socket = plain
        if way == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(plain)
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        self._tail = b""
        self.octets = 0
        self.run(f'a LOGIN {person.address} "{person.password}"')
        if way == "compressed":
            self.run("a COMPRESS DEFLATE")
            self._deflater, self._inflater = zlib.compressobj(1, zlib.DEFLATED, -15), zlib.decompressobj(-15)

    def send(self, *commands: str) -> None:
        data = b"".join(command.encode() + b"\r\n" for command in commands)
        if self._deflater is not None:
            data = self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        self.socket.sendall(data)

    def until(self, end: bytes) -> bytes:
        """Read until `end` has come; the last octets."""
        while end not in self._tail:
            data = self.socket.recv(1 << 18)
            assert data, f"closed after {self._tail[-200:]!r}"
            if self._inflater is not None:
                data = self._inflater.decompress(data)
            self.octets += len(data)
            self._tail = self._tail[-200:] + data
        said, self._tail = self._tail, self._tail.partition(end)[2]
        return said

    def run(self, command: str) -> None:
        tag = command.split()[0]
        self.send(command)
        assert b"\r\n" + f"{tag} OK".encode() in b"\r\n" + self.until(f"{tag} OK".encode())

    @property
    def stuck(self) -> bool:
        """The server's kernel cannot get rid of what it has for this client."""
        ours = self.socket.getsockname()[1]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(int(row[4].partition(":")[0], 16) for row in rows if row[2].endswith(f":{ours:04X}"))

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class Served:
    """The process, and an account with 200 MB in INBOX and thousands of small messages in Small."""

    process: MailProcess
    person: Person

    def reader(self, way: str = "plain") -> Reader:
        return Reader(self.process.tls_port if way == "tls" else self.process.port, self.person, way)

    def busy(self) -> int:
        """Connections of the process to the database that do something or hold a transaction."""
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state <> 'idle'",
                [self.process.environ["PGAPPNAME"]],
            )
            return int(cursor.fetchone()[0])

    def stall(self, client: Reader, before: int) -> int:
        """Wait until a client that does not read has brought everything to a halt; the most that it cost, in kB."""
        most = quiet = 0
        deadline = time.monotonic() + 300  # two hundred answers may fit before it is stuck: minutes on a busy machine
        while quiet < QUIET_SAMPLES:
            assert time.monotonic() < deadline, "the database never came to rest, or the client has had all its answers"
            quiet = quiet + 1 if client.stuck and not self.busy() else 0
            most = max(most, self.process.memory_kb() - before)
            time.sleep(0.01)
        return most


@pytest.fixture(scope="module")
def served(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from mailcore import provision
    from tests.imap.conftest import PASSWORD

    provision.add_domain("stalled.example")
    account = provision.add_account("reader@stalled.example", password=PASSWORD)
    person = Person(account.pk, "reader@stalled.example")
    with mail_process(tmp_path_factory.mktemp("mail")) as process:
        served = Served(process, person)
        with closing(served.reader()) as client:
            client.send(f"b APPEND INBOX {{{len(BODY)}+}}\r\n{BODY.decode()}")
            client.until(b"b OK")
            client.run("c CREATE Small")
            small = "Subject: s\r\n\r\nx"
            client.send("d APPEND Small" + f" {{{len(small)}+}}\r\n{small}" * 500)
            client.until(b"d OK")
            client.run("e SELECT INBOX")
            while client_count(client) < COPIES:
                client.run("f COPY 1:* INBOX")
                client.run("g NOOP")
            client.run("h SELECT Small")
            for _ in range(SMALL // 500 - 1):
                client.run("i COPY 1:500 Small")
        for way in ("plain", "tls", "compressed"):  # what the first time costs is no part of it
            with closing(served.reader(way)) as client:
                client.run("a SELECT INBOX")
                client.run("b FETCH 1:10 BODY.PEEK[]")
                client.run("c SELECT Small")
                client.run("d UID SEARCH ALL")
                client.run("e FETCH 1:* (FLAGS ENVELOPE)")
        yield served


def client_count(client: Reader) -> int:
    client.send("z STATUS INBOX (MESSAGES)")
    said = client.until(b"z OK")
    return int(said.partition(b"(MESSAGES ")[2].partition(b")")[0])


EACH = [f"c UID FETCH {uid} (BODY.PEEK[])" for uid in range(1, COPIES + 1)]


@pytest.mark.parametrize(
    ("way", "commands"),
    [*((way, ["c FETCH 1:* BODY.PEEK[]"]) for way in ("plain", "tls", "compressed")), ("compressed", EACH)],
    ids=["plain", "tls", "compressed", "pipelined"],
)
def test_two_hundred_megabytes_that_nobody_reads(served: Served, way: str, commands: list[str]) -> None:
    with closing(served.reader(way)) as client:
        client.run("b SELECT INBOX")
        before = served.process.memory_kb()
        client.send(*commands)
        most = served.stall(client, before)
        print(f"{way}: {most} kB")
        assert most < ALLOWED
        if way == "plain":  # and when it reads on, all of it is there
            client.octets = 0
            client.until(b"c OK")
            assert client.octets > COPIES * len(BODY)


ANSWERS = {
    ("search", "plain"): ["c UID SEARCH ALL"] * 1_000,
    ("search", "compressed"): ["c UID SEARCH ALL"] * 3_000,
    ("sort", "plain"): ["c UID SORT (SUBJECT) UTF-8 ALL"] * 1_000,
    ("thread", "plain"): ["c UID THREAD REFERENCES UTF-8 ALL"] * 1_000,
    ("list", "plain"): ['c LIST "" * RETURN (STATUS (MESSAGES UNSEEN SIZE))'] * 10_000,
    ("envelopes", "plain"): ["c FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)"] * 50,
    ("headers", "compressed"): ["c UID FETCH 1:* (BODY.PEEK[HEADER])"] * 200,
    ("store", "plain"): ["c STORE 1:* +FLAGS (\\Seen)", "c STORE 1:* -FLAGS (\\Seen)"] * 40,
}


@pytest.mark.parametrize(("what", "way"), ANSWERS)
def test_many_answers_that_nobody_reads(served: Served, what: str, way: str) -> None:
    with closing(served.reader(way)) as client:
        client.run("b SELECT Small")
        before = served.process.memory_kb()
        client.socket.settimeout(0.5)
        try:
            client.send(*ANSWERS[what, way])
        except TimeoutError:
            pass  # the server does not read on either
        most = served.stall(client, before)
        print(f"{what}, {way}: {most} kB")
        assert most < ALLOWED


def test_a_flood_of_notifications_that_nobody_reads(served: Served) -> None:
    with closing(served.reader()) as watcher, closing(served.reader()) as other:
        watcher.run("b SELECT Small")
        watcher.run(
            "c NOTIFY SET (selected (MessageNew (UID FLAGS ENVELOPE BODYSTRUCTURE) MessageExpunge FlagChange))"
            " (personal (MessageNew MessageExpunge FlagChange MailboxName))"
        )
        other.run("b SELECT Small")
        other.run("c STORE 1:* +FLAGS.SILENT (\\Flagged)")
        before = served.process.memory_kb()
        for number in range(30):
            other.run(f"d STORE 1:* {'-+'[number % 2]}FLAGS.SILENT (\\Flagged)")
            other.run("e COPY 1:100 Small")
        for number in range(30):
            other.run(f"f CREATE Box{number}")
        most = served.stall(watcher, before)
        print(f"notify: {most} kB")
        assert most < ALLOWED
        watcher.send("g NOTIFY NONE")
        watcher.until(b"g OK")


LIMITS = Limits(login=1_000, idle=1_000, stalled=1.0, shutdown=1.0, output=64 * 1024)


@pytest.fixture(scope="module")
def hasty(database: None) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imap_server, "SWEEP_SECONDS", 0.1)
        running = Running(LIMITS, 4 * MEGABYTE)
        yield running
        running.stop()


@pytest.mark.parametrize("way", ["plain", "tls", "compressed"])
def test_who_leaves_answers_unread_for_too_long_is_cut_off(
    hasty: Running, people: Callable[[str], Person], way: str
) -> None:
    alice = people("alice")
    for _ in range(5):
        hasty.deliver(alice.account_id, BODY)
    with closing(Reader(hasty.tls_port if way == "tls" else hasty.port, alice, way)) as client:
        client.run("b SELECT INBOX")
        client.send("c FETCH 1:* BODY.PEEK[]")
        until(lambda: not hasty.server.connections)


def test_a_large_message_of_a_few_octets_at_a_time(served: Served, tmp_path: Path) -> None:
    """A client that asks for a slice of a message again and again reads that slice, not the message."""
    with closing(served.reader()) as client:
        client.run("b EXAMINE INBOX")
        before = served.process.memory_kb()
        for at in range(0, 1_000_000, 50_000):
            client.run(f"c FETCH 1 BODY.PEEK[]<{at}.100>")
        assert served.process.memory_kb() - before < ALLOWED
