#!/usr/bin/env python
"""Mailstead's command line: `manage.py up` runs everything, the rest administers it (see README.md)."""

import errno
import io
import os
import sys
from importlib.util import find_spec


def main() -> int:
    if find_spec("django") is None:
        print("mailstead: run `make up` once, then `.venv/bin/python manage.py …`", file=sys.stderr)
        return 1
    if {"--help", "-h"} & set(sys.argv) or sys.argv[1:2] == ["help"]:
        # What a command does can be read before there is an installation, whose key is for doing it.
        os.environ["MAILSTEAD_SECRET_KEY"] = "none"
    from mailcore.errors import ConfigError

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webmail.settings")
    if sys.stdout is None:  # closed by whoever called us
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no ü shows \xfc, as it does on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if sys.argv[1:] in ([], ["help"], ["--help"], ["-h"]):
            from mailcore.management import overview

            print(overview.text(), flush=True)
            return 0
        if sys.argv[1:] == ["up"]:
            # Django takes longer to load than Postgres to start: `up` starts the servers first.
            from mailcore.conf import conf
            from mailcore.supervise.main import up

            return up(conf)
        _command()
        sys.stdout.flush()
    except ConfigError as error:
        print(f"mailstead: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmailstead: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC) or error.filename is not None:
            raise
        # Whoever read has read enough (| head), or there is no room: nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.ENOSPC:
            print(f"mailstead: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _command() -> None:
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    from mailcore.errors import ConfigError

    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:  # in a command of Django's; ours say it themselves
        if "--traceback" in sys.argv:
            raise
        why = (str(error).strip() or "no reason given").splitlines()[0]
        what = "the database cannot be used: start `make up` first, or check DATABASE_URL"
        raise ConfigError(f"{what} ({why})") from None


if __name__ == "__main__":
    sys.exit(main())
