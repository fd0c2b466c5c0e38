"""The servers that the suite itself runs on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from django.db import connection

from mailcore.supervise import embedded
from mailcore.supervise.embedded import Server
from mailcore.supervise.launch import Running


@pytest.mark.django_db(transaction=True)
def test_what_django_commits_is_seen_by_a_connection_of_its_own(database_url: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO accounts_domain (name, is_active, created_at) VALUES ('example.test', true, now())")
    with psycopg.connect(database_url) as other:
        assert other.execute("SELECT name FROM accounts_domain").fetchall() == [("example.test",)]


def test_valkey_answers(valkey: str) -> None:
    assert redis.Redis.from_url(valkey).ping()


@contextmanager
def served(server: Server, ready: Callable[[Running], bool], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        running = server.spawn(output.fileno())
    try:
        deadline = time.monotonic() + 60
        while not ready(running):
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        if running.poll() is None:
            os.kill(running.pid, signal.SIGKILL)
        while running.poll() is None:
            time.sleep(0.01)


@pytest.mark.parametrize("name", ["with blanks", 'Müller\'s "mail" 100% #1 @home?', "x" * 120])
def test_the_embedded_servers_run_in_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    """Such names cannot stand in socket addresses, URLs or settings as they are."""
    folder = tmp_path / name
    valkey = embedded.prepare_valkey(folder / "valkey", durable=False)
    started = served(valkey, lambda _: embedded.valkey_ready(valkey), tmp_path / "valkey.log")
    with started, redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("dir") == {"dir": str(folder / "valkey")}
    postgres = embedded.prepare_postgres(folder / "pg", database="postgres", settings={"fsync": "off"}, sync=False)
    started = served(postgres, lambda running: embedded.postgres_ready(postgres, running.pid), tmp_path / "pg.log")
    with started, psycopg.connect(postgres.url) as database:
        assert database.execute("SHOW data_directory").fetchone() == (str(folder / "pg" / "cluster"),)
