"""The memory that sessions share: whoever leaves the line at any moment leaves nothing taken."""

from __future__ import annotations

import asyncio

import pytest

from mailcore.budget import Budget
from mailcore.errors import Code, MailError


async def test_cancelled_while_room_is_made() -> None:
    for turns in range(6):
        budget = Budget(10)
        held = await budget.acquire(10)
        waiting = asyncio.create_task(budget.acquire(5))
        await asyncio.sleep(0)
        waiting.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        budget.release(held)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await budget.acquire(10) == 10


async def test_who_waits_too_long_is_told_and_lets_others_pass() -> None:
    budget = Budget(10, patience=0.01)
    held = await budget.acquire(6)
    with pytest.raises(MailError) as late:
        await budget.acquire(10)
    assert late.value.code is Code.UNAVAILABLE
    assert await budget.acquire(4) == 4
    budget.release(held)
