"""DATABASE_URL and REDIS_URL: the installation on Debian's Postgres 15 and Redis instead of the embedded servers."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from mailcore.supervise import launch
from tests.ops.installation import ROOT, gone, installation
from tests.ports import free_ports

POSTGRES = "/usr/lib/postgresql/15/bin/postgres"
PASSWORD = "p@ss/w:rd"  # needs quoting in an address
QUOTED = "p%40ss%2Fw%3Ard"

pytestmark = pytest.mark.programs(POSTGRES, "redis-server")


@contextlib.contextmanager
def server(argv: list[str], ready: Callable[[], bool], stop: signal.Signals, log: Path) -> Iterator[None]:
    """Run a server program as the unprivileged user until the block ends."""
    with log.open("wb") as output:
        running = launch.execute(argv, output.fileno(), launch.service_identity(), death=stop)
    try:
        deadline = time.monotonic() + 60
        while not ready():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        if running.poll() is None:
            os.kill(running.pid, stop)
            deadline = time.monotonic() + 60
            while running.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the servers' user owns and may enter (pytest's own are closed to it)."""
    identity = launch.service_identity()
    with tempfile.TemporaryDirectory(prefix="mailstead-external-") as name:
        path = Path(name)
        if identity:
            os.chown(path, identity.uid, identity.gid)
        yield path


@pytest.fixture
def database(folder: Path, program: Callable[[str], str]) -> Iterator[str]:
    programs = Path(program(POSTGRES)).parent
    identity = launch.service_identity()
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    user = {"user": identity.uid, "group": identity.gid, "extra_groups": []} if identity else {}
    subprocess.run(
        [programs / "initdb", "-D", folder / "pg", "-U", "owner", "--auth=scram-sha-256", "--encoding=UTF8"]
        + ["--locale=C.UTF-8", "--pwfile", folder / "password", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **user,
    )
    (port,) = free_ports(1)
    url = f"postgresql://owner:{QUOTED}@127.0.0.1:{port}/"

    def ready() -> bool:
        try:
            psycopg.connect(url + "postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    argv = [str(programs / "postgres"), "-D", str(folder / "pg"), "-p", str(port), "-k", "", "-h", "127.0.0.1"]
    with server(argv, ready, signal.SIGINT, folder / "postgres.log"):
        with psycopg.connect(url + "postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE mail")
        yield url + "mail"


@pytest.fixture
def hints(folder: Path, program: Callable[[str], str]) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"redis://:{QUOTED}@127.0.0.1:{port}/3"

    def ready() -> bool:
        try:
            return bool(redis.Redis.from_url(url).ping())
        except redis.RedisError:
            return False

    argv = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
    with server([*argv, "--dir", str(folder), "--save", ""], ready, signal.SIGTERM, folder / "redis.log"):
        yield url


def test_the_installation_runs_on_debians_postgres_and_redis(tmp_path: Path, database: str, hints: str) -> None:
    with installation(tmp_path / "data", DATABASE_URL=database, REDIS_URL=hints) as made:
        made.start()
        box = made.wait_ready()
        assert "Postgres: yours, Redis/Valkey: yours" in box
        assert not (made.data / "postgres").exists()
        assert not (made.data / "valkey").exists()
        with smtplib.SMTP("127.0.0.1", made.ports["SMTP"]) as client:
            client.sendmail("ann@elsewhere.test", ["admin@example.test"], b"Subject: on Debian\r\n\r\nhello\r\n")
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM entry").fetchone()
            assert row == (1,)
            assert connection.info.server_version // 10000 == 15
        assert made.stop() == 0
        assert gone(made, 0) == {}
        # Nothing to migrate, no new account: what is there is used.
        made.start()
        assert "password" not in made.wait_ready()


def test_a_database_that_does_not_exist_is_named(tmp_path: Path, database: str, hints: str) -> None:
    wrong = database.replace("/mail", "/missing")
    with installation(tmp_path / "data", DATABASE_URL=wrong, REDIS_URL=hints) as made:
        done = made.run("up")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("mailstead: DATABASE_URL: no database at 127.0.0.1: ")
        assert 'database "missing" does not exist' in line
        assert PASSWORD not in done.stdout + done.stderr


def test_every_statement_of_the_store_is_understood_by_debians_postgres(database: str) -> None:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAILSTEAD_", "DJANGO_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/store/test_statements.py"],
        cwd=ROOT,
        env=environ | {"DATABASE_URL": database},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
