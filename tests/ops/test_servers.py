"""The servers that the suite itself runs on."""

from __future__ import annotations

import psycopg
import pytest
import redis
from django.db import connection


@pytest.mark.django_db(transaction=True)
def test_what_django_commits_is_seen_by_a_connection_of_its_own(database_url: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO accounts_domain (name, is_active, created_at) VALUES ('example.test', true, now())")
    with psycopg.connect(database_url) as other:
        assert other.execute("SELECT name FROM accounts_domain").fetchall() == [("example.test",)]


def test_valkey_answers(valkey: str) -> None:
    assert redis.Redis.from_url(valkey).ping()
