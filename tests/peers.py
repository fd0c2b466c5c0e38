"""Exim and OpenSMTPD as other mail servers, on addresses of loopback; only root can start them.

Their packages exclude Postfix's, so they run from .debian/, each in a root of its own with the libraries it needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import postfix

UNPACKED = Path(__file__).parent.parent / ".debian"
# Names that the programs insist on; they exist in their root only.
USERS = {"Debian-exim": 64000, "opensmtpd": 64001, "opensmtpq": 64002, "keeper": 64004}
DEVICES = {"null": (1, 3), "random": (1, 8), "urandom": (1, 9)}

EXIM = """\
primary_hostname = mx.{domain}
local_interfaces = <; [{address}]:{port}
tls_certificate = /etc/cert.pem
tls_privatekey = /etc/key.pem
tls_advertise_hosts = {offered}
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept
message_size_limit = 50M
host_lookup =
rfc1413_query_timeout = 0s
log_selector = +all
log_file_path = /log/%s
keep_environment =
begin acl
check_rcpt:
  deny local_parts = nobody
       message = no such user here
  accept
begin routers
here:
  driver = accept
  domains = {domain}
  transport = keep
away:
  driver = manualroute
  domains = ! {domain}
  route_list = * 127.0.0.1
  self = send
  transport = remote
begin transports
keep:
  driver = appendfile
  directory = /mail
  maildir_format
  user = keeper
remote:
  driver = smtp
  port = {home_port}
  allow_localhost
  {tls}
begin retry
* * F,1h,1s
"""

OPENSMTPD = """\
pki here cert "/etc/cert.pem"
pki here key "/etc/key.pem"
table everyone {{ "@" = "keeper" }}
table nobody {{ "nobody@{domain}" }}
listen on {address} port {port} {offered} hostname mx.{domain}
action "keep" maildir "/mail" virtual <everyone>
action "away" relay host {scheme}://127.0.0.1:{home_port} {tls}
match from any for rcpt-to <nobody> reject
match from any for domain "{domain}" action "keep"
match from any for any action "away"
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running mail server for `domain`; `nobody@` is refused, everybody else's mail is in one Maildir."""

    root: Path
    address: str
    port: int
    process: subprocess.Popen[bytes]

    def mail(self) -> list[bytes]:
        """What it has taken in, oldest first, with CRLF."""
        folder = self.root / "mail" / "new"
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) if folder.exists() else []
        return [path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for path in files]

    def await_mail(self, part: bytes, seconds: float = 60) -> bytes:
        """The message with this in it, once it is there."""
        deadline = time.monotonic() + seconds
        while not (found := [raw for raw in self.mail() if part in raw]):
            assert time.monotonic() < deadline, self.log()[-3000:]
            time.sleep(0.05)
        return found[0]

    def log(self) -> str:
        """What it says it did."""
        files = [self.root / "out", *sorted((self.root / "log").glob("*"))]
        return "\n".join(path.read_text(errors="replace") for path in files if path.exists())


@contextlib.contextmanager
def exim(folder: Path, domain: str, address: str, port: int, home_port: int, *, tls: bool) -> Iterator[Peer]:
    """Exim for a domain; everything else it hands to us, over TLS or in the clear."""
    root = _root(folder, ["/usr/sbin/exim4"], domain)
    for name in ("spool", "log", "var/spool/exim4", "var/log/exim4", "etc/exim4"):
        (root / name).mkdir(parents=True, exist_ok=True)
        os.chown(root / name, USERS["Debian-exim"], USERS["Debian-exim"])
    text = EXIM.format(
        domain=domain,
        address=address,
        port=port,
        home_port=home_port,
        offered="*" if tls else "",
        tls="hosts_require_tls = *" if tls else "hosts_avoid_tls = *",
    )
    (root / "etc" / "exim4" / "exim4.conf").write_text(text)
    os.chown(root / "etc" / "exim4", 0, 0)
    os.chown(root / "etc" / "key.pem", USERS["Debian-exim"], 0)
    with _run(root, address, port, "/usr/sbin/exim4", "-bdf", "-q1s") as peer:
        yield peer


@contextlib.contextmanager
def opensmtpd(folder: Path, domain: str, address: str, port: int, home_port: int, *, tls: bool) -> Iterator[Peer]:
    """OpenSMTPD for a domain; everything else it hands to us, over TLS or in the clear.

    Debian 12's offers STARTTLS and then fails in every handshake as a server ("missing private key", with OpenSSL 3).
    """
    programs = ["/usr/sbin/smtpd", "/usr/sbin/smtpctl", "/usr/libexec/opensmtpd/mail.maildir"]
    root = _root(folder, programs, domain)
    queue = USERS["opensmtpq"]
    for name in ("incoming", "purge", "temporary", "queue", "corrupt"):
        _folder(root / "var/spool/smtpd" / name, queue, 0, 0o700)
    _folder(root / "var/spool/smtpd/offline", 0, queue, 0o770)
    _folder(root / "var/spool/smtpd", 0, 0, 0o711)
    for name in ("var/lib/opensmtpd/empty", "var/run"):
        _folder(root / name, 0, 0, 0o755)
    text = OPENSMTPD.format(
        domain=domain,
        address=address,
        port=port,
        home_port=home_port,
        offered="tls pki here" if tls else "",
        scheme="smtp+tls" if tls else "smtp+notls",
        tls="tls no-verify" if tls else "",
    )
    (root / "etc" / "smtpd.conf").write_text(text)
    with _run(root, address, port, "/usr/sbin/smtpd", "-dv") as peer:
        yield peer


def _folder(path: Path, user: int, group: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, group)
    path.chmod(mode)


def _root(folder: Path, programs: list[str], domain: str) -> Path:
    """A root directory with these programs and what they are linked with."""
    folder.mkdir()
    for program in programs:
        _copy(UNPACKED / program.lstrip("/"), folder / program.lstrip("/"))
        linked = subprocess.run(["ldd", UNPACKED / program.lstrip("/")], capture_output=True, text=True, check=True)
        for library in re.findall(r"(/\S+) \(0x", linked.stdout):
            _copy(Path(library), folder / library.lstrip("/"))
    _copy(Path("/bin/sh"), folder / "bin" / "sh")  # OpenSMTPD runs what delivers by it
    etc = folder / "etc"
    etc.mkdir()
    people: Mapping[str, int] = {"root": 0, **USERS}
    etc.joinpath("passwd").write_text(
        "".join(f"{name}:x:{number}:{number}::/mail:/bin/sh\n" for name, number in people.items())
    )
    etc.joinpath("group").write_text("".join(f"{name}:x:{number}:\n" for name, number in people.items()))
    etc.joinpath("services").write_text("smtp 25/tcp\nsubmission 587/tcp\nsubmissions 465/tcp\n")
    etc.joinpath("hosts").write_text("127.0.0.1 localhost\n")
    etc.joinpath("mailname").write_text(f"mx.{domain}\n")
    postfix.certificate(etc, f"mx.{domain}")
    etc.joinpath("key.pem").chmod(0o640)
    _folder(folder / "mail", USERS["keeper"], USERS["keeper"], 0o755)
    _folder(folder / "tmp", 0, 0, 0o1777)
    (folder / "dev").mkdir()
    for name, (major, minor) in DEVICES.items():
        with contextlib.suppress(PermissionError):  # in some containers not even root may; a file does as well
            os.mknod(folder / "dev" / name, 0o020666, os.makedev(major, minor))
        (folder / "dev" / name).touch()
        (folder / "dev" / name).chmod(0o666)
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)


@contextlib.contextmanager
def _run(root: Path, address: str, port: int, *command: str) -> Iterator[Peer]:
    with (root / "out").open("wb") as out:
        process = subprocess.Popen(
            ["chroot", str(root), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin"},
        )
    peer = Peer(root, address, port, process)
    try:
        deadline = time.monotonic() + 60
        while not _answers(address, port):
            assert process.poll() is None and time.monotonic() < deadline, peer.log()[-3000:]
            time.sleep(0.05)
        yield peer
    finally:
        _stop(root, process)


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=60) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _stop(root: Path, process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever else runs in its root."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(entry / "root")).is_relative_to(root):
                os.kill(int(entry.name), signal.SIGKILL)
    process.wait(60)
