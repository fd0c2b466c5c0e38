"""`manage.py doctor`: what is wrong with this installation, and what to do. Exit status 1 when something is."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser

from accounts import people
from mailcore import doctor
from mailcore.conf import conf
from mailcore.doctor import Finding, Level
from mailcore.management import base

_SIGNS = {Level.WRONG: "WRONG", Level.HINT: "hint ", Level.OK: "ok   "}
# Domains with something to say about their DNS that have a line; --verbose has all.
_LINES = 20


class Command(base.Command):
    help = "Examine this installation: what is wrong, and what to do. Exit status 1 when something is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--no-dns", action="store_true", help="do not ask the DNS for the domains' records")
        which.add_argument(
            "--domain", action="append", metavar="NAME", help="only the DNS records of this domain, one by one"
        )
        parser.add_argument("--verbose", action="store_true", help="every domain, with every record that is amiss")
        parser.set_defaults(verb="examine")

    def examine(self, options: dict[str, Any]) -> None:
        chosen = options["domain"]
        if chosen:
            findings = doctor.of_domains(conf, {people.get_any_domain(name).name for name in chosen})
        else:
            findings = list(doctor.examine(conf, ask_dns=not options["no_dns"], progress=self._progress))
        findings.sort(key=lambda each: list(_SIGNS).index(each.level))
        wrong = sum(each.level is Level.WRONG for each in findings)
        if options["json"]:
            names = ("check", "text", "remedy", "details")
            self.show_json(
                [{"level": each.level.value} | {name: getattr(each, name) for name in names} for each in findings]
            )
        else:
            self._show(findings, whole=options["verbose"] or bool(chosen))
            hints = sum(each.level is Level.HINT for each in findings)
            said = f"{wrong} wrong" if wrong else "Nothing is wrong"
            self.stdout.write(f"{said}, {hints} {'hint' if hints == 1 else 'hints'}." if hints else f"{said}.")
        if wrong:
            sys.exit(1)

    def _show(self, findings: list[Finding], *, whole: bool) -> None:
        listed = 0
        for finding in findings:
            if finding.details:
                listed += 1
                if listed > _LINES and not whole:
                    continue
            self.stdout.write(f"{_SIGNS[finding.level]}  {finding.check}: {finding.text}")
            if whole and finding.details:
                for detail in finding.details:
                    self.stdout.write(f"       -> {detail}")
            elif finding.remedy:
                self.stdout.write(f"       -> {finding.remedy}")
        if listed > _LINES and not whole:
            self.stdout.write(
                f"{_SIGNS[Level.HINT]}  dns: and {listed - _LINES:,} more domains; --verbose shows them all"
            )

    def _progress(self, done: int, of: int) -> None:
        """On a terminal, how far the DNS is; wiped out when it is done."""
        if of > 1 and sys.stderr.isatty():
            said = f"Asking the DNS: {done:,} of {of:,} domains"
            sys.stderr.write(f"\r{said if done < of else ' ' * len(said)}\r")
            sys.stderr.flush()
