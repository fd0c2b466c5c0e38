"""How a test waits for what others do: for the condition itself, never for a length of time.

What a client has seen says nothing about what the server has done since: its own lists, its workers, the database, the
trace, files and processes follow when they get the processor. The limits are for what never happens, not for a slow
machine.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE = 120.0


def _late(condition: Callable[[], object], story: Callable[[], object] | None) -> str:
    return f"it never came to {inspect.getsource(condition).strip()}" + (f"\n{story()}" if story else "")


def until(
    condition: Callable[[], object],
    seconds: float = PATIENCE,
    pause: float = 0.01,
    story: Callable[[], object] | None = None,
) -> None:
    """Wait until a condition holds. `story` tells in the failure how far it came; what either raises passes through."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, _late(condition, story)
        time.sleep(pause)


async def eventually(
    condition: Callable[[], object | Awaitable[object]],
    seconds: float = PATIENCE,
    pause: float = 0.01,
    story: Callable[[], object] | None = None,
) -> None:
    """The same on an event loop; the condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, _late(condition, story)
        await asyncio.sleep(pause)
