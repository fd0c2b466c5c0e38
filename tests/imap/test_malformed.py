"""Every command, wrongly said in every way: the answer is the protocol's own, and the session stays in step."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from mailcore.imap.registry import COMMANDS, State
from mailcore.wire.imap import parse
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

# A command as it should be said. What would end the talk is only ever said wrongly here.
RIGHT = {
    "APPEND": b"INBOX (\\Seen) {3+}\r\nabc",
    "AUTHENTICATE": b"PLAIN AGEAYQ==",
    "CANCELUPDATE": b'"none"',
    "COMPRESS": b"DEFLATE",
    "COPY": b"1 Archive",
    "CREATE": b"New (USE (\\All))",
    "DELETE": b"Nowhere",
    "DELETEACL": b"Archive anyone",
    "ENABLE": b"CONDSTORE",
    "ESEARCH": b'IN (mailboxes (INBOX Archive)) RETURN (MIN) SUBJECT "m"',
    "EXAMINE": b"INBOX (QRESYNC (1 1 1:2))",
    "FETCH": b"1 (UID FLAGS BODY.PEEK[HEADER.FIELDS (TO)]<0.9>) (CHANGEDSINCE 1)",
    "GETACL": b"Archive",
    "GETMETADATA": b"(MAXSIZE 10 DEPTH 1) Archive (/private/comment)",
    "GETQUOTA": b'""',
    "GETQUOTAROOT": b"INBOX",
    "ID": b'("name" "x")',
    "LIST": b'(SUBSCRIBED) "" (INBOX "A*") RETURN (CHILDREN STATUS (MESSAGES))',
    "LISTRIGHTS": b"Archive anyone",
    "LOGIN": b"nobody wrong",
    "LSUB": b'"" "*"',
    "MOVE": b"1 Archive",
    "MYRIGHTS": b"Archive",
    "NOTIFY": b"SET STATUS (mailboxes (Archive) (MessageNew MessageExpunge))",
    "RENAME": b"Nowhere Elsewhere",
    "REPLACE": b"1 INBOX (\\Seen) {3+}\r\nabc",
    "SEARCH": b'RETURN (COUNT) CHARSET UTF-8 OR 1 (FROM "a" SINCE 1-Jan-2020 LARGER 3)',
    "SELECT": b"INBOX (CONDSTORE)",
    "SETACL": b"Archive anyone +lr",
    "SETMETADATA": b'Archive (/private/comment "x")',
    "SETQUOTA": b'"" (STORAGE 5)',
    "SORT": b"(REVERSE DATE) UTF-8 ALL",
    "STATUS": b"INBOX (MESSAGES UIDNEXT)",
    "STORE": b"1 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen word)",
    "SUBSCRIBE": b"Archive",
    "THREAD": b"REFERENCES UTF-8 ALL",
    "UID COPY": b"1 Archive",
    "UID EXPUNGE": b"1:2",
    "UID FETCH": b"1:* (FLAGS) (CHANGEDSINCE 1 VANISHED PARTIAL 1:2)",
    "UID MOVE": b"1 Archive",
    "UID REPLACE": b"1 INBOX {3+}\r\nabc",
    "UID SEARCH": b"RETURN (PARTIAL 1:5 SAVE) UID 1:2 NOT KEYWORD a",
    "UID SORT": b"RETURN (ALL) (SUBJECT) UTF-8 FUZZY TEXT a",
    "UID STORE": b"1 FLAGS \\Seen",
    "UID THREAD": b"REFS UTF-8 UNSEEN",
    "UIDBATCHES": b"500 1:2",
    "UNSUBSCRIBE": b"Archive",
}
ALONE = (
    *("CAPABILITY", "CHECK", "CLOSE", "EXPUNGE", "GETJMAPACCESS", "IDLE", "LOGOUT", "NAMESPACE", "NOOP", "STARTTLS"),
    "UNSELECT",
)
HUGE = b"9" * 21
# What a word of a command is replaced by.
WRONG = {
    "nothing": b"",
    "a list opens": b"(",
    "a list closes": b")",
    "an open quotation": b'"',
    "an empty string": b'""',
    "an empty list": b"()",
    "NIL": b"NIL",
    "a literal": b"{3+}\r\na b",
    "an empty literal": b"{0+}\r\n",
    "a binary literal": b"~{3+}\r\na\0b",
    "a literal with NUL": b"{3+}\r\na\0b",
    "a huge number": HUGE,
    "a negative number": b"-1",
    "zero": b"0",
    "octets beyond ASCII": b"\xff\xfe\x80",
    "UTF-8": "é/ü".encode(),
    "NUL": b"a\0b",
    "controls": b"\x01\x7f\t",
    "wildcards": b"%*",
    "brackets": b"[]<>{}",
    "a backslash": b"\\",
    "depth": b"(" * 600 + b"1" + b")" * 600,
    "a long word": b"x" * 4000,
    "a dollar": b"$",
    "stars": b"*:*,*",
}
# Whatever else a word may be, it is not this.
STORING = ("APPEND", "REPLACE", "UID REPLACE")  # messages are taken as they are
NEVER = ("an open quotation", "NUL", "a literal with NUL", "depth")


class Wire:
    """Says octets and reads up to an answer."""

    def __init__(self, running: Running) -> None:
        self.socket = socket.create_connection((HOST, running.port), 60)
        self.file = self.socket.makefile("rb")
        self.file.readline()

    def answer(self, tag: bytes) -> bytes:
        while line := self.file.readline():
            if line.startswith((tag + b" ", b"* BYE")):
                return line
            assert not line.startswith(b"* BAD"), line
            if line.startswith(b"+"):
                # What came after it was taken for what the command asks for.
                self.socket.sendall(b"n NOOP\r\n")
        raise AssertionError("the server hung up")

    def say(self, octets: bytes) -> bytes:
        """A whole command; its answer, after which the next command is still understood."""
        self.socket.sendall(b"t " + octets + b"\r\nn NOOP\r\n")
        answer = self.answer(b"t")
        assert self.answer(b"n").startswith(b"n OK"), (octets, answer)
        return answer

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def wire(imap: Running, alice: Person) -> Iterator[Callable[[State], Wire]]:
    for _ in range(2):
        imap.deliver(alice.account_id, b"Subject: m\r\n\r\nm\r\n")
    made: list[Wire] = []

    def make(state: State) -> Wire:
        talk = Wire(imap)
        made.append(talk)
        if state & State.NOT_AUTHENTICATED:
            return talk
        talk.say(f'LOGIN {alice.address} "{alice.password}"'.encode())
        talk.say(b"ENABLE QRESYNC")
        talk.say(b"SELECT INBOX")
        return talk

    yield make
    for talk in made:
        talk.close()


def test_the_table_knows_every_command() -> None:
    assert {*RIGHT, *ALONE} == set(COMMANDS) == set(parse.COMMANDS)


def _variants(line: bytes) -> Iterator[tuple[str, bytes]]:
    words = line.split(b" ")
    for at, (what, wrong) in itertools.product(range(len(words)), WRONG.items()):
        yield what, b" ".join([*words[:at], wrong, *words[at + 1 :]])
    for at in range(len(words)):
        yield "cut short", b" ".join(words[:at])
        yield "cut short", b" ".join(words[:at]) + b" "
    for letter in range(0, len(line) if b"{" not in line else 0, 3):
        yield "cut anywhere", line[:letter]


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_command_wrongly_said_is_answered_and_changes_no_step(name: str, wire: Callable[[State], Wire]) -> None:
    state = COMMANDS[name].state
    talk = wire(state)
    start = name.encode()
    assert talk.say(start).startswith(b"t BAD "), "no arguments"
    many = talk.say(start + b" " + RIGHT[name] + b" (one (more")
    assert many.startswith((b"t BAD ", b"t NO ")), many
    # Failed logins are made to wait, so only some are tried.
    for what, line in itertools.islice(_variants(RIGHT[name]), 0, None, 6 if name == "LOGIN" else 1):
        if state & State.NOT_AUTHENTICATED and name != "ID":
            talk.close()
            talk = wire(state)
        answer = talk.say(start + b" " + line)
        assert b"SERVERBUG" not in answer, (what, line, answer)
        if what in NEVER and not (what == "a literal with NUL" and name in STORING):
            assert answer.startswith((b"t BAD ", b"t NO ")), (what, line, answer)
        if answer.startswith(b"t OK") and state == State.SELECTED | State.AUTHENTICATED:
            talk.say(b"SELECT INBOX")


@pytest.mark.parametrize("name", ALONE)
def test_a_command_without_arguments_takes_none(name: str, wire: Callable[[State], Wire]) -> None:
    state = COMMANDS[name].state
    talk = wire(state)
    for wrong in filter(None, WRONG.values()):
        answer = talk.say(name.encode() + b" " + wrong)
        assert answer.startswith(b"t BAD "), (wrong, answer)


def test_without_a_login_nothing_else_is_possible(imap: Running, db: None) -> None:
    for name, spec in COMMANDS.items():
        if not spec.state & State.NOT_AUTHENTICATED:
            with closing(Wire(imap)) as talk:
                answer = talk.say(name.encode() + b" " + RIGHT.get(name, b""))
                assert answer.startswith((b"t BAD ", b"t NO ")), (name, answer)


def test_without_a_mailbox_selected_nothing_is_possible_that_needs_one(wire: Callable[[State], Wire]) -> None:
    talk = wire(State.AUTHENTICATED)
    talk.say(b"UNSELECT")
    for name, spec in COMMANDS.items():
        if spec.state == State.SELECTED:
            answer = talk.say((name.encode() + b" " + RIGHT.get(name, b"")).strip())
            assert answer.startswith((b"t BAD ", b"t NO ")), (name, answer)
