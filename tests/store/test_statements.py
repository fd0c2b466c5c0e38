"""Every registered statement, of the store and above it, is accepted by Postgres against the migrated schema."""

import importlib
import pkgutil
import re

import psycopg
import pytest

from mailcore import db

for layer in ("store", "inbound", "auth", "delivery", "jmap", "imap", "smtp"):
    package = importlib.import_module(f"mailcore.{layer}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def _numbered(statement: str) -> str:
    """The statement with $1, $2, … for psycopg's placeholders."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        key = found[1] or f"#{len(names)}"
        return f"${names.setdefault(key, len(names) + 1)}"

    return re.sub(r"%%|%(?:\((\w+)\))?[sbt]", number, statement)


@pytest.mark.django_db
@pytest.mark.parametrize("statement", db.STATEMENTS, ids=lambda text: " ".join(text.split())[:60])
def test_statement_is_prepared(statement, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("PREPARE one AS " + _numbered(statement))


def test_there_are_statements_of_every_family():
    assert len(db.STATEMENTS) > 60
