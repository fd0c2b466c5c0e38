"""An IMAP client that believes what it is told, does what the RFCs allow, and complains about all that they forbid.

It keeps the list of UIDs by sequence number, applies EXPUNGE, VANISHED, EXISTS, FETCH and STATUS, and comes back with
QRESYNC from the last HIGHESTMODSEQ that it knew everything up to. None in the list is a message whose UID it has not
asked for yet.
"""

from __future__ import annotations

import itertools
import random
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.imap.conftest import Person
from tests.imap.running import HOST

_FETCH = re.compile(rb"\* (\d+) (UID)?FETCH \((.*)\)\r\n", re.S)
_STATUS = re.compile(rb"\* STATUS (\S+|\"[^\"]+\") \(MESSAGES (\d+) UIDNEXT (\d+) .*\)\r\n")
_SILENT = re.compile(r"(UID )?STORE (\d+):(\d+) ([+-]?)FLAGS\.SILENT \((.+)\)")
_OTHER = re.compile(rb"\* (OK|FLAGS|LIST|ENABLED|SEARCH|ESEARCH)\b")
MESSAGE = "Subject: s\r\n\r\nb\r\n"
LITERAL = f"{{{len(MESSAGE)}+}}\r\n{MESSAGE}"
_numbers = itertools.count()


@dataclass(frozen=True)
class Kind:
    """What a client has switched on. `notify`: it hears of everything at once, so it trusts no sequence number."""

    name: str
    enable: str = ""
    notify: bool = False

    @property
    def qresync(self) -> bool:
        return "QRESYNC" in self.enable

    @property
    def uid_only(self) -> bool:
        return "UIDONLY" in self.enable

    @property
    def rev2(self) -> bool:
        return "IMAP4REV2" in self.enable


KINDS = (
    Kind("rev1"),
    Kind("rev2", "IMAP4REV2"),
    Kind("condstore", "CONDSTORE"),
    Kind("qresync", "QRESYNC"),
    Kind("uidonly", "UIDONLY"),
    Kind("uidonly-qresync", "QRESYNC UIDONLY IMAP4REV2"),
    Kind("notify", notify=True),
    Kind("notify-qresync", "QRESYNC", notify=True),
)


@dataclass
class Client:
    """One session and what it believes. `boxes`: this person's names of mailboxes by those that the test has."""

    port: int
    person: Person
    kind: Kind
    boxes: Mapping[str, str]
    recents: dict[tuple[int, str, int], int] = field(default_factory=dict)
    """Of all clients: which session of a process has seen a message as \\Recent."""
    uids: list[int | None] = field(default_factory=list)
    flags: dict[int, frozenset[bytes]] = field(default_factory=dict)
    status: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """Messages, and UIDNEXT where that is known, of mailboxes that NOTIFY tells of."""
    validity: dict[str, int] = field(default_factory=dict)
    box: str = ""
    modseq: int = 0
    log: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connect()

    # -- talking

    def connect(self) -> None:
        self.number = next(_numbers)
        self.socket = socket.create_connection((HOST, self.port), 60)
        self.file = self.socket.makefile("rwb")
        self.file.readline()
        self.ok(f'LOGIN {self.person.address} "{self.person.password}"')
        if self.kind.enable:
            self.ok(f"ENABLE {self.kind.enable}")
        if self.kind.notify:
            self.status = {}
            events = "(MessageNew MessageExpunge)"
            self.ok(
                "NOTIFY SET STATUS (selected (MessageNew MessageExpunge FlagChange)) "
                f'(personal {events}) (subtree "Other Users" {events})'
            )

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, command: str) -> None:
        self.log.append(b"> " + command.encode())
        self.file.write(b"a " + command.encode() + b"\r\n")
        self.file.flush()

    def line(self) -> bytes:
        line = self.file.readline()
        self.log.append(b"< " + line.rstrip())
        assert line and not line.startswith((b"* BYE", b"* BAD")), self.story()
        return line

    def say(self, command: str, *, may_expunge: bool = True) -> bytes:
        """Run a command and follow its untagged answers; returns the tagged one."""
        self.send(command)
        return self.follow(b"a ", may_expunge)

    def follow(self, tag: bytes, may_expunge: bool) -> bytes:
        """Hear what comes up to the tagged answer, and return that."""
        while not (line := self.line()).startswith(tag):
            self.hear(line, may_expunge or self.kind.notify)
        assert b"SERVERBUG" not in line, self.story()
        if (match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line)) and self.knows_all():
            self.modseq = int(match[1])
        return line

    def ok(self, command: str) -> None:
        assert self.say(command).startswith(b"a OK"), self.story()

    def story(self) -> str:
        said = [line for line in self.log if b"NOOP" not in line]
        return f"{self.kind.name} at {self.port}\n" + b"\n".join(said[-60:]).decode("latin-1")

    # -- believing

    def hear(self, line: bytes, may_expunge: bool) -> None:
        if match := re.fullmatch(rb"\* (\d+) EXPUNGE\r\n", line):
            assert may_expunge and not (self.kind.qresync or self.kind.uid_only), self.story()
            assert 1 <= int(match[1]) <= len(self.uids), self.story()
            del self.uids[int(match[1]) - 1]
        elif match := re.fullmatch(rb"\* VANISHED (\(EARLIER\) )?([0-9:,]+)\r\n", line):
            assert self.kind.qresync or self.kind.uid_only, self.story()
            assert may_expunge or match[1], self.story()
            self.vanish(expand(match[2]), earlier=bool(match[1]))
        elif match := re.fullmatch(rb"\* (\d+) EXISTS\r\n", line):
            assert int(match[1]) >= len(self.uids), self.story()
            self.uids += [None] * (int(match[1]) - len(self.uids))
        elif match := re.fullmatch(rb"\* (\d+) RECENT\r\n", line):
            assert not self.kind.rev2 and int(match[1]) <= len(self.uids), self.story()
        elif match := _FETCH.fullmatch(line):
            self.fetched(int(match[1]), match[3], by_uid=bool(match[2]))
        elif match := _STATUS.fullmatch(line):
            assert self.kind.notify, self.story()
            name = match[1].decode().strip('"')
            self.status[name] = (int(match[2]), int(match[3]))
        elif line.startswith(b"* SEARCH"):
            assert not self.kind.rev2, self.story()
        else:
            assert _OTHER.match(line), self.story()
            if match := re.search(rb"\[UIDVALIDITY (\d+)\]", line):
                assert self.validity.setdefault(self.box, int(match[1])) == int(match[1]), self.story()

    def vanish(self, gone: set[int], *, earlier: bool) -> None:
        if not earlier:
            for uid in sorted(gone - set(self.uids)):
                self.uids.pop(self.unseen_place(uid))
        self.uids = [uid for uid in self.uids if uid not in gone]
        for uid in gone:
            self.flags.pop(uid, None)

    def unseen_place(self, uid: int) -> int:
        """Where a message stands that was announced, whose UID the client never asked for, and that is gone."""
        low = 0
        for index, known in enumerate(self.uids):
            if known is None:
                high = next((one for one in self.uids[index:] if one is not None), uid + 1)
                if self.kind.uid_only or low < uid < high:
                    return index
            else:
                low = known
        raise AssertionError(f"UID {uid} vanished, which was never there\n{self.story()}")

    def fetched(self, number: int, items: bytes, *, by_uid: bool) -> None:
        assert by_uid == self.kind.uid_only, self.story()
        if by_uid:
            uid: int | None = number
            if number not in self.uids:
                self.uids.remove(None)
                self.uids = [*sorted([*filter(None, self.uids), number]), *[None] * self.uids.count(None)]
        else:
            assert 1 <= number <= len(self.uids), self.story()
            if match := re.search(rb"\bUID (\d+)", items):
                assert self.uids[number - 1] in (None, int(match[1])), self.story()
                self.uids[number - 1] = int(match[1])
            uid = self.uids[number - 1]
        if (words := re.search(rb"FLAGS \(([^)]*)\)", items)) and uid is not None:
            flags = frozenset(words[1].split())
            if b"\\Recent" in flags:
                assert not self.kind.rev2, self.story()
                owner = self.recents.setdefault((self.port, self.box, uid), self.number)
                assert owner == self.number, self.story()
            self.flags[uid] = flags - {b"\\Recent"}

    def knows_all(self) -> bool:
        """It knows UID and flags of every message: then HIGHESTMODSEQ is where it can go on from."""
        return all(uid in self.flags for uid in self.uids)

    # -- doing

    def select(self, box: str) -> None:
        modseq = 0
        if not self.box:
            self.leave(box)
        self.send(f"SELECT {self.boxes[box]}")
        while not (line := self.line()).startswith(b"a "):
            if b"[CLOSED]" in line:
                self.leave(box)
            elif match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line):
                modseq = int(match[1])
            self.hear(line, True)
        assert line.startswith(b"a OK") and self.box == box, self.story()
        self.ok("UID FETCH 1:* FLAGS")
        self.settle()
        self.modseq = modseq

    def leave(self, box: str) -> None:
        """What comes from here on is of another mailbox; of this one NOTIFY tells by STATUS."""
        if self.kind.notify and self.box:
            self.status[self.boxes[self.box].strip('"')] = (len(self.uids), None)
        self.uids, self.flags, self.box = [], {}, box

    def settle(self) -> tuple[list[int | None], dict[int, frozenset[bytes]]]:
        """Hear everything that waits, learn what is new, and say what is believed."""
        self.ok("NOOP")
        for attempt in range(20):
            if self.knows_all():
                break
            # Mostly they are the newest; but of a new message the client may have heard before an older new one.
            known = [uid for uid in self.uids if uid is not None]
            self.ok(f"UID FETCH {max(known, default=0) + 1 if attempt == 0 else 1}:* FLAGS")
        assert self.knows_all(), self.story()
        return self.uids, {uid: self.flags[uid] for uid in self.uids if uid is not None}

    def told(self, box: str) -> int:
        """How many messages are in a mailbox that is not selected, as NOTIFY says."""
        self.ok("NOOP")
        return self.status.get(self.boxes[box].strip('"'), (0, None))[0]

    def reconnect(self, dice: random.Random) -> None:
        """Come back after the connection broke: with QRESYNC from what is known, else from nothing."""
        self.close()
        known = sorted(uid for uid in self.uids if uid is not None and uid in self.flags)
        flags = {uid: self.flags[uid] for uid in known}
        self.uids, self.flags = [], {}
        box, self.box = self.box, ""
        self.connect()
        if not self.kind.qresync:
            self.select(box)
            return
        self.box = box
        named = f" {','.join(map(str, known))}" if known and dice.random() < 0.5 else ""
        self.send(f"SELECT {self.boxes[box]} (QRESYNC ({self.validity[box]} {self.modseq}{named}))")
        exists, modseq, gone, changed = -1, 0, set[int](), dict[int, frozenset[bytes]]()
        late: list[bytes] = []  # what happened after all that is said of the time before
        while not (line := self.line()).startswith(b"a "):
            if late or re.match(rb"\* (VANISHED \d|\d+ EXPUNGE)", line) or (b" EXISTS" in line and exists >= 0):
                late.append(line)
            elif match := re.fullmatch(rb"\* (\d+) EXISTS\r\n", line):
                exists = int(match[1])
            elif match := re.fullmatch(rb"\* VANISHED \(EARLIER\) ([0-9:,]+)\r\n", line):
                gone |= expand(match[1])
            elif match := _FETCH.fullmatch(line):
                assert bool(match[2]) == self.kind.uid_only, self.story()
                uid = match if match[2] else re.search(rb"\bUID (\d+)", match[3])
                words = re.search(rb"FLAGS \(([^)]*)\)", match[3])
                assert uid is not None and words is not None and b"MODSEQ (" in match[3], self.story()
                changed[int(uid[1])] = frozenset(words[1].split()) - {b"\\Recent"}
            elif match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line):
                modseq = int(match[1])
        assert line.startswith(b"a OK"), self.story()
        assert not gone.intersection(changed), self.story()
        if named:
            assert gone | set(changed) <= set(known), self.story()
        here = sorted((set(known) - gone) | set(changed))
        assert len(here) <= exists and (named or len(here) == exists), self.story()
        self.uids, self.flags = [*here, *[None] * (exists - len(here))], {**flags, **changed}
        if len(here) < exists and not self.kind.uid_only:
            self.uids = [None] * exists  # those that it did not name may stand anywhere
        for line in late:
            self.hear(line, True)
        if None in self.uids:
            self.ok("UID FETCH 1:* UID")
        self.settle()
        self.modseq = modseq

    def step(self, dice: random.Random) -> None:
        """Something at random."""
        what = dice.randrange(16)
        if what == 0:
            self.say(f"APPEND {self.boxes[dice.choice([*self.boxes])]} ({_flag(dice)}) {LITERAL}")
        elif what == 1:
            self.ok("NOOP")
        elif what == 2:
            self.select(dice.choice([*self.boxes]))
        elif what == 3:
            self.idle()
        elif what == 4:
            self.reconnect(dice)
        elif what == 5:
            # The connection breaks while a command is under way.
            self.send(self.command(dice)[0])
            self.reconnect(dice)
        elif what < 8:
            self.pipeline([self.command(dice) for _ in range(dice.randint(2, 4))])
            if dice.random() < 0.4:
                self.reconnect(dice)
        else:
            command, may_expunge = self.command(dice)
            before, flags = len(self.uids), dict(self.flags)
            self.believe(command)
            if self.say(command, may_expunge=may_expunge).startswith(b"a BAD"):
                self.flags = flags
            assert may_expunge or self.kind.notify or len(self.uids) >= before, self.story()
            if self.kind.notify and "STORE" in command:
                # What it was told meanwhile may be from before its change or from after it: nobody can know.
                self.ok("UID FETCH 1:* FLAGS")

    def pipeline(self, commands: list[tuple[str, bool]]) -> None:
        """Several commands at once: each is answered as if it came after the one before, in numbers too."""
        self.log.append(b"> at once:")
        for number, (command, _) in enumerate(commands):
            self.log.append(b"> %d " % number + command.encode())
            self.file.write(f"p{number} {command}\r\n".encode())
        self.file.flush()
        for number, (command, may_expunge) in enumerate(commands):
            flags = dict(self.flags)
            self.believe(command)
            if self.follow(b"p%d " % number, may_expunge).split()[1] == b"BAD":
                self.flags = flags
        if self.kind.notify:
            self.ok("UID FETCH 1:* FLAGS")

    def believe(self, command: str) -> None:
        """What a silent STORE sets is so, unless the server says otherwise."""
        match = _SILENT.fullmatch(command)
        if match is None:
            return
        low, high = sorted((int(match[2]), int(match[3])))
        by_seq = self.uids[low - 1 : high]
        chosen = [uid for uid in self.uids if uid is not None and low <= uid <= high] if match[1] else by_seq
        flag = frozenset((match[5].encode(),))
        for uid in chosen:
            if uid is not None and uid in self.flags:
                have = self.flags[uid]
                self.flags[uid] = {"+": have | flag, "-": have - flag, "": flag}[match[4]]

    def command(self, dice: random.Random) -> tuple[str, bool]:
        """A command on some messages, and whether EXPUNGE or VANISHED may come with its answer."""
        by_uid = self.kind.uid_only or self.kind.notify or dice.random() < 0.3
        top = max((uid for uid in self.uids if uid is not None), default=1) if by_uid else len(self.uids)
        some = f"{dice.randint(1, top)}:{dice.randint(1, top)}" if top else "1:*"
        target = dice.choice([*self.boxes.values(), "Trash"])
        verb = dice.choice(["STORE", "STORE", "STORE", "FETCH", "SEARCH", "MOVE", "COPY", "EXPUNGE", "UID EXPUNGE"])
        uid = "UID " if by_uid else ""
        match verb:
            case "STORE":
                sign, silent = dice.choice("+-=").replace("=", ""), dice.choice(["", ".SILENT"])
                return f"{uid}STORE {some} {sign}FLAGS{silent} ({_flag(dice)})", by_uid
            case "FETCH":
                return f"{uid}FETCH {some} (UID FLAGS)", by_uid
            case "SEARCH":
                return f"{uid}SEARCH {dice.choice(['ALL', 'UNSEEN', 'SUBJECT s'])}", by_uid
            case "UID EXPUNGE":
                return f"UID EXPUNGE {some}", True
            case "EXPUNGE":
                return "EXPUNGE", True
        return f"{uid}{verb} {some} {target}", True

    def idle(self) -> None:
        self.send("IDLE")
        while not (line := self.line()).startswith(b"+"):
            self.hear(line, True)
        self.file.write(b"DONE\r\n")
        self.file.flush()
        while not (line := self.line()).startswith(b"a "):
            self.hear(line, True)


def _flag(dice: random.Random) -> str:
    return dice.choice(["\\Seen", "\\Flagged", "\\Deleted", "Blue"])


def expand(text: bytes) -> set[int]:
    """The numbers of a set."""
    numbers: set[int] = set()
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
