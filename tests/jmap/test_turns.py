"""Searches of browsers that cost minutes: they end, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mailcore import db
from mailcore.conf import conf
from mailcore.jmap import app, limits
from tests.jmap.world import Client, Village, World, running
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.django_db(transaction=True)

# No text holds any of these; so many words take minutes with this many messages.
WORDS = [f"nowhere{n}" for n in range(450)]
HEAVY = {"operator": "OR", "conditions": [{"text": word} for word in WORDS]}
SEARCHING = """SELECT count(*) FROM pg_stat_activity
    WHERE state = 'active' AND query LIKE '%%message_text%%' AND pid <> pg_backend_pid()"""
MESSAGE = "Subject: x\n\n" + "".join(f"w{n} " for n in range(4000))


@pytest.fixture
async def world(village: Village, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(limits, "SEARCH_SECONDS", 0.3)
    monkeypatch.setattr(limits, "PATIENCE", 0.3)
    async with running(village) as started:
        for n in range(300):
            await started.deliver(village.alice, MESSAGE + str(n))
        yield started


async def until_searching(wanted: bool) -> None:
    async def is_so() -> bool:
        async with db.read() as tx:
            row = await tx.one(SEARCHING)
        return row is not None and bool(row[0]) == wanted

    await eventually(is_so)


async def refused(client: Client) -> dict[str, Any]:
    ((name, answer),) = await client.calls(("Email/query", {"filter": HEAVY}))
    assert name == "error", answer
    return dict(answer)


async def test_a_search_that_takes_too_long_ends_with_words_for_a_person(world: World) -> None:
    alice = world.client(world.village.alice)
    answer = await refused(alice)
    assert answer == {
        "type": "serverUnavailable",
        "description": "This search takes too long: ask for less at a time.",
    }
    await until_searching(False)
    assert len((await alice.call("Email/query", filter={"inMailbox": await alice.inbox()}))["ids"]) == 300


async def test_tabs_that_search_keep_neither_others_nor_their_own_folders_waiting(world: World) -> None:
    alice, bob = world.client(world.village.alice), world.client(world.village.bob)
    tabs = [asyncio.create_task(refused(alice)) for _ in range(limits.MAX_CONCURRENT_REQUESTS - 1)]
    await asyncio.sleep(0)
    for _ in range(3):
        assert await bob.inbox()
        await bob.calls(("Email/query", {"filter": {"text": "w17"}}))  # 0.3 s may not do on a busy machine
        assert len((await alice.call("Email/query", filter={"inMailbox": await alice.inbox()}))["ids"]) == 300
    answers = await asyncio.gather(*tabs)
    assert {answer["type"] for answer in answers} == {"serverUnavailable"}
    assert "Too many searches at once: try again in a moment." in {answer["description"] for answer in answers}
    await until_searching(False)


async def test_a_search_ends_when_its_browser_hangs_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEARCH_SECONDS", 600.0)
    tab = replace(world, application=app.create(world.ingest, conf)).alice
    request = asyncio.create_task(tab.calls(("Email/query", {"filter": HEAVY})))
    await until_searching(True)
    tab.hangs_up.set()
    with pytest.raises(AssertionError):  # it has no answer
        await asyncio.wait_for(request, PATIENCE)
    await until_searching(False)
