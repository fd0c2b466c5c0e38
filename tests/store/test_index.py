"""Search with the index finds what it finds without: across builds, merges, deletions, moves, and a worker killed."""

from __future__ import annotations

import random

import pytest

from mailcore import db, indexer, mime
from mailcore.store import accounts, append, index_build, index_read, search

pytestmark = pytest.mark.django_db(transaction=True)
ACCOUNT = 77
WORDS = (
    "invoice zürich 中語文字 report2026 deadbeef0123456789 re a to straße under_score x-y-z foo.bar@example.org".split()
)


@pytest.fixture
async def pool(database_url):
    await db.open_pool(4)
    yield
    await db.close_pool()


@pytest.fixture
def small(monkeypatch):
    """So that a few messages make many segments, and no search finds it too easy to read them all."""
    monkeypatch.setattr(index_build, "TAIL", 5)
    monkeypatch.setattr(index_build, "FAN", 3)
    monkeypatch.setattr(index_build, "PAIRS_OF_MESSAGE", 8)
    monkeypatch.setattr(indexer, "PIECE", 3)
    monkeypatch.setattr(search, "FEW", 0)
    monkeypatch.setattr(search, "MANY", 4)
    monkeypatch.setattr(index_read, "FEW", 1)


def message(rng: random.Random) -> bytes:
    some = lambda n: " ".join(rng.choices(WORDS, k=rng.randint(0, n)))  # noqa: E731
    text = f"From: {some(1)} <{rng.choice('abc')}@example.net>\r\nTo: {some(2)}\r\nSubject: {some(4)}\r\n"
    text += f"X-Kind: {some(2)}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    text += f"{some(12)}{rng.choice(WORDS)[:4]}\r\n{some(9)}\r\n"
    return text.encode()


def needle(rng: random.Random) -> str:
    text = " ".join(rng.choices(WORDS, k=2))
    at = rng.randrange(len(text))
    return text[at : at + rng.randint(1, 12)]


def question(rng: random.Random) -> search.Criterion:
    leaf = lambda: search.Text(  # noqa: E731
        rng.choice(["body", "text", "subject", "from", "to", "header:x-kind", "header:subject"]), needle(rng)
    )
    match rng.randrange(5):
        case 0:
            return search.And((leaf(), search.Not(leaf())))
        case 1:
            return search.Or((leaf(), search.Flag(1), leaf()))
        case 2:
            return search.Not(leaf())
    return leaf()


async def put(rng: random.Random, count: int) -> None:
    async with db.transaction() as tx:
        raws = [message(rng) for _ in range(count)]
        await append.append(
            tx,
            [
                append.Incoming(ACCOUNT, rng.choice([1, 1, 4]), raw, mime.parse(raw), flags=rng.randrange(2))
                for raw in raws
            ],
        )


async def compare(rng: random.Random, count: int) -> None:
    """Random questions answered with the index and by the plain statement."""
    async with db.snapshot() as tx:
        for _ in range(count):
            asked = question(rng)
            plain = await tx.fetch(*search.uids_query(ACCOUNT, 1, asked))
            assert await search.uids(tx, ACCOUNT, 1, asked) == plain, asked
            everywhere = await tx.fetch(*search.emails_query(ACCOUNT, asked))
            found, total = await search.emails(tx, ACCOUNT, asked)
            assert (found, total) == ([row[:2] for row in everywhere], len(everywhere)), asked


async def test_building_and_searching(pool, small):
    rng = random.Random(1)
    async with db.transaction() as tx:
        await accounts.create(tx, ACCOUNT)
    for _ in range(12):
        await put(rng, rng.randint(1, 9))
        await indexer.run_due()
        await compare(rng, 40)
