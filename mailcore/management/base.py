"""What Mailstead's commands share: subcommands, one-line errors with exit status 1, tables and JSON."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NoReturn

import psycopg
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DataError, OperationalError, ProgrammingError

from accounts import policies
from accounts.errors import PeopleError
from accounts.models import Account, Domain
from mailcore.conf import ConfigError, conf
from mailcore.errors import MailError
from mailcore.words import shown_size as shown_size
from mailcore.words import text as text

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

    def subcommands(self, parser: CommandParser, dest: str = "verb") -> Callable[..., CommandParser]:
        """Returns what adds a subcommand: `add("list", help="…")`; of a subcommand, with a `dest` of its own."""
        verbs = parser.add_subparsers(dest=dest, metavar=dest.upper())
        parser.set_defaults(choice=(parser.prog, dest, verbs.choices))  # the innermost one's is what counts

        def add(name: str, help: str) -> CommandParser:
            return _plain_spoken(verbs.add_parser(name, help=help, description=help))

        return add

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return _plain_spoken(super().create_parser(prog_name, subcommand, **kwargs))

    def handle(self, *args: Any, **options: Any) -> None:
        if "choice" in options:
            prog, dest, choices = options["choice"]
            if options[dest] is None:
                raise CommandError(f"{prog} {'|'.join(choices)}: say which. `--help` after it explains it.")
        try:
            getattr(self, options["verb"])(options)
        except EOFError:  # Ctrl-D instead of an answer
            raise CommandError("\nNothing was changed.") from None
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
        except (psycopg.DataError, DataError, UnicodeEncodeError) as error:
            # A number that no column holds, a LIMIT below zero, octets that are no UTF-8.
            why = "it is not UTF-8" if isinstance(error, UnicodeEncodeError) else str(error).strip().splitlines()[0]
            raise CommandError(f"An argument cannot be used: {why}") from error
        except ProgrammingError as error:
            if "does not exist" not in str(error):
                raise
            raise CommandError("The database is not set up yet: start `make up` once.") from error

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except CommandError as error:  # about the arguments; of the rest, execute takes care
            self.stderr.write(str(error))
            raise SystemExit(1) from None

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
        # Where there is no ü, \xfc would be written, which JSON does not know.
        ascii_only = (sys.stdout.encoding or "utf-8").lower() != "utf-8"
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=_plain))

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

    def show_policy(self, subject: Domain | Account, options: dict[str, Any]) -> None:
        """Settle what the arguments of a `policy` subcommand say and print how that is now; of none, all there is."""
        changed = policies.change(subject, options["values"])
        rows = [row for row in policies.shown(subject) if not changed or row.name in changed]
        if options["json"]:
            self.show_json({row.name: {"value": row.value, "set_by": row.by} for row in rows})
            return
        table = [{"policy": row.name, "value": _settled(row.value), "set by": row.by, "": row.meaning} for row in rows]
        self.show_rows(table, "")

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


def policy_arguments(parser: CommandParser, what: str) -> None:
    """The arguments of a `policy` subcommand."""
    parser.add_argument(what)
    parser.add_argument(
        "values",
        nargs="*",
        default=[],
        metavar="POLICY=VALUE",
        help="what to settle; POLICY=default takes it back; none: show all",
    )
    parser.add_argument("--json", action="store_true")


def _plain_spoken(parser: CommandParser) -> CommandParser:
    """Have a parser say in one line what is wrong with its arguments, instead of its whole usage and status 2."""

    def error(message: str) -> NoReturn:
        raise CommandError(f"{parser.prog}: {message}. See `{parser.prog} --help`.")

    parser.error = error  # type: ignore[method-assign]  # Django makes the parser, and asks for no class of it
    return parser


def _settled(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None or value == [] else text(value)


def _say_when_nothing_runs() -> None:
    try:
        _ = conf.database_url
    except ConfigError as error:
        raise CommandError(str(error)) from None


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


def count(written: str) -> int:
    """An argparse type: a whole number from 1 on, as many as the database counts."""
    try:
        number = int(written)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 31:
        raise ArgumentTypeError(f"{written!r} is not a number from 1 on")
    return number


def _plain(value: Any) -> Any:
    return value.isoformat()
