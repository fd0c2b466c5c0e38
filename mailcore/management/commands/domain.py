"""`manage.py domain`: the domains whose mail this installation receives."""

from __future__ import annotations

import asyncio
from typing import Any

from django.core.management.base import CommandParser

from accounts import people, policies
from accounts.addresses import display_domain
from mailcore import db, provision
from mailcore.conf import conf
from mailcore.delivery import dkim, records, rotation
from mailcore.delivery.mx import Resolver
from mailcore.management import base
from mailcore.store import signing_keys
from mailcore.supervise import preflight

_STATES = {"next": "to be published", "active": "signs", "retired": "signs no more, stays published"}


class Command(base.Command):
    help = "Add, list, show and remove hosted domains, their other names and their policies."

    def add_arguments(self, parser: CommandParser) -> None:
        add = self.subcommands(parser)
        add("add", "Host a domain, with new DKIM keys.").add_argument("name")
        add("list", "List hosted domains.").add_argument("--json", action="store_true")
        show = add("show", "Show a domain and the DNS records to publish for it.")
        show.add_argument("name")
        show.add_argument("--json", action="store_true")
        alias = add("alias", "Let a domain answer under other names too: alias add NAME DOMAIN, list, remove NAME.")
        action = self.subcommands(alias, "action")
        adding = action("add", "Let example.net answer as example.com, with DKIM keys of its own.")
        adding.add_argument("name")
        adding.add_argument("domain")
        action("list", "List the other names of domains.").add_argument("--json", action="store_true")
        action("remove", "Take a name back.").add_argument("name")
        keys = add("dkim", "The keys that sign a domain's mail: dkim list NAME, rotate NAME.")
        action = self.subcommands(keys, "action")
        listing = action("list", "List the keys, what they do, and their DNS records.")
        listing.add_argument("name")
        listing.add_argument("--json", action="store_true")
        rotating = action("rotate", "Make new keys; they sign as soon as the DNS shows them.")
        rotating.add_argument("name")
        rotating.add_argument("--now", action="store_true", help="let them sign at once, whatever the DNS shows")
        base.policy_arguments(add("policy", "Show or settle what holds for a domain's addresses and accounts."), "name")
        add("remove", "Stop hosting a domain that has no accounts and aliases left.").add_argument("name")

    def add(self, options: dict[str, Any]) -> None:
        domain = provision.add_domain(options["name"])
        self.stdout.write(f"Domain {domain.name} added. DNS records to publish: `manage.py domain show {domain.name}`.")

    def list(self, options: dict[str, Any]) -> None:
        rows = [
            {
                "name": each.name,
                "active": each.is_active,
                "accounts": each.account_count,
                "aliases": each.alias_count,
                "groups": each.group_count,
            }
            for each in people.list_domains()
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No domains yet: `manage.py domain add NAME`.")

    def show(self, options: dict[str, Any]) -> None:
        domain = people.get_any_domain(options["name"])
        counted = people.list_domains().get(pk=domain.alias_of_id or domain.pk)
        with db.django_transaction() as tx:
            published = db.run_sync(records.of_domain(tx, domain.name, policies.value_of(domain, "mta-sts")))
        fields = {
            "name": domain.name,
            "shown_as": display_domain(domain.name),
            "active": domain.is_active,
            "alias_of": domain.alias_of.name if domain.alias_of else None,
            "accounts": counted.account_count,
            "aliases": counted.alias_count,
            "groups": counted.group_count,
            "created_at": domain.created_at,
        }
        if options["json"]:
            listed = [{"name": each.name, "type": each.type, "value": each.value} for each in published]
            self.show_json(fields | {"records": listed})
            return
        self.show_fields(fields.items())
        self.stdout.write("\nDNS records to publish:")
        for record in published:
            self.stdout.write(str(record))
        if lacking := preflight.exports(conf):
            self.stderr.write(f"`make up` runs with other settings than this terminal: export {lacking}")
        if "." not in conf.hostname or conf.hostname.startswith("localhost"):
            self.stderr.write(
                f"MAILSTEAD_HOSTNAME is {conf.hostname!r}: set it to this host's full name in the DNS first."
            )

    def alias(self, options: dict[str, Any]) -> None:
        if options["action"] == "add":
            added = provision.add_domain_alias(options["name"], options["domain"])
            self.stdout.write(f"{added.name} answers as {added.alias_of}.")
            self.stdout.write(f"DNS records to publish: `manage.py domain show {added.name}`.")
        elif options["action"] == "remove":
            alias = people.get_any_domain(options["name"])
            people.remove_domain_alias(alias.name)
            self.stdout.write(f"{alias} no longer answers as {alias.alias_of}.")
        else:
            rows = [{"name": each.name, "domain": str(each.alias_of)} for each in people.list_domain_aliases()]
            if options["json"]:
                self.show_json(rows)
            else:
                self.show_rows(rows, "No domain aliases: `manage.py domain alias add NAME DOMAIN`.")

    def dkim(self, options: dict[str, Any]) -> None:
        name = people.get_any_domain(options["name"]).name
        if options["action"] == "rotate":
            self._rotate(name, at_once=options["now"])
            return
        with db.django_transaction() as tx:
            keys = db.run_sync(signing_keys.of_domain(tx, name))
        listed = [(key, dkim.key_record(key)) for key in keys]
        if options["json"]:
            self.show_json(
                [
                    {"selector": key.selector, "algorithm": key.algorithm, "state": key.state, "since": key.since}
                    | {"record": {"name": record.name, "type": record.type, "value": record.value}}
                    for key, record in listed
                ]
            )
            return
        rows = [
            {"selector": key.selector, "algorithm": key.algorithm, "state": _STATES[key.state], "since": key.since}
            for key, _ in listed
        ]
        self.show_rows(rows, f"No keys: `manage.py domain dkim rotate {name}` makes some.")
        if listed:
            self.stdout.write("\nDNS records:")
        for _, record in listed:
            self.stdout.write(str(record))

    def _rotate(self, name: str, *, at_once: bool) -> None:
        with db.django_transaction() as tx:
            db.run_sync(dkim.create_keys(tx, name, "next"))
            keys = db.run_sync(rotation.coming(tx, name))
        shown = keys if at_once else asyncio.run(rotation.published(Resolver(conf.dns), keys))
        missing = [key for key in keys if key not in shown]
        if missing:
            self.stdout.write("Publish these records; the keys sign as soon as the DNS shows them all, which is looked")
            self.stdout.write("for every few minutes. Leave the present ones in place until then:")
            for key in missing:
                self.stdout.write(str(dkim.key_record(key)))
            return
        with db.django_transaction() as tx:
            now = db.run_sync(signing_keys.turn(tx, name, [key.selector for key in keys]))
        self.stdout.write(f"Mail of {name} is signed with {', '.join(now)} within a minute.")
        self.stdout.write(f"The records of the former keys must stay for {signing_keys.KEEP_DAYS} days.")

    def policy(self, options: dict[str, Any]) -> None:
        self.show_policy(people.get_domain(options["name"]), options)

    def remove(self, options: dict[str, Any]) -> None:
        domain = people.get_domain(options["name"])
        provision.remove_domain(domain.name)
        self.stdout.write(f"Domain {domain} removed.")
