"""Wake-ups across threads and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading

from mailcore import wake


async def no_changes(_accounts: list[int]) -> dict[int, int]:
    return {}


async def test_a_commit_in_another_thread_wakes_listeners_in_the_event_loop(valkey: str) -> None:
    """Django's views run in threads of the web process; its listeners belong to the loop."""
    heard: asyncio.Queue[int] = asyncio.Queue()
    await wake.start(valkey, no_changes)
    leave = wake.subscribe(7, lambda changes: heard.put_nowait(threading.get_ident()))
    try:
        await asyncio.to_thread(wake.publish, [wake.Change(7, 1, 2, "mail")])
        assert await asyncio.wait_for(heard.get(), 5) == threading.get_ident()
    finally:
        leave()
        await wake.stop()


def test_a_forked_process_has_a_name_of_its_own() -> None:
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    child = context.Process(target=lambda: answer.put(wake._process))
    child.start()
    assert answer.get() != wake._process
    child.join()
