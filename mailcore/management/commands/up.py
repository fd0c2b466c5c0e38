"""`manage.py up`: run the whole installation in the foreground (Ctrl-C stops it)."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from mailcore.conf import conf
from mailcore.management import base
from mailcore.supervise.main import up


class Command(base.Command):
    """manage.py runs `up` before Django is loaded; this explains it."""

    help = "Run everything in the foreground: servers, web, mail, worker, beat. Ctrl-C stops it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.set_defaults(verb="up")

    def up(self, _options: dict[str, Any]) -> None:
        sys.exit(up(conf))
