"""Pipelined commands get, octet for octet, what they get one at a time; FETCHes of one message each go together."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailcore import db as store_db
from mailcore.imap import runs
from mailcore.store import expunge, fetch
from mailcore.store.mailboxes import by_name
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

COUNT = 9
ITEMS = (
    "(BODY.PEEK[])",
    "(FLAGS BODY.PEEK[])",
    "(UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
    "(INTERNALDATE BODY.PEEK[1]<0.5> BODY.PEEK[TEXT])",
    "(ENVELOPE FLAGS)",
    "(FLAGS)",
    "(MODSEQ FLAGS)",
    "(BINARY.PEEK[1])",
    "BODY[]",
)
DATE = '"22-Nov-2026 09:00:00 +0000"'
MESSAGE = "Subject: later\r\n\r\nnew\r\n"
OTHERS = (
    "NOOP",
    "STORE 2 +FLAGS (\\Seen)",
    "UID STORE 4:6 FLAGS (\\Answered)",
    "STORE 1 +FLAGS (\\Deleted)",
    "EXPUNGE",
    "UID FETCH 2:4 (FLAGS)",
    "FETCH 1 (FLAGS NONSENSE)",
    "FETCH 4294967296 (FLAGS)",
    "UID SEARCH ALL",
    f"APPEND INBOX () {DATE} {{{len(MESSAGE)}+}}\r\n{MESSAGE}",
)


@st.composite
def _alike(draw: st.DrawFn) -> list[str]:
    """FETCHes of one message each; of messages that are not there, too."""
    name, items = draw(st.sampled_from(("UID FETCH", "FETCH"))), draw(st.sampled_from(ITEMS))
    numbers = draw(st.lists(st.integers(1, COUNT + 3), min_size=1, max_size=12))
    return [f"{name} {number} {items}" for number in (sorted(set(numbers)) if draw(st.booleans()) else numbers)]


class Wire:
    """A client with INBOX selected that sends what it is given and reads up to the last answer."""

    def __init__(self, imap: Running, person: Person) -> None:
        self._socket = socket.create_connection((HOST, imap.port), 60)
        self._said = bytearray()
        self.say([f'LOGIN {person.address} "{person.password}"', "SELECT INBOX"])

    def say(self, commands: list[str], *, together: bool = True) -> bytes:
        """All that is answered to commands sent in one write, or one after the other."""
        tagged = [f"t{n} {command}\r\n".encode() for n, command in enumerate(commands)]
        if not together:
            return b"".join(self._sent(one, n) for n, one in enumerate(tagged))
        return self._sent(b"".join(tagged), len(tagged) - 1)

    def _sent(self, octets: bytes, last: int) -> bytes:
        self._socket.sendall(octets)
        end = re.compile(rb"^t%d (OK|NO|BAD) .*\r\n" % last, re.M)
        while not (found := end.search(self._said)):
            data = self._socket.recv(1 << 16)
            assert data, bytes(self._said)
            self._said += data
        said = bytes(self._said[: found.end()])
        del self._said[: found.end()]
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each run had."""
    lengths: list[int] = []
    begin = runs.Run.begin

    def counted(run: runs.Run) -> None:
        lengths.append(len(run.numbers))
        begin(run)

    monkeypatch.setattr(runs.Run, "begin", counted)
    return lengths


@pytest.fixture
def pair(imap: Running, people: Callable[[str], Person]) -> Iterator[tuple[Wire, Wire]]:
    """Two people with the same mail."""
    wires = []
    for name in ("alice", "bobby"):
        wire = Wire(imap, people(name))
        for n in range(COUNT):
            text = f"Subject: s{n}\r\nContent-Type: text/plain\r\n\r\n{'x' * n}\r\n"
            wire.say([f"APPEND INBOX {DATE} {{{len(text)}+}}\r\n{text}"])
        wires.append(wire)
    yield wires[0], wires[1]
    for wire in wires:
        wire.close()


def test_commands_in_one_write_are_answered_as_they_are_one_by_one(pair: tuple[Wire, Wire], begun: list[int]) -> None:
    one_by_one, pipelined = pair

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(_alike() | st.sampled_from(OTHERS).map(lambda other: [other]), min_size=1, max_size=6))
    def holds(parts: list[list[str]]) -> None:
        commands = [command for part in parts for command in part]
        assert pipelined.say(commands) == one_by_one.say(commands, together=False)

    holds()
    assert max(begun) > 2
    everything = ["UID FETCH 1:* (FLAGS MODSEQ RFC822.SIZE)"]
    assert pipelined.say(everything) == one_by_one.say(everything)


def _expunged_unheard(imap: Running, person: Person, uids: list[int]) -> None:
    """Somebody else's expunge, of which the hint is lost."""

    async def work() -> None:
        async with store_db.transaction() as tx:
            inbox = await by_name(tx, person.account_id, "INBOX")
            await expunge.expunge(tx, person.account_id, inbox.id, uids, deleted_only=False)
            tx.changes.clear()

    imap.call(work())


@pytest.mark.parametrize("name", ["FETCH", "UID FETCH"])
def test_in_a_run_each_command_fails_or_succeeds_for_itself(imap: Running, alice: Person, name: str) -> None:
    large = b"Subject: large\r\n\r\n" + b"0123456789abcde\r\n" * 150_000  # more than is read at a time
    for n in range(6):
        imap.deliver(alice.account_id, large if n == 3 else b"Subject: s\r\n\r\n%d\r\n" % n)
    with closing(Wire(imap, alice)) as wire:
        _expunged_unheard(imap, alice, [1, 3, 6])
        said = wire.say(["CAPABILITY", *(f"{name} {n} (BODY.PEEK[])" for n in range(1, 7))])
    lines = [line[:40] for line in re.findall(rb"^(?:\* \d+ FETCH|t\d) .*$", said, re.M)]
    gone = b" OK FETCH completed" if name == "UID FETCH" else b" NO [EXPUNGEISSUED] 1 of the messages"
    assert said.count(large) == 1
    answers = [line for line in lines if line.startswith(b"t")]
    assert [line.split(b" ")[0] for line in answers] == [b"t%d" % n for n in range(7)]
    for n, there in ((1, False), (2, True), (3, False), (4, True), (5, True), (6, False)):
        assert answers[n].startswith(b"t%d%b" % (n, b" OK FETCH completed" if there else gone))
        assert any(line.startswith(b"* %d FETCH" % n) for line in lines) == there
        if there:
            assert lines.index(answers[n]) == 1 + [line.startswith(b"* %d FETCH" % n) for line in lines].index(True)


@pytest.mark.parametrize("items", ["FLAGS", "ENVELOPE", "BODY.PEEK[]"])
def test_a_run_of_messages_that_are_all_gone(imap: Running, alice: Person, items: str) -> None:
    for n in range(3):
        imap.deliver(alice.account_id, b"Subject: s\r\n\r\n%d\r\n" % n)
    with closing(Wire(imap, alice)) as wire:
        _expunged_unheard(imap, alice, [1, 2, 3])
        said = wire.say(["CAPABILITY", *(f"UID FETCH {n} ({items})" for n in (1, 2, 3))])
    answers = re.findall(rb"^t\d .*(?=\r\n)", said, re.M)
    assert answers[1:] == [b"t%d OK FETCH completed" % n for n in (1, 2, 3)]
    assert b"FETCH (" not in said


def test_a_run_that_the_database_breaks_off_answers_every_command(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch, begun: list[int]
) -> None:
    for n in range(8):
        imap.deliver(alice.account_id, b"Subject: s\r\n\r\n%d\r\n" % n)
    stream = fetch.stream

    async def broken(tx: Any, account_id: int, pieces: Any, take: Any) -> None:
        if len(pieces) > 2:
            await stream(tx, account_id, pieces[:2], take)
            raise OSError("gone in the middle")
        await stream(tx, account_id, pieces, take)

    commands = ["CAPABILITY", *(f"UID FETCH {n} (BODY.PEEK[])" for n in range(1, 9))]
    with closing(Wire(imap, alice)) as wire:
        whole = wire.say(commands)
        monkeypatch.setattr(fetch, "stream", broken)
        said = wire.say(commands)
        monkeypatch.setattr(fetch, "stream", stream)
        assert wire.say(commands) == whole
    answers = re.findall(rb"^t(\d) (OK|NO) ", said, re.M)
    assert [int(number) for number, _ in answers] == list(range(9))
    assert any(status == b"NO" for _, status in answers) == (max(begun) > 2)
    for number, status in answers[1:]:
        assert (b"* %b FETCH (UID %b BODY[] {" % (number, number) in said) == (status == b"OK")
