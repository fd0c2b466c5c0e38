"""Many writers at once, on the real pool: nobody who follows changes ever misses one, and batches share
transactions."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager

import psycopg
import pytest

from mailcore import db, mime, wake
from mailcore.errors import Code, MailError
from mailcore.store import accounts, append, changes, expunge, fetch, flags, mailboxes, quota, transfer
from mailcore.store.ingest import Ingest
from mailcore.store.queue import Outgoing, Recipient
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]

ARCHIVE = 4


def message(text: str) -> bytes:
    return f"From: a@example.org\r\nSubject: {text}\r\n\r\n{text}\r\n".encode()


def incoming(account_id: int, text: str, mailbox_id: int = 0) -> append.Incoming:
    raw = message(text)
    return append.Incoming(account_id, mailbox_id, raw, mime.parse(raw))


@asynccontextmanager
async def pool(*account_ids: int):
    await db.open_pool(8)
    try:
        async with db.transaction() as tx:
            for account_id in account_ids:
                await accounts.create(tx, account_id)
        yield
    finally:
        await db.close_pool()


async def test_a_reader_who_follows_changes_misses_none(database_url):
    """Commit order is modseq order: a cursor never passes a number that is still to be committed."""
    account_ids = (1, 2)
    async with pool(*account_ids):
        ingest = Ingest()
        done = asyncio.Event()
        known = {(account_id, box): {} for account_id in account_ids for box in (append.INBOX_ID, ARCHIVE)}

        async def write(seed: int) -> None:
            chance = random.Random(seed)
            for n in range(25):
                account_id = chance.choice(account_ids)
                await ingest.add([incoming(account_id, f"{seed}-{n}"), incoming(chance.choice(account_ids), "both")])
                async with db.transaction() as tx:
                    uids = list(await fetch.uids(tx, account_id, append.INBOX_ID))
                    some = sorted(chance.sample(uids, min(3, len(uids))))
                    await flags.store(tx, account_id, append.INBOX_ID, some, chance.choice("+-"), flags.SEEN)
                    if n % 3 == 0:
                        await transfer.move(tx, account_id, append.INBOX_ID, some[:1], ARCHIVE)
                    if n % 5 == 0:
                        await expunge.expunge(tx, account_id, append.INBOX_ID, some[1:2], deleted_only=False)

        async def follow(account_id: int, box: int) -> None:
            since, last = 0, False
            while not last:
                last = done.is_set()
                async with db.read() as tx:
                    seen = await changes.mailbox(tx, account_id, box, since)
                for uid in seen.vanished:
                    known[account_id, box].pop(uid, None)
                known[account_id, box].update({uid: (modseq, bits) for uid, modseq, bits, _ in seen.changed})
                assert seen.modseq >= since
                since = seen.modseq

        readers = [asyncio.create_task(follow(*key)) for key in known]
        await asyncio.gather(*(write(seed) for seed in range(6)))
        done.set()
        await asyncio.gather(*readers)
        async with db.read() as tx:
            for (account_id, box), mine in known.items():
                rows = await fetch.flags(tx, account_id, box, 1, fetch.MAX_UID)
                assert mine == {uid: (modseq, bits) for uid, modseq, bits, _ in rows}
                assert await quota.recount(tx, account_id) == []
                assert len(rows) > 5


async def test_what_arrives_together_is_stored_together(database_url):
    async with pool(1, 2):
        ingest = Ingest()
        published = []
        stop = [wake.subscribe(account_id, published.append) for account_id in (1, 2)]
        results = await asyncio.gather(*(ingest.add([incoming(n % 2 + 1, f"m{n}")]) for n in range(100)))
        for unsubscribe in stop:
            unsubscribe()
        assert sorted((r.account_id, r.uid) for [r] in results) == [(a, uid) for a in (1, 2) for uid in range(1, 51)]
        assert 2 <= len(published) < 50, "one hint per account and transaction, and transactions were shared"
        async with db.read() as tx:
            for [result] in results:
                assert (await fetch.raw(tx, result.account_id, result.message_id)).startswith(b"From: ")


async def test_one_refused_recipient_refuses_an_atomic_job_and_nobody_else(database_url):
    async with pool(1, 2):
        async with db.transaction() as tx:
            await quota.set_limit(tx, 2, 10)
        ingest = Ingest()
        outgoing = Outgoing("a@example.org", [Recipient("b@example.net")], "trace1", raw=message("out"), account_id=1)
        both = ingest.add([incoming(1, "x"), incoming(2, "x")], [outgoing], atomic=True)
        each = ingest.add([incoming(1, "y"), incoming(2, "y")])
        alone = ingest.add([incoming(1, "z")])
        refused, partly, stored = await asyncio.gather(both, each, alone)
        assert [error.code for error in refused] == [Code.OVER_QUOTA, Code.OVER_QUOTA]
        assert isinstance(partly[0], append.Appended)
        assert partly[1].code is Code.OVER_QUOTA
        assert isinstance(stored[0], append.Appended)
        async with db.read() as tx:
            assert [box.messages for box in await mailboxes.all(tx, 1) if box.name == "INBOX"] == [2]
            assert await tx.one("SELECT count(*) FROM outbound") == (0,)


async def test_bytes_are_kept_once_and_come_back_exactly(database_url):
    raw = bytes(range(1, 256)) * 50 + b"\r\n\r\n\x00tail"
    async with pool(*range(1, 21)):
        derived = mime.parse(raw)
        results = await Ingest().add([append.Incoming(n, 0, raw, derived) for n in range(1, 21)])
        async with db.read() as tx:
            assert await tx.one("SELECT count(*) FROM blob") == (1,)
            for result in results:
                assert await fetch.raw(tx, result.account_id, result.message_id) == raw
            assert await fetch.raw(tx, 1, 1, 250, 10) == raw[250:260]


@pytest.mark.parametrize("many", [False, True])
async def test_a_mailbox_that_is_deleted_at_that_moment_is_no_mailbox(database_url, many):
    """Who waits for the account's lock meanwhile is told so, and nothing is counted."""
    async with pool(1):
        async with db.transaction() as tx:
            doomed = (await mailboxes.create(tx, 1, "Doomed")).id
        ingest = Ingest()
        async with db.transaction() as tx:
            await mailboxes.delete(tx, 1, "Doomed")
            items = [incoming(1, "late", doomed), incoming(1, "other")][: 1 + many]
            late = asyncio.create_task(ingest.add(items))
            await waits_for_a_lock(tx)
        refused, *others = await late
        assert isinstance(refused, MailError)
        assert refused.code is Code.NOT_FOUND
        assert [type(other) for other in others] == [append.Appended] * many
        async with db.read() as tx:
            assert await quota.recount(tx, 1) == []
            modseq = await changes.state(tx, 1)
        [stored] = await ingest.add([incoming(1, "next")])
        assert stored.modseq == modseq + 1


async def waits_for_a_lock(tx):
    """Until somebody waits for what this transaction holds; others may wait for each other in other databases."""
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    await eventually(lambda: tx.one(waiting))


async def test_a_long_text_to_many_people_needs_no_room_on_the_disk_to_be_sorted(database_url):
    spilled = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
    raw = message(" ".join(str(n) for n in range(80_000)))
    derived = mime.parse(raw)
    async with pool(*range(1, 31)):
        async with db.read() as tx:
            (before,) = await tx.one(spilled)
            jobs = [append.Job([append.Incoming(n, 0, raw, derived) for n in range(1, 31)], atomic=True)]
            await append.append_jobs(tx, jobs)
            await tx.one("SELECT pg_stat_force_next_flush()")
        async with db.read() as tx:
            assert await tx.one(spilled) == (before,)


async def test_without_a_database_the_error_is_temporary(database_url):
    await db.open_pool(1, timeout=0.3)
    try:
        async with db.read():
            with pytest.raises(MailError) as error:
                await Ingest().add([incoming(1, "x")])
        assert error.value.code is Code.UNAVAILABLE
    finally:
        await db.close_pool()


async def test_a_swallowed_failure_is_not_committed_as_success(database_url):
    async with pool(1):
        with pytest.raises(RuntimeError, match="failed"):
            async with db.transaction() as tx:
                await quota.set_limit(tx, 1, 5)
                with contextlib.suppress(psycopg.Error):
                    await tx.one("SELECT 1 / 0")
        async with db.read() as tx:
            assert (await quota.get(tx, 1)).limit is None
