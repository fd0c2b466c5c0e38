"""In: what strangers' programs send is what the owner's programs read, octet by octet; the trace tells how it came."""

from __future__ import annotations

import base64
import os
import re
from hashlib import sha256
from pathlib import Path

import pytest

from tests.e2e import letters, terminal
from tests.e2e.world import (
    ANN,
    BOB,
    CAROL,
    HOME,
    HOST,
    PASSWORD,
    TINY,
    TRACE_LINES,
    World,
    command,
    sent_octets,
    trace_id,
)

pytestmark = [pytest.mark.programs("swaks", "postfix", "dnsmasq", "curl")]

SENT = {sha256(raw).hexdigest(): name for name, raw in letters.ALL.items()}


def told_apart(stored: list[bytes]) -> list[str]:
    """Which letters these are; none, with the message, for one that is not exactly as it was sent."""
    found = ((SENT.get(sha256(sent_octets(raw)).hexdigest()), raw) for raw in stored)
    return sorted(name or f"changed: {raw[:2000]!r}" for name, raw in found)


@pytest.fixture(scope="module")
def ids(world: World) -> dict[str, str]:
    """Every letter is sent to Ann by swaks; their trace ids."""
    return {name: world.send(raw, ANN) for name, raw in letters.ALL.items()}


def test_imapclient_reads_what_swaks_sent(world: World, ids: dict[str, str]) -> None:
    stored = list(world.messages(ANN).values())
    assert told_apart(stored) == sorted(letters.ALL)
    lines = [match for raw in stored if (match := TRACE_LINES.match(raw))]
    assert {line["id"].decode() for line in lines} == set(ids.values())
    assert {(line["sender"].decode(), line["protocol"].decode()) for line in lines} == {(CAROL, "ESMTP")}


def test_curl_reads_what_swaks_sent(world: World, ids: dict[str, str]) -> None:
    read = []
    for number in range(1, len(ids) + 1):
        url = f"imaps://localhost:{world.made.ports['IMAPS']}/INBOX;MAILINDEX={number}"
        certificate = world.made.data / "tls" / "cert.pem"
        done = world.run(world.find("curl"), "-sS", "--cacert", certificate, "--user", f"{ANN}:{PASSWORD}", url)
        assert done.returncode == 0, done.stderr
        read.append(done.stdout)
    assert told_apart(read) == sorted(letters.ALL)


@pytest.mark.programs("mbsync")
def test_mbsync_copies_what_swaks_sent_and_brings_up_what_is_new(world: World, ids: dict[str, str]) -> None:
    home = world.folder / "mbsync"
    home.mkdir()
    (home / "rc").write_text(
        f'IMAPAccount mailstead\nHost localhost\nPort {world.made.ports["IMAPS"]}\nUser {ANN}\nPass "{PASSWORD}"\n'
        f"SSLType IMAPS\nCertificateFile {world.made.data}/tls/cert.pem\n\n"
        "IMAPStore far\nAccount mailstead\n\n"
        f"MaildirStore near\nPath {home}/\nInbox {home}/INBOX\nSubFolders Verbatim\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync All\nSyncState *\n"
    )
    synchronise = (world.find("mbsync"), "-c", str(home / "rc"), "-a")
    assert (done := world.run(*synchronise)).returncode == 0, done.stderr
    assert {each.name for each in home.iterdir() if each.is_dir()} == {
        *("INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash")
    }
    # A Maildir has LF line ends, and mbsync marks each message in its header.
    kept = [
        re.sub(rb"^X-TUID: [^\n]*\n", b"", path.read_bytes(), count=1, flags=re.M).replace(b"\n", b"\r\n")
        for path in maildir(home / "INBOX")
    ]
    assert told_apart(kept) == sorted(letters.ALL)

    (home / "Archive" / "cur" / "1.written.here:2,FS").write_bytes(b"Subject: written in a Maildir\n\n\xe4\n")
    assert (done := world.run(*synchronise)).returncode == 0, done.stderr
    with world.imap(ANN, "Archive") as client:
        ((_, item),) = client.fetch(client.search(), ["BODY.PEEK[]", "FLAGS"]).items()
        raw = re.sub(rb"X-TUID: [^\r\n]*\r\n", b"", item[b"BODY[]"])
        assert raw == b"Subject: written in a Maildir\r\n\r\n\xe4\r\n"
        assert set(item[b"FLAGS"]) - {rb"\Recent"} == {rb"\Flagged", rb"\Seen"}


@pytest.mark.programs("mutt")
def test_mutt_shows_and_copies_what_swaks_sent(world: World, ids: dict[str, str]) -> None:
    home = world.folder / "mutt"
    home.mkdir()
    (home / "rc").write_text(
        f"set folder=imaps://localhost:{world.made.ports['IMAPS']}/\nset spoolfile=+INBOX\n"
        f'set imap_user="{ANN}"\nset imap_pass="{PASSWORD}"\n'
        f"set ssl_ca_certificates_file={world.made.data}/tls/cert.pem\n"
        "set mbox_type=Maildir confirmcreate=no confirmappend=no copy=no quit=yes mark_old=no\n"
        f'push "<tag-pattern>~A<enter><tag-prefix><copy-message>{home}/copies<enter><quit>"\n'
    )
    environ = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"}
    status, drawn = terminal.run([world.find("mutt"), "-n", "-F", str(home / "rc")], environ)
    assert status == 0, drawn
    for shown in ("Käthe", "Grüße aus Köln ✉", "📎 Anhang"):
        assert shown.encode() in drawn
    # It counts the lines in the header of its copies, for which a header without end is no place.
    kept = [
        re.sub(rb"^(Content-Length|Lines): \d+\n", b"", path.read_bytes(), flags=re.M).replace(b"\n", b"\r\n")
        for path in maildir(home / "copies")
    ]
    assert told_apart([raw for raw in kept if b"<broken@" not in raw]) == sorted(set(letters.ALL) - {"broken"})
    assert len(kept) == len(letters.ALL)


def maildir(folder: Path) -> list[Path]:
    return [path for part in ("cur", "new") for path in (folder / part).iterdir()]


def test_what_swaks_composes_with_an_attachment_arrives_as_its_transcript_says(world: World) -> None:
    attached = world.folder / "attached"
    attached.write_bytes(bytes(range(256)) * 50)
    done = world.swaks(
        *("--from", CAROL, "--to", BOB, "--header", "Subject: Übung macht den Meister", "--body", "Schöne Grüße\n.\n"),
        *("--attach-type", "application/x-all-octets", "--attach-name", "alle Oktette.bin", "--attach", f"@{attached}"),
    )
    assert done.returncode == 0, done.stdout
    said = done.stdout.partition(b"<-  354 ")[2].partition(b"\n -> .\n")[0]
    wire = b"".join(line.removeprefix(b" -> ").removesuffix(b"\r") + b"\r\n" for line in said.split(b"\n")[1:])
    stored = world.await_message(BOB, lambda raw: b"macht den Meister" in raw)
    assert sent_octets(stored) == wire.replace(b"\r\n..", b"\r\n.")
    with world.imap(BOB) as client:
        (uid,) = client.search(["SUBJECT", "Übung macht"], "UTF-8")
        item = client.fetch([uid], ["BODYSTRUCTURE", "BODY.PEEK[2]"])[uid]
        assert item[b"BODYSTRUCTURE"][0][1][:2] == (b"application", b"x-all-octets")
        assert base64.b64decode(item[b"BODY[2]"]) == attached.read_bytes()


def test_a_real_mail_server_passes_mail_on_over_tls(world: World) -> None:
    """Postfix sends with PIPELINING, STARTTLS and 8BITMIME of its own accord."""
    file = world.folder / "relayed"
    file.write_bytes(letters.dot_stuffed(letters.accents()))
    done = world.swaks(
        *("--from", CAROL, "--to", f"{ANN},{BOB}", "--data", f"@{file}", "--no-data-fixup"), port=world.postfix.port
    )
    assert done.returncode == 0, done.stdout
    stored = [
        world.await_message(who, lambda raw: b"by mx.far.example (Postfix)" in raw and b"<accents@" in raw)
        for who in (ANN, BOB)
    ]
    assert stored[0] == stored[1], "one message to two people is one message"
    passed_on = sent_octets(stored[0])
    assert passed_on.startswith(b"Received: from client.far.example ")
    assert passed_on.endswith(letters.accents())
    lines = TRACE_LINES.match(stored[0])
    assert lines and lines["protocol"] == b"ESMTPS"
    assert b"(using TLSv1.3" in lines[0]
    assert f"for <{ANN}>".encode() not in lines[0], "who else gets it is nobody's business"


def test_mail_to_an_alias_is_found_in_the_trace_by_everybody_it_reached(world: World) -> None:
    """One member has no room: the others get theirs, and that copy is tried again."""
    command(world.made, "alias", "add", f"team@{HOME}", BOB, TINY)
    file = world.folder / "to-the-team"
    file.write_bytes(letters.dot_stuffed(letters.attachment().replace(b"<attachment@", b"<team@")))
    done = world.swaks("--from", CAROL, "--to", f"team@{HOME}", "--data", f"@{file}", "--no-data-fixup")
    assert done.returncode == 0, done.stdout
    name = trace_id(done.stdout)
    steps = world.await_steps(name, "deferred")
    assert sorted((step["step"], step["recipient"]) for step in steps) == [
        *(("accepted", None), ("deferred", TINY), ("expanded", f"team@{HOME}"), ("queued", TINY), ("stored", BOB)),
    ]
    for address in (BOB, f"team@{HOME}"):
        assert name in {step["trace_id"] for step in world.trace(address)}, address
    command(world.made, "queue", "remove", "--yes", name)


def test_the_trace_tells_how_a_message_came(world: World, ids: dict[str, str]) -> None:
    name = ids["attachment"]
    accepted, stored = world.trace(name)
    assert (accepted["step"], accepted["sender"]) == ("accepted", CAROL)
    assert accepted["message_id"] == "attachment@far.example"
    assert accepted["detail"]["from"] == "127.0.0.1"
    assert accepted["detail"]["helo"] == "client.far.example"
    assert accepted["detail"]["protocol"] == "ESMTP"
    (size,) = (len(raw) for raw in world.messages(ANN).values() if b"<attachment@" in raw)
    assert accepted["detail"]["size"] == size
    assert (stored["step"], stored["recipient"], stored["trace_id"]) == ("stored", ANN, name)
    # By Message-ID and by address, and in words.
    assert [each["trace_id"] for each in world.trace("<attachment@far.example>")] == [name, name]
    assert {each["trace_id"] for each in world.trace(ANN)} >= set(ids.values())
    shown = world.made.run("trace", name).stdout.splitlines()
    assert shown[0] == f"{name}  from {CAROL}  <attachment@far.example>"
    came = rf"  accepted   {CAROL} from 127.0.0.1 \(client.far.example\) by ESMTP without TLS 29\d\.\d KiB"
    assert re.search(came, shown[1])
    assert re.search(rf"  stored     {ANN} in INBOX, uid \d+", shown[2])
    assert HOST not in shown[1]
