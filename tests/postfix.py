"""Debian's Postfix as another mail server, in a folder of its own, on a port of loopback; it starts only as root."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DIST = ("/usr/share/postfix/master.cf.dist", "/etc/postfix/master.cf")


class PostfixError(Exception):
    """It does not start; the text says why."""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix. `master` is the process that all others of it descend from; `log` says what it did."""

    folder: Path
    port: int
    master: int

    @property
    def log(self) -> Path:
        return self.folder / "postfix.log"

    def stop(self, seconds: float = 60) -> None:
        """End it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.master, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while _alive(self.master) and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.master, signal.SIGKILL)


def start(folder: Path, port: int, hostname: str, settings: Mapping[str, object]) -> Postfix:
    """Start a Postfix that offers STARTTLS, with `settings` added to main.cf. Raises PostfixError.

    `folder` must be one that its users may enter, and hold little else: Postfix looks through all of it. Whoever calls
    this waits until the port answers.
    """
    for name in ("queue", "postfix-data"):
        (folder / name).mkdir()
    os.chown(folder / "postfix-data", pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postfix").gr_gid)
    certificate(folder, hostname)
    common = {
        "compatibility_level": "3.6",
        "queue_directory": folder / "queue",
        "data_directory": folder / "postfix-data",
        "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin",
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "multi_instance_enable": "no",
        "inet_interfaces": "loopback-only",
        "inet_protocols": "ipv4",
        "myhostname": hostname,
        "mydestination": "",
        "mynetworks": "127.0.0.0/8",
        "local_recipient_maps": "",
        "alias_maps": "",
        "alias_database": "",
        "message_size_limit": 52428800,
        "maillog_file": folder / "postfix.log",
        "maillog_file_prefixes": folder,
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": folder / "cert.pem",
        "smtpd_tls_key_file": folder / "key.pem",
    }
    lines = (f"{name} = {value}" for name, value in (common | dict(settings)).items())
    (folder / "main.cf").write_text("\n".join(lines) + "\n")
    master = next(Path(path) for path in _DIST if Path(path).exists())
    services = [line for line in master.read_text().splitlines() if line.strip() and not line.startswith("#")]
    (folder / "master.cf").write_text("\n".join(_service(line, port) for line in services) + "\n")
    # Output to a file, not a pipe: the daemons keep what they inherit.
    command = [shutil.which("postfix", path=os.environ.get("PATH", "") + ":/usr/sbin") or "postfix", "-c", str(folder)]
    with (folder / "start.log").open("ab") as log:
        code = subprocess.run([*command, "start"], stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    if code:
        raise PostfixError(f"Postfix does not start: {(folder / 'start.log').read_text()[-1000:]}")
    return Postfix(folder, port, int((folder / "queue" / "pid" / "master.pid").read_text()))


def certificate(folder: Path, hostname: str) -> None:
    """A self-signed certificate: cert.pem and key.pem."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={hostname}"]
        + ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True,
        capture_output=True,
    )


def _service(line: str, port: int) -> str:
    """A line of master.cf with our port, without chroot."""
    if line[0].isspace():
        return line
    fields = line.split(None, 7)
    if fields[0] == "smtp" and fields[1] == "inet":
        fields[0] = f"127.0.0.1:{port}"
    fields[4] = "n"
    return " ".join(fields)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
