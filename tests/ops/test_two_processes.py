"""Two mail processes share the ports: sessions of both see each other's changes, and one may die without the other."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ops.installation import Installation, installation

SESSIONS = 16


class Session:
    """An IMAP client of a few words, in IDLE on its INBOX unless it is told otherwise."""

    def __init__(self, made: Installation) -> None:
        self.socket = socket.create_connection(("127.0.0.1", made.ports["IMAP"]), timeout=60)
        self.file = self.socket.makefile("rwb")
        self.file.readline()
        self.say(f'a LOGIN admin@example.test "{made.password()}"')
        self.say("b SELECT INBOX")
        self.idle()

    def say(self, text: str) -> list[bytes]:
        tag = text.split()[0].encode() + b" "
        self.file.write(text.encode() + b"\r\n")
        self.file.flush()
        return self.until(tag)

    def idle(self) -> None:
        self.file.write(b"c IDLE\r\n")
        self.file.flush()
        self.until(b"+ ")

    def done(self) -> None:
        self.file.write(b"DONE\r\n")
        self.file.flush()
        self.until(b"c ")

    def until(self, start: bytes, part: bytes = b"") -> list[bytes]:
        """Lines up to the one that begins so and holds `part`."""
        lines = []
        while not (lines and lines[-1].startswith(start) and part in lines[-1]):
            lines.append(self.file.readline())
            assert lines[-1], lines
        return lines

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("two") / "data", MAILSTEAD_PROCESSES="2") as made:
        made.start()
        made.wait_ready()
        yield made


def server_of(session: Session, made: Installation) -> str:
    """The mail process that serves a session: the one whose end of the connection has the client's as its peer."""
    port = session.socket.getsockname()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if row[2].endswith(f":{port:04X}"))
    for name, pid in made.children().items():
        if name.startswith("mail"):
            links = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            if f"socket:[{inode}]" in links:
                return name
    raise AssertionError("nobody serves it")


def end(pid: int) -> None:
    """Kill a process and wait until its last thread is gone: until then the kernel hands its listeners new clients."""
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)


def send(made: Installation, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", made.ports["SMTP"], timeout=60) as client:
        client.sendmail("far@elsewhere.example", ["admin@example.test"], f"Subject: {subject}\r\n\r\n{subject}\r\n")


def test_sessions_of_two_processes_see_each_others_changes(running: Installation) -> None:
    with ExitStack() as stack:
        sessions = []
        for _ in range(SESSIONS):
            session = Session(running)
            stack.callback(session.close)
            sessions.append(session)
        by_server: dict[str, list[Session]] = {}
        for session in sessions:
            by_server.setdefault(server_of(session, running), []).append(session)
        assert set(by_server) == {"mail-1", "mail-2"}, "the kernel gives both of them clients"
        send(running, "one")
        for session in sessions:
            session.until(b"* ", b"EXISTS")
        actor = by_server["mail-1"][0]
        actor.done()
        actor.say("d STORE 1 +FLAGS (\\Flagged)")
        for session in sessions:
            if session is not actor:
                session.until(b"* ", b"\\Flagged")
        # One process dies: its clients are cut, those of the other go on and hear what comes by whoever is left.
        end(running.children()["mail-1"])
        send(running, "two")
        for session in by_server["mail-2"]:
            session.until(b"* ", b"EXISTS")
        late = Session(running)
        stack.callback(late.close)
        late.done()
        assert b"* 2 EXISTS\r\n" in late.say("e SELECT INBOX")
