"""Real clients against the real server: imapclient, mbsync, mutt, curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import imapclient
import pytest

from accounts import people
from accounts.models import Account
from mailcore.conf import conf
from mailcore.imap import offers
from mailcore.imap.connection import Connection
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running

MESSAGES = [
    b"From: Ann <ann@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@x>\r\n\r\nHello\r\n",
    b"From: Bob <bob@example.org>\r\nSubject: eight bit \xc3\xa4\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\nMessage-ID: <2@x>\r\n\r\n\xc3\xa4\xc3\xb6\r\n.\r\n..\r\n",
    b"Subject: attachment\r\nMessage-ID: <3@x>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + b"QUJD" * 19 + b"\r\n--b--\r\n",
    b"Subject: long\r\nMessage-ID: <4@x>\r\n\r\n" + b"0123456789\r\n" * 20_000,
]  # fmt: skip


def test_imapclient_reads_and_changes_everything(imap: Running, alice: Person) -> None:
    for raw in MESSAGES:
        imap.deliver(alice.account_id, raw)
    with imapclient.IMAPClient(HOST, imap.port, ssl=False, use_uid=True) as client:
        client.login(alice.address, alice.password)
        assert client.has_capability("MOVE")
        assert client.select_folder("INBOX")[b"EXISTS"] == 4
        fetched = client.fetch(
            client.search(), ["BODY.PEEK[]", "FLAGS", "ENVELOPE", "INTERNALDATE", "BODYSTRUCTURE", "RFC822.SIZE"]
        )
        assert [fetched[uid][b"BODY[]"] for uid in sorted(fetched)] == MESSAGES
        assert [fetched[uid][b"RFC822.SIZE"] for uid in sorted(fetched)] == [len(raw) for raw in MESSAGES]
        assert fetched[1][b"ENVELOPE"].from_[0].mailbox == b"ann"
        assert fetched[3][b"BODYSTRUCTURE"].is_multipart
        assert client.search(["SUBJECT", "grüße"], charset="UTF-8") == [1]
        assert client.sort(["REVERSE SUBJECT", "DATE"]) == [4, 1, 2, 3]
        assert client.sort("REVERSE ARRIVAL", "UID 2:3") == [3, 2]
        assert client.thread("REFERENCES") == ((1,), (2,), (3,), (4,))
        client.add_flags([1, 2], [imapclient.FLAGGED, "work"])
        assert client.get_flags([1])[1] == (imapclient.FLAGGED, b"\\Recent", b"work")
        client.create_folder("Été/2026")
        client.move([1], "Été/2026")
        client.copy([2], "Été/2026")
        client.delete_messages([3])
        client.expunge()
        assert client.search() == [2, 4]
        when = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
        client.append("Été/2026", MESSAGES[2], [imapclient.SEEN], when)
        assert client.folder_status("Été/2026", ["MESSAGES", "UNSEEN"]) == {b"MESSAGES": 3, b"UNSEEN": 2}
        client.select_folder("Été/2026", readonly=True)
        moved = client.fetch(client.search(), ["BODY[]", "FLAGS", "INTERNALDATE"])
        assert [moved[uid][b"BODY[]"] for uid in sorted(moved)] == [MESSAGES[0], MESSAGES[1], MESSAGES[2]]
        assert moved[1][b"FLAGS"] == (imapclient.FLAGGED, b"\\Recent", b"work")
        assert moved[3][b"INTERNALDATE"].astimezone(UTC) == when
        client.unselect_folder()
        client.rename_folder("Été", "Summer")
        assert "Summer/2026" in {name for _, _, name in client.list_folders()}
        client.delete_folder("Summer/2026")
        client.logout()


def test_imapclient_waits_in_idle(imap: Running, alice: Person) -> None:
    with imapclient.IMAPClient(HOST, imap.port, ssl=False) as client:
        client.login(alice.address, alice.password)
        client.select_folder("INBOX")
        client.idle()
        imap.deliver(alice.account_id, MESSAGES[0])
        heard = client.idle_check(timeout=60)
        assert (1, b"EXISTS") in heard
        client.idle_done()
        client.noop()


@pytest.mark.programs("mbsync")
def test_mbsync_synchronises_both_ways_and_twice_changes_nothing(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed = []
    start = Connection.start_compression

    def counted(connection: Connection, answer: bytes) -> None:
        compressed.append(connection)
        start(connection, answer)

    monkeypatch.setattr(Connection, "start_compression", counted)
    for raw in MESSAGES:
        imap.deliver(alice.account_id, raw)
    local = tmp_path / "mail"
    local.mkdir()
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f"""
IMAPAccount it
Host {HOST}
Port {imap.port}
User {alice.address}
Pass "{alice.password}"
SSLType None
AuthMechs PLAIN
PipelineDepth 10

IMAPStore far
Account it

MaildirStore near
Path {local}/
Inbox {local}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
"""
    )

    def synchronise() -> None:
        done = subprocess.run(
            [program("mbsync"), "-c", str(config), "-a"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def bodies(folder: str) -> list[bytes]:
        files = [path for sub in ("cur", "new") for path in (local / folder / sub).iterdir()]
        # mbsync marks what it copies, to find it again.
        return sorted(re.sub(rb"X-TUID: .*\n", b"", path.read_bytes()) for path in files)

    def server_flags() -> dict[bytes, tuple[bytes, ...]]:
        with imapclient.IMAPClient(HOST, imap.port, ssl=False) as client:
            client.login(alice.address, alice.password)
            client.select_folder("INBOX", readonly=True)
            fetched = client.fetch(client.search(), ["FLAGS", "ENVELOPE"])
            return {data[b"ENVELOPE"].message_id: data[b"FLAGS"] for data in fetched.values()}

    synchronise()
    assert len(compressed) == 1, "mbsync asks for COMPRESS where it is announced"
    assert bodies("INBOX") == sorted(raw.replace(b"\r\n", b"\n") for raw in MESSAGES)
    assert {path.name for path in local.iterdir()} >= {"INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash"}
    before = sorted(path.name for path in (local / "INBOX").rglob("*"))
    synchronise()
    assert sorted(path.name for path in (local / "INBOX").rglob("*")) == before
    # Locally: one is read and flagged, one is deleted, one is new. On the server: one more arrives.
    files = {
        path.read_bytes().partition(b"\nMessage-ID: ")[2][:5]: path
        for sub in ("cur", "new")
        for path in (local / "INBOX" / sub).iterdir()
    }
    first = files[b"<1@x>"]
    first.rename(local / "INBOX" / "cur" / (first.name.partition(":")[0] + ":2,FS"))
    files[b"<2@x>"].unlink()
    (local / "INBOX" / "new" / "1234.local.host").write_bytes(b"Subject: local\nMessage-ID: <5@x>\n\nfrom here\n")
    imap.deliver(alice.account_id, b"Subject: late\r\nMessage-ID: <6@x>\r\n\r\nlate\r\n")
    synchronise()
    synchronise()
    flags = server_flags()
    assert set(flags) == {b"<1@x>", b"<3@x>", b"<4@x>", b"<5@x>", b"<6@x>"}
    assert set(flags[b"<1@x>"]) >= {imapclient.FLAGGED, imapclient.SEEN}
    assert b"Subject: late\nMessage-ID: <6@x>\n\nlate\n" in bodies("INBOX")


@pytest.mark.programs("mbsync", "/usr/lib/*/sasl2/libscram.so*")
def test_mbsync_logs_in_with_scram_and_an_app_password(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "conf", replace(conf, scram=True))
    secret = people.add_app_password(Account.objects.get(pk=alice.account_id), "mbsync")
    config = tmp_path / "mbsyncrc"
    for mechanisms, password, works in (
        ("SCRAM-SHA-256", secret, True),
        ("*", secret, True),
        ("SCRAM-SHA-256", secret[::-1], False),
    ):
        config.write_text(
            f"""
IMAPAccount it
Host {HOST}
Port {imap.port}
User {alice.address}
Pass "{password}"
SSLType None
AuthMechs {mechanisms}

IMAPStore far
Account it

MaildirStore near
Path {tmp_path}/

Channel all
Far :far:
Near :near:
"""
        )
        done = subprocess.run(
            [program("mbsync"), "-c", str(config), "-l", "all"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert (done.returncode == 0) is works, done.stdout + done.stderr


@pytest.mark.programs("curl")
def test_curl_lists_reads_searches_and_uploads_over_tls(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path
) -> None:
    imap.deliver(alice.account_id, MESSAGES[1])
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGES[0])

    def curl(path: str, *options: str, scheme: str = "imaps", port: int = imap.tls_port) -> bytes:
        command = [program("curl"), "--silent", "--show-error", "--insecure", "--max-time", "20"]
        command += ["--user", f"{alice.address}:{alice.password}", *options, f"{scheme}://{HOST}:{port}/{path}"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert b'* LIST (\\HasNoChildren) "/" INBOX' in curl("")
    assert curl("INBOX;UID=1") == MESSAGES[1]
    assert curl("INBOX;UID=1;SECTION=TEXT", "--ssl-reqd", scheme="imap", port=imap.port).startswith("äö".encode())
    curl("Sent", "--upload-file", str(letter))
    assert curl("Sent;UID=1") == MESSAGES[0]
    assert curl("Sent?SUBJECT%20gr") == b"* SEARCH 1\r\n"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.programs(name)) for name in ("mutt", "neomutt")])
def test_mutt_opens_the_inbox_and_saves_a_message(
    imap: Running, alice: Person, program: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    imap.deliver(alice.account_id, MESSAGES[0])
    imap.deliver(alice.account_id, MESSAGES[2])
    config = tmp_path / "muttrc"
    config.write_text(
        f"""
set folder="imap://{HOST}:{imap.port}/"
set spoolfile="+INBOX"
set imap_user="{alice.address}" imap_pass="{alice.password}"
set ssl_starttls=no ssl_force_tls=no imap_passive=no imap_check_subscribed=no
set sleep_time=0 confirmcreate=no delete=yes move=no quit=yes mark_old=no
set header_cache="{tmp_path}/cache"
set copy=no
"""
    )
    script = shutil.which("script")
    if script is None:
        pytest.skip("script(1) gives mutt its terminal")
    # Save the first message to a local mbox, which also deletes it; flag the second; leave.
    keys = f"<first-entry><copy-message>{tmp_path}/saved<enter><delete-message><last-entry><flag-message><quit>"
    command = f"{program(name)} -n -F {config} -e \"push '{keys}'\""
    done = subprocess.run(
        [script, "-qec", command, "/dev/null"],
        capture_output=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "TERM": "xterm"},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert b"Hello" in (tmp_path / "saved").read_bytes()
    with imapclient.IMAPClient(HOST, imap.port, ssl=False) as client:
        client.login(alice.address, alice.password)
        client.select_folder("INBOX", readonly=True)
        (left,) = client.fetch(client.search(), ["FLAGS", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"]).values()
        assert imapclient.FLAGGED in left[b"FLAGS"]
        assert b"attachment" in left[b"BODY[HEADER.FIELDS (SUBJECT)]"]
