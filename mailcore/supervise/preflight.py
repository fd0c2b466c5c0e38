"""What must be true before anything is started: the data directory is ours, the ports are free.

Each check raises ConfigError with one line that says what is wrong and what to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from mailcore.conf import Conf
from mailcore.errors import ConfigError
from mailcore.supervise import launch

# Field of Conf, its variable, what it is for: the ports that our servers listen on.
PORTS = (
    ("http_port", "MAILSTEAD_HTTP_PORT", "web"),
    ("smtp_port", "MAILSTEAD_SMTP_PORT", "SMTP"),
    ("submission_port", "MAILSTEAD_SUBMISSION_PORT", "submission"),
    ("submissions_port", "MAILSTEAD_SUBMISSIONS_PORT", "submission over TLS"),
    ("lmtp_port", "MAILSTEAD_LMTP_PORT", "LMTP"),
    ("imap_port", "MAILSTEAD_IMAP_PORT", "IMAP"),
    ("imaps_port", "MAILSTEAD_IMAPS_PORT", "IMAP over TLS"),
)

# What commands in another terminal show and ask by, too.
_SHARED = (
    ("hostname", "MAILSTEAD_HOSTNAME"),
    ("bind", "MAILSTEAD_BIND"),
    *((field, variable) for field, variable, _ in PORTS),
)


class DataDirectory:
    """The data directory, locked for one supervisor, and the note in it of who runs."""

    def __init__(self, conf: Conf) -> None:
        self.path = conf.data
        self._settings = {field: getattr(conf, field) for field, _ in _SHARED}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise ConfigError(f"MAILSTEAD_DATA: {self.path} is not a directory") from None
        except OSError as error:
            raise ConfigError(f"MAILSTEAD_DATA: cannot write to {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            note = read_note(self.path)
            who = f" (pid {note['pid']}, {note['web']})" if note else ""
            raise ConfigError(f"Mailstead is already running in {self.path}{who}") from None

    def hand_over(self, identity: launch.Identity | None) -> None:
        """Give the roles' user what it must read and write; everything else here stays ours."""
        for name in ("tls", "spool"):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        if identity is not None:
            for path in (*self.path.glob("*.json"), self.path / "secret.key", self.path / "tls", self.path / "spool"):
                for each in (path, *(path.iterdir() if path.is_dir() else ())):
                    if each.exists():
                        os.chown(each, identity.uid, identity.gid)

    def end_leftovers(self) -> None:
        """Wait for, or end, the children of a supervisor that was killed."""
        children: dict[str, tuple[int, str]] = (read_note(self.path) or {}).get("children", {})
        for name, (pid, age) in reversed(children.items()):
            # (Postgres is asked in its own way, by embedded.end_leftover_postgres.)
            if name != "postgres" and launch.process_age(pid) == age:
                with contextlib.suppress(PermissionError):
                    launch.end(pid, signal.SIGTERM, 20)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)

    def write_note(self, web: str, children: dict[str, int]) -> None:
        """Remember who runs, for the next start after a kill, for commands, and for who asks a second `make up`."""
        ages = {name: (pid, launch.process_age(pid)) for name, pid in children.items()}
        note = {"pid": os.getpid(), "web": web, "settings": self._settings, "children": ages}
        _replace(self.path / "up.json", json.dumps(note))

    def write_embedded(self, addresses: dict[str, str]) -> None:
        """Tell the other commands, and the roles, where the embedded servers are."""
        _replace(self.path / "embedded.json", json.dumps(addresses))

    def forget(self) -> None:
        for name in ("up.json", "embedded.json"):
            (self.path / name).unlink(missing_ok=True)

    def close_in_child(self) -> None:
        """Let go of the lock in a forked child, so that it ends with the supervisor."""
        os.close(self._lock)


def read_note(data: Path) -> dict[str, Any] | None:
    """Who runs in a data directory, as the supervisor noted it; None = nobody, as far as is known."""
    try:
        note: dict[str, Any] = json.loads((data / "up.json").read_text())
    except (OSError, ValueError):
        return None
    return note


def runs(data: Path) -> dict[str, Any] | None:
    """The note of an installation that runs; None where there is none, or only what one that was killed left behind."""
    note = read_note(data)
    alive = note and any(launch.process_age(pid) == age for pid, age in note["children"].values())
    return note if alive else None


def as_it_runs(conf: Conf) -> Conf:
    """These settings, with those of the installation that runs in the data directory where they are others."""
    note = runs(conf.data)
    return replace(conf, **note["settings"]) if note else conf


def exports(conf: Conf) -> str:
    """What a terminal lacks to have the settings of the installation that runs: `NAME=value …`, or nothing."""
    running = as_it_runs(conf)
    return " ".join(
        f"{variable}={getattr(running, field)}"
        for field, variable in _SHARED
        if getattr(running, field) != getattr(conf, field)
    )


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    draft.rename(path)


def check_ports(conf: Conf) -> None:
    """Refuse to start when a port cannot be listened on."""
    seen: dict[int, str] = {}
    for name, variable, purpose in PORTS:
        port: int = getattr(conf, name)
        if port == 0:
            continue
        if port in seen:
            raise ConfigError(f"{variable} and {seen[port]} are both {port}: each needs a port of its own")
        seen[port] = variable
        _check_port(conf.bind, port, variable, purpose)


def _check_port(bind: str, port: int, variable: str, purpose: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"MAILSTEAD_BIND: {bind!r} is not an address: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                owner = _owner(port)
                raise ConfigError(
                    f"port {port} ({purpose}) is taken{owner}: stop what listens there, or set {variable}"
                ) from None
            if error.errno == errno.EACCES:
                raise ConfigError(
                    f"port {port} ({purpose}) needs a privilege: choose one above 1023 with {variable}, or run as root"
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigError(f"MAILSTEAD_BIND: {bind} is not an address of this machine") from None
            raise ConfigError(f"port {port} ({purpose}) cannot be used: {error.strerror}") from None


def _owner(port: int) -> str:
    """Who listens on a port, as far as /proc shows it to us: " by nginx (pid 77)", or nothing."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    if os.readlink(descriptor) in sockets:
                        return f" by {(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""
