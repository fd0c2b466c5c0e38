"""`manage.py alias`: addresses that lead to others."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts import people
from mailcore.management import base


class Command(base.Command):
    help = "Add, list and remove aliases; `*@domain` is the domain's catch-all."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        add = verb("add", "Let an address lead to others, here or elsewhere; an alias that exists gets more targets.")
        add.add_argument("address")
        add.add_argument("target", nargs="+")
        listing = verb("list", "List aliases.")
        listing.add_argument("address", nargs="?", help="only this alias, or this domain's")
        listing.add_argument("--json", action="store_true")
        remove = verb("remove", "Remove an alias, or only the targets named.")
        remove.add_argument("address")
        remove.add_argument("target", nargs="*", default=[])

    def add(self, options: dict[str, Any]) -> None:
        alias = people.add_alias(options["address"], options["target"])
        self.stdout.write(f"Alias {alias.address} leads to {', '.join(alias.targets)}.")

    def list(self, options: dict[str, Any]) -> None:
        rows = [{"address": each.address, "targets": each.targets} for each in people.list_aliases(options["address"])]
        if options["json"]:
            self.show_json(rows)
        else:
            of = f" {options['address']}" if "@" in (options["address"] or "") else "es"
            self.show_rows(rows, f"No alias{of}: `manage.py alias add ADDRESS TARGET`.")

    def remove(self, options: dict[str, Any]) -> None:
        pointing = people.remove_alias(options["address"], options["target"])
        left = people.list_aliases(options["address"])
        self.stdout.write(
            f"Alias {left[0].address} leads to {', '.join(left[0].targets)}."
            if left
            else f"Alias {people.normalised(options['address'])} removed."
        )
        if pointing:
            more = f" and {len(pointing) - 5} more" if len(pointing) > 5 else ""
            self.stderr.write(
                f"Warning: {', '.join(pointing[:5])}{more} still lead{'s' if len(pointing) == 1 else ''} to it,"
                " which is now nobody (or the catch-all): see `manage.py alias list`."
            )
