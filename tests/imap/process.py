"""The mail process itself, over the test database: it can be killed in the middle of anything and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from django.db import connection

from tests.imap.running import HOST
from tests.ops.installation import ROOT
from tests.ports import free_ports
from tests.waiting import PATIENCE

PORTS = ("SMTP", "SUBMISSION", "SUBMISSIONS", "IMAP", "IMAPS", "POP3", "POP3S", "SIEVE")
START_SECONDS = 60


class MailProcess:
    """`manage.py mailserver` on ports of its own."""

    def __init__(self, folder: Path) -> None:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.port, self.tls_port = ports["IMAP"], ports["IMAPS"]
        database = urlsplit(os.environ["DATABASE_URL"])._replace(path="/" + quote(connection.settings_dict["NAME"]))
        self.environ = {
            **os.environ,
            **{f"MAILSTEAD_{name}_PORT": str(port) for name, port in ports.items()},
            "DATABASE_URL": database.geturl(),
            "MAILSTEAD_DATA": str(folder / "data"),
            "PGAPPNAME": f"mail-{self.port}",
        }
        self.log = folder / "mailserver.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, and wait until it greets."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "mailserver"],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection((HOST, self.port), 60) as client:
                    if client.recv(1):
                        return
            except OSError:
                pass
            said = self.log.read_text(errors="replace")[-3000:]
            assert self.process.poll() is None, f"it ended:\n{said}"
            assert time.monotonic() < deadline, f"it does not greet:\n{said}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would, and wait until Postgres has done with what it had been told."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        deadline = time.monotonic() + PATIENCE
        with connection.cursor() as cursor:
            while True:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [self.environ["PGAPPNAME"]]
                )
                if not cursor.fetchone()[0]:
                    return
                assert time.monotonic() < deadline, "connections of the dead process are still there"
                time.sleep(0.005)

    def memory_kb(self) -> int:
        """What it occupies by itself."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


@contextmanager
def mail_process(folder: Path) -> Iterator[MailProcess]:
    """A running one; killed at the end."""
    made = MailProcess(folder)
    try:
        made.start()
        yield made
    finally:
        made.kill()
