"""Search with the index finds what it finds without: across builds, merges, deletions, moves, and a worker killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from mailcore import db, indexer, mime
from mailcore.errors import Code, MailError
from mailcore.store import (
    accounts,
    append,
    expunge,
    fetch,
    housekeeping,
    index_build,
    index_lookup,
    index_read,
    index_segment,
    rederive,
    search,
    transfer,
)

pytestmark = pytest.mark.django_db(transaction=True)
ACCOUNT = 77
INBOX, ARCHIVE = append.INBOX_ID, 4
WORDS = (
    "invoice zürich 中語文字 report2026 deadbeef0123456789 re a to straße under_score x-y-z foo.bar@example.org "
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef Donaudampfschifffahrtsgesellschaftskapitän 100% "
    "İstanbul ﬁnanzen ταΐζω हिन्दी ภาษาไทย 한국어 日本語文書2026年 🎉party\x01time cafe\u0301"
).split()
FIELDS = ("body", "text", "subject", "from", "to", "cc", "header:x-kind", "header:subject", "header:x-none")


@pytest.fixture
async def pool(database_url):
    await db.open_pool(4)
    async with db.transaction() as tx:
        await accounts.create(tx, ACCOUNT)
    yield
    await db.close_pool()


@pytest.fixture
def small(monkeypatch):
    """So that a few messages make many segments, and no search finds it too easy to read them all."""
    monkeypatch.setattr(index_build, "TAIL", 5)
    monkeypatch.setattr(index_build, "FAN", 3)
    monkeypatch.setattr(index_build, "PAIRS_OF_MESSAGE", 8)
    monkeypatch.setattr(indexer, "PIECE", 3)
    monkeypatch.setattr(index_lookup, "FEW", 0)
    monkeypatch.setattr(index_lookup, "FEW_COLUMNS", 0)
    monkeypatch.setattr(index_lookup, "NAMED", 4)
    monkeypatch.setattr(index_read, "FEW", 1)
    monkeypatch.setattr(index_read, "AT_ONCE", 2)


def message(rng: random.Random) -> bytes:
    def some(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(0, most)))

    header = f"From: {some(1)} <{rng.choice('abc')}@example.net>\r\nTo: {some(2)}\r\nSubject: {some(4)}\r\n"
    header += f"X-Kind: {some(2)}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    return f"{header}{some(12)}{rng.choice(WORDS)[:4]}\r\n{some(9)}\r\n".encode()


def question(rng: random.Random) -> search.Criterion:
    def leaf() -> search.Text:
        text = " ".join(rng.choices(WORDS, k=2))
        at = rng.randrange(len(text))
        words = text[at : at + rng.choice((0, 1, 2, 3, 4, 6, 9, 15, 30))]
        return search.Text(rng.choice(FIELDS), rng.choice((words, words.upper(), f" {words} ")))

    match rng.randrange(5):
        case 0:
            return search.And((leaf(), search.Not(leaf())))
        case 1:
            return search.Or((leaf(), search.Flag(1), leaf()))
        case 2:
            return search.And((search.InMailbox((INBOX,)), search.Not(leaf()), search.Flag(1, rng.random() < 0.5)))
    return leaf()


async def put(rng: random.Random, count: int) -> None:
    raws = [message(rng) for _ in range(count)]
    boxes = [rng.choice([INBOX, INBOX, ARCHIVE]) for _ in raws]
    items = [
        append.Incoming(ACCOUNT, box, raw, mime.parse(raw), flags=rng.randrange(2))
        for box, raw in zip(boxes, raws, strict=True)
    ]
    async with db.transaction() as tx:
        await append.append(tx, items)


async def some_uids(rng: random.Random, share: float) -> list[int]:
    async with db.read() as tx:
        uids = list(await fetch.uids(tx, ACCOUNT, INBOX))
    return [uid for uid in uids if rng.random() < share]


async def segments() -> list[tuple[int, int, int]]:
    """(first, beyond, messages) of each."""
    async with db.read() as tx:
        return [row[1:4] for row in await tx.fetch(index_build.SEGMENTS, (ACCOUNT,))]


async def compare(rng: random.Random, count: int) -> None:
    """Random questions answered with the index and by the plain statement."""
    async with db.snapshot() as tx:
        for _ in range(count):
            asked = question(rng)
            plain = await tx.fetch(*search.uids_query(ACCOUNT, INBOX, asked))
            assert await search.uids(tx, ACCOUNT, INBOX, asked) == plain, asked
            assert list(await search.numbers(tx, ACCOUNT, INBOX, asked)) == [row[0] for row in plain], asked
            everywhere = await tx.fetch(*search.emails_query(ACCOUNT, asked))
            found, total = await search.emails(tx, ACCOUNT, asked)
            assert (found, total) == ([row[:2] for row in everywhere], len(everywhere)), asked


async def whole() -> None:
    """Segments lie one behind the other, none of their rows is missing, and there are no others."""
    async with db.snapshot() as tx:
        rows = await tx.fetch(index_build.SEGMENTS, (ACCOUNT,))
        assert [row[1] for row in rows] == ([1] + [row[2] for row in rows])[:-1] if rows else True
        blocks = "SELECT segment, count(*)::int FROM search_block WHERE account_id = %s GROUP BY 1 ORDER BY 1"
        wanted = "SELECT segment, natural_blocks + machine_blocks FROM search_segment WHERE account_id = %s ORDER BY 1"
        there = await tx.fetch(blocks, (ACCOUNT,))
        assert there == [row for row in await tx.fetch(wanted, (ACCOUNT,)) if row[1]]


async def expire() -> None:
    """As much time passes as a lease lasts."""
    async with db.transaction() as tx:
        await tx.execute(
            "UPDATE search_index SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"
        )


async def killed(rng: random.Random) -> None:
    """The index is built, up to some moment."""
    task = asyncio.create_task(indexer.run_due())
    await asyncio.sleep(rng.random() * 0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_to_mail_and_worker_a_search_finds_what_a_scan_finds(pool, small, monkeypatch, seed):
    rng = random.Random(seed)
    monkeypatch.setattr(index_build, "FAN", 4 + seed)
    if seed % 2:
        for module in (index_build, index_segment):
            monkeypatch.setattr(module, "MAX_PAIRS", 300)  # more than one segment of one piece of work
    most = 0
    for _ in range(30):
        match rng.randrange(9):
            case 0 | 1 | 2:
                await put(rng, rng.randint(1, 12))
            case 3:
                async with db.transaction() as tx:
                    await transfer.move(tx, ACCOUNT, INBOX, await some_uids(rng, 0.1), ARCHIVE)
            case 4:
                async with db.transaction() as tx:
                    await transfer.copy(tx, ACCOUNT, INBOX, await some_uids(rng, 0.05), ARCHIVE)
            case 5:
                uids = await some_uids(rng, 0.15)
                async with db.transaction() as tx:
                    await expunge.expunge(tx, ACCOUNT, INBOX, uids, deleted_only=False)
                async with db.transaction() as tx:
                    await housekeeping.expunged(tx, days=0)
            case 6:
                await killed(rng)
            case _:
                await expire()
                await indexer.run_due()
        most = max(most, len(await segments()))
        await whole()
        await compare(rng, 12)
    assert most >= (3 if seed % 2 else 1)


async def test_a_search_beside_the_worker_misses_nothing(pool, small):
    """Each statement sees a state of its own: segments that are replaced in between are read again as texts."""
    rng = random.Random(5)
    await put(rng, 40)
    asked = [question(rng) for _ in range(30)]
    async with db.read() as tx:
        right = [await tx.fetch(*search.uids_query(ACCOUNT, INBOX, one)) for one in asked]

    rounds = 0

    async def build() -> None:
        built = 0
        while built < 6 or rounds < 2:
            built += 1
            async with db.transaction() as tx:
                claimed = await index_build.claim(tx, ACCOUNT)
                assert claimed is not None
                await index_build.restart(tx, claimed)
            for beyond in (8, 19, 30):
                await indexer.build(claimed, index_build.Work(1 if beyond == 8 else beyond - 11, beyond))
            async with db.read() as tx:
                numbers = tuple([row[0] for row in await tx.fetch(index_build.SEGMENTS, (ACCOUNT,))])
            await indexer.build(claimed, index_build.Work(1, 41, numbers))
            async with db.transaction() as tx:
                await index_build.release(tx, claimed)

    building = asyncio.create_task(build())
    while not building.done():
        for one, plain in zip(asked, right, strict=True):
            async with db.read() as tx:
                assert await search.uids(tx, ACCOUNT, INBOX, one) == plain, one
        rounds += 1
    await building


async def test_mail_of_a_moment_ago_is_found(pool, small):
    rng = random.Random(6)
    await put(rng, 20)
    await indexer.run_due()
    raw = b"Subject: late\r\n\r\nbrandnew\r\n"
    async with db.transaction() as tx:
        await append.append(tx, [append.Incoming(ACCOUNT, INBOX, raw, mime.parse(raw))])
    async with db.read() as tx:
        assert len(await search.uids(tx, ACCOUNT, INBOX, search.Text("body", "brandnew"))) == 1
        assert len(await search.uids(tx, ACCOUNT, INBOX, search.Text("subject", "late"))) == 1


async def test_segments_may_hold_mail_that_came_after_the_search_began(pool, small, monkeypatch):
    """In autocommit each statement sees a state of its own; what came since is left out, in numbers and in bits."""
    rng = random.Random(16)
    await put(rng, 60)
    await indexer.run_due()
    real = index_read.opened

    async def earlier(*args):
        index, few = await real(*args)
        return replace(index, beyond=20), few

    monkeypatch.setattr(index_read, "opened", earlier)
    seen: list[tuple[int, int]] = []
    for named in (0, 1_000):
        monkeypatch.setattr(index_lookup, "NAMED", named)
        monkeypatch.setattr(index_lookup, "NAMED_SHARE", 1_000)
        async with db.read() as tx:
            for one in (
                search.Text("text", "example"),
                search.Text("subject", "invoice"),
                search.Text("body", "o.bar"),
            ):
                found, _ = await search.emails(tx, ACCOUNT, search.And((one, search.Flag(32, False))))
                everything = await tx.fetch(*search.emails_query(ACCOUNT, one))
                assert sorted(found) == sorted(row[:2] for row in everything if row[0] < 20)
                seen += found
    assert seen


async def test_of_two_workers_one_builds(pool, small):
    await put(random.Random(7), 30)
    async with db.transaction() as tx:
        first = await index_build.claim(tx)
    async with db.transaction() as tx:
        assert first is not None and await index_build.claim(tx) is None
        assert await index_build.due(tx) == (0, 0), "it is in hands"
    await expire()
    async with db.transaction() as tx:
        second = await index_build.claim(tx)
    assert second is not None
    async with db.read() as tx:
        work = await index_build.work(tx, second)
        with pytest.raises(index_build.Lost):
            await index_build.work(tx, first)
    assert work is not None
    with pytest.raises(index_build.Lost):
        await indexer.build(first, work)
    assert await segments() == []
    await indexer.index(second)
    assert [(first, beyond) for first, beyond, _ in await segments()] == [(1, 31)]


async def test_many_small_segments_become_one_and_thin_ones_are_made_anew(pool, small):
    rng = random.Random(8)
    for _ in range(9):
        await put(rng, 6)
        await indexer.run_due()
    assert len(await segments()) < 9
    before = sum(messages for _, _, messages in await segments())
    assert before == 54
    uids = await some_uids(rng, 1)
    async with db.transaction() as tx:
        await expunge.expunge(tx, ACCOUNT, INBOX, uids[::2], deleted_only=False)
    async with db.transaction() as tx:
        gone = await housekeeping.expunged(tx, days=0)
        assert (await index_build.due(tx))[0] == 1
    await indexer.run_due()
    assert sum(messages for _, _, messages in await segments()) < before - gone // 2
    async with db.read() as tx:
        assert (await index_build.due(tx))[0] == 0


async def test_an_index_of_another_version_is_not_read_and_built_anew(pool, small, monkeypatch):
    rng = random.Random(9)
    await put(rng, 20)
    await indexer.run_due()
    for module in (index_build, index_read):
        monkeypatch.setattr(module, "VERSION", "of tomorrow")
    await compare(rng, 20)
    async with db.read() as tx:
        index, _ = await index_read.opened(tx, ACCOUNT, ("SELECT 1", ()))
        assert not index.segments
    await indexer.run_due()
    async with db.read() as tx:
        index, _ = await index_read.opened(tx, ACCOUNT, ("SELECT 1", ()))
        assert index.segments
    await compare(rng, 20)


async def test_an_account_that_is_removed_takes_its_index_along(pool, small):
    await put(random.Random(10), 20)
    async with db.transaction() as tx:
        claimed = await index_build.claim(tx)
    async with db.transaction() as tx:
        await accounts.remove(tx, ACCOUNT)
    assert claimed is not None
    assert await indexer.index(claimed) == 0
    async with db.read() as tx:
        for table in ("search_index", "search_segment", "search_block", "search_filter"):
            assert await tx.fetch(f"SELECT FROM {table}") == []


DERIVED = """SELECT m.*, t.* FROM message m JOIN message_text t ON t.account_id = m.account_id AND t.docno = m.id
    WHERE m.account_id = %s ORDER BY m.id"""


async def test_reindex_makes_everything_anew_that_is_derived(pool, small):
    rng = random.Random(11)
    await put(rng, 25)
    async with db.transaction() as tx:
        right = await tx.fetch(DERIVED, (ACCOUNT,))
        await tx.execute("""UPDATE message SET header_size = 0, sent_at = now(), sent_on = now(), has_attachment = true,
            base_subject = 'x', sort_keys = 'x', ancestry = 'x', preview = 'x', envelope = 'x', bodystructure = 'x',
            headers = 'x', parts = 'x', summary = 'x'""")
        await tx.execute("""UPDATE message_text SET from_text = 'x', to_text = 'x', cc_text = 'x', bcc_text = 'x',
            subject_text = 'x', body_at = 3, text = 'xyz'""")
        await tx.execute("DELETE FROM message_text WHERE docno = 3")
    await indexer.run_due()
    seen = []
    assert await indexer.reindex(ACCOUNT, progress=seen.append) == 25
    assert sum(seen) == 50
    async with db.read() as tx:
        assert await tx.fetch(DERIVED, (ACCOUNT,)) == right
    assert sum(messages for _, _, messages in await segments()) == 25
    await compare(rng, 40)


async def test_reindex_says_when_a_worker_is_at_it_or_there_is_no_account(pool, small):
    await put(random.Random(12), 20)
    async with db.transaction() as tx:
        await index_build.claim(tx)
    with pytest.raises(indexer.Busy):
        await indexer.reindex(ACCOUNT)
    with pytest.raises(MailError) as error:
        async with db.transaction() as tx:
            await rederive.page(tx, ACCOUNT + 1, 0)
    assert error.value.code is Code.NOT_FOUND
