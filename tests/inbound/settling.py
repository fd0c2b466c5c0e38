"""What an administrator changes while the server runs: in a thread, as another process would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from django.db import connection


async def settle(*changes: Callable[[], object]) -> None:
    """Make changes, one after the other."""

    def run() -> None:
        for each in changes:
            each()
        connection.close()

    await asyncio.to_thread(run)
