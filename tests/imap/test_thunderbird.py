"""Thunderbird against a whole installation: finds its settings, fetches all, reads, files, deletes, answers, waits.

Each test clicks, so to speak, in the real window and then looks at the server by another client.
"""

from __future__ import annotations

import email
import email.policy
import re
import smtplib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

from tests.imap.thunderbird import Thunderbird, thunderbird
from tests.ops.installation import Installation, installation
from tests.waiting import PATIENCE

pytestmark = pytest.mark.programs("thunderbird", "Xvfb")

HOST, DOMAIN = "mail.home.example", "home.example"
ANN, BOB, PASSWORD = "ann@home.example", "bob@home.example", "correct horse battery"
COUNTS = {"INBOX": 30, "Archive": 20}

# What the account hub does when somebody has typed name, address and password, and confirmed the certificate.
SET_UP = """
const [certificate, ports, host, domain, address, name, password] = args;
const parsed = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB)
    .constructX509FromBase64(certificate);
const exceptions = Cc["@mozilla.org/security/certoverride;1"].getService(Ci.nsICertOverrideService);
for (const port of ports) exceptions.rememberValidityOverride(host, port, {}, parsed, false);
const load = module => ChromeUtils.importESModule(`resource:///modules/accountcreation/${module}.sys.mjs`)[module];
const { value: config } = await load("FindConfig")
    .parallelAutoDiscovery(domain, address, new AbortController().signal).next();
if (!config) throw new Error("no settings were found");
const plain = ({ hostname, port, socketType, auth }) => ({ hostname, port, socketType, auth });
const found = { source: config.subSource, incoming: plain(config.incoming), outgoing: plain(config.outgoing) };
load("AccountConfig").replaceVariables(config, name, address, password);
config.rememberPassword = true;
await load("CreateInBackend").createAccountInBackend(config);
return found;
"""
SELECTED = "pane().gDBView.hdrForFirstSelectedMessage?.messageId"
SHOWN = "pane().messageBrowser.contentWindow.getMessagePaneBrowser().contentDocument?.body?.textContent"
COMPOSER = "Services.wm.getMostRecentWindow('msgcompose')"


def letter(mailbox: str, number: int) -> bytes:
    """Plain, with an alternative, with an attachment: in turn."""
    made = EmailMessage(email.policy.SMTP)
    made["From"], made["To"] = f"Bob Example <{BOB}>", ANN
    made["Subject"] = f"Grüße Nr. {number} in {mailbox}"
    made["Message-ID"] = f"<{mailbox}.{number}@{DOMAIN}>"
    made["Date"] = f"Sun, 22 Nov 2026 08:{number:02}:00 +0000"
    made.set_content(f"Schöne Worte, Nummer {number}.\n" * 5)
    if number % 3 == 0:
        made.add_alternative(f"<p>Schöne <b>Worte</b>, Nummer {number}.</p>", subtype="html")
    if number % 4 == 0:
        made.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="x-data", filename=f"{number}.bin")
    return made.as_bytes()


LETTERS = {mailbox: [letter(mailbox, number) for number in range(count)] for mailbox, count in COUNTS.items()}


@dataclass(frozen=True, slots=True)
class Home:
    """The installation, as Ann's other client sees it."""

    made: Installation

    def imap(self, mailbox: str, address: str = ANN) -> IMAPClient:
        client = IMAPClient("127.0.0.1", self.made.ports["IMAP"], ssl=False, timeout=60)
        client.login(address, PASSWORD)
        client.select_folder(mailbox, readonly=True)
        return client

    def found(self, mailbox: str, message_id: str, address: str = ANN) -> tuple[set[bytes], EmailMessage] | None:
        """The flags and the content of a message."""
        with self.imap("INBOX", address) as client:
            if not client.folder_exists(mailbox):
                return None
            client.select_folder(mailbox, readonly=True)
            for item in client.fetch(
                client.search(["HEADER", "Message-ID", message_id]), ["FLAGS", "BODY.PEEK[]"]
            ).values():
                message = email.message_from_bytes(item[b"BODY[]"], policy=email.policy.default)
                return set(item[b"FLAGS"]) - {rb"\Recent"}, message
        return None

    def flags(self, mailbox: str, message_id: str) -> set[bytes]:
        found = self.found(mailbox, message_id)
        return found[0] if found else set()

    def send(self, message: EmailMessage) -> None:
        """Bob sends something."""
        with smtplib.SMTP("127.0.0.1", self.made.ports["SUBMISSION"], timeout=60) as client:
            client.login(BOB, PASSWORD)
            client.send_message(message)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    folder.chmod(0o711)
    with installation(folder / "data", MAILSTEAD_HOSTNAME=HOST, MAILSTEAD_CHECKS="off") as made:
        made.start()
        made.wait_ready()
        for address in (ANN, BOB):
            done = made.run("account", "add", address, "--password", PASSWORD)
            assert done.returncode == 0, done.stdout + done.stderr
        home = Home(made)
        with home.imap("INBOX") as client:
            for mailbox, letters in LETTERS.items():
                for raw in letters:
                    client.append(mailbox, raw)
        yield home


@pytest.fixture(scope="module")
def preferences(home: Home) -> dict[str, bool | int | str]:
    """Every name leads to this machine, and port 80 to our web process, as DNS and a proxy would have it."""
    return {
        "network.dns.forceResolve": "127.0.0.1",
        "network.socket.forcePort": f"80={home.made.ports['HTTP']}",
    }


@pytest.fixture(scope="module")
def reader(
    preferences: dict[str, bool | int | str], program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Thunderbird]:
    with thunderbird(program, tmp_path_factory.mktemp("thunderbird"), preferences) as running:
        yield running


@pytest.fixture(scope="module")
def found(home: Home, reader: Thunderbird) -> dict[str, Any]:
    """The settings that Thunderbird found; with them it has an account now and shows its INBOX."""
    pem = (home.made.data / "tls" / "cert.pem").read_text().split("-----")[2]
    ports = [home.made.ports["IMAPS"], home.made.ports["SUBMISSIONS"]]
    settings: dict[str, Any] = reader.run(
        SET_UP, "".join(pem.split()), ports, HOST, DOMAIN, ANN, "Ann Example", PASSWORD
    )
    # The first folder that is opened makes it log in, which is when it learns of the others.
    reader.run("pane().displayFolder(folder('INBOX'));")
    reader.until("server().rootFolder.subFolders.length >= 6")
    reader.until("folder('INBOX').getTotalMessages(false) >= args[0]", COUNTS["INBOX"])
    return settings


@pytest.fixture(scope="module")
def inbox(reader: Thunderbird, found: dict[str, Any]) -> Thunderbird:
    return reader


def until(condition: Callable[[], object], reader: Thunderbird) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, reader.seen()
        time.sleep(0.1)


def select(reader: Thunderbird, number: int) -> str:
    """Click at a message of the INBOX, see it; returns its Message-ID."""
    message_id = f"INBOX.{number}@{DOMAIN}"
    reader.run("pane().displayFolder(folder('INBOX'));")
    reader.until("pane().gFolder == folder('INBOX') && message('INBOX', args[0])", message_id)
    reader.run("pane().selectMessage(message('INBOX', args[0]));", message_id)
    reader.until(f"{SELECTED} == args[0] && {SHOWN}?.includes(args[1])", message_id, f"Nummer {number}.")
    return message_id


def command(reader: Thunderbird, message_id: str, name: str, target: str | None = None) -> None:
    """Do something with the message that is selected, as a key or a menu would."""
    reader.run(
        f"if ({SELECTED} != args[0]) throw new Error(`${{{SELECTED}}} is selected`);"
        "pane().commandController.doCommand(args[1], args[2] && folder(args[2]));",
        message_id,
        name,
        target,
    )


def test_it_finds_its_settings_by_the_address_alone(home: Home, found: dict[str, Any]) -> None:
    tls_from_the_start, password = 3, 3
    assert found == {
        "source": "xml-from-isp-http",
        "incoming": {
            "hostname": HOST,
            "port": home.made.ports["IMAPS"],
            "socketType": tls_from_the_start,
            "auth": password,
        },
        "outgoing": {
            "hostname": HOST,
            "port": home.made.ports["SUBMISSIONS"],
            "socketType": tls_from_the_start,
            "auth": password,
        },
    }


def test_it_knows_what_each_mailbox_is_for(inbox: Thunderbird) -> None:
    flags = inbox.run("return Object.fromEntries(server().rootFolder.subFolders.map(each => [each.name, each.flags]));")
    drafts, sent, trash, junk, archive, incoming = 0x400, 0x200, 0x100, 0x40000000, 0x4000, 0x1000
    wanted = {
        "INBOX": incoming,
        "Drafts": drafts,
        "Sent": sent,
        "Trash": trash,
        "Junk": junk,
        "Archive": archive,
    }
    assert {name for name, flag in wanted.items() if flags[name] & flag} == set(wanted), flags


@pytest.mark.parametrize("mailbox", COUNTS)
def test_the_first_synchronisation_brings_every_message_whole(inbox: Thunderbird, mailbox: str) -> None:
    inbox.run("await finished(listener => folder(args[0]).getNewMessages(null, listener));", mailbox)
    inbox.until("folder(args[0]).getTotalMessages(false) == args[1]", mailbox, COUNTS[mailbox])
    inbox.run("await finished(listener => folder(args[0]).downloadAllForOffline(listener, null));", mailbox)
    file = Path(inbox.run("return folder(args[0]).filePath.path;", mailbox))

    def complete() -> bool:
        kept = file.read_bytes().replace(b"\r\n", b"\n") if file.exists() else b""
        return all(raw.replace(b"\r\n", b"\n") in kept for raw in LETTERS[mailbox])

    until(complete, inbox)


def test_a_message_that_is_read_is_seen_on_the_server(home: Home, inbox: Thunderbird) -> None:
    message_id = f"INBOX.3@{DOMAIN}"
    assert home.flags("INBOX", message_id) == set()
    assert select(inbox, 3) == message_id
    until(lambda: home.flags("INBOX", message_id) == {rb"\Seen"}, inbox)


def test_a_star_and_a_tag_are_kept(home: Home, inbox: Thunderbird) -> None:
    message_id = select(inbox, 5)
    for wanted in ({rb"\Seen", rb"\Flagged", b"$label1"}, {rb"\Seen"}):
        command(inbox, message_id, "cmd_markAsFlagged")
        command(inbox, message_id, "cmd_tag1")
        until(lambda wanted=wanted: home.flags("INBOX", message_id) == wanted, inbox)


@pytest.mark.parametrize(
    ("number", "name", "target", "mailbox"),
    [
        (7, "cmd_moveMessage", "Archive", "Archive"),
        (9, "cmd_archive", None, "Archive/2026"),  # a mailbox that it makes
        (11, "cmd_deleteMessage", None, "Trash"),
    ],
)
def test_what_is_moved_archived_or_deleted_is_there_and_here_no_more(
    home: Home, inbox: Thunderbird, number: int, name: str, target: str | None, mailbox: str
) -> None:
    message_id = select(inbox, number)
    command(inbox, message_id, name, target)
    inbox.until("!message('INBOX', args[0])", message_id)
    until(lambda: home.found(mailbox, message_id), inbox)
    assert home.found("INBOX", message_id) is None


def test_an_answer_reaches_its_recipient(home: Home, inbox: Thunderbird) -> None:
    message_id = select(inbox, 13)
    inbox.run("pane().messageBrowser.contentWindow.commandController.doCommand('cmd_reply');")
    inbox.until(f"{COMPOSER}?.document.readyState == 'complete' && {COMPOSER}.gMsgCompose?.editor")
    inbox.until(f"{COMPOSER}.document.getElementById('msgSubject').value.startsWith('Re: ')")
    inbox.run(f"{COMPOSER}.GetCurrentEditor().insertText('Danke schön – bis bald!');")
    inbox.run(f"{COMPOSER}.goDoCommand('cmd_sendNow');")
    inbox.until(f"!{COMPOSER}")
    with home.imap("INBOX", BOB) as client:
        until(lambda: client.noop() and client.search(["HEADER", "In-Reply-To", message_id]), inbox)
        (uid,) = client.search(["HEADER", "In-Reply-To", message_id])
        raw = client.fetch([uid], ["BODY.PEEK[]"])[uid][b"BODY[]"]
    arrived = email.message_from_bytes(raw, policy=email.policy.default)
    assert arrived["From"] == f"Ann Example <{ANN}>"
    assert arrived["Subject"] == "Re: Grüße Nr. 13 in INBOX"
    assert arrived["References"] == f"<{message_id}>"
    assert isinstance(arrived, EmailMessage) and (body := arrived.get_body(("plain",))) is not None
    assert "Danke schön – bis bald!" in body.get_content()
    assert "> Schöne Worte, Nummer 13." in body.get_content()
    until(lambda: home.found("Sent", arrived["Message-ID"]), inbox)
    until(lambda: rb"\Answered" in home.flags("INBOX", message_id), inbox)


def test_new_mail_appears_without_asking(home: Home, inbox: Thunderbird) -> None:
    select(inbox, 15)
    until(lambda: re.search(r"S-INBOX:SendData: \d+ IDLE", inbox.log()), inbox)
    news = EmailMessage(email.policy.SMTP)
    news["From"], news["To"], news["Subject"], news["Message-ID"] = BOB, ANN, "Jetzt", f"<now@{DOMAIN}>"
    news.set_content("gerade eben\n")
    home.send(news)
    inbox.until("message('INBOX', args[0])", f"now@{DOMAIN}")


def refusals(reader: Thunderbird) -> list[str]:
    return re.findall(r"CreateNewLineFromSocket: (?:\d+|\*) (?:NO|BAD).*", reader.log())


def test_the_server_never_refused_anything(inbox: Thunderbird) -> None:
    """What Thunderbird heard during all of the above."""
    assert refusals(inbox) == []
    assert "COMPRESS DEFLATE" in inbox.log()


def test_started_again_it_learns_what_happened_meanwhile(
    home: Home, inbox: Thunderbird, preferences: dict[str, bool | int | str], program: Callable[[str], str]
) -> None:
    """The last of this file: it ends the Thunderbird of the others. The second time it may use CONDSTORE."""
    inbox.quit()
    for first, condstore in ((20, False), (23, True)):
        left = change_elsewhere(home, first)
        started = {**preferences, "mail.server.default.use_condstore": condstore}
        with thunderbird(program, inbox.folder, started) as running:
            running.run("pane().displayFolder(folder('INBOX'));")
            running.until("message('INBOX', args[0])", f"INBOX.{first + 30}@{DOMAIN}")
            running.until("!message('INBOX', args[0])", f"INBOX.{first + 1}@{DOMAIN}")
            running.until("message('INBOX', args[0]).isFlagged", f"INBOX.{first}@{DOMAIN}")
            running.until("folder('INBOX').getTotalMessages(false) == args[0]", left)
            assert refusals(running) == []
            assert ("CHANGEDSINCE" in running.log()) is condstore
            running.quit()


def change_elsewhere(home: Home, first: int) -> int:
    """Another client flags a message, deletes the next, adds one; returns how many there are then."""
    with home.imap("INBOX") as client:
        client.select_folder("INBOX")
        flagged, deleted = (
            client.search(["HEADER", "Message-ID", f"<INBOX.{number}@{DOMAIN}>"])[0] for number in (first, first + 1)
        )
        client.add_flags([flagged], [rb"\Flagged"])
        client.delete_messages([deleted])
        client.expunge([deleted])
        client.append("INBOX", letter("INBOX", first + 30))
        return len(client.search())
