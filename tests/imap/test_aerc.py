"""aerc on a terminal: reads, flags, moves, deletes and answers over TLS, as somebody types it."""

from __future__ import annotations

import email
import email.policy
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import imapclient
import pytest

from mailcore import tls
from mailcore.conf import conf
from mailcore.smtp import server as smtp
from mailcore.smtp.policy import SUBMISSION, SUBMISSIONS
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.waiting import PATIENCE

ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cM]|\][^\x07\x1b]*(?:\x07|\x1b\\))|[\x00-\x1f]+")
NUMBERS = ("one", "two", "three", "four", "five")


@dataclass(slots=True)
class Terminal:
    """A program on a terminal of its own: what it drew so far, and keys for it."""

    process: subprocess.Popen[bytes]
    screen: int
    drawn: bytearray = field(default_factory=bytearray)

    def words(self, since: int = 0) -> bytes:
        """What was drawn after that many octets, without the escapes between."""
        while select.select([self.screen], [], [], 0.05)[0]:
            try:
                self.drawn += os.read(self.screen, 65536)
            except OSError:  # the program has ended
                break
        return ESCAPES.sub(b" ", bytes(self.drawn[since:]))

    def type(self, keys: str) -> int:
        """Type this; returns how much had been drawn before."""
        before = len(self.drawn)
        os.write(self.screen, keys.encode())
        return before

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.words()[-3000:]
            self.words()

    def shows(self, text: str, since: int = 0) -> None:
        self.until(lambda: text.encode() in self.words(since))


@contextmanager
def on_a_terminal(argv: list[str], environ: dict[str, str]) -> Iterator[Terminal]:
    screen, inner = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    # A session of its own, whose terminal this is: aerc opens /dev/tty.
    process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=inner, stdout=inner, stderr=inner, env=environ)
    os.close(inner)
    try:
        yield Terminal(process, screen)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(screen)


@pytest.fixture
def submission(imap: Running) -> Iterator[dict[str, int]]:
    """The ports of a submission server beside the IMAP server, by how TLS begins there."""

    async def start() -> tuple[smtp.Server, dict[str, int]]:
        settings = replace(conf, smtp_port=0, submission_port=0, submissions_port=0, checks=("off",))
        server = await smtp.start(settings, tls.Certificates(conf), ingest=imap.ingest)
        policies = {"STARTTLS": SUBMISSION, "TLS": SUBMISSIONS}
        return server, {name: await server.listen(policy, HOST, 0) for name, policy in policies.items()}

    server, ports = imap.call(start())
    yield ports
    imap.call(server.close())


def configure(home: Path, person: Person, reading: str, sending: str) -> dict[str, str]:
    """Write aerc's files; `reading` and `sending` are its addresses of servers, with a place for the login.

    Returns its environment.
    """
    folder = home / "aerc"
    folder.mkdir()
    login = f"{quote(person.address, safe='')}:{quote(person.password, safe='')}"
    accounts = folder / "accounts.conf"
    accounts.write_text(
        f"[home]\nsource = {reading.format(login)}\noutgoing = {sending.format(login)}\n"
        f"from = Alice Example <{person.address}>\ncopy-to = Sent\ndefault = INBOX\n"
    )
    accounts.chmod(0o600)
    editor = home / "editor"
    editor.write_text('#!/bin/sh\n{ echo "Danke schön – bis bald!"; cat "$1"; } >"$1.new" && mv "$1.new" "$1"\n')
    editor.chmod(0o700)
    (folder / "aerc.conf").write_text(
        f"[viewer]\npager = cat\n[compose]\neditor = {editor}\n[filters]\ntext/plain = cat\n"
        "[general]\nunsafe-accounts-conf = false\n"
    )
    (folder / "binds.conf").write_text("[messages]\n[view]\n[compose]\n[compose::editor]\n[compose::review]\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return {
        **environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(home),
        "SSL_CERT_FILE": str(conf.data / "tls" / "cert.pem"),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
    }


@pytest.mark.programs("aerc")
@pytest.mark.parametrize("how", ["TLS", "STARTTLS"])
def test_aerc_reads_flags_moves_deletes_and_answers(
    imap: Running,
    people: Callable[[str], Person],
    submission: dict[str, int],
    program: Callable[[str], str],
    tmp_path: Path,
    how: str,
) -> None:
    alice, bob = people("alice"), people("bob")
    for name in NUMBERS:
        imap.deliver(
            alice.account_id,
            f"From: Bob <{bob.address}>\r\nTo: {alice.address}\r\nSubject: Letter {name}\r\n"
            f"Message-ID: <{name}@x>\r\nDate: Sun, 22 Nov 2026 08:00:00 +0000\r\nMIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            f"Schöne Grüße, {name}.\r\n".encode(),
        )
    servers = {
        "TLS": (f"imaps://{{}}@localhost:{imap.tls_port}", f"smtps+plain://{{}}@localhost:{submission['TLS']}"),
        "STARTTLS": (
            f"imap://{{}}@localhost:{imap.port}",
            f"smtp+login://{{}}@localhost:{submission['STARTTLS']}\nsmtp-starttls = yes",
        ),
    }
    environ = configure(tmp_path, alice, *servers[how])
    client = imapclient.IMAPClient(HOST, imap.port, ssl=False)
    client.login(alice.address, alice.password)

    def flags(mailbox: str, name: str) -> set[bytes] | None:
        client.select_folder(mailbox, readonly=True)
        found = client.get_flags(client.search(["HEADER", "Message-ID", f"<{name}@x>"]))
        return next((set(each) - {rb"\Recent"} for each in found.values()), None)

    with client, on_a_terminal([program("aerc")], environ) as terminal:
        terminal.shows("Letter one")
        # The newest is the first line: five, four, three, two, one.
        terminal.type(":select 4\r")
        since = terminal.type(":view\r")
        terminal.shows("Schöne Grüße, one.", since)
        terminal.until(lambda: flags("INBOX", "one") == {rb"\Seen"})
        terminal.type(":close\r")

        terminal.type(":select 3\r:flag\r")
        terminal.until(lambda: flags("INBOX", "two") == {rb"\Flagged"})
        terminal.type(":select 2\r:move Archive\r")
        terminal.until(lambda: flags("INBOX", "three") is None)
        assert flags("Archive", "three") == set()
        terminal.type(":select 0\r:delete\r")
        terminal.until(lambda: flags("INBOX", "five") is None)

        # Four, two, one are left.
        terminal.type(":select 0\r:reply -q\r")
        terminal.shows("Send this email?")
        terminal.type(":send\r")
        terminal.until(lambda: flags("INBOX", "four") == {rb"\Answered"})

        # In capitals: what stands in its place already would not be drawn again.
        imap.deliver(alice.account_id, b"From: c@example.org\r\nSubject: JETZT\r\nMessage-ID: <now@x>\r\n\r\nnow\r\n")
        terminal.shows("JETZT")

        def kept() -> list[int]:
            client.select_folder("Sent", readonly=True)
            return client.search()

        terminal.until(kept)
        terminal.type(":quit\r")
        terminal.until(lambda: terminal.process.poll() is not None)
        assert {name: flags("INBOX", name) for name in NUMBERS} == {
            "one": {rb"\Seen"},
            "two": {rb"\Flagged"},
            "three": None,
            "four": {rb"\Answered"},
            "five": None,
        }
        client.select_folder("Sent", readonly=True)
        ((_, copy),) = client.fetch(client.search(), ["BODY.PEEK[]", "FLAGS"]).items()
        assert rb"\Seen" in copy[b"FLAGS"]
    with imapclient.IMAPClient(HOST, imap.port, ssl=False) as client:
        client.login(bob.address, bob.password)
        client.select_folder("INBOX")
        ((_, item),) = client.fetch(client.search(), ["BODY.PEEK[]"]).items()
    answer = email.message_from_bytes(item[b"BODY[]"], policy=email.policy.default)
    assert isinstance(answer, EmailMessage)
    assert (answer["Subject"], answer["In-Reply-To"]) == ("Re: Letter four", "<four@x>")
    assert answer["From"] == f"Alice Example <{alice.address}>"
    words = answer.get_content()
    assert words.startswith("Danke schön – bis bald!")
    assert "> Schöne Grüße, four." in words
    assert copy[b"BODY[]"].endswith(item[b"BODY[]"].partition(b"\r\n\r\n")[2])
