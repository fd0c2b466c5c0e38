"""Programs that fetch a whole mailbox into a Maildir: offlineimap both ways, getmail one way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import imapclient
import pytest

from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.imap.test_clients import MESSAGES


def run(command: list[str], home: Path) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def stored(maildir: Path) -> list[bytes]:
    """The messages of a Maildir, without what the programs put before them."""
    return sorted(path.read_bytes() for sub in ("cur", "new") for path in (maildir / sub).iterdir())


@pytest.mark.programs("offlineimap")
def test_offlineimap_synchronises_both_ways(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path
) -> None:
    for raw in MESSAGES:
        imap.deliver(alice.account_id, raw)
    config = tmp_path / "offlineimaprc"
    config.write_text(
        f"""
[general]
accounts = it
metadata = {tmp_path}/state
[Account it]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {tmp_path}/mail
[Repository far]
type = IMAP
remotehost = {HOST}
remoteport = {imap.port}
remoteuser = {alice.address}
remotepass = {alice.password}
ssl = no
starttls = no
"""
    )
    inbox = tmp_path / "mail" / "INBOX"

    def synchronise() -> None:
        run([program("offlineimap"), "-c", str(config), "-o", "-u", "basic"], tmp_path)

    synchronise()
    assert stored(inbox) == sorted(raw.replace(b"\r\n", b"\n") for raw in MESSAGES)
    assert {path.name for path in (tmp_path / "mail").iterdir()} >= {
        "INBOX",
        "Drafts",
        "Sent",
        "Archive",
        "Junk",
        "Trash",
    }
    before = sorted(path.name for path in inbox.rglob("*"))
    synchronise()
    assert sorted(path.name for path in inbox.rglob("*")) == before
    files = {b"<%d@x>" % n: path for n in (1, 2) for path in inbox.glob("*/*") if b"<%d@x>" % n in path.read_bytes()}
    first = files[b"<1@x>"]
    first.rename(inbox / "cur" / (first.name.partition(":")[0] + ":2,FS"))
    files[b"<2@x>"].unlink()
    (inbox / "new" / "1234.local.host").write_bytes(b"Subject: local\nMessage-ID: <5@x>\n\nfrom here\n")
    imap.deliver(alice.account_id, b"Subject: late\r\nMessage-ID: <6@x>\r\n\r\nlate\r\n")
    synchronise()
    with imapclient.IMAPClient(HOST, imap.port, ssl=False) as client:
        client.login(alice.address, alice.password)
        client.select_folder("INBOX", readonly=True)
        there = client.fetch(client.search(), ["FLAGS", "ENVELOPE"])
        flags = {data[b"ENVELOPE"].message_id: data[b"FLAGS"] for data in there.values()}
    assert set(flags) == {b"<1@x>", b"<3@x>", b"<4@x>", b"<5@x>", b"<6@x>"}
    assert set(flags[b"<1@x>"]) >= {imapclient.FLAGGED, imapclient.SEEN}
    assert any(b"<6@x>" in raw for raw in stored(inbox))


@pytest.mark.programs("getmail")
def test_getmail_fetches_each_message_once(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path
) -> None:
    for raw in MESSAGES:
        imap.deliver(alice.account_id, raw)
    maildir = tmp_path / "mail"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    config = tmp_path / "getmailrc"
    config.write_text(
        f"""
[retriever]
type = SimpleIMAPRetriever
server = {HOST}
port = {imap.port}
username = {alice.address}
password = {alice.password}
mailboxes = ("INBOX",)
[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >$(mktemp {maildir}/new/XXXXXXXX)")
allow_root_commands = true
[options]
read_all = false
delivered_to = false
received = false
"""
    )

    def fetch() -> None:
        run([program("getmail"), "--getmaildir", str(tmp_path), "--rcfile", str(config)], tmp_path)

    fetch()
    bodies = sorted(raw.partition(b"\n\n")[2] for raw in stored(maildir))
    assert bodies == sorted(raw.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for raw in MESSAGES)
    assert len(stored(maildir)) == len(MESSAGES)
    imap.deliver(alice.account_id, b"Subject: late\r\nMessage-ID: <6@x>\r\n\r\nlate\r\n")
    fetch()
    assert len(stored(maildir)) == len(MESSAGES) + 1
