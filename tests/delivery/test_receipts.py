"""Notices: one for all recipients that fail together, and receipts for what goes on to others (RFC 3461 §5.2.7)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from email.utils import format_datetime

import pytest

from accounts import people
from mailcore import db
from mailcore.db import Tx
from mailcore.delivery import bounce
from mailcore.delivery.engine import Engine
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.inbound import srs
from mailcore.store import notices, queue
from mailcore.store.queue import Recipient
from tests.delivery.world import ANN, BOB, RAW, World

LIST = "list@example.test"
ZOE = "zoe@other.test"
REFUSED = Outcome(Verdict.FAILED, Stage.RCPT, "5.1.1", "550 5.1.1 unknown", 550, remote=True)


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    here.names.host("near.example", (10, "mx.near.example", "127.0.0.1"))
    return here


async def alias(address: str, *targets: str) -> None:
    from tests.delivery.test_local import apart

    await apart(lambda: people.add_alias(address, targets))


async def test_recipients_that_fail_at_one_time_in_two_workers_are_told_of_in_one_report(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "550 5.1.1 nobody"))
    names = [f"r{n}@{domain}" for n in range(20) for domain in ("far.example", "near.example")]
    await far.submit(*names)
    far.limits = replace(far.limits, together=0.5)
    engine = await far.start()
    other = Engine(far.conf, far.limits, far.timeouts)
    try:
        await asyncio.gather(engine.sweep(), other.sweep())
        async with asyncio.timeout(30):
            while not await far.inbox():
                await asyncio.sleep(0.05)
        await asyncio.gather(engine.idle(), other.idle())
    finally:
        await other.stop()
    (notice,) = await far.inbox()
    assert notice.count(b"Action: failed") == len(names) > engine._limits.batch
    assert set((await far.states()).values()) == {"failed"}


async def test_what_a_dead_worker_has_not_told_another_one_tells_and_nobody_tells_it_twice(far: World) -> None:
    await far.submit(BOB, "carol@far.example")
    async with db.transaction() as tx:
        await settle(tx, [Settled(claim, REFUSED, "mx") for claim in await queue.claim(tx)])
    assert await far.inbox() == []
    async with db.read() as tx:
        (ready,) = await notices.ready(tx, 0.0)

    async def tell() -> int:
        async with db.transaction() as tx:
            return await bounce.tell_noted(tx, far.conf, [ready])

    assert sorted(await asyncio.gather(*(tell() for _ in range(5)))) == [0, 0, 0, 0, 2]
    await far.deliver()
    assert len(await far.inbox()) == 1


async def test_who_tells_of_a_message_has_it_to_himself(far: World) -> None:
    """Two workers would share its recipients out, and make two reports."""
    await far.submit(BOB, "carol@far.example")
    async with db.transaction() as tx:
        first, second = await queue.claim(tx)
        await settle(tx, [Settled(first, REFUSED, "mx")])

    async def take(tx: Tx) -> list[str]:
        return [noted.address for _, noted, _ in await notices.take(tx, [first.outbound_id])]

    async with db.transaction() as teller:
        assert await take(teller) == [first.address]
        async with db.transaction() as tx:
            await settle(tx, [Settled(second, REFUSED, "mx")])
        async with db.transaction() as other:
            assert await take(other) == []
    async with db.transaction() as tx:
        assert await take(tx) == [second.address]


async def test_notices_of_a_message_that_was_removed_are_in_nobodys_way(far: World) -> None:
    await far.submit()
    async with db.transaction() as tx:
        await settle(tx, [Settled(claim, REFUSED, "mx") for claim in await queue.claim(tx)])
        await tx.execute("DELETE FROM outbound_recipient")
        await tx.execute("DELETE FROM outbound")
    await far.deliver()
    async with db.read() as tx:
        assert await notices.ready(tx, 0.0) == []


async def test_a_report_that_cannot_be_made_keeps_no_other_from_its_reader(
    far: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x", "y"):
        await far.submit(f"{name}@far.example", raw=RAW + name.encode())
    async with db.transaction() as tx:
        await settle(tx, [Settled(claim, REFUSED, "mx") for claim in await queue.claim(tx)])
    compose = bounce.compose

    def broken(report: bounce.Report) -> bytes:
        if report.fates[0].address.startswith("x"):
            raise ValueError("a bug")
        return compose(report)

    monkeypatch.setattr(bounce, "compose", broken)
    await far.deliver()
    (notice,) = await far.inbox()
    assert b"y@far.example" in notice
    monkeypatch.undo()
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_notice SET created_at = now() - interval '1 minute'")
    await far.deliver()
    assert len(await far.inbox()) == 2


@pytest.mark.parametrize("put_off", [False, True])
async def test_a_report_that_is_late_has_the_time_of_the_attempt(far: World, put_off: bool) -> None:
    await far.submit()
    async with db.transaction() as tx:
        claims = await queue.claim(tx)
        await settle(tx, [Settled(claim, REFUSED, "mx") for claim in claims])
    async with db.transaction() as tx:
        if put_off:
            await notices.put_off(tx, [claims[0].outbound_id])
        await tx.execute("UPDATE outbound_notice SET created_at = created_at - interval '1 hour'")
        await tx.execute("UPDATE outbound_recipient SET finished_at = finished_at - interval '1 hour'")
        ((finished,),) = await tx.fetch("SELECT finished_at FROM outbound_recipient")
    await far.deliver()
    (notice,) = await far.inbox()
    assert f"\r\nLast-Attempt-Date: {format_datetime(finished)}\r\n".encode() in notice


async def test_of_a_long_message_only_the_header_is_read_for_a_notice(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", "550 5.1.1 nobody"))
    await far.submit(raw=RAW + b"a line of text\r\n" * 400_000)
    await far.deliver()
    async with db.read() as tx:
        (key,) = (await tx.fetch("SELECT blob FROM outbound"))[0]
        assert len(await queue.blob(tx, bytes(key), bounce.HEADER_AT_MOST)) == bounce.HEADER_AT_MOST
    (notice,) = await far.inbox()
    assert b"Subject: hello" in notice and len(notice) < 10_000


async def test_of_an_alias_of_several_its_sender_hears_once_that_it_went_on(far: World) -> None:
    sink = await far.sink()
    await alias(LIST, ANN, BOB, "carol@far.example")
    await far.submit(Recipient(LIST, "SUCCESS,DELAY", f"rfc822;{LIST}"))
    await far.submit(Recipient(LIST, "SUCCESS"), raw=RAW + b"2")
    await far.deliver()
    await far.deliver()
    assert sorted(
        "NOTIFY=" + line.partition("NOTIFY=")[2].split(" ")[0] for m in sink.mails for line in m.rcpt_lines
    ) == [
        *["NOTIFY=DELAY"] * 2,
        *["NOTIFY=NEVER"] * 2,
    ]
    receipts = [raw for raw in await far.inbox() if b"multipart/report" in raw]
    assert len(receipts) == 2 and all(raw.count(b"Action: expanded") == 1 for raw in receipts)


async def test_a_stranger_gets_the_receipt_of_what_went_on_with_a_sender_of_ours(far: World) -> None:
    sink = await far.sink(extensions=("PIPELINING",))
    far.names.host("other.test", (10, "mx.other.test", "127.0.0.1"))
    await alias(LIST, BOB)
    await far.submit(Recipient(LIST, "SUCCESS"), sender=ZOE, account=None, raw=RAW.replace(ANN.encode(), ZOE.encode()))
    for _ in range(3):
        await far.deliver()
    first, receipt = sink.mails
    assert first.recipients == (BOB,) and srs.is_shaped(first.sender)
    assert (receipt.sender, receipt.recipients) == ("", (ZOE,))
    assert b"Action: relayed" in receipt.data and f"To: <{ZOE}>".encode() in receipt.data
