"""SORT and THREAD give what Dovecot gives, on random mail whose headers are what real ones are: odd."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

DOVECOT = "/usr/lib/dovecot/imap"
NOBODY = 65534

SORTS = (
    *("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO", "REVERSE DATE"),
    *("SUBJECT REVERSE DATE", "REVERSE FROM SUBJECT", "REVERSE CC REVERSE TO SIZE", "REVERSE DISPLAYFROM ARRIVAL"),
)
THREADS = ("ORDEREDSUBJECT", "REFERENCES", "REFS")
NAMES = ("Ann", "bob", "Zoe", "=?utf-8?q?=C3=81da?=", "MARK", '"Smith, J"', "")
SUBJECTS = (
    *("Plan", "Re: Plan", "plan", "Re: [list] Plan", "Fwd: lunch", "lunch", "Lunch (fwd)", "[a] [b] Re[2]: lunch"),
    *("", "=?utf-8?b?w4RyZ2Vy?=", "Re: =?utf-8?q?=C3=A4rger?=", "Re:", "[x]", "zoo", "RE: re: FW: zoo", "[fwd: zoo]"),
)


def mail(rnd: random.Random, n: int, count: int) -> bytes:
    def person() -> str:
        return f"{rnd.choice(NAMES)} <{rnd.choice('abcDE')}{rnd.randrange(3)}@example.org>"

    lines = []
    for name, share in (("From", 0.9), ("To", 0.8), ("Cc", 0.4)):
        if rnd.random() < share:
            lines.append(f"{name}: {person()}, other@example.net")
    if rnd.random() < 0.95:
        lines.append(f"Subject: {rnd.choice(SUBJECTS)}")
    if rnd.random() < 0.9:
        zone = rnd.choice(("+0000", "-0800", "+0530"))
        lines.append(f"Date: {rnd.randrange(1, 28)} Mar 2022 {rnd.randrange(24):02}:00:00 {zone}")
    if rnd.random() < 0.95:
        # Now and then two messages have one identifier.
        lines.append(f"Message-ID: <{n if rnd.random() < 0.95 else max(0, n - 1)}@example.org>")
    ids = [f"<{rnd.randrange(count + 5)}@example.org>" for _ in range(rnd.randrange(1, 4))]
    lines.append(rnd.choice((f"References: {' '.join(ids)}", f"In-Reply-To: {ids[0]}", "X-None: of both")))
    return "\r\n".join([*lines, "", "x" * rnd.randrange(50), ""]).encode()


class Wire:
    """Commands and their untagged answers."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self.reader, self.writer = reader, writer
        assert reader.readline().startswith(b"* ")

    def run(self, command: bytes) -> list[bytes]:
        self.writer.write(b"a " + command + b"\r\n")
        self.writer.flush()
        answers = []
        while not (line := self.reader.readline()).startswith(b"a "):
            assert line, command
            answers.append(line)
        assert line.startswith(b"a OK"), (command, line)
        return answers

    def ask(self, command: str) -> bytes:
        """The one answer that names messages."""
        word = command.split()[0].encode()
        (answer,) = [line for line in self.run(command.encode()) if line.startswith(b"* " + word)]
        return answer.strip()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that another user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="dovecot-") as folder:
        yield Path(folder)


@pytest.fixture
def dovecot(home: Path) -> Iterator[Wire]:
    root = os.getuid() == 0
    uid = NOBODY if root else os.getuid()
    if root:
        os.chown(home, uid, uid)
    config = home / "dovecot.conf"
    config.write_text(
        f"base_dir = {home}/run\nmail_location = maildir:{home}/Maildir\nlog_path = /dev/stderr\nssl = no\n"
        f"protocols = imap\nmail_uid = {uid}\nmail_gid = {uid}\nfirst_valid_uid = 8\nfirst_valid_gid = 8\n"
    )
    command = [DOVECOT, "-c", str(config)]
    environment = {"HOME": str(home), "USER": "reader", "PATH": os.environ["PATH"]}
    pipe = subprocess.PIPE
    if root:  # as which it gives nobody access to mail
        command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *command]
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
    with server:
        yield Wire(cast(BinaryIO, server.stdout), cast(BinaryIO, server.stdin))
        server.kill()


def top_level(answer: bytes) -> list[bytes]:
    """The threads of an answer, in any order."""
    found, depth, start = [], 0, 0
    for at, sign in enumerate(answer):
        if sign == ord("("):
            start = at if not depth else start
            depth += 1
        elif sign == ord(")"):
            depth -= 1
            if not depth:
                found.append(answer[start : at + 1])
    return sorted(found)


@pytest.mark.programs(DOVECOT)
def test_dovecot_sorts_and_threads_alike(imap: Running, alice: Person, dovecot: Wire) -> None:
    with socket.create_connection((HOST, imap.port), 60) as connection:
        stream = cast(BinaryIO, connection.makefile("rwb"))
        ours = Wire(stream, stream)
        ours.run(f'LOGIN "{alice.address}" "{alice.password}"'.encode())
        for seed in range(6):
            rnd = random.Random(seed)
            count = rnd.choice((6, 12, 25, 40))
            for wire in (ours, dovecot):
                wire.run(b"CREATE box%d" % seed)
            for n in range(count):
                raw = mail(rnd, n, count)
                when = b'"%02d-Apr-2022 %02d:00:00 +0000"' % (rnd.randrange(1, 28), rnd.randrange(24))
                for wire in (ours, dovecot):
                    wire.run(b"APPEND box%d %b {%d+}\r\n%b" % (seed, when, len(raw), raw))
            for wire in (ours, dovecot):
                wire.run(b"SELECT box%d" % seed)
            for keys in SORTS:
                command = f"SORT ({keys}) UTF-8 ALL"
                assert ours.ask(command) == dovecot.ask(command), (seed, command)
            for algorithm in THREADS:
                for some in ("ALL", "NOT 2:4"):
                    command = f"THREAD {algorithm} UTF-8 {some}"
                    mine, other = ours.ask(command), dovecot.ask(command)
                    if algorithm == "REFS":
                        # The draft puts threads in the order of arrival, Dovecot in that of sent dates.
                        assert top_level(mine) == top_level(other), (seed, command)
                    else:
                        assert mine == other, (seed, command)
