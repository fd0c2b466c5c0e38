"""REPLACE and CATENATE where transcripts do not reach: races, a full account, large messages (RFC 8508, 4469)."""

from __future__ import annotations

import threading
from contextlib import closing

from accounts.models import Account
from mailcore import provision
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire


def logged_in(imap: Running, person: Person) -> Wire:
    wire = Wire(imap)
    assert wire.log_in(person).startswith(b"a OK")
    return wire


def append(wire: Wire, command: str, message: bytes) -> bytes:
    return wire.say(f"t {command} {{{len(message)}+}}\r\n" + message.decode())


def test_of_two_who_replace_the_same_message_one_wins_and_nothing_is_doubled(imap: Running, alice: Person) -> None:
    wires = [logged_in(imap, alice) for _ in range(3)]

    def replace(number: int, uid: int, start: threading.Barrier, answers: dict[int, bytes]) -> None:
        start.wait()
        message = b"Subject: %d by %d\r\n\r\n" % (uid, number)
        answers[number] = append(wires[number], f"UID REPLACE {uid} Drafts", message)

    uid = 1
    assert append(wires[0], "APPEND Drafts (\\Draft)", b"Subject: 0\r\n\r\n").startswith(b"t OK")
    for _ in range(8):
        answers: dict[int, bytes] = {}
        for wire in wires:
            assert wire.say("s SELECT Drafts").startswith(b"s OK")
        start = threading.Barrier(len(wires))

        threads = [threading.Thread(target=replace, args=(n, uid, start, answers)) for n in range(len(wires))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        won = [number for number, answer in answers.items() if answer.startswith(b"t OK")]
        assert len(won) == 1
        assert all(b" [EXPUNGEISSUED] " in answer for number, answer in answers.items() if number not in won)
        uid += 1
        wires[0].file.write(b"u UID SEARCH ALL\r\n")
        wires[0].file.flush()
        while not (line := wires[0].line()).startswith(b"* SEARCH"):
            assert not line.startswith(b"u ")
        assert line == b"* SEARCH %d\r\n" % uid
        assert wires[0].line().startswith(b"u OK")
    for wire in wires:
        wire.close()


def test_a_full_account_can_replace_but_not_add(imap: Running, alice: Person) -> None:
    with closing(logged_in(imap, alice)) as wire:
        message = b"Subject: x\r\n\r\n" + b"x" * 50_000
        assert append(wire, "APPEND Drafts", message).startswith(b"t OK")
        provision.set_quota(Account.objects.get(pk=alice.account_id), 60_000)
        assert wire.say("s SELECT Drafts").startswith(b"s OK")
        assert append(wire, "APPEND Drafts", message).startswith(b"t NO [OVERQUOTA] ")
        assert append(wire, "REPLACE 1 Drafts", message + b"y").startswith(b"t OK")
        assert append(wire, "REPLACE 1 Drafts", message * 2).startswith(b"t NO [OVERQUOTA] ")
        assert wire.say('v APPEND Drafts CATENATE (URL "/Drafts/;UID=2")').startswith(b"v NO [OVERQUOTA] ")
        assert wire.say('w REPLACE 1 INBOX CATENATE (URL "/Drafts/;UID=2")').startswith(b"w OK")


def test_what_is_put_together_has_the_limit_of_one_message(imap: Running, alice: Person) -> None:
    half = b"Subject: half\r\n\r\n" + b"0123456789\r\n" * 100_000
    assert imap.server.message_size // 2 < len(half) < imap.server.message_size
    imap.deliver(alice.account_id, half)
    with closing(logged_in(imap, alice)) as wire:
        urls = " ".join(['URL "/INBOX/;UID=1"'] * 2)
        assert wire.say(f"b APPEND Drafts CATENATE ({urls})").startswith(b"b NO [TOOBIG] ")
        urls = " ".join(['URL "/INBOX/;UID=1/;SECTION=TEXT/;PARTIAL=0.10000"'] * 100)
        assert wire.say(f"c APPEND Drafts CATENATE (TEXT {{2+}}\r\n\r\n {urls})").startswith(b"c BAD ")  # 101 parts
        urls = urls.partition(" URL")[2]
        assert wire.say(f"d APPEND Drafts CATENATE (TEXT {{2+}}\r\n\r\n URL{urls})").startswith(b"d OK")
        assert wire.say("e SELECT Drafts").startswith(b"e OK")
        wire.file.write(b"f FETCH 1 RFC822.SIZE\r\n")
        wire.file.flush()
        assert wire.line() == b"* 1 FETCH (RFC822.SIZE 990002)\r\n"
        assert wire.line().startswith(b"f OK")
        # A large message passes in its own literal, with another part from the store.
        big = b"Subject: big\r\n\r\n" + b"x" * 600_000 + b"\r\n"
        command = b'g APPEND Drafts CATENATE (TEXT {%d+}\r\n%b URL "/INBOX/;UID=1/;SECTION=TEXT")\r\n' % (len(big), big)
        wire.file.write(command)
        wire.file.flush()
        assert wire.line() == b"* 2 EXISTS\r\n"
        wire.line()
        assert wire.line().startswith(b"g OK [APPENDUID ")


def test_literals_of_one_append_are_refused_as_soon_as_they_are_too_much(imap: Running, alice: Person) -> None:
    with closing(logged_in(imap, alice)) as wire:
        piece = b"x" * 200_000
        wire.file.write(b"b APPEND Drafts")
        sent = 0
        while sent <= 2 * imap.server.message_size + len(piece):
            wire.file.write(b" {%d+}\r\n%b" % (len(piece), piece))
            sent += len(piece)
        wire.file.write(b"\r\n")
        wire.file.flush()
        assert wire.line() == b"b NO [TOOBIG] The messages of one APPEND are too big together\r\n"
        assert wire.say("c NOOP").startswith(b"c OK")
