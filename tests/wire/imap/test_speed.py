"""What framing and parsing cost; run with `pytest -m bench`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mailcore.wire.imap.frames import Frame, Framer, LiteralOffer
from mailcore.wire.imap.limits import after_login
from mailcore.wire.imap.parse import parse_append_head, parse_command

pytestmark = pytest.mark.bench


def best(call: Callable[[], object], times: int) -> float:
    """Microseconds of one call, the best of some rounds."""
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(times):
            call()
        rounds.append((time.perf_counter() - began) / times * 1e6)
    return min(rounds)


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (b"A1 NOOP\r\n", 15),
        (b"A1 UID FETCH 1:* (FLAGS)\r\n", 30),
        (b"A1 UID FETCH 17 (UID BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT)])\r\n", 80),
        (b"A1 UID SEARCH OR FROM foo (UNSEEN SINCE 1-Feb-1994 NOT HEADER X-Foo bar)\r\n", 100),
    ],
)
def test_a_command_is_framed_and_parsed_in_microseconds(line: bytes, limit: float) -> None:
    framer = Framer(after_login(1 << 20))

    def command() -> None:
        framer.feed(line)
        frame = framer.next_event()
        assert isinstance(frame, Frame)
        parse_command(frame)

    spent = best(command, 2000)
    print(f"{spent:.1f} us: {line.decode().strip()}")
    assert spent < limit


def test_an_append_of_35_kb_costs_a_few_copies() -> None:
    framer = Framer(after_login(1 << 20))
    message = b"A1 APPEND INBOX (\\Seen) {35000+}\r\n" + b"x" * 35_000 + b"\r\n"

    def append() -> None:
        framer.feed(message)
        offer = framer.next_event()
        assert isinstance(offer, LiteralOffer)
        parse_append_head(offer.pieces)
        framer.accept_in_memory()
        frame = framer.next_event()
        assert isinstance(frame, Frame)
        parse_command(frame)

    spent = best(append, 500)
    print(f"{spent:.1f} us: APPEND of 35 KB, {35_000 / spent:.0f} MB/s")
    assert spent < 150
