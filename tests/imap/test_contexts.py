"""A client that keeps results by ADDTO and REMOVEFROM alone has what a new search would find (RFC 5267 §4.3)."""

from __future__ import annotations

import random
import re
import socket

import pytest

from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

SEARCHES = {
    "A": b"SEARCH RETURN (%b) UNSEEN",
    "B": b"SORT RETURN (%b) (SUBJECT) UTF-8 UNDELETED",
    "C": b"SORT RETURN (%b) (REVERSE SUBJECT REVERSE SIZE) UTF-8 OR FLAGGED KEYWORD blue",
    "D": b"SEARCH RETURN (%b) NOT FLAGGED SUBJECT b",
}


def numbers(text: bytes) -> list[int]:
    """A set, in its own order."""
    found: list[int] = []
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


class Client:
    """Sends commands and applies the updates that come with their answers: of UIDs or sequence numbers."""

    def __init__(self, imap: Running, person: Person, uid: bool = True) -> None:
        self.prefix = b"UID " if uid else b""
        self.socket = socket.create_connection((HOST, imap.port), 60)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.results: dict[str, list[int]] = {}
        self.command(f'LOGIN "{person.address}" "{person.password}"'.encode())
        self.command(b"SELECT INBOX")

    def command(self, line: bytes, tag: str = "x") -> list[bytes]:
        self.socket.sendall(tag.encode() + b" " + line + b"\r\n")
        lines = []
        while not (answer := self.file.readline()).startswith(tag.encode() + b" "):
            lines.append(answer)
            self.update(answer)
        assert answer.startswith(tag.encode() + b" OK"), (line, answer)
        return lines

    def update(self, line: bytes) -> None:
        found = re.match(rb"\* (\d+) EXPUNGE", line)
        if found is not None and not self.prefix:
            gone = int(found[1])
            for result in self.results.values():
                assert gone not in result
                result[:] = [number - (number > gone) for number in result]
        found = re.match(rb'\* ESEARCH \(TAG "(\w)"\) %b(ADDTO|REMOVEFROM) \((.*)\)\r\n' % self.prefix, line)
        if found is None:
            assert b"ADDTO" not in line and b"REMOVEFROM" not in line
            return
        result = self.results[found[1].decode()]
        words = found[3].split()
        for position, part in zip(words[::2], words[1::2], strict=True):
            at, uids = int(position), numbers(part)
            if found[2] == b"ADDTO":
                if at:
                    result[at - 1 : at - 1] = uids
                else:
                    result[:] = sorted(result + uids)
            elif at:
                assert result[at - 1 : at - 1 + len(uids)] == uids
                del result[at - 1 : at - 1 + len(uids)]
            else:
                assert set(uids) <= set(result)
                result[:] = [uid for uid in result if uid not in uids]

    def begin(self, tag: str, search: bytes) -> None:
        (answer,) = self.command(self.prefix + search % b"UPDATE ALL", tag)
        found = re.search(rb" ALL (\S+)", answer)
        self.results[tag] = numbers(found[1]) if found else []

    def search(self, search: bytes) -> list[int]:
        answers = self.command(self.prefix + search % b"ALL")
        (answer,) = [line for line in answers if line.startswith(b'* ESEARCH (TAG "x")')]
        found = re.search(rb" ALL (\S+)", answer)
        return numbers(found[1]) if found else []


@pytest.mark.parametrize("uid", [True, False], ids=["uids", "numbers"])
@pytest.mark.parametrize("seed", range(4))
def test_updates_add_up_to_the_result(imap: Running, alice: Person, seed: int, uid: bool) -> None:
    rnd = random.Random(seed)

    def deliver() -> None:
        text = f"Subject: {rnd.choice('abc')}{rnd.choice('ab')}\r\n\r\n{'x' * rnd.randrange(3)}\r\n"
        imap.deliver(alice.account_id, text.encode())

    for _ in range(8):
        deliver()
    reader, writer = Client(imap, alice, uid), Client(imap, alice)
    for tag, search in SEARCHES.items():
        reader.begin(tag, search)
    for step in range(60):
        client = rnd.choice((reader, writer))
        uids = sorted({rnd.randrange(1, 20) for _ in range(rnd.randrange(1, 5))})
        chosen = ",".join(map(str, uids)).encode()
        what = rnd.randrange(10)
        if what < 2:
            deliver()
        elif what < 8:
            flag = rnd.choice((rb"\Seen", rb"\Flagged", rb"\Deleted", b"blue", rb"\Answered"))
            sign = rnd.choice((b"+", b"-"))
            client.command(b"UID STORE %b %bFLAGS%b (%b)" % (chosen, sign, rnd.choice((b"", b".SILENT")), flag))
        elif what == 8:
            client.command(b"UID EXPUNGE " + chosen)
        else:
            client.command(b"UID FETCH %b (BODY[])" % chosen)
        if rnd.random() < 0.5:
            reader.command(b"NOOP")
            for tag, search in SEARCHES.items():
                assert reader.results[tag] == reader.search(search), (seed, step, tag)
