"""Building the search index: `python -m mailcore.indexer` does what is due and ends; `manage.py reindex` all of it.

The worker starts it as a process of its own (mailcore.tasks), because building is all processor time and up to 150 MB:
as such it has a low priority, leaves the worker's event loop alone, and gives everything back at its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.store import index_build, rederive
from mailcore.store.index_build import Claim, Lost, Work
from mailcore.store.index_segment import Builder, Segment

log = logging.getLogger(__name__)

# Texts read at a time: each is up to 2 MB, mostly a few kB.
PIECE = 64
NICE = 10

Progress = Callable[[int], None]


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
        done = await index(claimed)
        if not done:  # what was due is not there any more
            break
        total += done
    return total


async def index(claimed: Claim, least: int | None = None, progress: Progress | None = None) -> int:
    """Bring a claimed account's index up to date and release it; returns how many pieces of work that was."""
    total = 0
    try:
        while True:
            async with db.transaction() as tx:
                work = await index_build.work(tx, claimed, least)
            if work is None:
                break
            await build(claimed, work, progress)
            total += 1
        async with db.transaction() as tx:
            await index_build.release(tx, claimed)
    except Lost:
        log.info("the index of account %d is in other hands", claimed.account_id)
    return total


async def reindex(account_id: int, derive: bool = True, progress: Progress | None = None) -> int:
    """Make an account's index anew, with `derive` what is derived from its messages first; returns their number.

    `progress` hears of each message once for each of the two. Raises UNAVAILABLE while another process builds the
    index, and NOT_FOUND.
    """
    async with db.transaction() as tx:
        claimed = await index_build.claim(tx, account_id)
        if claimed is None:
            raise MailError(Code.UNAVAILABLE, "the account's index is being built right now, try again in a minute")
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


async def build(claimed: Claim, work: Work, progress: Progress | None = None) -> None:
    """Put messages into segments. Those that replace others are stored together, others as soon as they are full."""
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
        if at < work.beyond and not builder.is_full:
            continue
        finished.append(builder.finish(first, at))
        first, builder = at, Builder()
        async with db.transaction() as tx:
            if at == work.beyond or not work.replaces:
                await index_build.store(tx, claimed, finished, work.replaces)
                finished = []
            else:
                await index_build.renew(tx, claimed)


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
    os.nice(NICE)
    try:
        asyncio.run(_main(os.getppid()))
    except MailError as error:
        log.warning("indexing waits for the database: %s", (error.private or error.text).partition("\n")[0])
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
