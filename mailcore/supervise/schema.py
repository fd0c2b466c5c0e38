"""Whether this code made the database: each migration is noted with a digest of what it says when it is applied.

Without that, a database of another build is only found out by errors of SQL, each somewhere else.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

OURS = ("accounts", "mailcore")
# Said of a column or a model, and nothing that the database knows.
_WORDS = frozenset({"help_text", "verbose_name", "verbose_name_plural"})

# Made without a migration, as Django's own list of them is: it must be there before the first.
_TABLE = """CREATE TABLE IF NOT EXISTS migration_digest
    (app text, name text, digest text NOT NULL, PRIMARY KEY (app, name))"""
_NOTE = """INSERT INTO migration_digest VALUES (%s, %s, %s)
    ON CONFLICT (app, name) DO UPDATE SET digest = excluded.digest"""

ANOTHER = "run that one, or choose another database (MAILSTEAD_DATA, DATABASE_URL)"
ANEW = "nothing leads from there to here, so choose another database (MAILSTEAD_DATA, DATABASE_URL)"


def note(plan: Sequence[tuple[Migration, bool]] = (), **_signal: Any) -> None:
    """Note what is about to be applied (Django's signal pre_migrate)."""
    rows = [
        (step.app_label, step.name, digest(inspect.getmodule(type(step))))
        for step, backwards in plan
        if step.app_label in OURS and not backwards
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_TABLE)
            cursor.executemany(_NOTE, rows)


def misfit() -> str:
    """Why the database does not fit this code, on one line, and what to do; "" when it fits or is empty."""
    loader = MigrationLoader(None)
    applied = sorted(key for key in MigrationRecorder(connection).applied_migrations() if key[0] in OURS)
    unknown = [key for key in applied if key not in loader.disk_migrations]
    if unknown:
        return f"the database was used by a newer or another build, with {_named(unknown)}: {ANOTHER}"
    noted = _noted()
    changed = [key for key in applied if noted.get(key) != digest(inspect.getmodule(type(loader.disk_migrations[key])))]
    if changed:
        return f"the database was made by an older build, with another {_named(changed)}: {ANEW}"
    return ""


def _named(keys: Sequence[tuple[str, str]]) -> str:
    names = ", ".join(".".join(key) for key in keys[:3])
    return f"{names} and {len(keys) - 3} more" if len(keys) > 3 else names


def _noted() -> dict[tuple[str, str], str]:
    if "migration_digest" not in connection.introspection.table_names():
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name, digest FROM migration_digest")
        return {(app, name): text for app, name, text in cursor.fetchall()}


def digest(module: ModuleType | None) -> str:
    """What a migration says, whatever its layout, comments and help texts, and whichever Python reads it.

    A file that it names (a `Path` of the module's own: SQL that stands elsewhere) belongs to it.
    """
    if module is None or module.__file__ is None:
        raise ValueError("a migration without a file")
    tree = ast.parse(Path(module.__file__).read_bytes())
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    found = hashlib.sha256("\0".join(_said(tree)).encode())
    for value in vars(module).values():
        if isinstance(value, Path):
            found.update(value.read_text().encode())
    return found.hexdigest()[:32]


def _said(value: object) -> Iterator[str]:
    if isinstance(value, ast.keyword) and value.arg in _WORDS:
        return
    if isinstance(value, ast.AST):
        yield type(value).__name__
        for name, each in ast.iter_fields(value):
            if each is not None and each != []:  # versions of Python differ in the fields that hold nothing
                yield name
                yield from _said(each)
        yield ")"
    elif isinstance(value, list):
        for each in value:
            yield from _said(each)
    else:
        yield repr(value)
