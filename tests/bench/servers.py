"""The servers that are measured, each in a scratch folder on free ports: Mailstead, and Postfix in front of Dovecot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import postfix

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "bench.test"
PASSWORD = "pw-of-the-bench"
# Senders of the inbound test, APPEND's accounts, the reader of the big mailbox, the idlers.
INBOUND = [f"in{n}@{DOMAIN}" for n in range(20)]
APPENDERS = [f"ap{n}@{DOMAIN}" for n in range(9)]
READER = f"reader@{DOMAIN}"
IDLER = f"idle@{DOMAIN}"
HOARDER = f"large@{DOMAIN}"  # hundreds of thousands of small messages


class BenchError(Exception):
    """The bench cannot go on; the text says why."""


@dataclass
class Server:
    """A server under test: ports, the processes that are its cost, and how to end it."""

    name: str
    smtp: int
    imap: int
    imaps: int
    folder: Path
    roots: list[int] = field(default_factory=list)
    started_in: float = 0.0
    mail_process: list[int] = field(default_factory=list)  # whose memory grows with IMAP sessions
    restart: Callable[[], None] = field(default=lambda: None)
    """Makes its memory that of a fresh start, where one process serves all sessions."""

    def stop(self) -> None:
        for process in self.roots:
            try:
                os.kill(process, signal.SIGTERM)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(_alive(process) for process in self.roots):
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_port(port: int, seconds: float = 60) -> None:
    """Wait until a server greets on the port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.settimeout(2)
                if connection.recv(1):
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise BenchError(f"nothing greets on port {port} after {seconds:.0f} s")
        time.sleep(0.02)


# Mailstead


def start_mailstead(folder: Path, processes: int = 1) -> Server:
    """Mailstead as `manage.py up` runs it, started twice: the second start is the one that is timed."""
    ports = free_ports(9)
    names = ("HTTP", "SMTP", "SUBMISSION", "SUBMISSIONS", "IMAP", "IMAPS", "POP3", "POP3S", "SIEVE")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAILSTEAD_", "DATABASE_", "REDIS_"))
    }
    environment |= {f"MAILSTEAD_{name}_PORT": str(port) for name, port in zip(names, ports, strict=True)}
    environment |= {"MAILSTEAD_DATA": str(folder / "data"), "MAILSTEAD_HOSTNAME": f"mx.{DOMAIN}"}
    environment["MAILSTEAD_PROCESSES"] = str(processes)
    manage = [sys.executable, str(ROOT / "manage.py")]
    log = (folder / "up.log").open("ab")

    def up() -> tuple[subprocess.Popen[bytes], float]:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*manage, "up"], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT
        )
        try:
            wait_port(ports[1], 120)
        except BenchError as error:
            process.terminate()
            raise BenchError(f"Mailstead does not start:\n{(folder / 'up.log').read_text()[-2000:]}") from error
        return process, time.perf_counter() - start

    process, _ = up()
    wait_port(ports[4])
    script = (
        "from mailcore import provision; from django.db import transaction\n"
        "from accounts.models import Domain\n"
        f"Domain.objects.filter(name={DOMAIN!r}).exists() or provision.add_domain({DOMAIN!r})\n"
        f"for address in {[*INBOUND, *APPENDERS, READER, IDLER, HOARDER]!r}:\n"
        f"    provision.add_account(address, password={PASSWORD!r})\n"
    )
    made = subprocess.run(
        [*manage, "shell", "-v0", "-c", script], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    if made.returncode:
        raise BenchError(f"the accounts could not be made:\n{made.stderr[-2000:]}")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    process, seconds = up()
    wait_port(ports[4])
    time.sleep(3)  # the worker is not part of accepting mail, but it shall not start up inside a measurement
    server = Server("mailstead", ports[1], ports[4], ports[5], folder, [process.pid], seconds)
    server.mail_process = _listener(ports[4])

    def restart() -> None:
        nonlocal process
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process, _ = up()
        wait_port(ports[4])
        server.roots[:] = [process.pid]
        server.mail_process = _listener(ports[4])

    server.restart = restart
    return server


def _listener(port: int) -> list[int]:
    """The processes that listen on a port, by their sockets' inodes."""
    found = []
    wanted = f":{port:04X}"
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(wanted) and line.split()[3] == "0A"
    }
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = {os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")}
        except OSError:
            continue
        if links & {f"socket:[{inode}]" for inode in inodes}:
            found.append(int(entry))
    return found


# Postfix and Dovecot

_DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
first_valid_uid = 8
mail_uid = {uid}
mail_gid = {gid}
mail_home = {folder}/mail/%n
mail_location = {location}
mail_fsync = optimized
mail_max_userip_connections = 5000
default_client_limit = 10000
default_process_limit = 3000
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%n
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
# Tuned for logins: processes that serve many connections, ready beforehand.
service imap-login {{
  service_count = 0
  client_limit = 2000
  process_min_avail = 2
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 4000
}}
service lmtp {{
  process_min_avail = 4
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
"""

_LOCATIONS = {"maildir": "maildir:~/Maildir", "mdbox": "mdbox:~/mdbox"}


def rivals_missing() -> list[str]:
    """The Debian packages that are wanting for the comparison."""
    wanted = {"postfix": "postfix", "dovecot": "dovecot-imapd", "/usr/lib/dovecot/lmtp": "dovecot-lmtpd"}
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for program, package in wanted.items() if shutil.which(program, path=path) is None]
    return missing + (["(root: Postfix and Dovecot start as root)"] if os.geteuid() else [])


def start_rival(kind: str, folder: Path) -> Server:
    """Postfix delivering by LMTP to a Dovecot with maildir or mdbox storage."""
    import pwd

    owner = pwd.getpwnam("mail")
    smtp, imap, imaps, lmtp = free_ports(4)
    folder.chmod(0o755)
    for name in ("run", "mail", "postfix"):
        (folder / name).mkdir()
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    postfix.certificate(folder, f"mx.{DOMAIN}")
    names = {
        **{
            "folder": folder,
            "uid": owner.pw_uid,
            "gid": owner.pw_gid,
            "location": _LOCATIONS[kind],
            "password": PASSWORD,
        },
        **{"imap": imap, "imaps": imaps, "lmtp": lmtp},
    }
    (folder / "dovecot.conf").write_text(_DOVECOT.format(**names))
    # To a file, not a pipe: the daemons keep what they inherit.
    with (folder / "start.log").open("ab") as log:
        command = ["dovecot", "-c", str(folder / "dovecot.conf")]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode
    if code:
        raise BenchError(f"Dovecot does not start: {(folder / 'start.log').read_text()[-1000:]}")
    try:
        relay = postfix.start(
            folder / "postfix",
            smtp,
            f"mx.{DOMAIN}",
            {
                "virtual_mailbox_domains": DOMAIN,
                "virtual_mailbox_maps": "static:ok",
                "virtual_transport": f"lmtp:inet:127.0.0.1:{lmtp}",
                "virtual_mailbox_limit": 0,
            },
        )
    except postfix.PostfixError as error:
        raise BenchError(str(error)) from error
    wait_port(smtp)
    wait_port(imap)
    roots = [int((folder / "run" / "master.pid").read_text()), relay.master]
    return Server(kind, smtp, imap, imaps, folder, roots, mail_process=roots[:1])


def versions(names: Sequence[str]) -> str:
    """What is compared with what, for the report."""
    found = {}
    for name, command in {"Postfix": ["postconf", "-h", "mail_version"], "Dovecot": ["dovecot", "--version"]}.items():
        if name in names:
            path = os.environ.get("PATH", "") + ":/usr/sbin"
            run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
            found[name] = run.stdout.split()[0] if run.stdout else "?"
    return json.dumps(found)
