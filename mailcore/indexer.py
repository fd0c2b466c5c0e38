"""Building the search index: `python -m mailcore.indexer` does what is due and ends; `manage.py reindex` all of it.

The worker starts it as a process of its own (mailcore.tasks), because building is all processor time and 150 to 320 MB:
as such it runs only when nothing else does, leaves the worker's event loop alone, and gives everything back at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable

from mailcore import db
from mailcore.errors import MailError
from mailcore.store import index_build, rederive
from mailcore.store.index_build import RENEW_SECONDS, Claim, Lost, Work
from mailcore.store.index_segment import Builder, Segment

log = logging.getLogger(__name__)

# Texts read at a time: each is up to 2 MB, mostly a few kB.
PIECE = 64

# The process that the worker starts rests for so many times as long as it has worked. Where two cores are one in truth,
# deliveries come at 0.65 to 0.8 of their rate while it works, whatever its priority.
REST = 4.0

Progress = Callable[[int], None]


class Busy(Exception):
    """Another process builds the account's index right now."""


async def run_due(parent: int | None = None) -> int:
    """Index all accounts that are due, the one with most to do first; returns how many pieces of work that was.

    With `parent`, the process that started this one: no more when it is gone.
    """
    total = 0
    while parent is None or os.getppid() == parent:
        async with db.transaction() as tx:
            claimed = await index_build.claim(tx)
        if claimed is None:
            break
        done = await index(claimed, rest=REST)
        if not done:  # what was due is not there any more
            break
        total += done
    return total


async def index(claimed: Claim, least: int | None = None, progress: Progress | None = None, rest: float = 0) -> int:
    """Bring a claimed account's index up to date and release it; returns how many pieces of work that was."""
    total = 0
    try:
        while True:
            async with db.transaction() as tx:
                work = await index_build.work(tx, claimed, least)
            if work is None:
                break
            await build(claimed, work, progress, rest)
            total += 1
        async with db.transaction() as tx:
            await index_build.release(tx, claimed)
    except Lost:
        log.info("the index of account %d is in other hands", claimed.account_id)
    return total


async def reindex(account_id: int, derive: bool = True, progress: Progress | None = None) -> int:
    """Make an account's index anew, with `derive` what is derived from its messages first; returns their number.

    `progress` hears of each message once for each of the two. Raises Busy while another process builds the index, or
    when there is no such account.
    """
    async with db.transaction() as tx:
        claimed = await index_build.claim(tx, account_id)
        if claimed is None:
            raise Busy
        await index_build.restart(tx, claimed)
    after, count = 0, 1
    while derive and count:
        async with db.transaction() as tx:
            await index_build.renew(tx, claimed)
        async with db.transaction() as tx:
            after, count = await rederive.page(tx, account_id, after)
        if progress is not None:
            progress(count)
    total = 0

    def counted(more: int) -> None:
        nonlocal total
        total += more
        if progress is not None:
            progress(more)

    await index(claimed, 1, counted)
    return total


async def build(claimed: Claim, work: Work, progress: Progress | None = None, rest: float = 0) -> None:
    """Put messages into segments. Those that replace others are stored together, others as soon as they are full."""
    renewed, worked = time.monotonic(), time.process_time()
    builder = Builder()
    first = at = work.first
    finished: list[Segment] = []
    while at < work.beyond:
        async with db.read() as reading:
            texts = await index_build.texts(reading, claimed.account_id, at, work.beyond, PIECE)
        for docno, fields, body_at, text in texts:
            # Between header and body stands U+0001.
            builder.add(docno, fields, text[: body_at - 2], text[body_at - 1 :])
        if progress is not None:
            progress(len(texts))
        at = texts[-1][0] + 1 if len(texts) == PIECE else work.beyond
        done = at == work.beyond or builder.is_full
        if done or time.monotonic() - renewed > RENEW_SECONDS:
            async with db.transaction() as tx:
                await index_build.renew(tx, claimed)
            renewed = time.monotonic()
        if rest:
            await asyncio.sleep(rest * (time.process_time() - worked))
            worked = time.process_time()
        if not done:
            continue
        finished.append(builder.finish(first, at))
        first, builder = at, Builder()
        if at == work.beyond or not work.replaces:
            async with db.transaction() as tx:
                await index_build.store(tx, claimed, finished, work.replaces)
            finished = []


async def _main(parent: int) -> None:
    await db.open_pool(1)
    try:
        await run_due(parent)
    finally:
        await db.close_pool()


def main() -> None:
    """The process that the worker starts."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webmail.settings")
    from django.conf import settings
    from django.utils.log import configure_logging

    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
    # Whoever else wants a core gets it at once.
    with contextlib.suppress(OSError):  # some containers do not allow it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        asyncio.run(_main(os.getppid()))
    except MailError as error:
        log.warning("indexing waits for the database: %s", (error.private or error.text).partition("\n")[0])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
