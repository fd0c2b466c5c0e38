"""The selected mailbox is deleted right after a command has done its work: the answer comes before BYE."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from mailcore import db as drivers
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.waiting import until

WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("command", ["EXPUNGE", "MOVE 1 Archive", "REPLACE 1 Archive {3+}\r\nabc"])
def test_what_was_done_is_answered_first(db: None, imap: Running, alice: Person, command: str) -> None:
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\nx")
    with (
        closing(Wire(imap)) as wire,
        psycopg.connect(drivers.dsn(), autocommit=True) as looker,
        psycopg.connect(drivers.dsn()) as holder,
    ):
        wire.log_in(alice)
        for preparing in ("ENABLE QRESYNC", "CREATE Work", "COPY 1 Work", "SELECT Work", r"STORE 1 +FLAGS (\Deleted)"):
            if preparing.startswith("COPY"):
                wire.say("b SELECT INBOX")
            assert wire.say(f"b {preparing}").startswith(b"b OK")
        # Asking what is new reads this table, and none of the commands changes it.
        holder.execute("LOCK TABLE flag_change IN ACCESS EXCLUSIVE MODE")
        wire.file.write(f"c {command}\r\n".encode())
        wire.file.flush()
        until(lambda: looker.execute(WAITING).fetchone() is not None)
        holder.execute("DELETE FROM mailbox WHERE account_id = %s AND name = 'Work'", (alice.account_id,))
        holder.commit()
        said = wire.file.read().splitlines()
    assert said[-2].startswith(b"c OK ")
    assert said[-1] == b"* BYE The selected mailbox has been deleted"
