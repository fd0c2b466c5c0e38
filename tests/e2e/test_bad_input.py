"""What is wrong is refused in the protocol's own words, the session goes on where it may, and nothing is left of it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import smtplib
import socket
import struct
from collections.abc import Iterator

import pytest
from imapclient.exceptions import IMAPClientError

from tests.e2e import letters
from tests.e2e.world import ANN, BOB, CAROL, HOME, MESSAGE_SIZE, NOBODY, PASSWORD, TINY, TINY_QUOTA, World

pytestmark = [pytest.mark.programs("swaks", "postfix", "dnsmasq", "curl")]

MAILBOXES = ("INBOX", "Drafts", "Sent", "Archive", "Junk", "Trash")
BIG = b"Subject: big\r\n\r\n" + b"0123456789abcdef" * 4 * (TINY_QUOTA // 64) + b"\r\n"


def everything(world: World) -> dict[str, object]:
    """What could have been left over: messages and the next UID of every mailbox, mail on its way, spooled octets."""
    seen: dict[str, object] = {}
    for address in (ANN, BOB, TINY):
        with world.imap(address, None) as client:
            for name in MAILBOXES:
                seen[f"{address} {name}"] = client.folder_status(name, ["MESSAGES", "UIDNEXT", "UNSEEN"])
    with world.database() as database:
        for table in ("message", "entry", "outbound", "outbound_recipient"):
            seen[table] = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    files = (path.name for path in (world.made.data / "spool").iterdir())
    seen["spool"] = sorted(name for name in files if not name.startswith("beat."))  # which beat writes again and again
    return seen


@pytest.fixture
def nothing_left(world: World) -> Iterator[None]:
    before = everything(world)
    errors = world.made.output().count("Traceback")
    yield
    assert everything(world) == before
    assert world.made.output().count("Traceback") == errors


pytestmark.append(pytest.mark.usefixtures("nothing_left"))


@contextlib.contextmanager
def smtp(world: World, name: str = "SMTP") -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", world.made.ports[name], local_hostname="client.far.example", timeout=60) as client:
        client.ehlo()
        yield client


@contextlib.contextmanager
def submission(world: World, address: str = ANN, password: str = PASSWORD) -> Iterator[smtplib.SMTP]:
    with smtp(world, "SUBMISSION") as client:
        client.starttls()
        client.ehlo()
        client.login(address, password)
        yield client


class Raw:
    """A socket that speaks in lines."""

    def __init__(self, world: World, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", world.made.ports[name]), timeout=60)
        self.file = self.socket.makefile("rb")
        self.file.readline()

    def ask(self, octets: bytes, until: bytes = b"") -> bytes:
        """Say something; the lines of the answer, up to the one that begins with `until`."""
        self.socket.sendall(octets)
        answer = b""
        while line := self.file.readline():
            answer += line
            if line.startswith(until):
                break
        return answer

    def vanish(self) -> None:
        """Break off without a word: a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()


# --- SMTP


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        (f"zoe@{HOME}", b"<** 550 5.1.1 "),
        ("somebody@elsewhere.example", b"<** 550 5.7.1 "),
        ("ann@[127.0.0.1]", b"<** 550 5."),
        ("no address at all", b"<** 501 5.1.3 "),
    ],
)
def test_swaks_is_refused_at_rcpt(world: World, recipient: str, reply: bytes) -> None:
    done = world.swaks("--from", CAROL, "--to", recipient)
    assert done.returncode == 24, done.stdout
    assert reply in done.stdout and b"-> DATA" not in done.stdout


def test_a_wrong_password_is_not_told_apart_from_an_unknown_address(world: World) -> None:
    answers = set()
    for address in (ANN, f"zoe@{HOME}"):
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused, submission(world, address, "wrong"):
            pass
        answers.add((refused.value.smtp_code, refused.value.smtp_error))
    assert answers == {(535, b"5.7.8 The address or the password is not right")}
    basic = base64.b64encode(f"{ANN}:wrong".encode()).decode()
    status, _ = jmap(world, "GET", "/jmap/session", b"", f"Basic {basic}")
    assert status == 401


def test_mail_without_a_login_and_as_somebody_else_is_refused(world: World) -> None:
    with smtp(world, "SUBMISSION") as client:
        assert client.mail(ANN)[0] == 530
    with submission(world) as client:
        assert client.mail(BOB)[0] == 550
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ANN, [CAROL], f"From: {BOB}\r\n\r\nnot mine\r\n".encode())
        assert refused.value.smtp_code == 550


def test_a_message_that_is_too_big_is_refused_before_and_after_it_is_sent(world: World) -> None:
    line = b"x" * 998 + b"\r\n"
    with smtp(world) as client:
        assert client.docmd("MAIL", f"FROM:<{CAROL}> SIZE={MESSAGE_SIZE + 1}") == (
            552,
            b"5.3.4 The message is too big",
        )
        client.mail(CAROL)
        client.rcpt(ANN)
        assert client.data(line * (MESSAGE_SIZE // 1000 + 10))[0] == 552
        assert client.noop()[0] == 250, "the session goes on"
    file = world.folder / "big"
    file.write_bytes(letters.dot_stuffed(line * (MESSAGE_SIZE // 1000 + 10)))
    done = world.swaks("--from", CAROL, "--to", ANN, "--data", f"@{file}", "--no-data-fixup")
    assert done.returncode == 26 and b"<** 552 5.3.4 " in done.stdout


def test_a_full_mailbox_refuses_for_now_from_outside_and_for_good_from_inside(world: World) -> None:
    with smtp(world) as client:
        client.docmd("MAIL", f"FROM:<{CAROL}> SIZE={len(BIG)}")
        code, words = client.rcpt(TINY)
        assert (code, words[:5]) == (452, b"4.2.2")
        client.rset()
        client.mail(CAROL)
        assert client.rcpt(TINY)[0] == client.rcpt(ANN)[0] == 250
        code, words = client.data(BIG)
        assert (code, words[:5]) == (452, b"4.2.2"), "nobody gets what one cannot take"
    with submission(world) as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail(ANN, [TINY], b"From: " + ANN.encode() + b"\r\n" + BIG)
    assert refused.value.recipients[TINY][0] == 552
    with world.imap(TINY) as client, pytest.raises(IMAPClientError, match="OVERQUOTA"):
        client.append("INBOX", BIG)


@pytest.mark.parametrize("name", ["SMTP", "SUBMISSION"])
def test_of_a_message_that_breaks_off_nothing_stays(world: World, name: str) -> None:
    if name == "SMTP":
        begin = b"EHLO x.example\r\nMAIL FROM:<c@far.example>\r\nRCPT TO:<ann@home.example>\r\n"
    else:
        login = base64.b64encode(f"\0{ANN}\0{PASSWORD}".encode())
        begin = b"EHLO x.example\r\nAUTH PLAIN " + login + b"\r\n"
        begin += b"MAIL FROM:<ann@home.example>\r\nRCPT TO:<ann@home.example>\r\nRCPT TO:<carol@far.example>\r\n"
    for half in (
        b"DATA\r\nFrom: ann@home.example\r\n\r\nhalf a mess",
        b"BDAT 1000 LAST\r\nFrom: ann@home.example\r\n\r\n",
    ):
        for end in ("reset", "closed"):
            line = Raw(world, name)
            line.ask(begin, b"250 2.1.5 ")
            line.socket.sendall(half)
            if end == "reset":
                line.vanish()
            else:
                line.socket.shutdown(socket.SHUT_WR)
                assert b"250 2.0.0" not in line.file.read(4096)


def test_smuggled_ends_of_messages_are_refused(world: World) -> None:
    for end in (b"\n.\n", b"\n.\r\n", b"\r.\r"):
        line = Raw(world, "SMTP")
        line.ask(b"EHLO x.example\r\nMAIL FROM:<c@far.example>\r\nRCPT TO:<ann@home.example>\r\nDATA\r\n", b"354 ")
        answer = line.ask(b"Subject: one\r\n\r\none" + end + b"MAIL FROM:<admin@home.example>\r\n.\r\n", b"5")
        assert answer.startswith(b"550 5.6.0 "), (end, answer)


# --- IMAP


NONSENSE = {
    b"FROBNICATE": b"BAD ",
    b"SELECT": b"BAD ",
    b"SELECT (((": b"BAD ",
    b"SELECT Nowhere": b"NO [NONEXISTENT] ",
    b"FETCH 1 FLAGS": b"BAD ",  # nothing is selected
    b"STATUS INBOX (NONSENSE)": b"BAD ",
    b"LIST " + b'"" ' * 5000: b"BAD ",
    b"SEARCH " + b"(" * 5000: b"BAD ",
    b"APPEND Nowhere {3+}\r\nabc": b"NO [TRYCREATE] ",
    b"APPEND INBOX {99999999}": b"NO [TOOBIG] ",  # it is not asked to go on
    b"DELETE INBOX": b"NO ",
    b"RENAME Nowhere Somewhere": b"NO [NONEXISTENT] ",
    b"\xff\xfe": b"BAD ",
    b"NOOP": b"OK ",
    b"SELECT INBOX": b"OK ",
    b"FETCH 99999 BODY[]": b"BAD ",
    b"UID FETCH 1:* (BODY[999.1])": b"OK ",
    b"UID FETCH 1 (BODY[)": b"BAD ",
    b"LOGOUT": b"OK ",
}


def test_imap_commands_that_are_none_cost_an_error_and_not_the_session(world: World) -> None:
    line = Raw(world, "IMAP")
    assert line.ask(b"a1 SELECT INBOX\r\n", b"a1").startswith(b"a1 BAD ")
    assert line.ask(b"a2 LOGIN " + ANN.encode() + b" wrong\r\n", b"a2").startswith(b"a2 NO [AUTHENTICATIONFAILED] ")
    assert line.ask(f'a3 LOGIN {ANN} "{PASSWORD}"\r\n'.encode(), b"a3").startswith(b"a3 OK ")
    for number, (said, expected) in enumerate(NONSENSE.items()):
        tag = b"b%d " % number
        last = line.ask(tag + said + b"\r\n", tag).rstrip(b"\r\n").rpartition(b"\r\n")[2]
        assert last.startswith(tag + expected), (said[:100], last)


def test_of_an_append_that_breaks_off_nothing_stays(world: World) -> None:
    line = Raw(world, "IMAP")
    line.ask(f'a LOGIN {ANN} "{PASSWORD}"\r\n'.encode(), b"a ")
    line.ask(b"b APPEND INBOX {1000}\r\n", b"+")
    line.socket.sendall(b"Subject: half a mess")
    line.vanish()


# --- the web


def jmap(world: World, method: str, path: str, body: bytes, login: str | None = None) -> tuple[int, bytes]:
    login = login or "Basic " + base64.b64encode(f"{ANN}:{PASSWORD}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", world.made.ports["HTTP"], timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Authorization": login, "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "urn:ietf:params:jmap:error:notJSON"),
        (b"\xff", "urn:ietf:params:jmap:error:notJSON"),
        (b'{"using": 1}', "urn:ietf:params:jmap:error:notRequest"),
        (b'{"using": ["urn:x"], "methodCalls": []}', "urn:ietf:params:jmap:error:unknownCapability"),
        (b"[" * 100_000, "urn:ietf:params:jmap:error:notJSON"),
    ],
)
def test_jmap_requests_that_are_none_are_told_so(world: World, body: bytes, kind: str) -> None:
    status, answer = jmap(world, "POST", "/jmap/", body)
    assert (status, json.loads(answer)["type"]) == (400, kind)


def test_jmap_refuses_objects_one_by_one(world: World) -> None:
    status, answer = jmap(world, "GET", "/jmap/session", b"")
    assert status == 200
    session = json.loads(answer)
    account = next(iter(session["accounts"]))
    calls = [
        ["Email/frobnicate", {"accountId": account}, "0"],
        ["Email/get", {"accountId": "nobody", "ids": []}, "1"],
        ["Email/set", {"accountId": account, "create": {"x": {"mailboxIds": {"nowhere": True}, "subject": "x"}}}, "2"],
        ["Email/set", {"accountId": account, "destroy": ["M999999"]}, "3"],
        ["Mailbox/get", {"accountId": account, "ids": []}, "4"],
    ]
    using = ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"]
    status, answer = jmap(world, "POST", "/jmap/", json.dumps({"using": using, "methodCalls": calls}).encode())
    assert status == 200
    found = json.loads(answer)["methodResponses"]
    assert [(name, each.get("type")) for name, each, _ in found] == [
        *(("error", "unknownMethod"), ("error", "accountNotFound"), ("Email/set", None), ("Email/set", None)),
        ("Mailbox/get", None),
    ]
    assert found[2][1]["notCreated"]["x"]["type"] == "invalidProperties"
    assert found[3][1]["notDestroyed"]["M999999"]["type"] == "notFound"


def test_strange_addresses_of_pages_are_no_server_errors(world: World) -> None:
    for path in ("/nowhere/", "/%ff%00", "/settings/../../etc/passwd", "/static/../manage.py", "/?" + "a" * 5000):
        connection = http.client.HTTPConnection("127.0.0.1", world.made.ports["HTTP"], timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            assert connection.getresponse().status in (302, 400, 404), path


# --- afterwards


def test_after_all_this_the_installation_is_sound(world: World) -> None:
    assert world.wrong() == []
    with world.imap(ANN) as client:
        found = client.fetch(client.search(), ["ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "BODY.PEEK[]"])
        assert all(item[b"RFC822.SIZE"] == len(item[b"BODY[]"]) for item in found.values())
    listed = world.made.run("queue", "list", "--json")
    assert [row for row in json.loads(listed.stdout) if row["recipient"] != NOBODY] == []
