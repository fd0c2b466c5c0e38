"""Every limit of what a client may say: one more than is allowed gets the protocol's answer; the session goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from mailcore.imap import contexts
from mailcore.store import acl as store_acl
from mailcore.store import flags, mailboxes, metadata
from mailcore.wire.imap import acl, limits, quota
from mailcore.wire.imap import metadata as wire_metadata
from mailcore.wire.imap import notify as wire_notify
from mailcore.wire.imap.limits import BEFORE_LOGIN, after_login
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire

pytestmark = pytest.mark.usefixtures("db")  # a test that runs alone needs it, too

MESSAGE = 2 * 1024 * 1024
AFTER = after_login(MESSAGE)


def words(count: int, form: str = "x{}", between: str = " ") -> str:
    return between.join(form.format(number) for number in range(count))


def literals(*sizes: int) -> str:
    return " ".join(f"{{{size}+}}\r\n{'x' * size}" for size in sizes)


# What is said without a login, and how the answer begins.
STRANGERS = {
    "line": ("LOGIN " + "x" * BEFORE_LOGIN.line, "BAD [LIMIT]"),
    "literal": (f"LOGIN {literals(BEFORE_LOGIN.literal + 1)} y", "BAD [TOOBIG]"),
    "literal-announced": (f"LOGIN {{{BEFORE_LOGIN.literal + 1}}}", "BAD [TOOBIG]"),
    "command": (f"LOGIN {literals(8000, 8000, 8000)}", "BAD [TOOBIG]"),
    "append": ("APPEND INBOX {100+}\r\n" + "x" * 100, "BAD"),
    "append-announced": ("APPEND INBOX {100000}", "BAD [TOOBIG]"),
    "sasl": ("AUTHENTICATE PLAIN\r\n" + "A" * 20_000, "BAD"),
    "id": (f"ID ({words(limits.MAX_ID_FIELDS + 1, chr(34) + 'k{}' + chr(34) + ' NIL')})", "BAD [LIMIT]"),
}

# The same with a login and a mailbox that holds one message.
LOGGED_IN = {
    "line": ("SEARCH SUBJECT " + "x" * AFTER.line, "BAD [LIMIT]"),
    "lines": ("SEARCH" + literals(1, 1).replace(" ", " " + "y" * 40_000) * 2, "BAD"),
    "literal": (f"SEARCH TEXT {literals(AFTER.literal + 1)}", "BAD [TOOBIG]"),
    "command": (f"SEARCH TEXT {literals(200_000)} TEXT {literals(200_000)} TEXT {literals(200_000)}", "BAD [TOOBIG]"),
    "tag": ("x" * (limits.MAX_TAG + 1) + " NOOP", None),
    "message": (f"APPEND INBOX {{{MESSAGE + 1}}}", "NO [TOOBIG]"),
    "message-sent": (f"APPEND INBOX {literals(MESSAGE + 1)}", "BAD [TOOBIG]"),
    "messages": (f"APPEND INBOX {literals(MESSAGE, MESSAGE, 1000)}", "NO [TOOBIG]"),
    "messages-count": (f"APPEND INBOX {literals(*[1] * (limits.MAX_APPEND_MESSAGES + 1))}", "BAD [LIMIT]"),
    "catenate": (
        f"APPEND INBOX CATENATE ({words(limits.MAX_CATENATE_PARTS + 1, 'URL /INBOX/;UID={}')})",
        "BAD [LIMIT]",
    ),
    "flags": (f"STORE 1 +FLAGS ({words(limits.MAX_FLAGS + 1)})", "BAD [LIMIT]"),
    "keywords": (f"STORE 1 +FLAGS ({words(flags.MAX_KEYWORDS + 1)})", "NO [LIMIT]"),
    "keyword": (f"STORE 1 +FLAGS ({'k' * (flags.MAX_KEYWORD_LENGTH + 1)})", "NO [CANNOT]"),
    "set": (f"FETCH {words(limits.MAX_SET_RANGES + 1, '1', ',')} FLAGS", "BAD [LIMIT]"),
    "number": ("FETCH 4294967296 FLAGS", "BAD"),
    "items": (f"FETCH 1 ({words(limits.MAX_FETCH_ITEMS + 1, 'UID')})", "BAD [LIMIT]"),
    "fields": (f"FETCH 1 BODY[HEADER.FIELDS ({words(limits.MAX_HEADER_FIELDS + 1)})]", "BAD [LIMIT]"),
    "part": (f"FETCH 1 BODY[{words(limits.MAX_PART_DEPTH + 1, '1', '.')}]", "BAD"),
    "depth": ("SEARCH " + "(" * 102 + "ALL" + ")" * 102, "BAD [LIMIT]"),
    "not": ("SEARCH " + "NOT " * 102 + "ALL", "BAD [LIMIT]"),
    "keys": ("SEARCH " + "ALL " * limits.MAX_SEARCH_KEYS + "ALL", "BAD [LIMIT]"),
    "sort": (f"SORT ({words(limits.MAX_SORT_KEYS + 1, 'DATE')}) UTF-8 ALL", "BAD [LIMIT]"),
    "sources": (f"ESEARCH IN (mailboxes ({words(limits.MAX_SOURCES + 1)})) ALL", "BAD [LIMIT]"),
    "tags": (f"CANCELUPDATE {words(limits.MAX_TAGS + 1, chr(34) + 'x{}' + chr(34))}", "BAD [LIMIT]"),
    "patterns": (f'LIST "" ({words(limits.MAX_LIST_PATTERNS + 1)})', "BAD [LIMIT]"),
    "name": (f"CREATE {'n' * (mailboxes.MAX_NAME + 1)}", "NO [CANNOT]"),
    "name-octets": (f"CREATE {'n' * (limits.MAX_NAME_OCTETS + 1)}", "NO"),
    "levels": (f"CREATE {words(mailboxes.MAX_DEPTH + 1, 'n', '/')}", "NO [CANNOT]"),
    "value": (f"SETMETADATA INBOX (/private/x {literals(metadata.MAX_VALUE + 1)})", "NO [METADATA MAXSIZE 65536]"),
    "entries": (
        f"SETMETADATA INBOX ({words(wire_metadata.MAX_ENTRIES + 1, '/private/x{} NIL')})",
        "BAD [LIMIT]",
    ),
    "entries-asked": (f"GETMETADATA INBOX ({words(wire_metadata.MAX_ENTRIES + 1, '/private/x{}')})", "BAD [LIMIT]"),
    "entry": (f"SETMETADATA INBOX (/private/{'x' * wire_metadata.MAX_ENTRY_OCTETS} NIL)", "BAD"),
    "identifier": (f"SETACL INBOX {'x' * (acl.MAX_IDENTIFIER_OCTETS + 1)} r", "BAD"),
    "resources": (f'SETQUOTA "" ({words(quota.MAX_RESOURCES + 1, "STORAGE {}")})', "BAD [LIMIT]"),
    "groups": (f"NOTIFY SET {words(wire_notify.MAX_GROUPS + 1, '(subtree x{} (MailboxName))')}", "BAD [LIMIT]"),
    "names": (
        f"NOTIFY SET (mailboxes ({words(wire_notify.MAX_NAMES + 1)}) (MessageNew MessageExpunge))",
        "BAD [LIMIT]",
    ),
    "enable": ("ENABLE " + words(20_000), "BAD [LIMIT]"),
    "idle": ("IDLE\r\n" + "x" * 1_000, "BAD"),
}


@pytest.fixture
def stranger(imap: Running) -> Iterator[Wire]:
    with closing(Wire(imap)) as wire:
        wire.line()
        yield wire


@pytest.fixture
def known(imap: Running, alice: Person) -> Iterator[Wire]:
    imap.deliver(alice.account_id, b"Subject: one\r\n\r\n1\r\n")
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        assert wire.say("b SELECT INBOX").startswith(b"b OK")
        yield wire


def beyond(wire: Wire, said: str, wanted: str | None) -> None:
    """The answer is the one wanted (None: without a tag), and the next command is understood."""
    tag = "t " if wanted is not None else ""
    wire.file.write(f"{tag}{said}\r\nz NOOP\r\n".encode())
    wire.file.flush()
    lines = []
    while not (lines and lines[-1].startswith(b"z ")):
        lines.append(wire.line())
        assert lines[-1], lines
    expected = f"t {wanted}" if wanted is not None else "* BAD"
    assert any(line.startswith(expected.encode()) for line in lines), lines
    assert lines[-1].startswith(b"z OK")
    assert wire.say("y NOOP").startswith(b"y OK")


@pytest.mark.parametrize("what", STRANGERS)
def test_before_the_login(stranger: Wire, what: str) -> None:
    beyond(stranger, *STRANGERS[what])


@pytest.mark.parametrize("what", LOGGED_IN)
def test_after_the_login(known: Wire, what: str) -> None:
    beyond(known, *LOGGED_IN[what])


@pytest.mark.parametrize("what", ["SEARCH (((((((ALL)))))))", "SEARCH " + "NOT " * 49 + "ALL", "SEARCH" + " ALL" * 999])
def test_what_is_just_allowed_is_answered(known: Wire, what: str) -> None:
    assert known.say(f"c {what}").startswith(b"c OK")


def test_a_literal_beyond_the_discardable_ends_the_session_with_a_reason(known: Wire) -> None:
    known.file.write(b"c SEARCH TEXT {999999999999+}\r\nz NOOP\r\n")
    known.file.flush()
    assert known.line().startswith(b"c BAD [TOOBIG] ")
    assert known.line() == b"* BYE Your input cannot be followed any more\r\n"
    assert known.line() == b""


@pytest.mark.parametrize(
    ("module", "name", "value", "commands", "answer"),
    [
        (
            metadata,
            "MAX_ENTRIES",
            2,
            [f'SETMETADATA INBOX (/private/x{n} "1")' for n in range(3)],
            "NO [METADATA TOOMANY]",
        ),
        (metadata, "MAX_OCTETS", 9, ['SETMETADATA INBOX (/shared/x "1234567890")'], "NO [METADATA TOOMANY]"),
        (mailboxes, "MAX_MAILBOXES", 8, [f"CREATE New{n}" for n in range(8)], "NO [LIMIT]"),
        (store_acl, "MAX_GRANTS", 0, ["SETACL INBOX anyone r"], "NO [LIMIT]"),
        (contexts, "MAX_CONTEXTS", 1, ["SEARCH RETURN (UPDATE) ALL", "SEARCH RETURN (UPDATE) UNSEEN"], None),
    ],
    ids=["metadata", "metadata-octets", "mailboxes", "grants", "contexts"],
)
def test_what_an_account_may_have(
    known: Wire,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    value: int,
    commands: list[str],
    answer: str | None,
) -> None:
    monkeypatch.setattr(module, name, value)
    for number, command in enumerate(commands):
        known.file.write(f"t{number} {command}\r\n".encode())
    known.file.write(b"z NOOP\r\n")
    known.file.flush()
    lines = []
    while not (lines and lines[-1].startswith(b"z ")):
        lines.append(known.line())
    if answer is None:
        assert any(line.startswith(b'* NO [NOUPDATE "t1"]') for line in lines), lines
    else:
        assert any(line.startswith(f"t{len(commands) - 1} {answer}".encode()) for line in lines), lines
    assert lines[-1].startswith(b"z OK")


def test_too_many_mailboxes_to_watch_switch_notify_off(imap: Running, known: Wire) -> None:
    before, imap.server.limits = imap.server.limits, replace(imap.server.limits, notify=2)
    try:
        known.file.write(b"c NOTIFY SET (personal (MessageNew MessageExpunge))\r\n")
        known.file.flush()
        assert known.line().startswith(b"* OK [NOTIFICATIONOVERFLOW] ")
        assert known.line().startswith(b"c OK")
    finally:
        imap.server.limits = before
    assert known.say("d NOOP").startswith(b"d OK")


def test_bad_commands_in_a_row_end_a_session_with_a_reason(imap: Running, known: Wire) -> None:
    for _ in range(imap.server.limits.errors_logged_in - 1):
        assert known.say("c NONSENSE").startswith(b"c BAD")
    assert known.say("d NOOP").startswith(b"d OK")  # which begins a new row
    for _ in range(imap.server.limits.errors_logged_in):
        assert known.say("c NONSENSE").startswith(b"c BAD")
    assert known.line() == b"* BYE Too many errors\r\n"
