"""The mail process is killed in the middle of anything: what was answered OK is there, what was not is whole or not.

Each session has mailboxes of its own in an account that it shares with others, and knows what must be in them. The
command that got no answer may have happened or not, and nothing in between. Then counters equal a recount, and UIDs
have only grown.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from django.db import connection as database

from mailcore import db as drivers
from mailcore.store import quota
from tests.imap.conftest import Person
from tests.imap.process import MailProcess, mail_process
from tests.imap.running import HOST

SESSIONS_EACH = 3
Mail = tuple[str, frozenset[str]]  # subject, flags
Box = dict[int | None, Mail]

_FETCH = re.compile(rb"\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\) BODY\[HEADER.FIELDS \(Subject\)\] \{(\d+)\}\r\n")
_subjects = itertools.count(1)


class Cut(Exception):
    """The server is gone."""


class Client:
    """A blocking client that sends whole commands."""

    def __init__(self, port: int, person: Person) -> None:
        try:
            self.socket = socket.create_connection((HOST, port), 60)
        except OSError as error:
            raise Cut from error
        self.file = self.socket.makefile("rb")
        self._line()
        self.ask(f'LOGIN {person.address} "{person.password}"')

    def _line(self) -> bytes:
        try:
            line = self.file.readline()
        except OSError as error:
            raise Cut from error
        if not line.endswith(b"\r\n"):
            raise Cut
        return line

    def ask(self, *parts: str) -> bytes:
        """Run a command (its parts: text, literal, text, …); all that was said. Raises Cut, AssertionError."""
        command = b"a " + b"".join(
            b"{%d+}\r\n%b" % (len(part), part.encode()) if number % 2 else part.encode()
            for number, part in enumerate(parts)
        )
        try:
            self.socket.sendall(command + b"\r\n")
        except OSError as error:
            raise Cut from error
        said = b""
        while True:
            line = self._line()
            said += line
            if line.startswith(b"a "):
                assert line.startswith(b"a OK"), (command, line)
                return said
            if found := re.search(rb"\{(\d+)\}\r\n\Z", line):
                said += self.file.read(int(found[1]))

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@dataclass(frozen=True)
class State:
    """What a session's mailboxes are to hold, by name, and who may read the first of them. A UID None: not told yet."""

    boxes: dict[str, Box] = field(default_factory=dict)
    shared: bool = False

    def put(self, name: str, box: Box) -> State:
        return replace(self, boxes={**self.boxes, name: box})


@dataclass
class Step:
    """A command under way: what to say, and what is then true; `found` makes of the answer the new UIDs, in order."""

    parts: tuple[str, ...]
    after: Callable[[list[int | None]], State]
    count: int = 0
    found: Callable[[bytes], list[int]] = lambda said: []


def message(subject: str, size: int) -> str:
    return f"Subject: {subject}\r\n\r\n" + "0123456789abcd\r\n" * (size // 16)


def _added(box: Box, mails: list[Mail], uids: list[int | None]) -> Box:
    """Those whose UID is not known have negative numbers until it is."""
    unknown = itertools.count(-1, -1)
    return {**box, **{next(unknown) if uid is None else uid: mail for uid, mail in zip(uids, mails, strict=True)}}


def _numbers(pattern: bytes) -> Callable[[bytes], list[int]]:
    def find(said: bytes) -> list[int]:
        match = re.search(pattern, said)
        assert match, said
        found: list[int] = []
        for part in match[1].split(b","):
            first, _, last = part.partition(b":")
            found += range(int(first), int(last or first) + 1)
        return found

    return find


_APPENDUID, _COPYUID = _numbers(rb"\[APPENDUID \d+ ([\d:,]+)\]"), _numbers(rb"\[COPYUID \d+ [\d:,]+ ([\d:,]+)\]")
_FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "blue")


class Actor:
    """One session: it works until the server dies, and then knows what must be there."""

    def __init__(self, person: Person, friend: Person, number: int, seed: int) -> None:
        self.person, self.friend, self.number = person, friend, number
        self.chance = random.Random(seed)
        self.state = State({f"S{number}": {}, f"T{number}": {}})
        self.step: Step | None = None
        self.highest: dict[str, int] = {}
        self.renames = 0
        self.done = 0
        self.failure: BaseException | None = None

    def run(self, port: int) -> None:
        """Until the server is gone; the step that got no answer is left in `step`."""
        try:
            client = Client(port, self.person)
            box = f"S{self.number}"
            while True:
                client.ask(f"SELECT {box}")
                for _ in range(self.chance.randrange(1, 6)):
                    self.step = self._choose()
                    said = client.ask(*self.step.parts)
                    uids: list[int | None] = list(self.step.found(said)) if self.step.count else []
                    self.state, self.step = self.step.after(uids), None
                    self._note()
                    self.done += 1
        except Cut:
            pass
        except BaseException as error:
            self.failure = error

    def _note(self) -> None:
        for name, box in self.state.boxes.items():
            self.highest[name[0]] = max([self.highest.get(name[0], 0), *(uid for uid in box if uid is not None)])

    def _choose(self) -> Step:
        chance, state = self.chance, self.state
        source, other = sorted(state.boxes)
        here, there = state.boxes[source], state.boxes[other]
        # UIDs sort, whatever the types say.
        uids = chance.sample(sorted(here), min(len(here), chance.randrange(1, 4)))  # type: ignore[type-var]
        kinds = ["append", "multi", "acl", "rename"]
        if uids:
            kinds += ["catenate", "replace", "copy", "move", "move", "store", "store", "delete", "expunge"]
        kind = chance.choice(kinds if len(here) < 30 else ["move", "delete", "expunge"])
        names = ",".join(map(str, sorted(uids)))  # type: ignore[type-var]  # UIDs sort
        chosen = {uid: here[uid] for uid in sorted(uids)}  # type: ignore[type-var]  # UIDs sort
        rest = {uid: mail for uid, mail in here.items() if uid not in chosen}
        subject = f"m{next(_subjects)}"
        text = message(subject, chance.choice((100, 5_000, 400_000)))
        fresh = [(subject, frozenset[str]())]
        match kind:
            case "append":
                return Step(
                    (f"APPEND {source} (\\Flagged) ", text, ""),
                    lambda new: state.put(source, _added(here, [(subject, frozenset(("\\flagged",)))], new)),
                    1,
                    _APPENDUID,
                )
            case "multi":
                three = [(f"{subject}.{n}", frozenset[str]()) for n in range(3)]
                parts = [part for mail in three for part in (" ", message(mail[0], 2_000))]
                return Step(
                    (f"APPEND {source}{parts[0]}", *parts[1:], ""),
                    lambda new: state.put(source, _added(here, three, new)),
                    3,
                    _APPENDUID,
                )
            case "catenate":
                # Of the message of the URL only the text: the subject is the new one's.
                head = f"Subject: {subject}\r\n\r\n"
                url = f' URL "/{source}/;UID={next(iter(chosen))}/;SECTION=TEXT")'
                return Step(
                    (f"APPEND {source} CATENATE (TEXT ", head, url),
                    lambda new: state.put(source, _added(here, fresh, new)),
                    1,
                    _APPENDUID,
                )
            case "replace":
                one = next(iter(chosen))
                kept = {uid: mail for uid, mail in here.items() if uid != one}
                return Step(
                    (f"UID REPLACE {one} {source} ", text, ""),
                    lambda new: state.put(source, _added(kept, fresh, new)),
                    1,
                    _APPENDUID,
                )
            case "copy" | "move":
                left = rest if kind == "move" else here
                return Step(
                    (f"UID {kind.upper()} {names} {other}",),
                    lambda new: state.put(source, left).put(other, _added(there, list(chosen.values()), new)),
                    len(chosen),
                    _COPYUID,
                )
            case "store" | "delete":
                flag = "\\Deleted" if kind == "delete" else chance.choice(_FLAGS)
                marked = {uid: (what, flags | {flag.lower()}) for uid, (what, flags) in chosen.items()}
                return Step((f"UID STORE {names} +FLAGS ({flag})",), lambda new: state.put(source, {**here, **marked}))
            case "expunge":
                left = {uid: mail for uid, mail in here.items() if "\\deleted" not in mail[1]}
                return Step(("EXPUNGE",), lambda new: state.put(source, left))
            case "acl":
                rights = "" if state.shared else "lr"
                return Step(
                    (f'SETACL {source} {self.friend.address} "{rights}"',),
                    lambda new: replace(state, shared=not state.shared),
                )
            case _:
                self.renames += 1
                name = f"T{self.number}.{self.renames}"
                return Step((f"RENAME {other} {name}",), lambda new: replace(state, boxes={source: here, name: there}))

    # -- afterwards

    def check(self, port: int) -> None:
        """Look at what is there; it becomes what is known."""
        if self.failure is not None:
            raise self.failure
        client = Client(port, self.person)
        listed = client.ask(f'LIST "" (S{self.number} T{self.number} T{self.number}.*)').decode()
        found = State(shared=False)
        for name in re.findall(r'"/" (\S+)\r\n', listed):
            found = found.put(name, self._contents(client, name))
        acl = client.ask(f"GETACL S{self.number}").decode()
        found = replace(found, shared=self.friend.address in acl)
        client.close()
        possible = [self.state]
        if self.step is not None:
            possible.append(self.step.after([None] * self.step.count))
        assert any(self._agrees(one, found) for one in possible), (self.step, possible, found)
        self.state, self.step = found, None
        self._note()

    def _contents(self, client: Client, name: str) -> Box:
        said = client.ask(f"EXAMINE {name}")
        uidnext = int(re.search(rb"UIDNEXT (\d+)", said)[1])  # type: ignore[index]  # it is there
        assert uidnext > self.highest.get(name[0], 0), "UIDs only grow"
        said = client.ask("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (Subject)])")
        box: Box = {}
        for match in _FETCH.finditer(said):
            header = said[match.end() : match.end() + int(match[3])]
            flags = frozenset(match[2].decode().lower().split()) - {"\\recent"}
            box[int(match[1])] = (header.decode().partition(":")[2].strip(), flags)
        assert len(box) == said.count(b" FETCH (UID"), said
        assert all(uid < uidnext for uid in box if uid is not None)
        return box

    def _agrees(self, wanted: State, found: State) -> bool:
        if wanted.shared != found.shared or wanted.boxes.keys() != found.boxes.keys():
            return False
        for name, box in wanted.boxes.items():
            there = dict(found.boxes[name])
            new = []
            for uid, mail in box.items():
                if uid is not None and uid > 0:
                    if there.pop(uid, None) != mail:
                        return False
                else:
                    new.append(mail)
            if sorted(map(repr, new)) != sorted(map(repr, there.values())):
                return False
            if any(uid <= self.highest.get(name[0], 0) for uid in there if uid is not None):
                return False
        return True


_INTACT = {
    "messages without octets": """SELECT count(*) FROM message m WHERE NOT EXISTS
        (SELECT FROM blob b WHERE b.hash = m.blob)""",
    "entries without a message": """SELECT count(*) FROM entry e WHERE NOT EXISTS
        (SELECT FROM message m WHERE m.account_id = e.account_id AND m.id = e.message_id)""",
    "UIDs from the future": """SELECT count(*) FROM entry e JOIN mailbox m
        ON m.account_id = e.account_id AND m.id = e.mailbox_id
        WHERE e.uid >= m.uidnext OR e.modseq > m.highest_modseq""",
    "mailboxes ahead of their account": """SELECT count(*) FROM mailbox m JOIN account_state s
        ON s.account_id = m.account_id WHERE m.highest_modseq > s.modseq""",
}


def intact(people: list[Person]) -> None:
    """Counters equal a recount, and nothing refers to what is not there."""
    for person in people:
        with drivers.django_transaction() as tx:
            assert drivers.run_sync(quota.recount(tx, person.account_id)) == []
    with database.cursor() as cursor:
        for what, question in _INTACT.items():
            cursor.execute(question)
            assert cursor.fetchone()[0] == 0, what


@pytest.fixture
def server(db: None, tmp_path: Path) -> Iterator[MailProcess]:
    with mail_process(tmp_path) as running:
        yield running


def crash(server: MailProcess, people: list[Person], rounds: int, seed: int) -> int:
    """Kill it so many times; returns how many commands were carried out."""
    chance = random.Random(seed)
    pairs = [(one, other) for one, other in (people, people[::-1]) for _ in range(SESSIONS_EACH)]
    actors = [Actor(one, other, number, seed * 100 + number) for number, (one, other) in enumerate(pairs)]
    for actor in actors:
        client = Client(server.port, actor.person)
        for name in actor.state.boxes:
            client.ask(f"CREATE {name}")
        client.close()
    unanswered = 0
    for _ in range(rounds):
        threads = [threading.Thread(target=actor.run, args=(server.port,), daemon=True) for actor in actors]
        before = sum(actor.done for actor in actors)
        for thread in threads:
            thread.start()
        while sum(actor.done for actor in actors) < before + 10 and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.3))
        server.kill()
        for thread in threads:
            thread.join(60)
        unanswered += sum(actor.step is not None for actor in actors)
        intact(people)
        server.start()
        for actor in actors:
            actor.check(server.port)
    assert unanswered >= rounds, "it was never killed in the middle of a command"
    return sum(actor.done for actor in actors)


def test_killed_in_the_middle_of_anything_the_mail_process_leaves_whole_mailboxes(
    server: MailProcess, people: Callable[[str], Person]
) -> None:
    done = crash(server, [people("alice"), people("bob")], 4, 1)
    assert done >= 40


@pytest.mark.soak
def test_killed_two_hundred_times(server: MailProcess, people: Callable[[str], Person]) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100_000))
    print(f"SEED={seed}")
    print(crash(server, [people("alice"), people("bob")], 200, seed), "commands")
