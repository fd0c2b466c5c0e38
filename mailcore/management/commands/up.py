"""`manage.py up`: run the whole installation in the foreground (Ctrl-C stops it)."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand

from mailcore.conf import conf
from mailcore.supervise.main import up


class Command(BaseCommand):
    """manage.py runs `up` before Django is loaded; this makes it appear in the list of commands."""

    help = "Run everything in the foreground: servers, web, mail, worker, beat. Ctrl-C stops it."
    requires_system_checks: list[str] = []

    def handle(self, *args: object, **options: object) -> None:
        sys.exit(up(conf))
