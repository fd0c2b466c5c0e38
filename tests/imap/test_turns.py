"""Searches that cost minutes: they end, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from django.db import connection as database

from mailcore.imap.limits import Limits
from mailcore.turns import Overdue, Turns
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.waiting import until

# No text holds any of these: each message is searched for all of them.
HEAVY = "SEARCH NOT (" + " ".join(f"NOT TEXT nowhere{n}" for n in range(490)) + ")"
MESSAGES, WORDS = 500, 3_000


@pytest.fixture(scope="module")
def impatient(database: None) -> Iterator[Running]:
    running = Running(Limits(search=0.3, searches=4, at_once=3, shutdown=2.0), 20 * 1024 * 1024)
    yield running
    running.stop()


def fill(running: Running, person: Person) -> None:
    chance = random.Random(1)
    words = [f"w{n}" for n in range(5_000)]
    texts = ["Subject: x\r\n\r\n" + " ".join(chance.choices(words, k=WORDS)) for _ in range(MESSAGES)]
    with closing(Wire(running)) as wire:
        wire.socket.settimeout(60)
        wire.log_in(person)
        assert wire.say("b APPEND INBOX " + " ".join(f"{{{len(text)}+}}\r\n{text}" for text in texts)).startswith(
            b"b OK"
        )
    with database.cursor() as cursor:
        cursor.execute("ANALYZE entry, message, message_text")  # as autovacuum does where it is on


def _searching() -> int:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def test_a_search_that_takes_too_long_ends_and_so_does_its_query(
    impatient: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(impatient, alice)
    with closing(Wire(impatient)) as wire:
        wire.socket.settimeout(60)
        wire.log_in(alice)
        wire.say("b SELECT INBOX")
        for command in (HEAVY, f"UID {HEAVY}", HEAVY.replace("SEARCH", "SORT (SUBJECT) UTF-8")):
            assert wire.say(f"c {command}") == b"c NO [LIMIT] This search takes too long: ask for less at a time\r\n"
            until(lambda: not _searching())
        monkeypatch.setattr(impatient.server.turns, "_seconds", 60.0)  # 0.3 s may not do on a busy machine
        assert wire.say("d SEARCH TEXT w1").startswith(b"d OK")
        assert wire.say("e NOOP").startswith(b"e OK")


def test_twenty_sessions_that_search_keep_nobody_from_working(
    impatient: Running, people: Callable[[str], Person]
) -> None:
    alice, bob = people("alice"), people("bob")
    fill(impatient, alice)
    with ExitStack() as stack:
        crowd = [stack.enter_context(closing(Wire(impatient))) for _ in range(20)]
        for wire in crowd:
            wire.log_in(alice)
            wire.say("b SELECT INBOX")
        for wire in crowd:
            wire.file.write(b"".join(b"c %b\r\n" % HEAVY.encode() for _ in range(4)))
            wire.file.flush()
        for _ in range(5):
            with closing(Wire(impatient)) as wire:
                assert wire.log_in(bob).startswith(b"a OK")
                assert wire.say("b SELECT INBOX").startswith(b"b OK")
                assert wire.say("c APPEND INBOX {3+}\r\nabc").startswith(b"c OK")
                assert wire.say("d SEARCH TEXT abc")[:4] in (b"d OK", b"d NO")  # 0.3 s may not do on a busy machine
                assert wire.say("e STORE 1 +FLAGS (\\Seen)").startswith(b"e OK")
        assert set(impatient.server.turns._of) <= {(alice.account_id, True)}
    # They leave, and what they wanted to know is looked for no longer.
    until(lambda: not impatient.server.leaving and not _searching())


async def test_an_account_has_a_few_turns_and_waits_for_no_other() -> None:
    turns = Turns(searches=4, at_once=2, seconds=60.0)
    running: list[str] = []
    go = asyncio.Event()

    async def work(name: str) -> str:
        running.append(name)
        await go.wait()
        return name

    tasks = [asyncio.create_task(turns.search(1, object(), work(f"one{n}"))) for n in range(4)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(turns.search(2, object(), work(f"two{n}"))) for n in range(3)]
    tasks.append(asyncio.create_task(turns.search(3, object(), work("three"))))
    tasks += [asyncio.create_task(turns.change(1, work(f"store{n}"))) for n in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert sorted(running) == ["one0", "one1", "store0", "store1", "two0", "two1"]
    tasks[3].cancel()  # who leaves the line holds up nobody
    go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(running) == len(tasks) - 1
    assert isinstance(done[3], asyncio.CancelledError)
    assert not turns._of


async def test_what_a_command_raises_passes_through() -> None:
    turns = Turns(searches=1, at_once=1, seconds=0.01, patience=0.01)

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await turns.search(1, object(), broken())
    with pytest.raises(Overdue):
        await turns.search(1, object(), asyncio.sleep(5))
    assert not turns._of


async def test_who_has_waited_long_enough_for_a_turn_is_told_so_and_holds_up_nobody() -> None:
    turns = Turns(searches=1, at_once=5, seconds=60.0, patience=0.01)
    go = asyncio.Event()
    first = asyncio.create_task(turns.search(1, object(), go.wait()))
    await asyncio.sleep(0)
    with pytest.raises(Overdue, match="try again"):
        await turns.search(2, object(), asyncio.sleep(0))
    go.set()
    await first
    await turns.search(2, object(), asyncio.sleep(0))
    assert not turns._of
