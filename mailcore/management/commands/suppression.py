"""`manage.py suppression`: addresses and domains that this server does not write to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.addresses import domain_name, parse_address
from accounts.errors import AddressError
from mailcore import db
from mailcore.management import base
from mailcore.store import suppression

_REASONS = {"admin": "an administrator stopped it", "complaint": "its owner does not want mail from here"}


class Command(base.Command):
    help = "Show and change the list of what is not written to: refused for good too often, or put there by hand."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        listing = verb(
            "list", "List what is suppressed, by whom (bounce: refused too often; admin, complaint: by hand) and why."
        )
        listing.add_argument("address", nargs="?", help="only this address, or a domain and what is in it")
        listing.add_argument("--strikes", action="store_true", help="also addresses that were refused, but not often")
        listing.add_argument("--limit", type=base.count, default=1000)
        listing.add_argument("--json", action="store_true")
        add = verb("add", "Suppress addresses, or whole domains.")
        add.add_argument("address", nargs="+")
        add.add_argument("--days", type=base.count, metavar="NUMBER", help="for so long; default: until it is removed")
        add.add_argument("--reason", help="the sender is told: this server writes to ADDRESS no more: …")
        add.add_argument("--complaint", action="store_true", help="its owner complained of our mail")
        remove = verb("remove", "Write to these addresses again; what was counted is forgotten.")
        remove.add_argument("address", nargs="+")

    def list(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            found = db.run_sync(
                suppression.entries(tx, options["address"], strikes=options["strikes"], limit=options["limit"])
            )
        fields = ("address", "active", "source", "category", "failures", "last_at", "until", "reason")
        rows = [{name: getattr(each, name) for name in fields} for each in found]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows([row | {"reason": row["reason"][:60]} for row in rows], "Nothing is suppressed.")

    def add(self, options: dict[str, Any]) -> None:
        days = options["days"]
        if days is not None and days > 36500:
            raise CommandError("--days is 1 to 36500.")
        until = datetime.now(UTC) + timedelta(days=days) if days else None
        source = "complaint" if options["complaint"] else "admin"
        reason = options["reason"] or _REASONS[source]
        names = [_key(each) for each in options["address"]]
        if odd := [each for each in names if "@" not in each and "." not in each]:
            raise CommandError(f"{odd[0]} is neither an address (name@domain) nor a domain (such as example.org).")
        with db.django_transaction() as tx:
            for name in names:
                db.run_sync(suppression.add(tx, name, source=source, category=source, reason=reason, until=until))
        long = f"for {days} {'days' if days > 1 else 'day'}" if until else "until it is removed here"
        self.stdout.write(f"Suppressed {long}: {', '.join(names)}. Mail for it comes back, also what is queued.")

    def remove(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            gone = db.run_sync(suppression.remove(tx, [_key(each) for each in options["address"]]))
        if not gone:
            raise CommandError("None of it is on the list: `manage.py suppression list --strikes`.")
        self.stdout.write(f"Removed: {', '.join(gone)}.")


def _key(text: str) -> str:
    try:
        return str(parse_address(text)) if "@" in text else domain_name(text.removesuffix("."))
    except AddressError as error:
        raise CommandError(f"{text!r} is neither an address nor a domain: {error.text}.") from None
