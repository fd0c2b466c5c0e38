"""DELIVERBY (RFC 2852): within the time, or back to the sender, or the sender is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from mailcore import db
from mailcore.delivery import bounce
from mailcore.mime.report import Report, compose
from mailcore.store import destinations
from mailcore.store.queue import Recipient
from mailcore.wire.smtp.params import By
from tests.delivery.sink import EXTENSIONS
from tests.delivery.test_bounce import Notice, notices
from tests.delivery.world import ANN, BOB, World

KNOWS = (*EXTENSIONS, "DELIVERBY 30")
BUSY = ("RCPT", "", "450 4.2.0 not now")


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


async def late(far: World, seconds: float) -> None:
    """Let the time that senders gave come nearer."""
    async with db.transaction() as tx:
        await tx.execute(
            "UPDATE outbound_recipient SET deliver_by = deliver_by - make_interval(secs => %s::float8)", (seconds,)
        )


def facts(notice: Notice) -> list[tuple[str, str]]:
    return [(fate["Action"], fate["Status"]) for fate in notice.recipients]


@pytest.mark.parametrize("mode", ["R", "N", "RT", "NT"])
async def test_the_time_that_is_left_goes_to_a_server_that_knows_of_it(far: World, mode: str) -> None:
    sink = await far.sink(extensions=KNOWS)
    await far.submit(by=By(600, mode))
    await late(far, 100)
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}
    found = re.search(r" BY=(\d+);([A-Z]+)", sink.mails[0].mail_line)
    assert found and found[2] == mode and 400 < int(found[1]) <= 500, sink.mails[0].mail_line
    told = await notices(far)
    assert [facts(notice) for notice in told] == ([[("relayed", "2.0.0")]] if "T" in mode else [])
    if told:
        assert "within the time" in told[0].words and "receipts" not in told[0].words
        assert "Deliver-By-Date" in told[0].fields


@pytest.mark.parametrize(("notify", "told"), [(None, True), ("FAILURE", True), ("NEVER", False)])
async def test_a_server_that_keeps_to_no_time_gets_it_when_the_sender_is_only_told(
    far: World, notify: str | None, told: bool
) -> None:
    """RFC 2852 §4.1.4.2: "relayed", also to whom NOTIFY did not ask to be told of it, but not for NEVER."""
    sink = await far.sink()
    await far.submit(Recipient(BOB, notify), by=By(600, "N"))
    await far.deliver()
    assert "BY=" not in sink.mails[0].mail_line
    assert [facts(notice) for notice in await notices(far)] == ([[("relayed", "2.0.0")]] if told else [])


@pytest.mark.parametrize(("extensions", "status"), [(EXTENSIONS, "5.3.3"), ((*EXTENSIONS, "DELIVERBY 900"), "5.4.7")])
async def test_a_server_that_cannot_promise_it_does_not_get_what_is_to_come_back(
    far: World, extensions: tuple[str, ...], status: str
) -> None:
    """Over a connection that has carried mail before, too."""
    sink = await far.sink(extensions=extensions)
    await far.submit("carol@far.example")
    await far.submit(by=By(600, "R"))
    await far.deliver()
    assert await far.states() == {"carol@far.example": "delivered", BOB: "failed"}
    assert len(sink.mails) == 1
    (notice,) = await notices(far)
    assert facts(notice) == [("failed", status)]
    assert ("The time that you gave for the delivery is too short." in notice.words) == (status == "5.4.7")


async def test_another_mail_host_may_promise_it(far: World) -> None:
    far.names.host("far.example", (10, "mx.far.example", "127.0.0.1"), (20, "mx2.far.example", "127.0.0.2"))
    await far.sink()
    second = await far.sink("127.0.0.2", extensions=KNOWS)
    await far.submit(by=By(600, "R"))
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}
    assert " BY=" in second.mails[0].mail_line


async def test_what_is_late_comes_back(far: World) -> None:
    """Not before, and also while it waits for its next attempt or behind a destination that is frozen."""
    sink = await far.sink(extensions=KNOWS)
    sink.refuse(BUSY)
    await far.submit(by=By(600, "R"))
    await far.deliver()
    await far.deliver()
    assert (await far.rows())[BOB]["state"] == "queued"
    assert await notices(far) == []
    await late(far, 600)
    async with db.transaction() as tx:
        await destinations.freeze(tx, "far.example")
    await far.deliver()
    assert (await far.rows())[BOB]["state"] == "failed"
    (notice,) = await notices(far)
    assert facts(notice) == [("failed", "5.4.7")]
    assert "not now" in notice.words and "The time that you gave for the delivery is over." in notice.words
    assert not sink.mails


async def test_what_is_late_is_not_sent(far: World) -> None:
    sink = await far.sink(extensions=KNOWS)
    await far.submit(by=By(600, "R"))
    await late(far, 600)
    engine = await far.start()
    engine.ring(["far.example"])
    await engine.idle()
    assert await far.states() == {BOB: "failed"}
    await far.deliver()
    assert [facts(notice) for notice in await notices(far)] == [[("failed", "5.4.7")]]
    assert not sink.mails


@pytest.mark.parametrize(("notify", "told"), [(None, 1), ("DELAY,FAILURE", 1), ("FAILURE", 0), ("NEVER", 0)])
async def test_the_sender_is_told_once_that_it_is_late_and_it_goes_on(
    far: World, notify: str | None, told: int
) -> None:
    sink = await far.sink(extensions=KNOWS)
    sink.refuse(BUSY)
    await far.submit(Recipient(BOB, notify), by=By(60, "N"))
    await far.deliver()
    before = (await far.rows())[BOB]
    await late(far, 90)
    await far.deliver()
    await far.deliver()
    assert [facts(notice) for notice in await notices(far)] == [[("delayed", "4.4.7")]] * told
    row = (await far.rows())[BOB]
    assert (row["state"], row["attempts"]) == ("queued", before["attempts"]), "the notice is no attempt"
    sink.script = None
    await far.later(300)
    await far.deliver()
    assert await far.states() == {BOB: "delivered"}
    found = re.search(r" BY=-(\d+);N", sink.mails[0].mail_line)
    assert found and int(found[1]) >= 30, sink.mails[0].mail_line


async def test_a_report_that_cannot_be_made_keeps_nothing_else_from_being_told_or_sent(
    far: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep that finds mail late has more to do."""

    def broken(report: Report) -> bytes:
        if report.fates[0].address.startswith("odd@"):
            raise ValueError("no report can be made of this")
        return compose(report)

    monkeypatch.setattr(bounce, "compose", broken)
    sink = await far.sink(extensions=KNOWS)
    sink.refuse(BUSY)
    await far.submit("odd@far.example", by=By(60, "N"))
    await far.submit(by=By(60, "N"))
    await far.deliver()
    await late(far, 90)
    sink.script = None
    await far.later(300)
    await far.deliver()
    assert (await far.states())[BOB] == "delivered"
    assert [facts(notice) for notice in await notices(far)] == [[("delayed", "4.4.7")]]


async def test_held_back_mail_has_its_time_from_when_it_may_leave(far: World) -> None:
    await far.submit(by=By(60, "R"), send_after=datetime.now(UTC) + timedelta(hours=1))
    await far.deliver()
    async with db.read() as tx:
        rows = await tx.fetch("SELECT extract(epoch FROM deliver_by - now())::int, state FROM outbound_recipient")
    assert rows[0][1] == "queued" and 3600 < rows[0][0] <= 3660


async def test_mail_for_somebody_here_is_in_time(far: World) -> None:
    await far.submit(ANN, by=By(60, "RT"))
    await far.deliver()
    assert await far.states() == {ANN: "delivered"}
    assert len(await far.inbox()) == 1
