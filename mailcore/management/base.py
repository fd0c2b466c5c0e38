"""What Mailstead's commands share: subcommands, one-line errors with exit status 1, tables and JSON."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from accounts.errors import PeopleError
from mailcore.conf import ConfigError, conf
from mailcore.errors import MailError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Row = dict[str, Any]


class Command(BaseCommand):
    """A command whose subcommands are its methods: `manage.py NAME VERB …` calls `VERB(options)`."""

    requires_system_checks = ()
    # Django's own options still work; in our help they would outnumber what the command is about.
    suppressed_base_arguments: ClassVar[set[str]] = {  # type: ignore[misc]  # django-stubs: an instance's
        *("--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color")
    }
    _called_from_command_line: bool  # Django's
    _verbs: Collection[str] = ()

    def subcommands(self, parser: CommandParser) -> Callable[..., CommandParser]:
        """Returns what adds a subcommand: `add("list", help="…")`."""
        verbs = parser.add_subparsers(dest="verb", metavar="VERB")
        self._verbs = verbs.choices

        def add(name: str, help: str) -> CommandParser:
            added: CommandParser = verbs.add_parser(name, help=help, description=help)
            return added

        return add

    def handle(self, *args: Any, **options: Any) -> None:
        if not options.get("verb"):
            name = type(self).__module__.rpartition(".")[2]
            raise CommandError(f"manage.py {name} {'|'.join(self._verbs)}: say which. `--help` after it explains it.")
        try:
            getattr(self, options["verb"])(options)
        except PeopleError as error:
            raise CommandError(error.text) from error
        except MailError as error:
            raise CommandError(f"{error.text} ({error.private})" if error.private else error.text) from error
        except ConfigError as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            _say_when_nothing_runs()
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CommandError(
                f"The database cannot be reached: start `make up` first, or check DATABASE_URL. ({why})"
            ) from error
        except ProgrammingError as error:
            if "does not exist" not in str(error):
                raise
            raise CommandError("The database is not set up yet: start `make up` once.") from error

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except SystemExit as leaving:  # argparse leaves with 2; ours promise 0 or 1
            raise SystemExit(1 if leaving.code else 0) from None

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if not self._called_from_command_line or options.get("traceback"):
                raise
            self.stderr.write(str(error))
            raise SystemExit(1) from None

    def show_json(self, value: Any) -> None:
        """Print a value as JSON; times in ISO 8601."""
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))

    def show_rows(self, rows: Sequence[Row], empty: str) -> None:
        """Print dictionaries of the same keys as an aligned table, or `empty` when there are none."""
        if not rows:
            self.stdout.write(empty)
            return
        lines = [[key.replace("_", " ") for key in rows[0]], *([text(value) for value in row.values()] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        for line in lines:
            padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write(padded.rstrip())

    def show_fields(self, fields: Iterable[tuple[str, Any]]) -> None:
        """Print names and values, one a line."""
        pairs = [(name.replace("_", " "), text(value)) for name, value in fields]
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self.stdout.write(f"{name.ljust(width)}  {value}".rstrip())

    def confirm(self, question: str, options: dict[str, Any]) -> None:
        """Ask before something that cannot be undone; where nobody can be asked, `--yes` has to say it."""
        if options.get("yes"):
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Nothing was changed; --yes does it without a question.")
        if input(f"{question} Type yes to go on: ").strip().lower() != "yes":
            raise CommandError("Nothing was changed.")


def _say_when_nothing_runs() -> None:
    try:
        _ = conf.database_url
    except ConfigError as error:
        raise CommandError(str(error)) from None


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "-"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return str(value)


def size(written: str) -> int | None:
    """An argparse type: octets from `500M`, `5G`, `1.5G`, `1048576`; `none` is None (no limit)."""
    upper = written.strip().upper().removesuffix("B").removesuffix("I")
    if upper in ("NONE", "UNLIMITED"):
        return None
    number, unit = (upper[:-1], upper[-1]) if upper[-1:] in _UNITS and upper[-1:] else (upper, "")
    try:
        octets = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        octets = 0
    if not 0 < octets < 1 << 60:
        raise ArgumentTypeError(f"{written!r} is not a size such as 500M, 5G or none")
    return octets


def shown_size(octets: int | None) -> str:
    """Octets as people read them."""
    if octets is None:
        return "no limit"
    value = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _plain(value: Any) -> Any:
    return value.isoformat()
