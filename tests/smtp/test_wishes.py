"""DELIVERBY (RFC 2852) and MT-PRIORITY (RFC 6710): what may be wished for, and what becomes of it in the queue."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from django.db import connection

from accounts import people, policies
from mailcore import db
from tests.smtp.world import ANN, MESSAGE, Village, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MINE = MESSAGE.replace(b"far@elsewhere.example", ANN.encode())
FAR = "far@elsewhere.example"
WISHES = (
    "o.by_mode, extract(epoch FROM r.deliver_by - greatest(o.created_at, o.send_after))::int, r.priority, r.address"
)


async def queued() -> list[tuple[object, ...]]:
    async with db.read() as tx:
        return await tx.fetch(
            f"SELECT {WISHES} FROM outbound o JOIN outbound_recipient r ON r.outbound_id = o.id ORDER BY r.id"
        )


def settle(*words: str) -> None:
    try:
        policies.change(people.get_account(ANN), words)
    finally:
        connection.close()


async def test_what_may_be_wished_for_and_how_it_is_written(village: Village, tmp_path: Path) -> None:
    good = [
        *("BY=10;R", "BY=+999999999;rt", "by=3600;N", "BY=0;N", "BY=-999999999;NT"),
        *("MT-PRIORITY=0", "MT-PRIORITY=-9", "mt-priority=4", "BY=60;R MT-PRIORITY=1 SIZE=100 RET=HDRS"),
    ]
    bad = [
        *(("BY", "501 5.5.4"), ("BY=", "501 5.5.4"), ("BY=60", "501 5.5.4"), ("BY=60;", "501 5.5.4")),
        *(("BY=60;X", "501 5.5.4"), ("BY=60;RN", "501 5.5.4"), ("BY=60;RTT", "501 5.5.4"), ("BY=;R", "501 5.5.4")),
        *(("BY=1234567890;R", "501 5.5.4"), ("BY=--1;N", "501 5.5.4"), ("BY=1.5;R", "501 5.5.4")),
        *(("BY=\u0661;R", "501 5.5.4"), ("BY=60;R BY=60;R", "501 5.5.4")),
        # What is to come back cannot be late already (§4), nor sooner than EHLO said (§3).
        *(("BY=0;R", "501 5.5.4"), ("BY=-5;RT", "501 5.5.4"), ("BY=9;R", "555 5.5.4")),
        *(("MT-PRIORITY", "501 5.5.4"), ("MT-PRIORITY=", "501 5.5.4"), ("MT-PRIORITY=10", "501 5.5.4")),
        *(("MT-PRIORITY=-10", "501 5.5.4"), ("MT-PRIORITY=+1", "501 5.5.4"), ("MT-PRIORITY=-0", "501 5.5.4")),
        *(("MT-PRIORITY=01", "501 5.5.4"), ("MT-PRIORITY=1 MT-PRIORITY=1", "501 5.5.4")),
    ]
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for words in good:
            await client.expect(f"MAIL FROM:<{ANN}> {words}", "250 2.1.0")
            await client.expect("RSET", "250")
        for words, answer in bad:
            await client.expect(f"MAIL FROM:<{ANN}> {words}", answer)
        await client.expect(f"MAIL FROM:<{ANN}>", "250 2.1.0")


async def test_what_is_wished_for_is_kept_with_the_message(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for words in ("BY=600;RT MT-PRIORITY=3", "BY=600;N HOLDFOR=3600", "BY=-60;N", "MT-PRIORITY=-4", ""):
            reply = await client.deliver(MINE, FAR, ANN, f" {words}".rstrip())
            assert reply.startswith("250"), reply
        assert await queued() == [
            ("RT", 600, 3, FAR),
            ("N", 600, 0, FAR),
            ("N", -60, 0, FAR),
            (None, None, -4, FAR),
            (None, None, 0, FAR),
        ]


async def test_how_urgent_an_accounts_mail_may_be_is_a_policy(village: Village, tmp_path: Path) -> None:
    """RFC 6710 §4.1: what is lowered is taken, and the reply begins with the priority that it got."""
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect(f"MAIL FROM:<{ANN}> MT-PRIORITY=9", "250 2.3.6 4 ")
        await client.expect("RSET", "250")
        await asyncio.to_thread(settle, "max-priority=6")
        await client.expect(f"MAIL FROM:<{ANN}> MT-PRIORITY=6", "250 2.1.0")
        await client.expect("RSET", "250")
        await client.expect(f"MAIL FROM:<{ANN}> MT-PRIORITY=7", "250 2.3.6 6 ")
        await client.expect(f"RCPT TO:<{FAR}>", "250")
        await client.expect("DATA", "354")
        await client.expect(MINE + b".", "250 2.0.0")
        assert [row[2] for row in await queued()] == [6]


async def test_strangers_are_not_urgent_and_nothing_comes_back_to_them(village: Village, tmp_path: Path) -> None:
    """RFC 6710 §5.1. For mailboxes here any time will do; what goes on elsewhere cannot be promised to whom nobody
    can be told of it."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example> MT-PRIORITY=4 BY=60;R", "250 2.3.6 0 ")
        await client.expect("RCPT TO:<away@example.org>", "550 5.3.3")
        await client.expect("RCPT TO:<both@example.org>", "550 5.3.3")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        await client.expect("RCPT TO:<bob@example.org> NOTIFY=SUCCESS", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1
        reply = await client.deliver(MESSAGE, "away@example.org", parameters=" BY=60;NT MT-PRIORITY=-3")
        assert reply.startswith("250"), reply
        assert await queued() == [(None, None, 0, "bob@example.org"), ("NT", 60, -3, FAR)]


async def test_a_message_whose_time_is_over_when_it_is_there_is_refused(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        await client.expect(f"MAIL FROM:<{ANN}> BY=60;R", "250")
        await client.expect(f"RCPT TO:<{FAR}>", "250")
        await client.expect("DATA", "354")
        (session,) = world.server.sessions
        assert session.transaction is not None
        session.transaction.began -= 61
        await client.expect(MINE + b".", "554 5.4.7")
        await client.expect("NOOP", "250")
        assert await queued() == []
