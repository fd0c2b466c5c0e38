"""Every command that meets a mailbox asks for the right that RFC 4314 §4 names; for an outsider nothing is there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

import imapclient
import pytest

from accounts.models import Account
from mailcore import db, provision
from mailcore.imap.registry import COMMANDS, State
from mailcore.store import quota
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.transcripts.runner import Client, World

EVERY = "lrswipkxtea"
MESSAGE = "Subject: m\r\n\r\nm\r\n"
LITERAL = f"{{{len(MESSAGE)}+}}\r\n{MESSAGE}"

# What is said, and the rights that it needs beside l. {box} is Alice's, with a message and, below it, Child; {url} is
# that message's.
OUTSIDE = [
    ("SELECT {box}", "r"),
    ("EXAMINE {box}", "r"),
    ("STATUS {box} (MESSAGES)", "r"),
    ("APPEND {box} " + LITERAL, "i"),
    ("CREATE {box}/New", "k"),
    ("DELETE {box}/Child", "x"),
    ("RENAME {box}/Child {box}/Kid", "kx"),
    ("MYRIGHTS {box}", ""),
    ("GETACL {box}", "a"),
    ("SETACL {box} {bob} +r", "a"),
    ("DELETEACL {box} {carol}", "a"),
    ("LISTRIGHTS {box} {carol}", "a"),
    ('SETMETADATA {box} (/shared/x "y")', "w"),
    ("GETQUOTAROOT {box}", ""),
    ("APPEND INBOX CATENATE (URL {url})", "r"),
]
# To know or to keep private metadata, one right of these is enough (RFC 5464 §3.3).
ANY_OF = "rswip"
METADATA = ["GETMETADATA {box} (/shared/x)", 'SETMETADATA {box} (/private/x "y")']
# The same in Bob's own INBOX …
AT_HOME = [
    *((f"{uid}{verb} {{box}}", "i") for uid in ("", "UID ") for verb in ("COPY *", "MOVE *")),
    *((f"{uid}REPLACE * {{box}} {LITERAL}", "i") for uid in ("", "UID ")),
]
# … and in Alice's mailbox.
INSIDE = [
    *((f"{uid}FETCH 1 (FLAGS BODY[])", "") for uid in ("", "UID ")),
    *((f"{uid}SEARCH SUBJECT m", "") for uid in ("", "UID ", "E")),
    *((f"{uid}SORT (DATE) UTF-8 ALL", "") for uid in ("", "UID ")),
    *((f"{uid}THREAD REFS UTF-8 ALL", "") for uid in ("", "UID ")),
    *((f"{uid}COPY 1 INBOX", "") for uid in ("", "UID ")),
    *((f"{uid}MOVE 1 INBOX", "te") for uid in ("", "UID ")),
    *((f"{uid}REPLACE 1 INBOX {LITERAL}", "te") for uid in ("", "UID ")),
    *((f"{uid}REPLACE 1 {{box}} {LITERAL}", "ite") for uid in ("", "UID ")),
    *((f"{uid}MOVE 1 {{box}}/Child", "ite") for uid in ("", "UID ")),
    *((f"{uid}COPY 1 {{box}}", "i") for uid in ("", "UID ")),
    *((f"{uid}STORE 1 +FLAGS (\\Seen)", "s") for uid in ("", "UID ")),
    *((f"{uid}STORE 1 -FLAGS (\\Deleted)", "t") for uid in ("", "UID ")),
    *((f"{uid}STORE 1 +FLAGS (\\Flagged)", "w") for uid in ("", "UID ")),
    *((f"{uid}STORE 1 +FLAGS (word)", "w") for uid in ("", "UID ")),
    *((f"{uid}STORE 1 (UNCHANGEDSINCE 99) -FLAGS.SILENT (\\Draft)", "w") for uid in ("", "UID ")),
    ("EXPUNGE", "e"),
    ("UID EXPUNGE 1", "e"),
    ("UIDBATCHES 500", ""),
]
# What meets no mailbox, or says of those that may not be met nothing at all: tested one by one, here or in transcripts.
ELSEWHERE = {
    *("CAPABILITY", "CHECK", "COMPRESS", "ENABLE", "GETJMAPACCESS", "ID", "IDLE", "LOGOUT", "NAMESPACE", "NOOP"),
    *("CANCELUPDATE", "CLOSE", "UNSELECT", "GETQUOTA", "SETQUOTA", "SUBSCRIBE", "UNSUBSCRIBE"),
    *("LIST", "LSUB", "NOTIFY"),
}


class Talk:
    """A client that is logged in."""

    def __init__(self, running: Running, person: Person) -> None:
        world = World(HOST, running.port, running.tls_port, _never, _never, _never)
        self._client = Client(world, False)
        self._client.receive()
        assert self.say(f'LOGIN {person.address} "{person.password}"')[0].startswith("OK ")

    def say(self, line: str) -> tuple[str, list[str]]:
        """The tagged answer without its tag, and the lines before it."""
        self._client.send(f"t {line}\r\n".encode())
        before = []
        while (answer := self._client.receive()) is not None:
            if answer.startswith(b"t "):
                return answer[2:].decode(), before
            before.append(answer.decode())
        raise AssertionError(f"{line}: the server hung up after {before}")

    def ok(self, line: str) -> list[str]:
        answer, before = self.say(line)
        assert answer.startswith("OK"), (line, answer)
        return before

    def close(self) -> None:
        self._client.socket.close()


def _never(*_: object) -> None:
    raise AssertionError


class Village:
    """Alice shares with Bob; Carol is another colleague, Charlie of another domain."""

    def __init__(self, running: Running, people: Callable[[str], Person]) -> None:
        self.people = {name: people(name) for name in ("alice", "bob", "carol", "charlie@elsewhere")}
        self.alice, self.bob, self.carol, self.charlie = (Talk(running, one) for one in self.people.values())
        running.deliver(self.people["bob"].account_id, MESSAGE.encode())
        self._boxes = 100

    def box(self, rights: str) -> str:
        """A mailbox of Alice in which Bob has these rights; the name for him, without quotes."""
        self._boxes += 1
        name = f"Box{self._boxes}"
        self.alice.ok(f"CREATE {name}")
        self.alice.ok(f"APPEND {name} (\\Deleted) {LITERAL}")
        if rights:
            self.alice.ok(f"SETACL {name} {self.people['bob'].address} {rights}")
        self.alice.ok(f"CREATE {name}/Child")
        return f"Other Users/{self.people['alice'].address}/{name}"

    def line(self, text: str, box: str) -> str:
        """What is said about a mailbox."""
        bob, carol = self.people["bob"].address, self.people["carol"].address
        text = text.replace("{bob}", bob).replace("{carol}", carol).replace("{url}", f'"/{quote(box)}/;UID=1"')
        for suffix in ("/New", "/Child", "/Kid", ""):
            text = text.replace(f"{{box}}{suffix}", f'"{box}{suffix}"')
        return text

    def answer(self, text: str, rights: str, *, inside: bool = False, home: bool = False) -> str:
        """What Bob is told when he says it with these rights."""
        box = self.box(rights)
        if inside:
            self.bob.ok(f'SELECT "{box}"')
        elif home:
            self.bob.ok(f"APPEND INBOX {LITERAL}")
            self.bob.ok("SELECT INBOX")
        answer, _ = self.bob.say(self.line(text, box))
        if inside or home:
            self.bob.ok("UNSELECT")
        return answer


@pytest.fixture
def village(imap: Running, people: Callable[[str], Person]) -> Iterator[Village]:
    made = Village(imap, people)
    yield made
    for talk in (made.alice, made.bob, made.carol, made.charlie):
        talk.close()


def _wrong(village: Village, cases: list[tuple[str, str]], *, inside: bool = False, home: bool = False) -> list[str]:
    wrong = []
    for text, needed in cases:
        refused = "NO [BADURL" if "{url}" in text else "NO [NOPERM]"
        enough = "lr" + needed if inside else "l" + needed
        answer = village.answer(text, enough, inside=inside, home=home)
        if not answer.startswith("OK"):
            wrong.append(f"{text} with {enough}: {answer}")
        for letter in needed:
            rights = EVERY.replace(letter, "")
            answer = village.answer(text, rights, inside=inside, home=home)
            if not answer.startswith(refused):
                wrong.append(f"{text} with {rights}: {answer}")
    return wrong


def test_the_tables_know_every_command() -> None:
    said = {line for line, _ in (*OUTSIDE, *AT_HOME, *INSIDE)} | {*METADATA}
    names = {name for name in COMMANDS if any(line.startswith(name + " ") or line == name for line in said)}
    assert names | ELSEWHERE == {name for name, spec in COMMANDS.items() if spec.state != State.NOT_AUTHENTICATED}


def test_a_command_needs_its_rights_and_no_others(village: Village) -> None:
    assert _wrong(village, OUTSIDE) == []
    for text in METADATA:
        wrong = [letter for letter in ANY_OF if not village.answer(text, "l" + letter).startswith("OK")]
        assert wrong == [], text
        assert village.answer(text, "lkxtea").startswith("NO [NOPERM]"), text


def test_a_selected_mailbox_of_somebody_else_lets_do_what_its_rights_say(village: Village) -> None:
    assert _wrong(village, INSIDE, inside=True) == []


def test_bringing_messages_needs_the_right_to_insert(village: Village) -> None:
    assert _wrong(village, AT_HOME, home=True) == []


def test_without_lookup_and_for_outsiders_a_mailbox_is_not_there(village: Village) -> None:
    for text in (*(text for text, _ in (*OUTSIDE, *AT_HOME)), *METADATA):
        at_home = (text, "i") in AT_HOME
        village.bob.say("SELECT INBOX" if at_home else "UNSELECT")
        hidden, open_ = village.box(EVERY.replace("l", "")), village.box(EVERY)
        missing = hidden.rpartition("/")[0] + "/Missing"
        for talk, box in ((village.bob, hidden), (village.carol, open_), (village.charlie, open_)):
            if at_home and talk is not village.bob:
                continue
            answer, before = talk.say(village.line(text, box))
            other, missed = talk.say(village.line(text, missing))
            same = quote(missing), quote(box)
            assert (answer, before) == (other.replace(*same), [line.replace(*same) for line in missed]), text
            assert answer.startswith("NO ["), (text, answer)
            listed = talk.ok(f'LIST "" "{box}*"')
            assert listed == [], (text, listed)
    mine = village.people["bob"].address
    assert village.bob.say(f'SELECT "Other Users/{mine}/INBOX"')[0].startswith("NO [NONEXISTENT]")


def test_what_one_may_not_change_stays_as_it_is_when_reading_and_closing(village: Village) -> None:
    box = village.box("lri")
    village.bob.ok(f'SELECT "{box}"')
    assert not any("\\Seen" in line for line in village.bob.ok("FETCH 1 (FLAGS BODY[])"))
    village.bob.ok("CLOSE")
    assert village.alice.ok(f"STATUS {box.rpartition('/')[2]} (MESSAGES UNSEEN DELETED)") == [
        f"* STATUS {box.rpartition('/')[2]} (MESSAGES 1 UNSEEN 1 DELETED 1)"
    ]


# The flags that a right allows to set and to take away; word goes with w.
FLAGS = {"": (), "s": ("\\Seen",), "t": ("\\Deleted",), "w": ("\\Flagged", "word"), "swt": None}
ALL_FLAGS = ("\\Seen", "\\Flagged", "\\Deleted", "word")


@pytest.mark.parametrize("letters", FLAGS)
def test_a_message_brings_and_loses_those_flags_that_its_rights_name(letters: str, village: Village) -> None:
    may = set(ALL_FLAGS if FLAGS[letters] is None else FLAGS[letters])
    every = " ".join(ALL_FLAGS)
    box = village.box("lri" + letters)
    theirs = box.rpartition("/")[2]
    village.bob.ok(f'APPEND "{box}" ({every}) {LITERAL}')
    village.bob.ok(f"APPEND INBOX ({every}) {LITERAL}")
    village.bob.ok("SELECT INBOX")
    village.bob.ok(f'COPY * "{box}"')
    village.bob.ok(f'MOVE * "{box}"')
    village.bob.ok(f'REPLACE * "{box}" ({every}) {LITERAL}')
    village.alice.ok(f"APPEND {theirs} ({every}) {LITERAL}")
    village.bob.ok(f'SELECT "{box}"')
    answer, _ = village.bob.say("STORE 6 FLAGS ()")
    assert answer.startswith("OK" if may else "NO [NOPERM]")
    answer, _ = village.bob.say(f"STORE 6 -FLAGS ({every})")
    assert answer.startswith("OK" if may else "NO [NOPERM]")
    village.alice.ok(f"SELECT {theirs}")
    lines = village.alice.ok("FETCH 2:6 FLAGS")
    flags = [set(line.partition("(FLAGS (")[2].rstrip(")").split()) - {"\\Recent"} for line in lines]
    assert flags == [may, may, may, may, set(ALL_FLAGS) - may]


def test_what_may_only_be_seen_to_be_there_tells_no_numbers(village: Village) -> None:
    box = village.box("l")
    asked = f'LIST "" "{box}" RETURN (MYRIGHTS METADATA (/shared/x) STATUS (MESSAGES))'
    village.alice.ok(f'SETMETADATA {box.rpartition("/")[2]} (/shared/x "y")')
    assert village.bob.ok(asked) == [f'* LIST (\\Noselect \\HasChildren) "/" "{box}"', f'* MYRIGHTS "{box}" l']
    assert village.bob.ok(f'ESEARCH IN (mailboxes "{box}" subtree "Other Users") ALL') == []
    assert village.bob.ok(f'NOTIFY SET STATUS (mailboxes "{box}" (MessageNew MessageExpunge))') == []
    assert village.bob.ok(f'GETQUOTAROOT "{box}"') == [f'* QUOTAROOT "{box}"']


def test_messages_go_to_and_fro_with_flags_dates_and_both_quotas_right(village: Village) -> None:
    box = village.box(EVERY)
    theirs = box.rpartition("/")[2]
    village.alice.ok(f'APPEND {theirs} (\\Seen \\Flagged word) "17-Jul-1996 02:44:25 +0000" {LITERAL}')
    village.bob.ok(f'SELECT "{box}"')
    village.bob.ok("MOVE 2 INBOX")
    village.bob.ok("SELECT INBOX")
    (line,) = village.bob.ok("UID FETCH * (FLAGS INTERNALDATE BODY[])")
    assert 'FLAGS (\\Seen \\Flagged word) INTERNALDATE "17-Jul-1996 02:44:25 +0000"' in line.replace(" \\Recent", "")
    assert MESSAGE in line
    village.bob.ok(f'MOVE 1:* "{box}"')
    village.alice.ok(f"SELECT {theirs}")
    flags = [line.partition("FLAGS ")[2] for line in village.alice.ok("FETCH 1:* FLAGS")]
    assert [one.replace(" \\Recent", "").replace("\\Recent", "") for one in flags] == [
        "(\\Deleted))",
        "())",
        "(\\Seen \\Flagged word))",
    ]
    for name in ("alice", "bob"):
        provision.set_quota(Account.objects.get(pk=village.people[name].account_id), 2048)
    assert village.alice.ok('GETQUOTA ""') == ['* QUOTA "" (STORAGE 1 2)']
    assert village.bob.ok('GETQUOTA ""') == ['* QUOTA "" (STORAGE 0 2)']
    provision.set_quota(Account.objects.get(pk=village.people["bob"].account_id), 1)
    village.bob.ok(f'SELECT "{box}"')
    assert village.bob.say("COPY 1:* INBOX")[0].startswith("NO [OVERQUOTA]")
    assert village.bob.say("MOVE 1:* INBOX")[0].startswith("NO [OVERQUOTA]")
    assert village.bob.ok("STATUS INBOX (MESSAGES)") == ["* STATUS INBOX (MESSAGES 0)"]
    assert len(village.bob.ok("FETCH 1:* UID")) == 3


@pytest.mark.parametrize("seed", range(3))
def test_whatever_owner_and_guest_do_at_once_they_see_the_same_and_counters_stay_right(
    seed: int, village: Village
) -> None:
    chance = random.Random(seed)
    box = village.box(EVERY)
    theirs, his = box.rpartition("/")[2], f'"{box}"'
    steps = [
        "APPEND {name} (\\Seen) " + LITERAL,
        "STORE 1 +FLAGS (\\Deleted)",
        "STORE 1:* -FLAGS (\\Seen)",
        "STORE * FLAGS (word \\Flagged)",
        "UID EXPUNGE 1:4",
        "EXPUNGE",
        "MOVE 1 {other}",
        "COPY 1:* {other}",
        "NOOP",
    ]
    village.alice.ok(f"SELECT {theirs}")
    village.bob.ok(f"SELECT {his}")
    for _ in range(60):
        talk, name, other = chance.choice([(village.alice, theirs, "Trash"), (village.bob, his, "INBOX")])
        answer, _ = talk.say(chance.choice(steps).replace("{name}", name).replace("{other}", other))
        assert not answer.startswith("NO [SERVERBUG]"), answer
        if chance.random() < 0.15:  # back again, from the other account
            talk.ok(f"SELECT {other}")
            talk.say(f"MOVE 1:2 {name}")
            talk.ok(f"SELECT {name}")
    seen = []
    for talk in (village.alice, village.bob):
        talk.ok("NOOP")
        seen.append(
            [line.replace(" \\Recent", "").replace("\\Recent", "") for line in talk.ok("FETCH 1:* (UID FLAGS)")]
        )
    assert seen[0] == seen[1]
    with db.django_transaction() as tx:
        for person in village.people.values():
            assert db.run_sync(quota.recount(tx, person.account_id)) == []


def test_imapclient_shares_and_reads_what_is_shared(imap: Running, people: Callable[[str], Person]) -> None:
    alice, bob = people("alice"), people("bob")
    with (
        imapclient.IMAPClient(HOST, imap.port, ssl=False) as hers,
        imapclient.IMAPClient(HOST, imap.port, ssl=False) as his,
    ):
        hers.login(alice.address, alice.password)
        his.login(bob.address, bob.password)
        hers.create_folder("Été")
        hers.append("Été", MESSAGE.encode())
        hers.setacl("Été", bob.address, "lrs")
        assert hers.getacl("Été") == [(alice.address.encode(), b"lrswipkxteacd"), (bob.address.encode(), b"lrs")]
        ((prefix, separator),) = his.namespace().other
        name = f"{prefix}{alice.address}{separator}Été"
        assert name in [folder for _, _, folder in his.list_folders()]
        assert his.select_folder(name)[b"EXISTS"] == 1
        assert his.fetch([1], ["BODY[]"])[1][b"BODY[]"] == MESSAGE.encode()
        assert hers.folder_status("Été", ["UNSEEN"]) == {b"UNSEEN": 0}
        provision.set_quota(Account.objects.get(pk=bob.account_id), 10_240, 5)
        assert {(one.resource, one.usage, one.limit) for one in his.get_quota()} == {
            ("STORAGE", 0, 10),
            ("MESSAGE", 0, 5),
        }


def test_who_leaves_has_no_rights_left_and_takes_his_mailboxes_along(village: Village) -> None:
    box = village.box(EVERY)
    theirs = box.rpartition("/")[2]
    village.alice.ok(f"SETACL {theirs} {village.people['carol'].address} lr")
    provision.remove_account(Account.objects.get(pk=village.people["carol"].account_id))
    alice, bob = village.people["alice"].address, village.people["bob"].address
    assert village.alice.ok(f"GETACL {theirs}") == [f"* ACL {theirs} {alice} {EVERY}cd {bob} {EVERY}cd"]
    provision.remove_account(Account.objects.get(pk=village.people["alice"].account_id))
    assert village.bob.say(f'SELECT "{box}"')[0].startswith("NO [NONEXISTENT]")
    assert village.bob.ok('LIST "" "Other*"') == []
