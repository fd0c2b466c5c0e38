"""`manage.py tlsreports`: what other servers say of TLS with ours."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from mailcore import db
from mailcore.management import base
from mailcore.store import transport
from mailcore.store.transport import Report


class Command(base.Command):
    help = "Show the TLS reports (RFC 8460) that others have sent about mail to our domains."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        listing = verb("list", "List reports, the latest first.")
        listing.add_argument("--domain", metavar="DOMAIN")
        listing.add_argument("--failed", action="store_true", help="only those that tell of failures")
        listing.add_argument("--limit", type=base.count, default=100, help="rows at most (default 100)")
        listing.add_argument("--json", action="store_true")
        show = verb("show", "Show one report with its failures.")
        show.add_argument("id", metavar="ID", type=int)
        show.add_argument("--json", action="store_true")

    def list(self, options: dict[str, Any]) -> None:
        domain = options["domain"].lower() if options["domain"] else None
        limit = max(1, min(options["limit"], 10_000))
        with db.django_transaction() as tx:
            found = db.run_sync(transport.reports(tx, domain=domain, failed=options["failed"], limit=limit))
        if options["json"]:
            self.show_json([_plain(report) for report in found])
            return
        self.show_rows([_line(report) for report in found], "No TLS report has come in.")

    def show(self, options: dict[str, Any]) -> None:
        if not 0 < options["id"] < 1 << 63:
            raise CommandError("There is no such report.")
        with db.django_transaction() as tx:
            found = db.run_sync(transport.reports(tx, number=options["id"], limit=1))
        if not found:
            raise CommandError("There is no such report.")
        (report,) = found
        if options["json"]:
            self.show_json(_plain(report))
            return
        fields = {name: value for name, value in _plain(report).items() if name != "details"}
        self.show_fields(fields.items())
        if report.details:
            self.stdout.write("")
            names = ("result", "sessions", "host", "ip", "from", "reason", "more")
            self.show_rows([{name: each.get(name) for name in names} for each in report.details], "")


def _plain(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("id", *Report.__slots__[:-2], "received_at")}


def _line(report: Report) -> dict[str, Any]:
    return {
        "id": report.id,
        "until": report.ends_at,
        "domain": report.domain,
        "from": report.organization,
        "signed by": report.signed_by or "nobody",
        "policy": report.policy_type,
        "good": report.successes,
        "failed": report.failures,
        "results": ", ".join(sorted({str(each.get("result")) for each in report.details})),
    }
