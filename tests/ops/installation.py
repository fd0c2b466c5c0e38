"""Runs a real `manage.py up` in a directory of its own, on free ports, and looks at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_ports
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent.parent
PORTS = ("HTTP", "SMTP", "SUBMISSION", "SUBMISSIONS", "IMAP", "IMAPS", "POP3", "POP3S", "SIEVE")


class Installation:
    """A data directory, its ports and settings, and at most one supervisor that runs in it."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAILSTEAD_", "DJANGO_")) and name not in ("DATABASE_URL", "REDIS_URL")
        }
        self.environ |= {f"MAILSTEAD_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.environ |= {"MAILSTEAD_DATA": str(data), "MAILSTEAD_HOSTNAME": "mail.example.test", **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.with_name(data.name + ".log")

    def start(self, ask_every: float | None = None) -> None:
        """Run `manage.py up`; `ask_every`: seconds between questions to its roles, for a test that cannot wait."""
        command = ["manage.py", "up"]
        if ask_every is not None:
            code = "import sys, manage; from mailcore.supervise import keeper; keeper.ASK_EVERY = {}; sys.exit({})"
            command = ["-c", code.format(ask_every, "manage.main()"), "up"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = 300) -> str:
        """Wait for the summary box; return everything that was printed so far."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while "Ctrl-C stops" not in (text := self.output()):
            assert self.process.poll() is None, f"it ended:\n{text}"
            assert time.monotonic() < deadline, f"not ready:\n{text}"
            time.sleep(0.05)
        return text

    def wait_for(self, text: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output():
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output()}"
            time.sleep(0.05)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def password(self) -> str:
        """The password of the first account, from the summary box."""
        found = re.search(r"with the password\s+(\S+)", self.output())
        assert found, self.output()
        return found[1]

    def children(self) -> dict[str, int]:
        note = json.loads((self.data / "up.json").read_text())
        return {name: pid for name, (pid, _age) in note["children"].items()}

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """End it by a signal; return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of manage.py in this installation, to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def processes(self) -> dict[int, str]:
        """Every process that works for this installation, found by its environment, command or directory."""
        found = {}
        needle = os.fsencode(self.data)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    seen = needle in command or needle in (entry / "environ").read_bytes()
                    if seen or os.fsencode(os.readlink(entry / "cwd")).startswith(needle + b"/"):
                        found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def greeting(self, name: str, seconds: float = PATIENCE) -> bytes:
        """What the server on that port says first, as soon as it does."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.ports[name]), timeout=60) as client:
                    if line := client.recv(512):
                        return line
            except OSError:
                pass
            assert time.monotonic() < deadline, f"nobody answers on the {name} port:\n{self.output()}"
            time.sleep(0.02)

    def get(self, path: str) -> bytes:
        """The status line of `GET path`."""
        with socket.create_connection(("127.0.0.1", self.ports["HTTP"]), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return client.makefile("rb").readline()

    def destroy(self) -> None:
        """Leave nothing running, whatever a test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def installation(data: Path, **settings: str) -> Iterator[Installation]:
    made = Installation(data, **settings)
    try:
        yield made
    finally:
        made.destroy()


def gone(made: Installation, seconds: float) -> dict[int, str]:
    """What still works for the installation after at most `seconds`: nothing, if all is well."""
    deadline = time.monotonic() + seconds
    while (left := made.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
