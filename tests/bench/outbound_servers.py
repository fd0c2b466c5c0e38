"""What the outbound bench runs: the world that mail goes to, Mailstead as `manage.py up` runs it, and Postfix with a
table of routes instead of DNS (and OpenDKIM where mail is signed). Everything stands in scratch folders."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests import postfix
from tests.bench import measure, servers
from tests.bench.outbound_sinks import NETS, address, domain
from tests.bench.servers import DOMAIN, PASSWORD, ROOT, BenchError, free_ports

SENDERS = [f"out{n}@{DOMAIN}" for n in range(16)]
# Kinds of destinations that the measured mail goes to; the others hold what waits besides.
MEASURED = ("healthy", "slow", "dead", "grey")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Sinks:
    """The process of tests.bench.outbound_sinks."""

    process: subprocess.Popen[str]
    port: int
    dns: int
    counts: dict[str, int]

    def report(self) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def arrived(self, kind: str = "healthy") -> int:
        return len(self.report()["arrived"][kind])

    def destinations(self) -> list[tuple[str, int]]:
        return [(kind, number) for kind in MEASURED for number in range(self.counts[kind])]


@contextlib.contextmanager
def sinks(counts: dict[str, int]) -> Iterator[Sinks]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.bench.outbound_sinks", str(port), *(str(counts[kind]) for kind in NETS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield Sinks(process, port, json.loads(process.stdout.readline())["dns"], counts)
    finally:
        process.kill()
        process.wait()


@dataclass
class Sender:
    """A server that sends: where mail is submitted, and the processes that are its cost."""

    submission: int
    roots: list[int]
    workers: list[int]
    mail: list[int]
    folder: Path
    environment: dict[str, str]


@contextlib.contextmanager
def mailstead(world: Sinks, workers: int) -> Iterator[Sender]:
    """`manage.py up` with the sinks as its outer world, an account, and keys of its domain."""
    folder = Path(tempfile.mkdtemp(prefix="bench-outbound-"))
    folder.chmod(0o755)
    names = ("HTTP", "SMTP", "SUBMISSION", "SUBMISSIONS", "IMAP", "IMAPS", "POP3", "POP3S", "SIEVE")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAILSTEAD_", "DATABASE_", "REDIS_"))
    } | {f"MAILSTEAD_{name}_PORT": str(port) for name, port in ports.items()}
    environment |= {
        "MAILSTEAD_DATA": str(folder / "data"),
        "MAILSTEAD_HOSTNAME": f"mx.{DOMAIN}",
        "MAILSTEAD_DNS": f"127.0.0.1:{world.dns}",
        "MAILSTEAD_OUT_ALLOW": "127.0.0.0/8",
        "MAILSTEAD_SMTP_OUT_PORT": str(world.port),
        "MAILSTEAD_WORKERS": str(workers),
        "MAILSTEAD_SEND_LIMITS": "off",  # one account sends everything
    }
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "up"], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        servers.wait_port(ports["SUBMISSION"], 120)
        script = (
            "from mailcore import provision; from accounts.models import Domain\n"
            f"Domain.objects.filter(name={DOMAIN!r}).exists() or provision.add_domain({DOMAIN!r})\n"
            "from accounts import policies\n"
            f"for address in {SENDERS!r}:\n"
            f"    account = provision.add_account(address, password={PASSWORD!r})\n"
            "    policies.change(account, ['recipients-per-hour=none', 'recipients-per-day=none'])\n"
        )
        manage(environment, "shell", "-v0", "-c", script)
        time.sleep(4)
        titles = {pid: _title(pid) for pid in measure.tree(process.pid)}
        at_work, mail = (
            [pid for pid, title in titles.items() if title.startswith(f"mailstead: {name}")]
            for name in ("worker", "mail")
        )
        yield Sender(ports["SUBMISSION"], [process.pid], at_work, mail, folder, environment)
    finally:
        process.terminate()
        process.wait(60)
        if os.environ.get("BENCH_KEEP"):
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def manage(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if made.returncode:
        raise BenchError(f"manage.py {arguments[0]}: {made.stderr[-2000:]}")
    return made.stdout


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


# --- Postfix --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postfix_server(world: Sinks, *, signed: bool, hold: bool, tuned: bool) -> Iterator[Sender]:
    folder = Path(tempfile.mkdtemp(prefix="bench-postfix-"))
    folder.chmod(0o755)
    port, milter = free_ports(2)
    routes = "".join(
        f"{domain(kind, number)} smtp:[{address(kind, number)}]:{world.port}\n" for kind, number in world.destinations()
    )
    (folder / "routes").write_text(routes)
    settings: dict[str, object] = {
        "transport_maps": f"texthash:{folder}/routes",
        "disable_dns_lookups": "yes",
        "smtp_tls_security_level": "none",
        "smtpd_client_connection_count_limit": 0,
    }
    if tuned:
        settings |= {"default_process_limit": 400, "smtp_connect_timeout": "5s", "smtp_helo_timeout": "30s"}
    if hold:
        settings["defer_transports"] = "smtp"
    process: subprocess.Popen[bytes] | None = None
    if signed:
        settings |= {"smtpd_milters": f"inet:127.0.0.1:{milter}", "milter_default_action": "tempfail"}
        process = _opendkim(folder, milter)
    (folder / "postfix").mkdir()
    server = postfix.start(folder / "postfix", port, f"mx.{DOMAIN}", settings)
    try:
        servers.wait_port(port)
        roots = [server.master] + ([process.pid] if process else [])
        yield Sender(port, roots, [], [], server.folder, dict(os.environ))
    finally:
        server.stop()
        if process is not None:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _opendkim(folder: Path, port: int) -> subprocess.Popen[bytes]:
    key = folder / "key.private"
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", str(key), "2048"], check=True, capture_output=True)
    key.chmod(0o600)
    (folder / "opendkim.conf").write_text(
        f"Domain {DOMAIN}\nSelector s\nKeyFile {key}\nMode s\nSocket inet:{port}@127.0.0.1\n"
        "Canonicalization relaxed/relaxed\nSignatureAlgorithm rsa-sha256\n"
        "RequireSafeKeys no\nInternalHosts 127.0.0.0/8\n"
    )
    log: IO[bytes] = (folder / "opendkim.log").open("ab")
    command = [shutil.which("opendkim", path="/usr/sbin:/usr/bin") or "opendkim", "-f", "-x", f"{folder}/opendkim.conf"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    time.sleep(1)
    if process.poll() is not None:
        raise BenchError(f"OpenDKIM does not start: {(folder / 'opendkim.log').read_text()[-1000:]}")
    return process
