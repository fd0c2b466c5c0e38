"""Wake-ups across threads and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading

import pytest

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
        assert await asyncio.wait_for(heard.get(), 60) == threading.get_ident()
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


async def test_the_first_poll_tells_what_was_lost_before_the_subscription(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def moved(accounts: list[int]) -> dict[int, int]:
        return dict.fromkeys(accounts, 9)

    monkeypatch.setattr(wake, "POLL_SECONDS", 0.05)
    heard: asyncio.Queue[tuple[wake.Change, ...]] = asyncio.Queue()
    await wake.start(valkey, moved)
    leave = wake.subscribe(7, heard.put_nowait)
    try:
        assert await asyncio.wait_for(heard.get(), 60) == ()
        await asyncio.sleep(0.2)
        assert heard.empty()
    finally:
        leave()
        await wake.stop()


async def test_of_very_many_changes_at_once_none_is_lost_on_the_way_to_other_processes(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session there may have the first mailbox selected, and nothing but this hint would tell it."""
    heard: asyncio.Queue[tuple[wake.Change, ...]] = asyncio.Queue()
    await wake.start(valkey, no_changes)
    try:
        ours = wake._process
        changes = [wake.Change(7, number, number, "mail") for number in range(1, wake.MANY + 20)]
        leave = wake.subscribe(7, heard.put_nowait)
        assert wake._hub is not None
        wake._hub.send({7: changes[:-1]})
        wake._hub.send({7: changes[-1:]})
        # What it sent comes back to it as if it were another process.
        monkeypatch.setattr(wake, "_process", "another")
        (sent,) = wake._hub._outbox.values()
        wake._hub._receive(wake._encode(sent, []).replace("another", ours).encode())
        told = await asyncio.wait_for(heard.get(), 60)
        assert told == () or {change.mailbox_id for change in told} == set(range(1, wake.MANY + 20))
        leave()
    finally:
        await wake.stop()
