"""A client that comes back after longer than the store remembers what left (RFC 7162 §3.2.5.1, §3.2.6)."""

from __future__ import annotations

import imaplib
import re

from mailcore import db
from mailcore.store import housekeeping
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running


async def _forget() -> int:
    async with db.transaction() as tx:
        await tx.execute("UPDATE expunged SET expunged_at = now() - interval '401 days'")
        return await housekeeping.tombstones(tx)


def _client(imap: Running, person: Person) -> imaplib.IMAP4:
    client = imaplib.IMAP4(HOST, imap.port)
    client.login(person.address, person.password)
    client.enable("QRESYNC")
    return client


def _lines(client: imaplib.IMAP4, command: str) -> list[bytes]:
    """The untagged lines that answer a command."""
    tag = client._new_tag()
    client.send(tag + f" {command}\r\n".encode())
    found = []
    while not (line := client.readline()).startswith(tag):
        found.append(line.rstrip())
    assert line.startswith(tag + b" OK"), line
    return found


def _number(lines: list[bytes], name: str) -> int:
    (found,) = (match for line in lines if (match := re.search(rb"\[%b (\d+)\]" % name.encode(), line)))
    return int(found[1])


def _vanished(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.startswith(b"* VANISHED")]


def test_whatever_is_not_there_has_vanished_for_who_was_away_too_long(imap: Running, alice: Person) -> None:
    for _ in range(6):
        imap.deliver(alice.account_id, b"Subject: s\r\n\r\nb\r\n")
    client = _client(imap, alice)
    opened = _lines(client, "SELECT INBOX")
    before, validity = _number(opened, "HIGHESTMODSEQ"), _number(opened, "UIDVALIDITY")
    _lines(client, r"UID STORE 2,5 +FLAGS.SILENT (\Deleted)")
    _lines(client, "EXPUNGE")
    after = _number(_lines(client, "EXAMINE INBOX"), "HIGHESTMODSEQ")
    assert _vanished(_lines(client, f"SELECT INBOX (QRESYNC ({validity} {before}))")) == [b"* VANISHED (EARLIER) 2,5"]
    assert imap.call(_forget()) == 2

    away = _lines(client, f"SELECT INBOX (QRESYNC ({validity} {before}))")
    assert _vanished(away) == [b"* VANISHED (EARLIER) 2,5"]
    away = _lines(client, f"SELECT INBOX (QRESYNC ({validity} {before} 4:6))")
    assert _vanished(away) == [b"* VANISHED (EARLIER) 5"], "of what the client knows"
    asked = _lines(client, f"UID FETCH 1:4 (FLAGS) (CHANGEDSINCE {before} VANISHED)")
    assert _vanished(asked) == [b"* VANISHED (EARLIER) 2"]
    here = _lines(client, f"SELECT INBOX (QRESYNC ({validity} {after}))")
    assert _vanished(here) == [], "what it asks for is remembered"
    client.logout()


def test_what_left_another_mailbox_long_ago_is_not_asked_of_this_one(imap: Running, alice: Person) -> None:
    for _ in range(3):
        imap.deliver(alice.account_id, b"Subject: s\r\n\r\nb\r\n")
    client = _client(imap, alice)
    _lines(client, "SELECT INBOX")
    _lines(client, r"UID STORE 2 +FLAGS.SILENT (\Deleted)")
    _lines(client, "EXPUNGE")
    opened = _lines(client, "SELECT INBOX")
    state, validity = _number(opened, "HIGHESTMODSEQ"), _number(opened, "UIDVALIDITY")
    _lines(client, "CREATE Other")
    _lines(client, "COPY 1 Other")
    _lines(client, "SELECT Other")
    _lines(client, r"STORE 1 +FLAGS.SILENT (\Deleted)")
    _lines(client, "EXPUNGE")
    assert imap.call(_forget()) == 2
    assert _vanished(_lines(client, f"SELECT INBOX (QRESYNC ({validity} {state}))")) == []
    assert _vanished(_lines(client, f"SELECT INBOX (QRESYNC ({validity} {state - 1}))")) == [b"* VANISHED (EARLIER) 2"]
    client.logout()
