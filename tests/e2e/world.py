"""One installation, started as people start it, with a real mail server and a real DNS server beside it on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
from imapclient import IMAPClient

from tests import postfix
from tests.e2e import letters, names
from tests.e2e.names import Record
from tests.ops.installation import Installation, gone, installation
from tests.ports import free_ports
from tests.postfix import Postfix
from tests.waiting import PATIENCE, until

HOST = "mx.mailstead.example"
HOME, ANN, BOB, TINY = "home.example", "ann@home.example", "bob@home.example", "tiny@home.example"
FAR, CAROL, SLOW, NOBODY = "far.example", "carol@far.example", "slow@far.example", "nobody@far.example"
PASSWORD = "correct horse battery"
# Other servers that tests start themselves, on the port of Postfix: domain and address.
OTHERS = {"exim.example": "127.0.0.2", "open.example": "127.0.0.3"}
TINY_QUOTA = 64 * 1024
MESSAGE_SIZE = 2 * 1024 * 1024

# What we put before a message (docs/flow.md), and nothing else: Return-Path, and Received with the trace id.
TRACE_LINES = re.compile(
    rb"Return-Path: <(?P<sender>[^>\r\n]*)>\r\n"
    rb"Received: from [^\r\n]+\r\n(?:\t\(using [^\r\n]+\)\r\n\t\(No client[^\r\n]+\)\r\n)?"
    rb"\tby " + re.escape(HOST).encode() + rb" with (?P<protocol>\w+) id (?P<id>[0-9a-z]{15})"
    rb"(?:\r\n\tfor <[^>\r\n]+>)?;\r\n"
    rb"\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)


def sent_octets(stored: bytes) -> bytes:
    """A stored message without the trace lines that receiving has put before it."""
    match = TRACE_LINES.match(stored)
    assert match, stored[:500]
    return stored[match.end() :]


@dataclass(frozen=True, slots=True)
class World:
    """Mailstead at home.example, Postfix at far.example; `find` gives the path of a program."""

    made: Installation
    postfix: Postfix
    folder: Path
    dns_port: int
    gate_port: int
    records: tuple[Record, ...]
    find: Callable[[str], str]

    @contextlib.contextmanager
    def imap(self, address: str, mailbox: str | None = "INBOX") -> Iterator[IMAPClient]:
        """A session over TLS, with a mailbox selected."""
        trust = ssl.create_default_context(cafile=self.made.data / "tls" / "cert.pem")
        trust.check_hostname = False  # it names the host, we connect to an address
        with IMAPClient("127.0.0.1", self.made.ports["IMAPS"], ssl_context=trust, timeout=60) as client:
            client.login(address, PASSWORD)
            if mailbox:
                client.select_folder(mailbox)
            yield client

    def messages(self, address: str, mailbox: str = "INBOX") -> dict[int, bytes]:
        """All messages of a mailbox by UID."""
        with self.imap(address, mailbox) as client:
            found = client.fetch(client.search(), ["BODY.PEEK[]"])
            return {uid: item[b"BODY[]"] for uid, item in found.items()}

    def await_message(self, address: str, fits: Callable[[bytes], bool], seconds: float = PATIENCE) -> bytes:
        """The first message in INBOX that fits, which may have to be waited for."""
        deadline = time.monotonic() + seconds
        while True:
            for raw in self.messages(address).values():
                if fits(raw):
                    return raw
            assert time.monotonic() < deadline, f"no such message for {address}:\n{self.made.output()[-3000:]}"
            time.sleep(0.1)

    def await_far(self, user: str, count: int = 1, seconds: float = PATIENCE) -> list[bytes]:
        """The messages in a mailbox at far.example, CRLF as they came over the wire, once there are so many."""
        folder = self.folder / "far" / "mail" / user / "new"
        deadline = time.monotonic() + seconds
        while not folder.exists() or len(os.listdir(folder)) < count:
            assert time.monotonic() < deadline, f"{self.postfix.log.read_text()}\n{self.made.output()[-3000:]}"
            time.sleep(0.05)
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in files]

    def address_of(self, domain: str) -> str:
        """Where the mail server of one of OTHERS is looked for."""
        return OTHERS[domain]

    def run(self, *command: str | Path, feed: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end, with the folder of this world as its home."""
        environ = {**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, input=feed, capture_output=True, timeout=PATIENCE, env=environ, cwd=self.folder)

    def swaks(self, *arguments: str, port: int | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run swaks against our MX port, or another."""
        server = f"127.0.0.1:{port or self.made.ports['SMTP']}"
        return self.run(self.find("swaks"), "--server", server, "--helo", "client.far.example", *arguments)

    def send(self, message: bytes, *recipients: str, sender: str = CAROL) -> str:
        """Have swaks send exactly these octets to us; returns the trace id of the answer."""
        file = self.folder / "letter"
        file.write_bytes(letters.dot_stuffed(message))
        to = ",".join(recipients)
        done = self.swaks("--from", sender, "--to", to, "--data", f"@{file}", "--no-data-fixup")
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        return trace_id(done.stdout)

    def submit(self, message: bytes, *recipients: str, sender: str = ANN) -> subprocess.CompletedProcess[bytes]:
        """Have curl hand a message in over TLS."""
        to = [part for recipient in recipients for part in ("--mail-rcpt", recipient)]
        url = f"smtps://127.0.0.1:{self.made.ports['SUBMISSIONS']}/client.home.example"
        login = ("--user", f"{sender}:{PASSWORD}")
        return self.run(
            *(self.find("curl"), "-sSkv", "--url", url, *login, "--mail-from", sender, *to, "-T", "-"), feed=message
        )

    def trace(self, name: str) -> list[dict[str, Any]]:
        """What `manage.py trace NAME --json` prints."""
        done = self.made.run("trace", name, "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def await_steps(self, name: str, step: str, seconds: float = PATIENCE) -> list[dict[str, Any]]:
        """The trace, once it has this step."""
        deadline = time.monotonic() + seconds
        wanted = "SELECT count(*) FROM trace_event WHERE trace_id = %s AND step = %s"
        with self.database() as database:
            while database.execute(wanted, (name, step)).fetchone() == (0,):
                assert time.monotonic() < deadline, f"{self.trace(name)}\n{self.made.output()[-3000:]}"
                time.sleep(0.1)
        return self.trace(name)

    def wrong(self) -> list[str]:
        """What `manage.py doctor` finds wrong."""
        done = self.made.run("doctor", "--json", "--no-dns")
        return [f"{each['check']}: {each['text']}" for each in json.loads(done.stdout) if each["level"] == "wrong"]

    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of our own to the installation's Postgres."""
        url = json.loads((self.made.data / "embedded.json").read_text())["database_url"]
        return psycopg.connect(url, autocommit=True)

    def valkey(self) -> redis.Redis:
        """A connection of our own to the installation's Valkey."""
        return redis.Redis.from_url(json.loads((self.made.data / "embedded.json").read_text())["redis_url"])


def trace_id(transcript: bytes) -> str:
    """The id in our answer to a message."""
    found = re.search(rb"250 2\.0\.0 Ok: id ([0-9a-z]{15})", transcript)
    assert found, transcript.decode(errors="replace")[-2000:]
    return found[1].decode()


def command(made: Installation, *arguments: str) -> str:
    """Run a command of manage.py that must succeed; returns what it prints."""
    done = made.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def open_world(find: Callable[[str], str]) -> Iterator[World]:
    """Start everything, people it by `manage.py`, and see to it that nothing is left running."""
    folder = Path(tempfile.mkdtemp(prefix="mailstead-e2e-"))
    folder.chmod(0o755)  # the servers' own users must pass
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        dns_port, far_port, gate_port = free_ports(3)
        made = undo.enter_context(
            installation(
                folder / "data",
                MAILSTEAD_HOSTNAME=HOST,
                MAILSTEAD_DNS=f"127.0.0.1:{dns_port}",
                MAILSTEAD_SMTP_OUT_PORT=str(far_port),
                MAILSTEAD_OUT_ALLOW="127.0.0.0/8",
                MAILSTEAD_MESSAGE_SIZE=str(MESSAGE_SIZE),
            )
        )
        made.start()
        far = _far(folder / "far", far_port, made.ports["SMTP"], gate_port)
        undo.callback(far.stop)
        made.wait_ready()
        command(made, "domain", "add", HOME)
        for address, *more in ((ANN, "--name", "Ann Example"), (BOB,), (TINY, "--quota", str(TINY_QUOTA))):
            command(made, "account", "add", address, "--password", PASSWORD, *more)
        shown = json.loads(command(made, "domain", "show", HOME, "--json"))
        records = tuple(Record(**each) for each in shown["records"])
        far_records: tuple[Record, ...] = (Record(FAR, "MX", f"10 mx.{FAR}."), Record(f"mx.{FAR}", "A", "127.0.0.1"))
        for domain, address in OTHERS.items():
            far_records += (Record(domain, "MX", f"10 mx.{domain}."), Record(f"mx.{domain}", "A", address))
        zone = (*records, *far_records, Record(HOST, "A", "127.0.0.1"))
        undo.enter_context(names.serve(find("dnsmasq"), folder, dns_port, ("example",), zone))
        yield World(made, far, folder, dns_port, gate_port, records, find)
        assert made.stop(signal.SIGTERM) == 0
        assert gone(made, 60) == {}
        far.stop()
        until(lambda: not _working_in(folder), story=lambda: _working_in(folder))


def _working_in(folder: Path) -> list[str]:
    """Programs whose working directory is in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "cwd").startswith(f"{folder}/"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def _far(folder: Path, port: int, home_port: int, gate_port: int) -> Postfix:
    """Postfix for far.example: carol and slow have mailboxes, to nobody else it says 550; mail for us goes to us.

    Slow's mail is held up at RCPT until the gate is open, so that there is time to break something in mid-delivery.
    """
    owner = pwd.getpwnam("mail")
    (folder / "mail").mkdir(parents=True)
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    settings = {
        "virtual_mailbox_domains": FAR,
        "virtual_mailbox_base": folder / "mail",
        "virtual_mailbox_maps": f"inline:{{ {{{CAROL} = carol/}} {{{SLOW} = slow/}} }}",
        "virtual_mailbox_limit": 0,
        "virtual_minimum_uid": 1,
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
        "smtpd_tls_received_header": "yes",
        "smtpd_restriction_classes": "held",
        "held": f"check_policy_service inet:127.0.0.1:{gate_port}",
        "smtpd_policy_service_timeout": "600s",
        "smtpd_recipient_restrictions": f"check_recipient_access inline:{{ {{{SLOW} = held}} }} permit",
        "transport_maps": f"inline:{{ {{{HOME} = smtp:[127.0.0.1]:{home_port}}} }}",
        "smtp_tls_security_level": "may",
        "smtp_dns_support_level": "disabled",
    }
    return postfix.start(folder, port, f"mx.{FAR}", settings)
