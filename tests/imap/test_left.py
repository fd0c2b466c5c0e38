"""Clients that leave while their command runs: what only reads ends in Postgres too, what changes something is done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from mailcore import db as drivers
from mailcore.imap.commands.fetch import FIRST
from mailcore.store.flags import SEEN
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.waiting import until


@pytest.fixture
def looker(db: None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(drivers.dsn(), autocommit=True) as connection:
        yield connection


@contextmanager
def held(table: str) -> Iterator[None]:
    """Whatever reads or writes the table waits until the block ends."""
    with psycopg.connect(drivers.dsn()) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        connection.rollback()


@contextmanager
def no_change(account_id: int) -> Iterator[None]:
    """Whoever is to change something in the account waits until the block ends."""
    with psycopg.connect(drivers.dsn()) as connection:
        connection.execute("SELECT FROM account_state WHERE account_id = %s FOR UPDATE", (account_id,))
        yield
        connection.rollback()


def waiting(looker: psycopg.Connection) -> set[int]:
    """The backends that wait for a table."""
    rows = looker.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return {row[0] for row in rows}


def selected(imap: Running, person: Person) -> Wire:
    wire = Wire(imap)
    wire.log_in(person)
    assert wire.say("b SELECT INBOX").startswith(b"b OK")
    return wire


def leave_in(wire: Wire, command: str, looker: psycopg.Connection) -> int:
    """Send a command, and hang up as soon as it waits; the backend that works on it."""
    wire.file.write(f"c {command}\r\n".encode())
    wire.file.flush()
    until(lambda: waiting(looker))
    (backend,) = waiting(looker)
    wire.close()
    return backend


@pytest.mark.parametrize(
    ("command", "table"),
    [
        ("SEARCH TEXT x", "message_text"),
        ("UID SORT (SUBJECT) UTF-8 TEXT x", "message_text"),
        ("THREAD REFS UTF-8 ALL", "message"),
        ("ESEARCH IN (personal) TEXT x", "message_text"),
        ("FETCH 1:* (ENVELOPE)", "message"),
        ("UID FETCH 1 BODY.PEEK[]", "blob"),
        ("FETCH 1 (UID) (CHANGEDSINCE 1)", "entry"),
        ("SELECT Sent", "mailbox"),
        ('LIST "" * RETURN (STATUS (MESSAGES))', "mailbox"),
    ],
)
def test_what_only_reads_ends_in_the_database_and_the_pool_keeps_its_connection(
    imap: Running, alice: Person, looker: psycopg.Connection, command: str, table: str
) -> None:
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\nx")
    wire = selected(imap, alice)
    with held(table):
        backend = leave_in(wire, command, looker)
        # The table is held all the while: nothing but being cancelled ends the wait.
        until(lambda: not waiting(looker) and not imap.server.leaving)
    assert looker.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (backend,)).fetchall() == [("idle",)]
    with closing(selected(imap, alice)) as another:
        assert another.say(f"d {command}").startswith(b"d OK")


def test_what_was_read_ahead_for_a_client_that_read_too_slowly_ends_with_it(
    imap: Running, alice: Person, looker: psycopg.Connection
) -> None:
    large = b"Subject: x\r\n\r\n" + b"x" * 200_000
    for _ in range(FIRST):
        imap.deliver(alice.account_id, large, flags=SEEN)
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\nx")
    wire = selected(imap, alice)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    with no_change(alice.account_id):
        # The last message is to be marked as seen while the others are on their way: more than sockets hold.
        leave_in(wire, "FETCH 1:* BODY[TEXT]", looker)
        until(lambda: not waiting(looker) and not imap.server.leaving)
    with closing(selected(imap, alice)) as another:
        another.file.write(b"d SEARCH UNSEEN\r\n")
        another.file.flush()
        assert another.line() == b"* SEARCH %d\r\n" % (FIRST + 1)


def test_what_was_marked_as_seen_is_told_when_it_cannot_be_sent(
    imap: Running, alice: Person, looker: psycopg.Connection
) -> None:
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\nx")
    with closing(selected(imap, alice)) as wire, held("blob"):
        wire.file.write(b"c FETCH 1 BODY[]\r\n")
        wire.file.flush()
        until(lambda: waiting(looker))
        looker.execute("SELECT pg_terminate_backend(%s)", (*waiting(looker),))
        assert wire.line() == b"* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent))\r\n"
        assert wire.line().startswith(b"c NO [UNAVAILABLE]")


@pytest.mark.parametrize("command", ["STORE 1 +FLAGS (\\Flagged)", "MOVE 1 Archive", "APPEND Archive {3+}\r\nabc"])
def test_what_changes_something_is_finished(
    imap: Running, alice: Person, looker: psycopg.Connection, command: str
) -> None:
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\nx")
    wire = selected(imap, alice)
    with held("entry"):
        leave_in(wire, command, looker)
        until(lambda: imap.server.leaving)
        assert waiting(looker)
    until(lambda: not imap.server.leaving)
    with closing(selected(imap, alice)) as another:
        another.file.write(b'd LIST "" (INBOX Archive) RETURN (STATUS (MESSAGES))\r\ne SEARCH FLAGGED\r\n')
        another.file.flush()
        lines = b"".join(iter(another.line, b"e OK SEARCH completed\r\n"))
    if command.startswith("STORE"):
        assert b"* SEARCH 1\r\n" in lines
    else:
        assert b"* STATUS Archive (MESSAGES 1)\r\n" in lines
