"""`manage.py group`: lists of people behind one address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import groups
from accounts.models import Group
from mailcore.management import base

MAX_FILE = 4 << 20  # octets


class Command(base.Command):
    help = "Add, list, show and remove groups and their members, and say who may write to them."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        add = verb("add", "Make a group; one that exists gets more members, and the rules that are given.")
        add.add_argument("address")
        add.add_argument(
            "member", nargs="*", default=[], help="addresses here or elsewhere, aliases and groups among them"
        )
        add.add_argument("--members-from", metavar="FILE", help="more members, one a line; - reads standard input")
        add.add_argument("--name", help="what it is called")
        add.add_argument("--post", choices=Group.Posting.values, help="who may write to it; a new group: anyone")
        add.add_argument("--send-as", choices=("on", "off"), help="members may send as the group; a new group: off")
        listing = verb("list", "List groups.")
        listing.add_argument("domain", nargs="?", help="only those of one domain")
        listing.add_argument("--json", action="store_true")
        show = verb("show", "Show a group with its members.")
        show.add_argument("address")
        show.add_argument("--json", action="store_true")
        remove = verb("remove", "Remove a group, or only the members named.")
        remove.add_argument("address")
        remove.add_argument("member", nargs="*", default=[])

    def add(self, options: dict[str, Any]) -> None:
        group = groups.add_group(
            options["address"],
            [*options["member"], *_members(options["members_from"])],
            name=options["name"],
            posting=options["post"],
            send_as=None if options["send_as"] is None else options["send_as"] == "on",
        )
        self.stdout.write(f"Group {group}: {self._counted(group)}; {_rule(group)}.")

    def list(self, options: dict[str, Any]) -> None:
        rows = [
            {
                "address": str(each.group),
                "name": each.group.name,
                "members": each.members,
                "post": each.group.posting,
                "send_as": each.group.send_as,
            }
            for each in groups.list_groups(options["domain"])
        ]
        if options["json"]:
            self.show_json(rows)
        else:
            self.show_rows(rows, "No groups: `manage.py group add ADDRESS MEMBER`.")

    def show(self, options: dict[str, Any]) -> None:
        group = groups.get_group(options["address"])
        fields = {
            "address": str(group),
            "name": group.name,
            "post": group.posting,
            "send_as": group.send_as,
            "members": groups.members(group),
        }
        if options["json"]:
            self.show_json(fields)
        else:
            self.show_fields(fields.items())

    def remove(self, options: dict[str, Any]) -> None:
        group = groups.get_group(options["address"])
        name = str(group)
        if options["member"]:
            groups.remove_members(group, options["member"])
            self.stdout.write(f"Group {group}: {self._counted(group)} left.")
        else:
            groups.remove_group(group)
            self.stdout.write(f"Group {name} removed.")

    def _counted(self, group: Group) -> str:
        count = len(groups.members(group))
        return f"{count} {'member' if count == 1 else 'members'}"


def _rule(group: Group) -> str:
    who = {"anyone": "anyone", "domain": "people of its domain", "members": "its members"}[group.posting]
    return f"{who} may write to it, members {'may' if group.send_as else 'may not'} send as it"


def _members(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        if file == "-":
            text = sys.stdin.read(MAX_FILE + 1)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise CommandError(f"The members cannot be read from {file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"The members cannot be read from {file}: it is not UTF-8.") from None
    if len(text) > MAX_FILE:
        raise CommandError(f"{file} is longer than {MAX_FILE >> 20} MB.")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
