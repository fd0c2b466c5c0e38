"""`manage.py sendas`: who may send as somebody else."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts import people, rights
from accounts.models import SendAs
from mailcore.management import base


class Command(base.Command):
    help = "Let an account send as an address that is not its own, or as any address of a domain; list, take back."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        for name, help in (("add", "Let an account send as somebody else."), ("remove", "Take that back.")):
            one = verb(name, help)
            one.add_argument("account")
            one.add_argument("what", help="an address of ours, or a whole domain")
        listing = verb("list", "List who may send as what.")
        listing.add_argument("account", nargs="?", help="only what this account may")
        listing.add_argument("--json", action="store_true")

    def add(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["account"])
        right = rights.grant(account, options["what"])
        self.stdout.write(f"{account.address} may send as {_named(right)}.")

    def list(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["account"]) if options["account"] else None
        rows = [
            {"account": each.account.address, "sends_as": str(each), "since": each.created_at}
            for each in rights.list_rights(account)
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No such rights: `manage.py sendas add ACCOUNT ADDRESS-OR-DOMAIN`.")

    def remove(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["account"])
        right = rights.revoke(account, options["what"])
        self.stdout.write(f"{account.address} may no longer send as {_named(right)}.")


def _named(right: SendAs) -> str:
    return f"any address of {right.domain}" if right.domain else str(right.address)
