"""Open sessions end when what let them in is no longer good, and only those."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from accounts import people as village
from accounts.models import Account, AppPassword
from mailcore import db
from mailcore.auth import standing
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.waiting import until

BYE = b"* BYE Your password or account has changed: log in again\r\n"


def enter(imap: Running, address: str, secret: str, *more: str) -> Wire:
    wire = Wire(imap)
    wire.line()
    assert wire.say(f'a LOGIN {address} "{secret}"').startswith(b"a OK")
    for command in more:
        assert wire.say(command).split(b" ", 1)[-1].startswith((b"OK", b"idling"))
    return wire


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(standing, "POLL_SECONDS", 0.1)
    yield


def test_a_new_password_ends_the_sessions_of_the_old_one_at_once(imap: Running, alice: Person) -> None:
    account = village.get_account(alice.address)
    secret = village.add_app_password(account, "phone")
    with (
        closing(enter(imap, alice.address, alice.password)) as plain,
        closing(enter(imap, alice.address, alice.password, "b SELECT INBOX", "c IDLE")) as idling,
        closing(enter(imap, alice.address, secret, "b SELECT INBOX", "c IDLE")) as phone,
    ):
        village.set_password(account, "a new horse")
        assert plain.line() == BYE and plain.line() == b""
        assert idling.line() == BYE and idling.line() == b""
        phone.file.write(b"DONE\r\n")
        phone.file.flush()
        assert phone.line().startswith(b"c OK")
        village.remove_app_password(account, label="phone")
        assert phone.line() == BYE


def test_a_command_in_another_process_ends_sessions_here_at_once(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "POLL_SECONDS", 600.0)  # so that only the hint can do it
    where = {key: quote(str(value), safe="") for key, value in conninfo_to_dict(db.dsn()).items()}
    url = "postgresql://{user}:{password}@/{dbname}?host={host}&port={port}".format(**({"password": ""} | where))
    with closing(enter(imap, alice.address, alice.password, "b IDLE")) as wire:
        done = subprocess.run(
            [sys.executable, "manage.py", "account", "passwd", alice.address, "--password", "a new horse"],
            env=os.environ | {"DATABASE_URL": url},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert wire.line() == BYE


def test_a_disabled_account_has_no_sessions(imap: Running, alice: Person, people: object) -> None:
    with closing(enter(imap, alice.address, alice.password, "b SELECT INBOX")) as wire:
        village.disable_account(village.get_account(alice.address))
        assert wire.line() == BYE


def test_a_change_that_nobody_told_of_acts_after_the_poll(imap: Running, alice: Person, quick: None) -> None:
    account = village.get_account(alice.address)
    secret = village.add_app_password(account)
    with (
        closing(enter(imap, alice.address, secret)) as phone,
        closing(enter(imap, alice.address, alice.password)) as mine,
    ):
        AppPassword.objects.filter(account=account).delete()
        assert phone.line() == BYE
        assert mine.say("b NOOP").startswith(b"b OK")
        Account.objects.filter(pk=account.pk).update(password="!")
        assert mine.line() == BYE
    until(lambda: not imap.server.connections)
    until(lambda: not any(each._open or each._timer for each in standing._watches.values()))  # nothing is left behind


def test_commands_sent_after_the_end_are_not_carried_out(imap: Running, alice: Person) -> None:
    with closing(enter(imap, alice.address, alice.password, "b SELECT INBOX")) as wire:
        until(lambda: len(imap.server.connections) == 1)  # those of the tests before may still be leaving
        (connection,) = imap.server.connections

        async def dismiss() -> None:
            connection.framer.feed(b"c CREATE Late\r\n")
            connection.dismiss("Your password or account has changed: log in again")

        imap.call(dismiss())
        assert wire.line() == BYE


def test_an_app_password_is_good_for_its_protocols_only(imap: Running, alice: Person) -> None:
    account = village.get_account(alice.address)
    sending = village.add_app_password(account, "printer", ["smtp"])
    reading = village.add_app_password(account, "phone", ["imap", "smtp"])
    with closing(Wire(imap)) as wire:
        wire.line()
        assert wire.say(f'a LOGIN {alice.address} "{sending}"') == (
            b"a NO [AUTHORIZATIONFAILED] This app password is not for this protocol\r\n"
        )
        assert wire.say(f'b LOGIN {alice.address} "{reading}"').startswith(b"b OK")
