"""`manage.py mailserver`: the mail process (SMTP and IMAP), one of those that `manage.py up` runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from mailcore import serve
from mailcore.conf import conf
from mailcore.errors import ConfigError, MailError


class Command(BaseCommand):
    help = "Run SMTP and IMAP in the foreground until SIGTERM."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reuse-port", action="store_true", help="share the ports with other mail processes")

    def handle(self, *args: object, **options: Any) -> None:
        try:
            serve.run(conf, reuse_port=options["reuse_port"])
        except ConfigError as error:
            raise CommandError(str(error)) from None
        except MailError as error:
            raise CommandError(f"{error.text} ({error.private})" if error.private else error.text) from None
