"""MT-PRIORITY (RFC 6710): what is urgent goes first, and what is not goes as well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailcore import db
from mailcore.store import queue, queue_admin, queue_due
from mailcore.wire.smtp.params import By
from tests.delivery.sink import EXTENSIONS
from tests.delivery.world import World


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


async def several(far: World, *priorities: int) -> None:
    for n, priority in enumerate(priorities):
        await far.submit(f"{n}@far.example", priority=priority)


@pytest.mark.parametrize(("by_age", "order"), [(0.0, "201534"), (1.0, "012345")])
async def test_the_most_urgent_is_claimed_first_and_sometimes_the_oldest(far: World, by_age: float, order: str) -> None:
    sink = await far.sink()
    far.limits = replace(far.limits, batch=1, per_destination=1, by_age=by_age)
    await several(far, 0, 0, 4, -2, -9, 0)
    await far.deliver()
    assert "".join(mail.recipients[0][0] for mail in sink.mails) == order


async def test_within_a_batch_the_most_urgent_goes_first(far: World) -> None:
    sink = await far.sink()
    await several(far, -1, 0, 3, 9)
    await far.deliver()
    assert [mail.recipients[0][0] for mail in sink.mails] == ["3", "2", "1", "0"]


async def test_a_claim_by_priority_leaves_nothing_out_and_takes_nothing_twice(far: World) -> None:
    await several(far, *(n % 19 - 9 for n in range(60)))
    seen: list[int] = []
    async with db.transaction() as tx:
        while claims := await queue.claim(tx, destination="far.example", limit=7, by_priority=True):
            found = [claim.priority for claim in claims]
            assert found == sorted(found, reverse=True) and (not seen or found[0] <= seen[-1])
            seen += found
    assert len(seen) == 60


async def test_destinations_with_urgent_mail_come_first(far: World) -> None:
    await far.submit("a@a.example", priority=-3)
    await far.submit("b@b.example")
    await far.submit("c@c.example", priority=1)
    await far.submit("d@d.example", priority=4)
    async with db.read() as tx:
        assert (await queue_due.due(tx))[:2] == ["d.example", "c.example"]
        assert sorted(await queue_due.due(tx)) == ["a.example", "b.example", "c.example", "d.example"]
        rows = await tx.fetch("SELECT id FROM outbound")
        ranked = await queue_due.destinations(tx, [row[0] for row in rows])
    assert list(ranked) == ["d.example", "c.example", "b.example", "a.example"]
    assert ranked == {"a.example": True, "b.example": False, "c.example": True, "d.example": True}


async def test_a_server_that_knows_of_it_is_told_and_so_is_the_notice(far: World) -> None:
    sink = await far.sink(extensions=(*EXTENSIONS, "MT-PRIORITY MIXER"))
    await several(far, 0, 4, -2)
    await far.deliver()
    lines = {mail.recipients[0][0]: mail.mail_line for mail in sink.mails}
    assert "MT-PRIORITY" not in lines["0"]
    assert lines["1"].endswith(" MT-PRIORITY=4") and lines["2"].endswith(" MT-PRIORITY=-2")


async def test_a_server_that_does_not_know_of_it_is_not_asked(far: World) -> None:
    sink = await far.sink()
    await several(far, 4)
    await far.deliver()
    assert "MT-PRIORITY" not in sink.mails[0].mail_line


async def test_an_administrator_sees_both(far: World) -> None:
    await far.submit(priority=4, by=By(600, "RT"))
    async with db.read() as tx:
        (row,) = await queue_admin.rows(tx)
    assert (row.priority, row.by_mode) == (4, "RT")
    assert row.deliver_by is not None and 590 < (row.deliver_by - row.queued_at).total_seconds() <= 601
