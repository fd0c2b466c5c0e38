"""Random operations from several sessions on shared mailboxes: every client's picture is checked after each answer.

A client here is a strict one: it keeps the list of UIDs by sequence number, applies EXPUNGE, VANISHED, EXISTS and FETCH
as RFC 9051 says, and complains about anything that a server must not say.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)\r\n", re.S)
MESSAGE = b"Subject: s\r\n\r\nb\r\n"
BOXES = ("INBOX", "Archive")


@dataclass
class Client:
    """One session and what it believes."""

    imap: Running
    person: Person
    qresync: bool
    uids: list[int | None] = field(default_factory=list)
    flags: dict[int, frozenset[bytes]] = field(default_factory=dict)
    box: str = ""
    log: list[bytes] = field(default_factory=list)
    modseq: int = 0
    uidvalidity: int = 0

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection((HOST, self.imap.port), 10)
        self.file = self.socket.makefile("rwb")
        self.file.readline()
        self.say(f'LOGIN {self.person.address} "{self.person.password}"')
        if self.qresync:
            self.say("ENABLE QRESYNC")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def say(self, command: str, *, may_expunge: bool = True) -> bytes:
        """Run a command and follow its untagged answers; returns the tagged one."""
        self.log.append(b"> " + command.encode())
        self.file.write(b"a " + command.encode() + b"\r\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            assert line, self.story()
            self.log.append(b"< " + line.rstrip())
            if line.startswith(b"a "):
                return line
            self.hear(line, may_expunge)

    def hear(self, line: bytes, may_expunge: bool) -> None:
        if match := re.fullmatch(rb"\* (\d+) EXPUNGE\r\n", line):
            assert may_expunge, self.story()
            assert not self.qresync, self.story()
            seq = int(match[1])
            assert 1 <= seq <= len(self.uids), self.story()
            del self.uids[seq - 1]
        elif match := re.fullmatch(rb"\* VANISHED (\(EARLIER\) )?([0-9:,]+)\r\n", line):
            assert self.qresync, self.story()
            assert may_expunge or match[1], self.story()
            gone = expand(match[2])
            if not match[1]:
                for uid in sorted(gone - set(self.uids)):
                    self.uids.pop(self.unseen_place(uid))
            self.uids = [uid for uid in self.uids if uid not in gone]
            for uid in gone:
                self.flags.pop(uid, None)
        elif match := re.fullmatch(rb"\* (\d+) EXISTS\r\n", line):
            assert int(match[1]) >= len(self.uids), self.story()
            self.uids += [None] * (int(match[1]) - len(self.uids))
        elif match := FETCH.fullmatch(line):
            seq = int(match[1])
            assert 1 <= seq <= len(self.uids), self.story()
            uid = re.search(rb"UID (\d+)", match[2])
            if uid is not None:
                assert self.uids[seq - 1] in (None, int(uid[1])), self.story()
                self.uids[seq - 1] = int(uid[1])
            words = re.search(rb"FLAGS \(([^)]*)\)", match[2])
            known = self.uids[seq - 1]
            if words is not None and known is not None:
                self.flags[known] = frozenset(words[1].split()) - {b"\\Recent"}
        elif match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line):
            self.modseq = int(match[1])
        elif match := re.search(rb"\[UIDVALIDITY (\d+)\]", line):
            self.uidvalidity = int(match[1])

    def unseen_place(self, uid: int) -> int:
        """Where a message stands that was announced, whose UID the client never asked for, and that is gone."""
        low = 0
        for index, known in enumerate(self.uids):
            if known is None:
                high = next((one for one in self.uids[index:] if one is not None), uid + 1)
                if low < uid < high:
                    return index
            else:
                low = known
        raise AssertionError(f"UID {uid} vanished, which was never there\n{self.story()}")

    def select(self, box: str) -> None:
        self.uids, self.flags, self.box = [], {}, box
        assert self.say(f"SELECT {box}").startswith(b"a OK"), self.story()
        self.fetch_all()

    def reconnect(self) -> None:
        """Come back after the connection broke, and resynchronise with QRESYNC from what is known."""
        known, flags = {uid for uid in self.uids if uid is not None}, dict(self.flags)
        self.close()
        self.connect()
        self.uids, self.flags = [], {}
        earlier: set[int] = set()
        changed: dict[int, frozenset[bytes]] = {}
        self.file.write(f"a SELECT {self.box} (QRESYNC ({self.uidvalidity} {self.modseq}))\r\n".encode())
        self.file.flush()
        exists = 0
        while not (line := self.file.readline()).startswith(b"a "):
            self.log.append(b"< " + line.rstrip())
            if match := re.fullmatch(rb"\* (\d+) EXISTS\r\n", line):
                exists = int(match[1])
            elif match := re.fullmatch(rb"\* VANISHED \(EARLIER\) ([0-9:,]+)\r\n", line):
                earlier |= expand(match[1])
            elif match := FETCH.fullmatch(line):
                uid = re.search(rb"UID (\d+)", match[2])
                words = re.search(rb"FLAGS \(([^)]*)\)", match[2])
                assert uid is not None and words is not None, self.story()
                changed[int(uid[1])] = frozenset(words[1].split()) - {b"\\Recent"}
            elif match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line):
                self.modseq = int(match[1])
        assert line.startswith(b"a OK"), self.story()
        self.uids = list(sorted((known - earlier) | set(changed)))
        assert len(self.uids) == exists, self.story()
        self.flags = {uid: flags[uid] for uid in self.uids if uid in flags} | changed

    def fetch_all(self) -> None:
        assert self.say("UID FETCH 1:* FLAGS").startswith(b"a OK"), self.story()

    def settle(self) -> tuple[list[int | None], dict[int, frozenset[bytes]]]:
        """Hear everything that waits, learn the UIDs of what is new, and say what is believed."""
        self.say("NOOP")
        if None in self.uids:
            first = self.uids.index(None) + 1
            self.say(f"FETCH {first}:* (UID FLAGS)", may_expunge=False)
        assert None not in self.uids, self.story()
        if unknown := [str(uid) for uid in self.uids if uid not in self.flags]:
            self.say(f"UID FETCH {','.join(unknown)} FLAGS")
        return self.uids, {uid: self.flags[uid] for uid in self.uids if uid is not None}

    def step(self, dice: random.Random) -> None:
        count = len(self.uids)
        seqs = f"{dice.randint(1, count)}:{dice.randint(1, count)}" if count else "1:*"
        flag = dice.choice(["\\Seen", "\\Flagged", "\\Deleted", "Blue"])
        sign = dice.choice(["+", "-", ""])
        silent = dice.choice(["", ".SILENT"])
        match dice.randrange(13):
            case 0:
                self.say(f"APPEND {dice.choice(BOXES)} ({flag}) {{{len(MESSAGE)}+}}\r\n{MESSAGE.decode()}")
            case 1 | 2:
                known = [uid for uid in self.uids if uid is not None]
                self.say(f"STORE {seqs} {sign}FLAGS{silent} ({flag})", may_expunge=False)
                if silent and known:
                    # The client believes what it set; the server need not say it.
                    self.say("UID FETCH 1:* FLAGS")
            case 3:
                self.say(f"UID STORE 1:* {sign}FLAGS ({flag})")
            case 4:
                self.say("EXPUNGE")
            case 5:
                self.say(f"FETCH {seqs} (UID FLAGS)", may_expunge=False)
            case 6:
                self.say(f"MOVE {seqs} {dice.choice(BOXES)}")
            case 7:
                self.say(f"COPY {seqs} {dice.choice(BOXES)}")
            case 8:
                answer_before = list(self.uids)
                self.say("SEARCH ALL", may_expunge=False)
                assert len(self.uids) >= len(answer_before), self.story()
            case 9:
                self.say("NOOP")
            case 10:
                self.select(dice.choice(BOXES))
            case 11:
                self.idle()
            case 12:
                if self.qresync:
                    self.settle()
                    self.reconnect()

    def idle(self) -> None:
        self.file.write(b"a IDLE\r\n")
        self.file.flush()
        while not (line := self.file.readline()).startswith(b"+"):
            self.hear(line, True)
        self.file.write(b"DONE\r\n")
        self.file.flush()
        while not (line := self.file.readline()).startswith(b"a "):
            self.hear(line, True)

    def story(self) -> str:
        return b"\n".join(self.log[-40:]).decode("latin-1")


def expand(text: bytes) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


@pytest.mark.parametrize("seed", range(6))
def test_every_session_ends_with_the_same_picture(seed: int, imap: Running, people: Callable[[str], Person]) -> None:
    alice = people("alice")
    dice = random.Random(seed)
    for _ in range(8):
        imap.deliver(alice.account_id, MESSAGE)
    clients = [Client(imap, alice, qresync) for qresync in (False, True, False, True)]
    try:
        for client in clients:
            client.select(dice.choice(BOXES))
        for turn in range(150):
            dice.choice(clients).step(dice)
            if turn % 30 == 29:
                _compare(clients)
        _compare(clients)
    finally:
        for client in clients:
            client.close()


def _compare(clients: list[Client]) -> None:
    for box in BOXES:
        pictures = [(client, client.settle()) for client in clients if client.box == box]
        # Settling marks nothing, so a second look changes nothing.
        for client, (uids, flags) in pictures:
            reference = pictures[0][1]
            assert uids == reference[0], client.story()
            assert flags == reference[1], client.story()
