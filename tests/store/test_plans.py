"""What was planned while there was no mail must not last: Postgres keeps such plans until the tables are analyzed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailcore import db, mime
from mailcore.jmap import queries
from mailcore.store import accounts, append, search
from mailcore.store.criteria import And, Flag, InMailbox, Text

pytestmark = [pytest.mark.django_db(transaction=True)]
ACCOUNT, MESSAGES = 7, 500
READ = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
    WHERE relname IN ('entry', 'message', 'message_text')"""
WORD = Text("text", "nowhere")

Ask = Callable[[db.AsyncTx], Coroutine[Any, Any, object]]
QUESTIONS: dict[str, Ask] = {
    "text": lambda tx: search.numbers(tx, ACCOUNT, append.INBOX_ID, WORD),
    "subject": lambda tx: search.numbers(tx, ACCOUNT, append.INBOX_ID, Text("subject", "nowhere")),
    "sorted": lambda tx: search.numbers(tx, ACCOUNT, append.INBOX_ID, Flag(1, False), (("subject", False),)),
    "window": lambda tx: search.window(tx, ACCOUNT, append.INBOX_ID, WORD, 0, 10, backwards=True),
    "threads": lambda tx: search.ancestries(tx, ACCOUNT, append.INBOX_ID, Flag(1, False)),
    "emails": lambda tx: search.emails(tx, ACCOUNT, And((WORD, Flag(8, False)))),
    "folder": lambda tx: search.emails(tx, ACCOUNT, And((InMailbox((append.INBOX_ID,)), Flag(8, False)))),
    "totals": lambda tx: queries.thread_totals(tx, ACCOUNT, [append.INBOX_ID]),
    "unread": lambda tx: queries.unread(tx, ACCOUNT, [append.INBOX_ID], None),
}


async def _import() -> None:
    for start in range(0, MESSAGES, 50):
        raws = [b"Subject: s%d\r\n\r\n%b\r\n" % (n, b"text " * 200) for n in range(start, start + 50)]
        async with db.transaction() as tx:
            await append.append(tx, [append.Incoming(ACCOUNT, append.INBOX_ID, raw, mime.parse(raw)) for raw in raws])


async def test_searches_after_a_large_import_read_each_message_a_few_times_at_most(database_url: str) -> None:
    await db.open_pool(1)
    try:
        async with db.transaction() as tx:
            await accounts.create(tx, ACCOUNT)
        async with db.read() as tx:
            for ask in QUESTIONS.values():
                for _ in range(8):
                    await ask(tx)
        await _import()
        for name, ask in QUESTIONS.items():
            async with db.snapshot() as tx:
                await ask(tx)
                row = await tx.one(READ)
            assert row is not None
            assert row[0] < 30 * MESSAGES, name
    finally:
        await db.close_pool()
