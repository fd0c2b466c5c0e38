"""`manage.py mailserver`: the mail process (SMTP and IMAP), one of those that `manage.py up` runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from mailcore import serve
from mailcore.conf import conf
from mailcore.management import base


class Command(base.Command):
    help = "Run SMTP and IMAP in the foreground until SIGTERM."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reuse-port", action="store_true", help="share the ports with other mail processes")
        parser.set_defaults(verb="serve")

    def serve(self, options: dict[str, Any]) -> None:
        _ = conf.database_url  # says at once when nothing runs here, for which the pool would wait
        serve.run(conf, reuse_port=options["reuse_port"])
