"""`manage.py account`: people with a mailbox."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from allauth.mfa.utils import is_mfa_enabled
from django.core.management.base import CommandError, CommandParser

from accounts import passwords, people, rights
from mailcore import db, provision
from mailcore.management import base
from mailcore.store import limits, quota


class Command(base.Command):
    help = "Add, list, show, disable, enable and remove accounts, and set their passwords and policies."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        add = verb("add", "Make an account with its default mailboxes. Without a password option, one is generated.")
        add.add_argument("address")
        _password_options(add)
        add.add_argument("--name", default="", help="the person's name, as shown in From")
        add.add_argument("--admin", action="store_true", help="may administer the whole installation")
        add.add_argument("--quota", type=base.size, metavar="SIZE", help="such as 500M or 5G; default: no limit")
        limit = "messages it may keep; default: no limit"
        add.add_argument("--max-messages", type=base.count, metavar="NUMBER", help=limit)
        listing = verb("list", "List accounts.")
        listing.add_argument("domain", nargs="?", help="only those of one domain")
        listing.add_argument("--json", action="store_true")
        show = verb("show", "Show one account.")
        show.add_argument("address")
        show.add_argument("--json", action="store_true")
        passwd = verb("passwd", "Set a password; asks for it on a terminal when no option says otherwise.")
        passwd.add_argument("address")
        _password_options(passwd)
        base.policy_arguments(verb("policy", "Show or settle what holds for one account."), "address")
        verb("disable", "Refuse sign-ins and new mail; keep what is there.").add_argument("address")
        verb("enable", "Undo disable.").add_argument("address")
        remove = verb("remove", "Remove an account and all its mail, for good.")
        remove.add_argument("address")
        remove.add_argument("--yes", action="store_true", help="do not ask")

    def add(self, options: dict[str, Any]) -> None:
        password, generated = self._password(options["address"], options, ask=False)
        account = provision.add_account(
            options["address"],
            password=password,
            name=options["name"],
            admin=options["admin"],
            quota=options["quota"],
            messages=options["max_messages"],
        )
        self.stdout.write(f"Account {account.address} added.")
        self._show_generated(password, generated)

    def list(self, options: dict[str, Any]) -> None:
        rows = [
            {
                "address": account.address,
                "name": account.name,
                "active": account.is_active,
                "admin": account.is_superuser,
                "last_login": account.last_login,
            }
            for account in people.list_accounts(options["domain"]).iterator()
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No accounts yet: `manage.py account add ADDRESS`.")

    def show(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        with db.django_transaction() as tx:
            used = db.run_sync(quota.get(tx, account.pk))
            sent = db.run_sync(limits.sent(tx, account.pk))
        fields = {
            "address": account.address,
            "name": account.name,
            "active": account.is_active,
            "admin": account.is_superuser,
            "has_password": account.has_usable_password(),
            "two_factor": is_mfa_enabled(account),
            "app_passwords": account.app_passwords.count(),
            "messages": used.messages,
            "used_bytes": used.bytes,
            "quota_bytes": used.limit,
            "quota_messages": used.message_limit,
            "sends_as": [str(right) for right in rights.list_rights(account)],
            "aliases": [alias.address for alias in people.list_aliases_to(account.address)],
            "recipients_last_hour": sent[0],
            "recipients_last_day": sent[1],
            "last_login": account.last_login,
            "created_at": account.created_at,
        }
        if options["json"]:
            self.show_json(fields)
            return
        fields |= {"used_bytes": base.shown_size(used.bytes), "quota_bytes": base.shown_size(used.limit)}
        fields["quota_messages"] = "no limit" if used.message_limit is None else used.message_limit
        self.show_fields((name.removesuffix("_bytes"), value) for name, value in fields.items())

    def passwd(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        password, generated = self._password(account.address, options, ask=True)
        people.set_password(account, password)
        self.stdout.write(f"The password of {account.address} is changed; sessions and programs using the old one end.")
        self._show_generated(password, generated)

    def policy(self, options: dict[str, Any]) -> None:
        self.show_policy(people.get_account(options["address"]), options)

    def disable(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        people.disable_account(account)
        self.stdout.write(f"Account {account.address} is disabled.")
        self._warn_without_administrator(account.is_superuser)

    def enable(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        people.enable_account(account)
        self.stdout.write(f"Account {account.address} is enabled.")

    def remove(self, options: dict[str, Any]) -> None:
        account = people.get_account(options["address"])
        address, was_administrator = account.address, account.is_superuser
        self.confirm(f"All mail of {address} will be lost.", options)
        changed = provision.remove_account(account)
        self.stdout.write(f"Account {address} removed.")
        if changed:
            self.stdout.write(f"No longer leading to it: {', '.join(changed)}.")
        self._warn_without_administrator(was_administrator)

    def _warn_without_administrator(self, was_administrator: bool) -> None:
        if was_administrator and not people.has_administrator():
            self.stderr.write("No administrator can sign in now: `manage.py account add ADDRESS --admin` makes one.")

    def _password(self, address: str, options: dict[str, Any], *, ask: bool) -> tuple[str, bool]:
        """The password that the options give, and whether it was generated; a weak one is refused, as on the web."""
        if options["generate"] or (not ask and options["password"] is None and not options["password_stdin"]):
            return passwords.generate_password(), True
        password = options["password"] if options["password"] is not None else _typed(options["password_stdin"])
        if reason := passwords.unusable_reason(password) or passwords.weakness(password, address):
            raise CommandError(f"{reason} Nothing was changed; --generate makes a good one.")
        return password, False

    def _show_generated(self, password: str, generated: bool) -> None:
        if generated:
            self.stdout.write(f"Password: {password}")


def _typed(piped: bool) -> str:
    if piped:
        return sys.stdin.readline(passwords.MAX_LENGTH + 2).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise CommandError("Say where the password comes from: --password-stdin, --generate or --password.")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two passwords differ; nothing was changed.")
    return password


def _password_options(parser: CommandParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--password", help="visible in the shell's history and the process list: better not")
    group.add_argument("--password-stdin", action="store_true", help="the first line of standard input")
    group.add_argument("--generate", action="store_true", help="make one and print it")
