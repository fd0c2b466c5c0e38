"""`manage.py domain`: the domains whose mail this installation receives."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts import people
from accounts.addresses import display_domain
from mailcore import db, provision
from mailcore.conf import conf
from mailcore.delivery import dkim
from mailcore.management import base


class Command(base.Command):
    help = "Add, list, show and remove hosted domains."

    def add_arguments(self, parser: CommandParser) -> None:
        add = self.subcommands(parser)
        add("add", "Host a domain, with new DKIM keys.").add_argument("name")
        add("list", "List hosted domains.").add_argument("--json", action="store_true")
        show = add("show", "Show a domain and the DNS records to publish for it.")
        show.add_argument("name")
        show.add_argument("--json", action="store_true")
        add("remove", "Stop hosting a domain that has no accounts and aliases left.").add_argument("name")

    def add(self, options: dict[str, Any]) -> None:
        domain = provision.add_domain(options["name"])
        self.stdout.write(f"Domain {domain.name} added. DNS records to publish: `manage.py domain show {domain.name}`.")

    def list(self, options: dict[str, Any]) -> None:
        rows = [
            {"name": each.name, "active": each.is_active, "accounts": each.account_count, "aliases": each.alias_count}
            for each in people.list_domains()
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No domains yet: `manage.py domain add NAME`.")

    def show(self, options: dict[str, Any]) -> None:
        domain = people.get_domain(options["name"])
        counted = people.list_domains().get(pk=domain.pk)
        with db.django_transaction() as tx:
            records = db.run_sync(dkim.dns_records(tx, domain.name))
        fields = {
            "name": domain.name,
            "shown_as": display_domain(domain.name),
            "active": domain.is_active,
            "accounts": counted.account_count,
            "aliases": counted.alias_count,
            "created_at": domain.created_at,
        }
        if options["json"]:
            listed = [{"name": each.name, "type": each.type, "value": each.value} for each in records]
            self.show_json(fields | {"records": listed})
            return
        self.show_fields(fields.items())
        self.stdout.write("\nDNS records to publish:")
        for record in records:
            self.stdout.write(str(record))
        if "." not in conf.hostname or conf.hostname.startswith("localhost"):
            self.stderr.write(
                f"MAILSTEAD_HOSTNAME is {conf.hostname!r}: set it to this host's full name in the DNS first."
            )

    def remove(self, options: dict[str, Any]) -> None:
        provision.remove_domain(options["name"])
        self.stdout.write("Domain removed.")
