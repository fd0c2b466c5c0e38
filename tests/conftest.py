"""Gives every test run a Postgres and a Valkey of its own, before Django reads its settings.

With DATABASE_URL or REDIS_URL set, those servers are used instead (the suite also runs against Debian's Postgres).
The workers of pytest-xdist share the run's Postgres, each with a database of its own, and have a Valkey each.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from mailcore.supervise.embedded import Server
    from mailcore.supervise.launch import Running

# How long an example takes says nothing about us. In CI the examples are always the same ones, so that what is found is
# due to the change at hand; everywhere else they are new ones each time.
settings.register_profile(
    "mailstead",
    settings.get_profile("ci") if os.environ.get("CI") == "true" else settings.get_profile("default"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("mailstead")

# Only for the throw-away database of the plain tests; a test of faults starts its own server with the real settings.
RELAXED = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "max_wal_size": "4GB",
}

_undo = contextlib.ExitStack()
atexit.register(_undo.close)


def _start() -> None:
    if "mailcore.conf" in sys.modules:
        raise pytest.UsageError("settings were read before the servers ran: unset DJANGO_SETTINGS_MODULE")
    root = Path(__file__).resolve().parent.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for name in [name for name in os.environ if name.startswith("MAILSTEAD_")]:
        del os.environ[name]  # a test depends on no setting of the person who runs it
    data = Path(tempfile.mkdtemp(prefix="mailstead-test-"))
    _undo.callback(shutil.rmtree, data, ignore_errors=True)
    data.chmod(0o711)  # the servers' own user must pass
    os.environ |= {
        "MAILSTEAD_DATA": str(data),
        "MAILSTEAD_HOSTNAME": "mx.example.test",
        "MAILSTEAD_SECRET_KEY": "a key for tests only, never for an installation",
        "DJANGO_SETTINGS_MODULE": "webmail.settings",
    }
    from mailcore.supervise import embedded

    if not os.environ.get("DATABASE_URL"):
        postgres = embedded.prepare_postgres(data / "postgres", database="postgres", settings=RELAXED, sync=False)
        os.environ["DATABASE_URL"] = postgres.url
        running = _spawn(postgres, data / "postgres.log")
        _wait(lambda: embedded.postgres_ready(postgres, running.pid), running, data / "postgres.log")
    if not os.environ.get("REDIS_URL") or os.environ.get("MAILSTEAD_TEST_VALKEY"):
        valkey = embedded.prepare_valkey(data / "valkey", durable=False)
        os.environ["REDIS_URL"] = valkey.url
        running = _spawn(valkey, data / "valkey.log")
        _wait(lambda: embedded.valkey_ready(valkey), running, data / "valkey.log")
        os.environ["MAILSTEAD_TEST_VALKEY"] = "ours"  # so that each worker of xdist starts another

    import django

    django.setup()
    from django.db.backends.postgresql.introspection import DatabaseIntrospection

    from accounts.passwords import Hasher

    # The trace is no table of Django's (it has partitions), yet it has to be empty for the next test as well.
    tables = DatabaseIntrospection.django_table_names
    DatabaseIntrospection.django_table_names = lambda *args, **kw: [*tables(*args, **kw), "trace_event"]

    del os.environ["DJANGO_SETTINGS_MODULE"]  # a worker of xdist would read its settings before it comes here
    # The same algorithm at a thousandth of the cost.
    Hasher.time_cost, Hasher.memory_cost, Hasher.parallelism = 1, 64, 1


def _spawn(server: Server, log: Path) -> Running:
    with log.open("wb") as output:
        running = server.spawn(output.fileno())

    def stop() -> None:
        for number, patience in ((server.stop, 15.0), (signal.SIGKILL, 5.0)):
            if running.poll() is None:
                os.kill(running.pid, number)
            deadline = time.monotonic() + patience
            while running.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)

    _undo.callback(stop)
    return running


def _wait(ready: Callable[[], bool], running: Running, log: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        if running.poll() is not None or time.monotonic() > deadline:
            raise pytest.UsageError(f"a server for the tests did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.01)


_start()


def _programs() -> dict[str, str]:
    """The real programs that tests may drive, and the Debian package that brings each (tests/programs.txt)."""
    lines = (Path(__file__).parent / "programs.txt").read_text().splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if line and not line.startswith("#")}


_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_missing: dict[str, int] = {}


def _found(name: str) -> str | None:
    """Where a program of tests/programs.txt is; a path there may hold a wildcard, or lead into our own .debian/."""
    if name.startswith(".debian/"):
        path = Path(__file__).parent.parent / name
        return str(path) if path.exists() else None
    if "*" in name:
        return next(map(str, Path("/").glob(name.removeprefix("/"))), None)
    return shutil.which(name, path=_SEARCH)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    packages = _programs()
    for item in items:
        for marker in item.iter_markers("programs"):
            for name in marker.args:
                if name not in packages:
                    raise pytest.UsageError(f"{item.nodeid}: {name} is not in tests/programs.txt")
                if _found(name) is None and os.environ.get("CI") != "true":
                    _missing[packages[name]] = _missing.get(packages[name], 0) + 1
                    item.add_marker(pytest.mark.skip(reason=f"needs {name} (Debian package {packages[name]})"))


# Folders whose tests share one expensive world: all of a folder goes to one worker of xdist.
WORLDS = ("tests/e2e",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays with one worker, so that its fixtures are made once. (In pytest 9.2 xdist_group has no effect.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder in WORLDS else file

    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        what = " ".join(sorted(_missing))
        terminalreporter.write_line(f"tests were skipped for want of programs; they come with: apt-get install {what}")


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of a program of tests/programs.txt: `program("swaks")`; mark the test `programs("swaks")` too."""

    def find(name: str) -> str:
        path = _found(name)
        if path is None:
            raise RuntimeError(f"{name} is not installed: apt-get install {_programs().get(name, name)}")
        return path

    return find


@pytest.fixture
def database_url(db: None) -> str:
    """The connection string of this run's test database, for pools and programs that connect by themselves.

    They see only what is committed: use it with `@pytest.mark.django_db(transaction=True)`.
    """
    from mailcore import db as drivers

    return drivers.dsn()


@pytest.fixture(scope="session")
def valkey() -> str:
    """The URL of this worker's Valkey (also in REDIS_URL)."""
    return os.environ["REDIS_URL"]


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of this run (MAILSTEAD_DATA)."""
    return Path(os.environ["MAILSTEAD_DATA"])
