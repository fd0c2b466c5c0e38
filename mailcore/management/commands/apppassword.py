"""`manage.py apppassword`: a password of its own for each mail program."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts import app_passwords, people
from mailcore.conf import conf
from mailcore.management import base


class Command(base.Command):
    help = "Add, list and remove app passwords."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        add = verb("add", "Make an app password and print it, once.")
        add.add_argument("address")
        add.add_argument("--label", default="", help="what it is for, such as: phone")
        add.add_argument(
            "--only",
            metavar="PROTOCOLS",
            help=f"what it is good for, of {','.join(app_passwords.SCOPES)}; all of them when this is not given",
        )
        listing = verb("list", "List an account's app passwords (not the secrets, which nobody keeps).")
        listing.add_argument("address")
        listing.add_argument("--json", action="store_true")
        remove = verb("remove", "Remove an app password; programs using it are cut off.")
        remove.add_argument("address")
        which = remove.add_mutually_exclusive_group(required=True)
        which.add_argument("number", nargs="?", type=base.count, help="as `list` shows it")
        which.add_argument("--label", help="instead of the number")

    def add(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        only = options["only"]
        scopes = None if only is None else [name.strip().lower() for name in only.split(",") if name.strip()]
        self.stdout.write(people.add_app_password(account, options["label"], scopes))
        hint = "Hyphens and capitals do not matter."
        if conf.scram:
            hint = "Hyphens and capitals matter to programs that log in with SCRAM, and to no others."
        limits = "" if scopes is None else f", only for {', '.join(scopes)}"
        self.stderr.write(f"For {account.address}{limits}; it cannot be shown again. {hint}")
        if not options["label"].strip():
            self.stderr.write(
                "It has no label: `apppassword list` shows it by its number; --label says what it is for."
            )

    def list(self, options: dict[str, Any]) -> None:
        rows = [
            {
                "number": row.pk,
                "label": row.label,
                "protocols": row.scopes,
                "created_at": row.created_at,
                "last_used_at": row.last_used_at,
            }
            for row in people.list_app_passwords(people.get_account(options["address"]))
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No app passwords: `manage.py apppassword add ADDRESS`.")

    def remove(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        gone = people.remove_app_password(account, label=options["label"], number=options["number"])
        label = f" ({gone.label})" if gone.label else ""
        self.stdout.write(f"App password {gone.pk}{label} of {account.address} removed.")
