"""`manage.py reindex`: make anew what is derived from mail, and the search index."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import people
from accounts.models import Account
from mailcore import db, indexer
from mailcore.indexer import Busy
from mailcore.management import base


class Command(base.Command):
    help = (
        "Make anew what is derived from messages (structure, texts, what lists show) and the search index. Mail can be "
        "read, searched and delivered meanwhile; searches take longer until the index is there again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("addresses", metavar="ADDRESS", nargs="*", default=[], help="the accounts")
        parser.add_argument("--all", action="store_true", help="every account instead")
        parser.add_argument("--index-only", action="store_true", help="leave what is derived as it is")
        parser.set_defaults(verb="reindex")

    def reindex(self, options: dict[str, Any]) -> None:
        if bool(options["addresses"]) == options["all"]:
            raise CommandError("Say which accounts, or --all (one of the two).")
        accounts = (
            Account.objects.order_by("address")
            if options["all"]
            else [people.get_account(address) for address in dict.fromkeys(options["addresses"])]
        )
        left = asyncio.run(self._run([(a.pk, a.address) for a in accounts], derive=not options["index_only"]))
        if left:
            raise CommandError(f"Left as they are, because their index is being built right now: {', '.join(left)}")

    async def _run(self, accounts: list[tuple[int, str]], derive: bool) -> list[str]:
        """Returns the addresses of accounts that somebody else was busy with."""
        left = []
        await db.open_pool(2)
        try:
            for account_id, address in accounts:
                start = time.monotonic()
                counter = _Counter(address) if sys.stderr.isatty() else None
                try:
                    count = await indexer.reindex(account_id, derive, counter)
                except Busy:
                    left.append(address)
                    continue
                self.stdout.write(f"{address}: {count} messages in {time.monotonic() - start:.1f} s")
        finally:
            await db.close_pool()
        return left


class _Counter:
    """Shows on a terminal how far it is."""

    def __init__(self, address: str) -> None:
        self._address, self._count = address, 0

    def __call__(self, more: int) -> None:
        self._count += more
        sys.stderr.write(f"\r{self._address}: {self._count} ")
        sys.stderr.flush()
