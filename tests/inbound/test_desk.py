"""Shared questions: one statement for those that gather, and what was found is told again for a moment only."""

from __future__ import annotations

import asyncio

from mailcore.desk import Desk
from tests.waiting import eventually


async def test_what_gathers_while_a_question_is_answered_shares_the_next() -> None:
    asked: list[list[str]] = []

    async def read(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        await asyncio.sleep(0.01)
        return {key: len(key) for key in keys if key != "nobody"}

    desk = Desk(read)
    assert await asyncio.gather(*map(desk.ask, ("a", "bb", "a", "nobody"))) == [1, 2, 1, None]
    assert await desk.ask("a") == 1
    assert asked == [["a", "bb", "nobody"], ["a"]]


async def test_only_what_was_found_is_kept_and_not_for_long() -> None:
    there = {"a": 1}
    desk, hasty = (Desk(lambda keys: _found(there, keys), keep=seconds) for seconds in (3600.0, 0.05))
    for each in (desk, hasty):
        assert (await each.ask("a"), await each.ask("b")) == (1, None)
    there.update(a=2, b=2)
    assert (await desk.ask("a"), await desk.ask("b")) == (1, 2)

    async def forgotten() -> bool:
        return (await hasty.ask("a"), await hasty.ask("b")) == (2, 2)

    await eventually(forgotten)


async def _found(there: dict[str, int], keys: list[str]) -> dict[str, int]:
    return {key: there[key] for key in keys if key in there}
