"""NOTIFY: whoever believes what it says knows how the mailboxes are; too much to watch is said and not tried."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_sharing import LITERAL, Talk
from tests.waiting import until

EVERYTHING = "(personal (MessageNew MessageExpunge FlagChange MailboxName))"
State = dict[str, tuple[int, int, int]]  # messages, uidnext, unseen

_STATUS = re.compile(r"\* STATUS (\S+) \(MESSAGES (\d+) UIDNEXT (\d+) UIDVALIDITY \d+ UNSEEN (\d+)\)")
_LIST = re.compile(r'\* LIST \((.*?)\) "/" (\S+)(?: \("OLDNAME" \((\S+)\)\))?')


@pytest.fixture
def narrow(imap: Running) -> Iterator[Running]:
    limits, imap.server.limits = imap.server.limits, replace(imap.server.limits, notify=8)
    yield imap
    imap.server.limits = limits


def _believe(state: State, lines: list[str]) -> None:
    for line in lines:
        if found := _STATUS.fullmatch(line):
            state[found[1]] = (int(found[2]), int(found[3]), int(found[4]))
        elif found := _LIST.fullmatch(line):
            attributes, name, oldname = found.groups()
            before = state.pop(oldname, (0, 1, 0)) if oldname else (0, 1, 0)
            if "\\NonExistent" in attributes:
                state.pop(name, None)
            else:
                state[name] = before
        else:
            raise AssertionError(line)


def told(watcher: Talk, count: int) -> list[str]:
    """As many lines as it is told, as soon as it is."""
    lines: list[str] = []

    def enough() -> bool:
        lines.extend(watcher.ok("NOOP"))
        return len(lines) >= count

    until(enough, story=lambda: lines)
    assert len(lines) == count, lines
    return lines


def _truth(talk: Talk) -> State:
    state: State = {}
    _believe(
        state,
        [
            line
            for line in talk.ok('LIST "" * RETURN (STATUS (MESSAGES UIDNEXT UIDVALIDITY UNSEEN))')
            if line.startswith("* STATUS")
        ],
    )
    return state


@pytest.mark.parametrize("seed", range(4))
def test_who_believes_every_word_of_it_knows_how_the_mailboxes_are(
    seed: int, imap: Running, people: Callable[[str], Person]
) -> None:
    chance = random.Random(seed)
    watcher, actor = Talk(imap, people("alice")), Talk(imap, people("alice"))
    state: State = {}
    _believe(state, watcher.ok(f"NOTIFY SET STATUS {EVERYTHING}"))
    assert state == _truth(actor)
    names = ["A", "B", "C", "A/X", "B/Y"]
    for _ in range(80):
        one, other = chance.choice(names), chance.choice(names)
        step = chance.randrange(10)
        if step < 4:
            actor.say(f"APPEND {one} {LITERAL}")
        elif step < 6:
            actor.say(f"CREATE {one}")
        elif step == 6:
            actor.say(f"DELETE {one}")
        elif step == 7:
            actor.say(f"RENAME {one} {other}")
        elif actor.say(f"SELECT {one}")[0].startswith("OK"):
            if actor.say("STORE 1 +FLAGS.SILENT (\\Seen)")[0].startswith("OK") and step == 9:
                actor.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
                actor.ok("EXPUNGE")
            actor.ok("UNSELECT")
        if chance.random() < 0.1:
            time.sleep(0.06)  # sometimes it looks between two changes, mostly it does not

    def agreed() -> bool:
        _believe(state, watcher.ok("NOOP"))
        return state == _truth(actor)

    until(agreed, story=lambda: (state, _truth(actor)))
    for talk in (watcher, actor):
        talk.close()


def test_too_many_mailboxes_to_watch_turn_it_off(narrow: Running, people: Callable[[str], Person]) -> None:
    watcher, actor = Talk(narrow, people("alice")), Talk(narrow, people("alice"))
    watcher.ok(f"NOTIFY SET {EVERYTHING}")
    for name in ("One", "Two"):
        actor.ok(f"CREATE {name}")
    told(watcher, 2)
    actor.ok("CREATE Three")
    (line,) = told(watcher, 1)
    assert line.startswith("* OK [NOTIFICATIONOVERFLOW]")
    actor.ok("CREATE Four")
    time.sleep(0.2)
    assert watcher.ok("NOOP") == []
    (line,) = watcher.ok(f"NOTIFY SET STATUS {EVERYTHING}")
    assert line.startswith("* OK [NOTIFICATIONOVERFLOW]")
    assert watcher.ok("NOTIFY SET STATUS (mailboxes One (MessageNew MessageExpunge))") == [
        line for line in actor.ok("STATUS One (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)")
    ]
    actor.ok(f"APPEND One {LITERAL}")
    told(watcher, 1)
    for talk in (watcher, actor):
        talk.close()
