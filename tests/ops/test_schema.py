"""A database of another build: one line says so, instead of errors of SQL later."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from django.db import connection

from mailcore import doctor
from mailcore.conf import conf
from mailcore.errors import ConfigError
from mailcore.supervise import schema, setup

pytestmark = [pytest.mark.django_db]


def execute(statement: str, *values: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def refused() -> str:
    with pytest.raises(ConfigError) as caught:
        setup._migrate()
    text = str(caught.value)
    assert "\n" not in text
    (found,) = doctor._migrations(conf)
    assert f"{found.text}: {found.remedy}" == text
    return text


def test_a_database_that_this_code_made_fits() -> None:
    assert schema.misfit() == ""
    setup._migrate()
    assert list(doctor._migrations(conf)) == []


def test_a_migration_that_has_changed_since_is_named() -> None:
    execute("UPDATE migration_digest SET digest = 'x' WHERE name = '0006_transport'")
    assert refused() == (
        "the database was made by an older build, with another mailcore.0006_transport: nothing leads from there to "
        "here, so choose another database (MAILSTEAD_DATA, DATABASE_URL)"
    )


def test_a_database_from_before_migrations_were_noted_is_an_older_one() -> None:
    execute("DROP TABLE migration_digest")
    assert refused().startswith("the database was made by an older build, with another accounts.0001_initial, ")


def test_a_migration_that_is_not_known_here_is_named() -> None:
    execute("INSERT INTO django_migrations (app, name, applied) VALUES ('mailcore', '9999_later', now())")
    assert refused() == (
        "the database was used by a newer or another build, with mailcore.9999_later: run that one, or choose another "
        "database (MAILSTEAD_DATA, DATABASE_URL)"
    )


def test_what_was_begun_is_noted_even_if_it_never_ends() -> None:
    """A first start that was killed between two migrations must be able to go on."""
    execute("DELETE FROM django_migrations WHERE name = '0013_notices_by_age'")
    assert schema.misfit() == ""


def module(folder: Path, text: str) -> ModuleType:
    path = folder / "one.py"
    path.write_text(text)
    made = ModuleType("one")
    made.__file__ = str(path)
    return made


def test_a_digest_is_of_what_a_migration_does(tmp_path: Path) -> None:
    text = '"""Why."""\n\noperations = [Field("a", null=True, help_text="what it is")]\n'
    one = schema.digest(module(tmp_path, text))
    same = "# More.\noperations = [\n    Field(\n        'a', null=True, help_text=\"else\",\n    ),\n]\n"
    assert schema.digest(module(tmp_path, same)) == one
    for other in (text.replace("True", "False"), text.replace('"a"', '"b"'), text.replace("null=True, ", "")):
        assert schema.digest(module(tmp_path, other)) != one


def test_the_digest_of_a_migration_holds_the_sql_that_it_reads(tmp_path: Path) -> None:
    made, beside = module(tmp_path, "FUNCTION = Path(...)\n"), tmp_path / "one.sql"
    beside.write_text("SELECT 1")
    made.__dict__["FUNCTION"] = beside
    one = schema.digest(made)
    beside.write_text("SELECT 2")
    assert schema.digest(made) != one
