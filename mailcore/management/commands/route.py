"""`manage.py route`: where mail goes, by the domains of sender and recipient."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import secrets
from accounts.addresses import Parsed, domain_name, parse_address
from accounts.errors import AddressError
from mailcore import db
from mailcore.conf import conf
from mailcore.delivery import route
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Undeliverable
from mailcore.delivery.plan import Plan, Plans, Way
from mailcore.management import base
from mailcore.store import accounts, destinations, routes, suppression
from mailcore.store.routes import ACTIONS, TLS, Rule

ACTIONS_HELP = (
    "mx: to the recipients' mail hosts; relay: to --host; hold: set aside until `queue release`; bounce: back to the"
    " sender; discard: dropped, and nobody is told (the trace says so)"
)


class Command(base.Command):
    help = "Rules for where mail goes. The rule for the more particular recipient wins, then for the sender."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        verb("list", "List the rules.").add_argument("--json", action="store_true")
        add = verb("add", "Add a rule, or replace the one for the same domains.")
        add.add_argument("action", choices=ACTIONS, help=ACTIONS_HELP)
        add.add_argument("--recipient", metavar="DOMAIN", help="a domain, *.domain or * (default)")
        add.add_argument("--sender", metavar="DOMAIN", help="the same, or <> for notices")
        add.add_argument("--host", metavar="HOST[:PORT]", help="relay: who takes the mail; port 25 without one")
        add.add_argument("--user", help="relay: login")
        add.add_argument("--password-stdin", action="store_true", help="relay: read the password from standard input")
        add.add_argument("--tls", choices=TLS, default="may", help="require: never in the clear")
        add.add_argument("--source", action="append", metavar="IP", default=[], help="our address (one v4, one v6)")
        add.add_argument("--hello", metavar="NAME", help="our name in EHLO")
        add.add_argument("--connections", type=int, help="at most at a time, of one worker")
        add.add_argument("--per-connection", type=int, help="messages over one connection")
        add.add_argument("--per-minute", type=int, help="messages a minute, of all workers")
        add.add_argument("--text", default="", help="hold, discard: why; bounce: what the sender is told")
        remove = verb("remove", "Remove a rule.")
        remove.add_argument("number", type=int)
        test = verb("test", "Show where mail to an address would go, and by which rule.")
        test.add_argument("address")
        test.add_argument("--sender", metavar="ADDRESS", default="", help="without it: as a notice goes, from <>")
        test.add_argument("--json", action="store_true")

    def list(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            rules = db.run_sync(routes.rules(tx))
        if options["json"]:
            self.show_json([_plain(rule) for rule in rules])
            return
        rows = [
            {"number": rule.id, "recipient": rule.recipient, "sender": rule.sender, "action": rule.action}
            | {"how": _how(_plain(rule))}
            for rule in rules
        ]
        default = f"the smarthost {conf.smarthost.host}" if conf.smarthost else "the recipients' MX hosts"
        self.show_rows(rows, f"No rules: all mail goes to {default}.")

    def add(self, options: dict[str, Any]) -> None:
        rule = _rule(options)
        with db.django_transaction() as tx:
            number, new = db.run_sync(routes.put(tx, rule))
        whom = " from ".join("everybody" if each == "*" else each for each in (rule.recipient, rule.sender))
        self.stdout.write(
            f"Rule {number} {'added' if new else 'replaced'}, for mail to {whom}; the workers know it within seconds."
        )

    def remove(self, options: dict[str, Any]) -> None:
        number = options["number"]
        with db.django_transaction() as tx:
            if not (0 < number < 1 << 63 and db.run_sync(routes.remove(tx, number))):
                raise CommandError(f"There is no rule {number}: `manage.py route list`.")
        self.stdout.write(f"Rule {number} removed.")

    def test(self, options: dict[str, Any]) -> None:
        recipient, sender = _address(options["address"]), ""
        if options["sender"] not in ("", "<>"):
            sender = str(_address(options["sender"]))
        address, destination = str(recipient), recipient.domain
        with db.django_transaction() as tx:
            plans = Plans(conf, db.run_sync(routes.rules(tx)))
            here = db.run_sync(accounts.is_local_domain(tx, destination))
            way = plans.way(sender, destination)
            notes = [] if here else _notes(tx, address, way)
        plan = plans.of(sender, destination)
        if here:
            plan = Plan("mailbox", text="the domain is hosted here; no rule is asked")
        hosts: Sequence[str] = []
        trouble = ""
        if plan.sends:
            try:
                hosts = asyncio.run(_hosts(destination, plan))
            except Undeliverable as error:
                trouble = error.outcome.text
        fields = {
            "sender": sender or "<>",
            "destination": destination,
            "rule": plan.rule or "none",
            "action": plan.action,
            "hosts": hosts,
            "text": plan.text,
            "trouble": trouble,
            "but": notes,
        }
        if options["json"]:
            self.show_json(fields)
        else:
            self.show_fields(
                (name, value) for name, value in fields.items() if name != "but" and (value or name == "rule")
            )
            for note in notes:
                self.stdout.write(f"But {note}.")
        if trouble:
            raise CommandError("Mail cannot be sent there now.")


def _address(text: str) -> Parsed:
    try:
        return parse_address(text)
    except AddressError as error:
        raise CommandError(f"{text or 'An empty text'}: {error.text}") from None


def _notes(tx: db.DjangoTx, address: str, way: Way) -> list[str]:
    """Why mail for an address would not go now, whatever the rules say."""
    notes = []
    for hit in db.run_sync(suppression.find(tx, [address])).values():
        until = f" until {hit.until:%Y-%m-%d %H:%M}" if hit.until else ""
        notes.append(
            f"{hit.address} is suppressed{until} ({hit.reason or hit.category}): mail comes back, see"
            f" `manage.py suppression remove {hit.address}`"
        )
    for frozen in db.run_sync(destinations.frozen(tx)):
        if frozen.destination == parse_address(address).domain:
            until = f" until {frozen.until:%Y-%m-%d %H:%M}" if frozen.until else f": `queue thaw {frozen.destination}`"
            notes.append(f"{frozen.destination} is frozen, its mail waits{until}")
    for pause in db.run_sync(destinations.pauses_of(tx, [way.name])):
        if pause.left > 0:
            what = pause.name or "the smarthost"
            notes.append(f"{what} is paused for {pause.left:.0f} s more ({pause.reason}): `manage.py queue retry`")
    return notes


async def _hosts(destination: str, plan: Plan) -> list[str]:
    resolver = Resolver(conf.dns, conf.dnssec)
    return [f"{host}:{host.port}" async for host in route.hosts(destination, conf, resolver, plan)]


def _rule(options: dict[str, Any]) -> Rule:
    host, port = _host(options["host"]) if options["host"] else (None, None)
    if (options["action"] == "relay") != (host is not None):
        raise CommandError("relay needs --host, and only relay has one.")
    if (options["user"] or options["password_stdin"]) and options["action"] != "relay":
        raise CommandError("--user is for a relay.")
    if options["action"] in ("hold", "bounce", "discard") and not (options["recipient"] or options["sender"]):
        raise CommandError(f"{options['action']} whose mail? --recipient or --sender; --recipient '*' is everybody's.")
    password = None
    if options["password_stdin"]:
        if not options["user"]:
            raise CommandError("A password without --user.")
        password = secrets.seal(sys.stdin.readline().rstrip("\r\n").encode())
    for name in ("connections", "per_connection", "per_minute"):
        if options[name] is not None and not 1 <= options[name] <= 1_000_000:
            raise CommandError(f"--{name.replace('_', '-')} is 1 to 1000000.")
    sources: dict[int, str] = {}
    for text in options["source"]:
        found = _source(text)
        if found.version in sources:
            raise CommandError(f"--source: one IPv{found.version} address, not {sources[found.version]} and {text}.")
        sources[found.version] = str(found)
    return Rule(
        sender="<>" if options["sender"] == "<>" else _pattern(options["sender"] or "*"),
        recipient=_pattern(options["recipient"] or "*"),
        action=options["action"],
        host=host,
        port=port,
        username=options["user"],
        password=password,
        tls=options["tls"],
        source4=sources.get(4),
        source6=sources.get(6),
        hello=_domain(options["hello"]) if options["hello"] else None,
        connections=options["connections"],
        per_connection=options["per_connection"],
        per_minute=options["per_minute"],
        text=" ".join(options["text"].split()),
    )


def _host(text: str) -> tuple[str, int | None]:
    """`name`, `name:587`, `[2001:db8::1]:25`."""
    name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        name, port = text, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise CommandError(f"--host {text}: a port is 1 to 65535.")
    name = name.strip("[]")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        name = _domain(name)
    return name, int(port) if port else None


def _source(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise CommandError(f"--source {text} is no IP address.") from None
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found.ipv4_mapped):
        raise CommandError(f"--source {text}: an address without a zone, and not a mapped one, is wanted.")
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        raise CommandError(f"--source {text} is no address that mail can be sent from.")
    return found


def _pattern(text: str) -> str:
    if text == "*":
        return text
    if text.startswith("*."):
        return "*." + _domain(text[2:])
    if text.startswith("["):
        try:
            return parse_address(f"x@{text}").domain
        except AddressError:
            raise CommandError(f"{text} is no address literal such as [192.0.2.1] or [IPv6:2001:db8::1].") from None
    return _domain(text.removeprefix("@"))


def _domain(text: str) -> str:
    try:
        return domain_name(text)
    except AddressError as error:
        raise CommandError(f"{text}: {error.text}") from None


def _plain(rule: Rule) -> dict[str, Any]:
    """A rule without its password."""
    names = [name for name in Rule.__slots__ if name != "password"]
    return {name: getattr(rule, name) for name in names} | {"has_password": rule.password is not None}


def _how(rule: dict[str, Any]) -> str:
    words = []
    if rule["host"]:
        words.append(f"{rule['host']}:{rule['port'] or 25}" + (f" as {rule['username']}" if rule["username"] else ""))
    words += [f"tls {rule['tls']}"] if rule["tls"] != "may" else []
    named = ("source4", "source6", "hello", "connections", "per_connection", "per_minute", "text")
    words += [f"{name.replace('_', ' ')} {rule[name]}" for name in named if rule[name]]
    return ", ".join(words)
