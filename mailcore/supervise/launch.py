"""How a child process begins: its own session, the right user, and its death when its parent dies.

A supervisor that is root runs its children as the system user `mailstead`: Postgres refuses root, and whoever talks to
strangers should not be root either. Where the checkout or the data directory lies below a directory that only root may
enter (/root, a private temporary directory), that user is given one capability to pass: read and search, never write.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mailcore.errors import ConfigError

USER = "mailstead"
_FALLBACK_USERS = ("postgres", "nobody")

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_CHILD_SUBREAPER = 1, 4, 8, 36
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
CAP_SEARCH = 2  # CAP_DAC_READ_SEARCH: read files and pass directories that are closed to the user
CAP_LOW_PORTS = 10  # CAP_NET_BIND_SERVICE
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class Identity:
    """The unprivileged user that a root supervisor runs its servers as."""

    name: str
    uid: int
    gid: int


def service_identity() -> Identity | None:
    """Who the embedded servers run as: None = as ourselves (we are not root), else a system user, made when missing.

    Raises ConfigError when there is none and none can be made.
    """
    if os.geteuid() != 0:
        return None
    if _lookup(USER) is None and (useradd := shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin")):
        subprocess.run(
            [useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
            + ["--user-group", USER],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    for name in (USER, *_FALLBACK_USERS):
        if identity := _lookup(name):
            return identity
    raise ConfigError(f"Postgres does not run as root, and the system user {USER} cannot be made: run as another user")


def _lookup(name: str) -> Identity | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Identity(name, entry.pw_uid, entry.pw_gid)


def privileges_to_reach(identity: Identity | None, *paths: Path) -> tuple[int, ...]:
    """The capability that `identity` needs when it may not enter every directory above the given paths; else none."""
    if identity is None:
        return ()
    for path in paths:
        for parent in path.absolute().parents:
            try:
                status = parent.stat()
            except OSError:  # sys.path names much that does not exist
                continue
            shift = 6 if status.st_uid == identity.uid else 3 if status.st_gid == identity.gid else 0
            if not status.st_mode >> shift & 1:
                return (CAP_SEARCH,)
    return ()


def prelude(identity: Identity | None, *, death: signal.Signals, privileges: Sequence[int] = ()) -> Callable[[], None]:
    """What a child does first: it leads a session of its own, becomes `identity` with no capability but `privileges`,
    and asks the kernel for the signal `death` when its parent dies.
    """
    parent = os.getpid()

    def run() -> None:
        os.setsid()
        if identity is not None:
            _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            if CAP_SEARCH in privileges:
                # access(2), with which Postgres looks for its programs, else ignores what an ordinary user may.
                _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
            os.setgroups([])
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
            _keep_capabilities(privileges)
        # After the change of user, which would clear it.
        _libc.prctl(_PR_SET_PDEATHSIG, int(death), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return run


def _keep_capabilities(wanted: Sequence[int]) -> None:
    """Drop all capabilities but the wanted ones, which survive an exec as ambient ones."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _libc.capget(ctypes.byref(header), data)
    held: int = data[0].permitted
    keep = {
        # Containers withhold the weaker of the two, yet grant the stronger one.
        _CAP_DAC_OVERRIDE if each == CAP_SEARCH and not held >> CAP_SEARCH & 1 else each
        for each in wanted
    }
    mask = sum(1 << each for each in keep) & held
    _libc.capset(ctypes.byref(header), (_CapData * 2)(_CapData(mask, mask, mask), _CapData(0, 0, 0)))
    for each in keep:
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, each, 0, 0)
    # As after an exec; else /proc/self would stay root's.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none can be lost."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Running:
    """A child: `poll` reaps it and tells its exit code (negative = killed by that signal), None while it lives."""

    pid: int
    poll: Callable[[], int | None]


def execute(
    argv: Sequence[str],
    output: int,
    identity: Identity | None,
    *,
    death: signal.Signals,
    privileges: Sequence[int] = (),
) -> Running:
    """Start a server program with a clean environment; its output goes to the descriptor `output`."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        cwd="/",
        preexec_fn=prelude(identity, death=death, privileges=privileges),
    )
    return Running(process.pid, process.poll)


_forking = multiprocessing.get_context("fork")


def fork(
    run: Callable[[], None],
    output: int,
    identity: Identity | None,
    *,
    before: Callable[[], None],
    privileges: Sequence[int] = (),
) -> Running:
    """Run `run` in a forked child that shares all loaded code; `before` lets go of what only the parent may hold."""
    prepare = prelude(identity, death=signal.SIGTERM, privileges=privileges)

    def enter() -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()
        before()
        os.dup2(output, 1)
        os.dup2(output, 2)
        run()

    process = _forking.Process(target=enter)
    process.start()
    assert process.pid is not None
    return Running(process.pid, lambda: process.exitcode)


def process_age(pid: int) -> str | None:
    """When a process began, as the kernel counts; with the pid it names a process for ever. None = it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def processes() -> list[int]:
    """The pids of all processes that we can see."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def works_in(pid: int, folder: Path) -> bool:
    """Whether that is the working directory of a process (False where we may not know)."""
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


def children_of(parent: int) -> list[int]:
    """The pids of all direct children, those included that were adopted from a dead child; zombies are left out."""
    found = []
    for pid in processes():
        try:
            state, ppid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(ppid) == parent and state != "Z":
            found.append(pid)
    return found


def end(pid: int, first: signal.Signals, seconds: float, *, last: signal.Signals = signal.SIGKILL) -> None:
    """Ask a process that is not our child to end with the signal `first`; after `seconds`, send it `last`."""
    age = process_age(pid)
    for number, patience in ((first, seconds), (last, 10.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if process_age(pid) != age:
                return
            time.sleep(0.02)
