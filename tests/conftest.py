"""Gives every test run a Postgres and a Valkey of its own, before Django reads its settings.

With DATABASE_URL or REDIS_URL set, those servers are used instead (the suite also runs against Debian's Postgres).
The workers of pytest-xdist share the run's Postgres, each with a database of its own, and have a Valkey each.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
        process = _spawn(postgres, data / "postgres.log")
        _wait(lambda: embedded.postgres_ready(postgres, process.pid), process, data / "postgres.log")
    if not os.environ.get("REDIS_URL") or os.environ.get("MAILSTEAD_TEST_VALKEY"):
        valkey = embedded.prepare_valkey(data / "valkey", durable=False)
        os.environ["REDIS_URL"] = valkey.url
        process = _spawn(valkey, data / "valkey.log")
        _wait(lambda: embedded.valkey_ready(valkey), process, data / "valkey.log")
        os.environ["MAILSTEAD_TEST_VALKEY"] = "ours"  # so that each worker of xdist starts another

    import django
    from django.contrib.auth.hashers import Argon2PasswordHasher

    django.setup()
    del os.environ["DJANGO_SETTINGS_MODULE"]  # a worker of xdist would read its settings before it comes here
    # The same algorithm at a thousandth of the cost.
    Argon2PasswordHasher.time_cost, Argon2PasswordHasher.memory_cost, Argon2PasswordHasher.parallelism = 1, 64, 1


def _spawn(server, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = server.spawn(stdout=output.fileno())

    def stop() -> None:
        process.send_signal(server.stop)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    _undo.callback(stop)
    return process


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise pytest.UsageError(f"a server for the tests did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.01)


_start()


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
