"""UIDBATCHES (RFC 10022) and INPROGRESS (RFC 9585)."""

from __future__ import annotations

import asyncio
import re
from array import array
from contextlib import closing
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mailcore import db
from mailcore.imap.commands.batches import SMALLEST, uidbatches
from mailcore.imap.session import Session
from mailcore.store import locks
from mailcore.wire.imap.commands import BatchesArgs, Command
from tests.imap.conftest import Person
from tests.imap.running import Running
from tests.imap.test_limits import Wire
from tests.waiting import until


def _ranges(uids: list[int], args: BatchesArgs) -> list[tuple[int, int]]:
    said: list[bytes] = []
    session = SimpleNamespace(view=SimpleNamespace(uids=array("I", uids)), send=said.append)
    asyncio.run(uidbatches(cast(Session, session), Command("A1", "UIDBATCHES", args)))
    found = re.fullmatch(rb'\* UIDBATCHES \(TAG "A1"\)((?: [0-9:,]+)?)\r\n', said[0])
    assert found is not None
    pairs = [one.split(b":") for one in found[1].strip().split(b",") if one]
    return [(int(high), int(low)) for high, low in pairs]


@given(st.sets(st.integers(1, 9_000), max_size=4_000), st.integers(SMALLEST, 1_500))
def test_every_message_is_in_exactly_one_batch_of_the_size(numbers: set[int], size: int) -> None:
    uids = sorted(numbers)
    ranges = _ranges(uids, BatchesArgs(size))
    assert len(ranges) == -(-len(uids) // size)
    if not uids:
        return
    assert ranges[0][0] == uids[-1] and ranges[-1][1] == 1
    assert all(lower[0] == upper[1] - 1 for upper, lower in pairwise(ranges))
    counts = [sum(low <= uid <= high for uid in uids) for high, low in ranges]
    assert counts[:-1] == [size] * (len(ranges) - 1) and sum(counts) == len(uids)
    for first, last in ((1, 1), (2, 3), (len(ranges), len(ranges) + 7), (len(ranges) + 1, len(ranges) + 2)):
        assert _ranges(uids, BatchesArgs(size, (first, last))) == ranges[first - 1 : last]


def test_uidbatches_on_the_wire(imap: Running, alice: Person) -> None:
    for n in range(3):
        imap.deliver(alice.account_id, b"Subject: %d\r\n\r\n" % n)
    with closing(Wire(imap)) as wire:
        assert b" UIDBATCHES " in wire.log_in(alice)
        assert wire.say("b UIDBATCHES 500").startswith(b"b BAD UIDBATCHES needs a mailbox")
        assert wire.say("c SELECT INBOX").startswith(b"c OK")
        wire.file.write(b"d UIDBATCHES 500\r\ne UIDBATCHES 500 1:9\r\nf UIDBATCHES 500 2:9\r\n")
        wire.file.flush()
        said = [wire.line() for _ in range(6)]
        assert said[0] == b'* UIDBATCHES (TAG "d") 3:1\r\n' and said[2] == b'* UIDBATCHES (TAG "e") 3:1\r\n'
        assert said[4] == b'* UIDBATCHES (TAG "f")\r\n'
        assert wire.say("g UIDBATCHES 499").startswith(b"g NO [TOOFEW] ")
        assert wire.say("h UIDBATCHES 500 3:2").startswith(b"h BAD [CLIENTBUG] ")
        for words in ("", " x", " 0", " 500 1", " 500 0:1", " 500 1:*", " 99999999999"):
            assert wire.say(f"i UIDBATCHES{words}").startswith(b"i BAD "), words


def test_who_waits_for_a_long_command_hears_that_it_runs(imap: Running, alice: Person) -> None:
    imap.deliver(alice.account_id, b"Subject: x\r\n\r\n")

    async def hold() -> None:
        async with db.transaction() as tx:
            await locks.lock_account(tx, alice.account_id)
            held.set()
            await released.wait()

    async def events() -> tuple[asyncio.Event, asyncio.Event]:
        return asyncio.Event(), asyncio.Event()

    async def sweep(later: float) -> None:
        """As the server does so many seconds from now."""
        imap.server.progress.tell(asyncio.get_running_loop().time() + later)

    async def release() -> None:
        released.set()

    held, released = imap.call(events())
    with closing(Wire(imap)) as wire:
        assert b" INPROGRESS " in wire.log_in(alice)
        assert wire.say("b SELECT INBOX").startswith(b"b OK")
        holder = asyncio.run_coroutine_threadsafe(hold(), imap._loop)
        imap.call(held.wait())
        wire.file.write(b"c STORE 1 +FLAGS (\\Seen)\r\n")
        wire.file.flush()
        until(lambda: imap.server.progress._running)
        for seconds in (100, 200):
            imap.call(sweep(seconds))
            assert wire.line() == b'* OK [INPROGRESS ("c" NIL NIL)] Still working\r\n'
        imap.call(sweep(205))  # too soon to say it again
        imap.call(release())
        holder.result(60)
        assert wire.line().startswith(b"* 1 FETCH (FLAGS (\\Seen")
        assert wire.line().startswith(b"c OK")
        imap.call(sweep(300))  # nothing runs
        assert wire.say("d NOOP") == b"d OK NOOP completed\r\n"
