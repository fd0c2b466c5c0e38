"""MESSAGELIMIT (RFC 9738): the newest messages first, and where to go on."""

from __future__ import annotations

from array import array
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.imap import messagelimit
from mailcore.imap.session import Session
from mailcore.store.flags import DELETED
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=8), st.integers(1, 20))
def test_the_newest_are_kept(gaps: list[tuple[int, int]], most: int) -> None:
    slices, at = [], 0
    for gap, length in gaps:
        slices.append(slice(at + gap, at + gap + length))
        at += gap + length
    uids = array("I", range(100, 100 + 2 * at, 2))
    limits = SimpleNamespace(messages=most)
    session = cast(Session, SimpleNamespace(server=SimpleNamespace(limits=limits), view=SimpleNamespace(uids=uids)))
    wanted = [uid for part in slices for uid in uids[part]]
    kept, code = messagelimit.within(session, slices)
    handled = [uid for part in kept for uid in uids[part]]
    assert handled == wanted[-most:]
    assert code == (b"MESSAGELIMIT %d %d" % (most, handled[0]) if len(wanted) > most else None)


def test_a_command_that_names_too_many_handles_the_newest_or_none(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap.server, "limits", replace(imap.server.limits, messages=3))
    for n in range(5):
        imap.deliver(alice.account_id, b"Subject: %d\r\n\r\n" % n)
    with closing(Wire(imap)) as wire:
        assert b" MESSAGELIMIT=3 " in wire.log_in(alice)
        assert wire.say("b SELECT INBOX").startswith(b"b OK")
        wire.file.write(b"c FETCH 1:* (UID)\r\n")
        wire.file.flush()
        assert [wire.line() for _ in range(4)] == [
            *(b"* %d FETCH (UID %d)\r\n" % (n, n) for n in (3, 4, 5)),
            b"c OK [MESSAGELIMIT 3 3] FETCH completed\r\n",
        ]
        assert wire.say("d UID FETCH 1:2 (UID)") == b"d OK FETCH completed\r\n"
        assert wire.say("e UID STORE 1:4 +FLAGS.SILENT (\\Flagged)") == b"e OK [MESSAGELIMIT 3 2] STORE completed\r\n"
        wire.file.write(b"f SEARCH FLAGGED\r\n")
        wire.file.flush()
        assert [wire.line(), wire.line()] == [b"* SEARCH 2 3 4\r\n", b"f OK SEARCH completed\r\n"]
        for verb in ("COPY", "UID COPY", "MOVE", "UID MOVE"):
            assert wire.say(f"g {verb} 1:4 Archive").startswith(b"g NO [MESSAGELIMIT 3] ")
        assert wire.say("h COPY 1:3 Archive").startswith(b"h OK [COPYUID ")
        assert wire.say("i UID MOVE 3:5 Archive").startswith(b"i OK")
        # EXPUNGE names no messages: it removes them all.
        for n in range(4):
            imap.deliver(alice.account_id, b"Subject: %d\r\n\r\n" % n, flags=DELETED)
        assert wire.say("j EXPUNGE").startswith(b"j OK")
        assert wire.say("k UID FETCH 1:2 (UID)") == b"k OK FETCH completed\r\n"
        assert wire.say("l FETCH 3 (UID)").startswith(b"l BAD")


def test_a_thread_command_takes_so_many_messages_into_memory_and_no_more(
    imap: Running, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap.server, "limits", replace(imap.server.limits, threads=3))
    for n in range(5):
        imap.deliver(alice.account_id, b"Subject: %d\r\n\r\n" % n)
    with closing(Wire(imap)) as wire:
        wire.log_in(alice)
        assert wire.say("b SELECT INBOX").startswith(b"b OK")
        for algorithm in ("ORDEREDSUBJECT", "REFERENCES", "REFS"):
            assert wire.say(f"c THREAD {algorithm} UTF-8 ALL").startswith(b"c NO [LIMIT] ")
            wire.file.write(f"d UID THREAD {algorithm} UTF-8 UID 2:4\r\n".encode())
            wire.file.flush()
            assert [wire.line(), wire.line()] == [b"* THREAD (2)(3)(4)\r\n", b"d OK THREAD completed\r\n"]
        monkeypatch.setattr(imap.server, "limits", replace(imap.server.limits, threads=5))
        assert wire.say("e THREAD REFS UTF-8 ALL").startswith(b"e OK")
        assert wire.say("f THREAD REFS UTF-8 ALL").startswith(b"f OK")
