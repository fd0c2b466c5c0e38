"""`manage.py doctor`: what is wrong with this installation, and what to do. Exit status 1 when something is."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from mailcore import doctor
from mailcore.conf import conf
from mailcore.management import base

_SIGNS = {doctor.Level.OK: "ok   ", doctor.Level.HINT: "hint ", doctor.Level.WRONG: "WRONG"}


class Command(base.Command):
    help = "Examine this installation: what is wrong, and what to do. Exit status 1 when something is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--no-dns", action="store_true", help="do not ask the DNS for the domains' records")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in doctor.examine(conf, ask_dns=not options["no_dns"]):
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(f"{_SIGNS[finding.level]}  {finding.check}: {finding.text}")
                if finding.remedy:
                    self.stdout.write(f"       -> {finding.remedy}")
        wrong = sum(finding.level is doctor.Level.WRONG for finding in findings)
        if options["json"]:
            self.show_json(
                [
                    {"level": each.level.value, "check": each.check, "text": each.text, "remedy": each.remedy}
                    for each in findings
                ]
            )
        else:
            self.stdout.write(f"{wrong} wrong." if wrong else "Nothing is wrong.")
        if wrong:
            sys.exit(1)
