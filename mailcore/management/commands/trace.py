"""`manage.py trace`: where is my mail?"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from mailcore import db, timeline
from mailcore.management import base
from mailcore.store import mailboxes, trace
from mailcore.store.trace import Found

_SPANS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(base.Command):
    help = "Show everything that happened to a message, accepted or refused."

    def add_arguments(self, parser: CommandParser) -> None:
        what = "trace id, Message-ID, queue number, a client's IP address, or the address of a sender or recipient"
        parser.add_argument("text", metavar="ID-or-ADDRESS", nargs="?", default="", help=f"{what}; none: the newest")
        parser.add_argument("--limit", type=base.count, default=20, help="messages at most, the newest (default 20)")
        when = "a time (2026-11-22T14:30, UTC unless it says otherwise) or how long ago (30m, 2h, 3d)"
        parser.add_argument("--since", type=moment, metavar="TIME", help=f"not before: {when}")
        parser.add_argument("--until", type=moment, metavar="TIME", help="before, written as for --since")
        parser.add_argument("--json", action="store_true")
        parser.set_defaults(verb="timeline")

    def timeline(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            found = db.run_sync(
                trace.find(tx, options["text"], options["limit"], since=options["since"], until=options["until"])
            )
            accounts = {event.account_id for event in found if event.account_id and "mailbox" in event.detail}
            names: dict[tuple[int | None, Any], str] = {
                (account, box.id): box.name for account in accounts for box in db.run_sync(mailboxes.all(tx, account))
            }
        if options["json"]:
            self.show_json([{name: getattr(event, name) for name in Found.__slots__} for event in found])
            return
        if not found:
            limited = options["since"] or options["until"]
            what = options["text"] or ("any message in that time" if limited else "any message yet")
            raise CommandError(f"Nothing is known of {what}.")
        for number, message in enumerate(timeline.messages(found, mailboxes=names)):
            parts = [message.trace_id]
            if message.sender is not None:
                parts.append(f"from {message.sender or '<>'}")
            if message.message_id:
                parts.append(f"<{message.message_id}>")
            self.stdout.write(("\n" if number else "") + "  ".join(parts))
            for step in message.steps:
                at = step.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
                words = " ".join(part for part in (step.name.ljust(10), step.who or "", step.words) if part)
                self.stdout.write(f"  {at}  {words}".rstrip())


def moment(written: str) -> datetime:
    """An argparse type: a point in time, or how long ago."""
    if match := re.fullmatch(r"(\d{1,5})([smhd])", written):
        return datetime.now(UTC) - timedelta(**{_SPANS[match[2]]: int(match[1])})
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        raise ArgumentTypeError(f"{written!r} is neither a time like 2026-11-22T14:30 nor an age like 2h") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
