"""FETCH items that never change come from memory where they are known, from the store where they are not."""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mailcore import db, mime
from mailcore.imap.commands.fetch import CHUNK, FIRST, NARROW_FIRST
from mailcore.store.append import Incoming
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

ITEMS = "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
# More than is read at a time, of whatever is read.
COUNT = NARROW_FIRST + FIRST + CHUNK + 10


def _deliver(imap: Running, person: Person, first: int, beyond: int) -> None:
    raws = [b"From: a@b.example\r\nSubject: number %d\r\n\r\nbody\r\n" % n for n in range(first, beyond)]
    imap.call(imap.ingest.add([Incoming(person.account_id, 0, raw, mime.parse(raw)) for raw in raws]))


@contextmanager
def _opened(imap: Running, person: Person) -> Iterator[imaplib.IMAP4]:
    client = imaplib.IMAP4(HOST, imap.port)
    client.login(person.address, person.password)
    client.select()
    yield client
    client.logout()


def _subjects(client: imaplib.IMAP4, numbers: str, items: str = ITEMS) -> list[tuple[int, int]]:
    """(sequence number, number in the subject) of each message, as they were answered."""
    state, found = client.fetch(numbers, items)
    assert state == "OK", found
    return _numbers(found)


def _numbers(found: list[tuple[bytes, bytes] | bytes]) -> list[tuple[int, int]]:
    pairs = []
    for answer in found:
        if isinstance(answer, tuple):
            subject = re.fullmatch(rb"Subject: number (\d+)\r\n\r\n", answer[1])
            assert subject is not None, answer
            pairs.append((int(answer[0].split()[0]), int(subject[1])))
    return pairs


def _forget(imap: Running, person: Person, last: int) -> None:
    """Take the store's rows of the first messages away."""

    async def delete() -> None:
        async with db.transaction() as tx:
            await tx.execute("DELETE FROM message WHERE account_id = %s AND id <= %s", (person.account_id, last))

    imap.call(delete())


def test_a_mailbox_of_which_some_messages_are_known(imap: Running, alice: Person) -> None:
    _deliver(imap, alice, 1, COUNT + 1)
    everything = [(n, n) for n in range(1, COUNT + 1)]
    with _opened(imap, alice) as client:
        assert _subjects(client, "50:120,700,1500") == [(n, n) for n in (*range(50, 121), 700, 1500)]
        assert _subjects(client, "1:*") == everything
        assert _subjects(client, "1:*") == everything
        assert _subjects(client, "2:9,1100:1200") == [(n, n) for n in (*range(2, 10), *range(1100, 1201))]


def test_what_is_known_is_not_read_again_when_mail_comes(imap: Running, alice: Person) -> None:
    _deliver(imap, alice, 1, 201)
    with _opened(imap, alice) as client:
        assert _subjects(client, "1:*") == [(n, n) for n in range(1, 201)]
        _deliver(imap, alice, 201, 204)
        _forget(imap, alice, 200)
        client.noop()
        assert _subjects(client, "1:*") == [(n, n) for n in range(1, 204)]


def test_a_message_that_is_in_the_mailbox_twice(imap: Running, alice: Person) -> None:
    _deliver(imap, alice, 1, 5)
    with _opened(imap, alice) as client:
        client.copy("2:3", "INBOX")
        assert _subjects(client, "1:*") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 2), (6, 3)]
        _deliver(imap, alice, 5, 6)
        client.noop()
        client.copy("7", "INBOX")
        assert _subjects(client, "3:*") == [(3, 3), (4, 4), (5, 2), (6, 3), (7, 5), (8, 5)]


def test_messages_that_are_gone_for_good_are_left_out(imap: Running, alice: Person) -> None:
    _deliver(imap, alice, 1, 7)
    with _opened(imap, alice) as client:
        assert _subjects(client, "2") == [(2, 2)]
        _forget(imap, alice, 3)
        state, found = client.uid("FETCH", "1:*", ITEMS)
        assert (state, _numbers(found)) == ("OK", [(2, 2), (4, 4), (5, 5), (6, 6)])
        state, found = client.fetch("1:*", ITEMS)
        assert (state, found) == ("NO", [b"[EXPUNGEISSUED] 2 of the messages have been expunged meanwhile"])


def test_fixed_items_with_flags_that_the_fetch_sets(imap: Running, alice: Person) -> None:
    _deliver(imap, alice, 1, FIRST + 51)
    with _opened(imap, alice) as client:
        _, found = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY[TEXT])")
        lines = [answer[0] for answer in found if isinstance(answer, tuple)]
        assert sum(b"FLAGS (\\Seen" in line for line in lines) == FIRST + 50
        assert [answer[1] for answer in found if isinstance(answer, tuple)][1::2] == [b"body\r\n"] * (FIRST + 50)
