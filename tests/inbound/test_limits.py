"""How much people may send, when what they send may leave, and as whom."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection

from accounts import groups, people, policies, rights
from mailcore import db
from mailcore.auth import senders
from mailcore.conf import conf
from mailcore.errors import Code, MailError
from mailcore.inbound import sending
from mailcore.inbound.envelope import Envelope, Recipient, Source
from mailcore.inbound.sending import counted
from mailcore.store import limits
from tests.inbound.settling import settle
from tests.smtp.world import ANN, BOB, CHARLIE, Client, Village, running
from tests.store.test_concurrency import waits_for_a_lock

pytestmark = [pytest.mark.django_db(transaction=True)]


def message(author: str = ANN) -> bytes:
    return f"From: {author}\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nHello.\r\n".encode()


def allow(address: str, *words: str):  # type: ignore[no-untyped-def]  # what it yields
    if "@" in address:
        return lambda: policies.change(people.get_account(address), words)
    return lambda: policies.change(people.get_domain(address), words)


async def send(client: Client, count: int, sender: str = ANN) -> str:
    """A message to so many; the first refusal or the last reply."""
    replies = [await client.ask(f"MAIL FROM:<{sender}>")]
    for number in range(count):
        if replies[-1].startswith("250"):
            replies.append(await client.ask(f"RCPT TO:<far{number}@elsewhere.example>"))
    if replies[-1].startswith("250"):
        await client.expect("DATA", "354")
        return await client.ask(message(sender) + b".")
    await client.expect("RSET", "250")
    return replies[-1]


async def test_too_many_recipients_are_refused_for_now_with_the_time_when_there_are_more(
    village: Village, tmp_path: Path
) -> None:
    await settle(
        allow(ANN, "recipients-per-hour=5", "recipients-per-day=100"), allow("example.org", "recipients-per-hour=4")
    )
    async with running(tmp_path) as world:
        async with world.client("submission") as client:
            await client.login()
            assert (await send(client, 3)).startswith("250")
            refused = await send(client, 3)
            assert re.fullmatch(
                r"450 4\.7\.1 Your account may send to 5 recipients an hour; more at \d\d:\d\d UTC", refused
            )
            at = datetime.strptime(refused[-9:-4], "%H:%M").replace(tzinfo=UTC).time()
            soon = datetime.now(UTC) + timedelta(minutes=54)
            assert any((soon + timedelta(minutes=more)).strftime("%H:%M") == at.strftime("%H:%M") for more in range(9))
            # What was refused has not been counted: two are left.
            assert (await send(client, 2)).startswith("250")
            assert (await client.ask(f"MAIL FROM:<{ANN}>")).startswith("450 4.7.1 Your account may send to 5")
        # Another session, and another account.
        async with world.client("submissions") as client:
            await client.login()
            await client.expect(f"MAIL FROM:<{ANN}>", "450 4.7.1")
        async with world.client("submissions") as client:
            await client.login(BOB)
            # More than there will ever be room for: no time is named.
            assert await send(client, 5, BOB) == "450 4.7.1 Your account may send to 4 recipients an hour"
            assert (await send(client, 4, BOB)).startswith("250")


async def test_messages_of_a_domain_and_of_an_address_are_counted_together(village: Village, tmp_path: Path) -> None:
    await settle(
        allow("example.org", "domain-messages-per-hour=3", "address-messages-per-day=2"),
        lambda: rights.grant(people.get_account(BOB), ANN),
    )
    async with running(tmp_path) as world:
        async with world.client("submission") as client:
            await client.login()
            assert (await send(client, 1)).startswith("250")
        async with world.client("submission") as client:
            await client.login(BOB)
            assert (await send(client, 1, "ann+x@example.org")).startswith("250")
            assert (await send(client, 1, ANN)).startswith("450 4.7.1 This sender address may send 2 messages a day")
            assert (await send(client, 1, BOB)).startswith("250")
            assert (await send(client, 1, BOB)).startswith("450 4.7.1 Your domain may send 3 messages an hour; more at")
        async with world.client("submission") as client:
            await client.login(CHARLIE)
            assert (await send(client, 1, CHARLIE)).startswith("250")


async def test_a_message_that_is_refused_after_all_is_given_back(village: Village, tmp_path: Path) -> None:
    await settle(allow(ANN, "messages-per-hour=2"))
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for _ in range(3):
            await client.expect(f"MAIL FROM:<{ANN}>", "250")
            await client.expect("RCPT TO:<far@elsewhere.example>", "250")
            await client.expect("DATA", "354")
            await client.expect(b"Received: x\r\n" * 60 + message() + b".", "554 5.4.6")
        for _ in range(3):
            with pytest.raises(RuntimeError):
                async with counted(Envelope("t" * 15, Source("", "", ""), ANN, (Recipient(BOB),), village.ann)):
                    raise RuntimeError
        assert (await send(client, 1)).startswith("250")
        assert (await send(client, 1)).startswith("250")
        assert (await send(client, 1)).startswith("450")


async def test_many_messages_at_once_do_not_get_past_together(village: Village, tmp_path: Path) -> None:
    await settle(allow(ANN, "recipients-per-hour=7"))
    async with running(tmp_path):

        async def take() -> bool:
            try:
                async with db.transaction() as tx:
                    return await limits.take(tx, village.ann, ANN, 1) is not None
            except MailError as error:
                assert error.code is Code.TOO_MANY
                return False

        assert sum(await asyncio.gather(*(take() for _ in range(40)))) == 7


async def test_messages_on_both_sides_of_a_five_minute_boundary_do_not_get_past_together(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has begun in the span before, and has not committed yet."""
    await settle(allow(ANN, "recipients-per-hour=1"))
    async with running(tmp_path):

        async def take() -> limits.Taken | None:
            async with db.transaction() as tx:
                return await limits.take(tx, village.ann, ANN, 1)

        async with db.transaction() as first:
            with monkeypatch.context() as earlier:
                earlier.setattr(limits, "COUNT", limits.COUNT.replace("now()", "(now() - interval '5 minutes')"))
                assert await limits.take(first, village.ann, ANN, 1) is not None
            second = asyncio.create_task(take())
            await waits_for_a_lock(first)
        with pytest.raises(MailError, match="1 recipients an hour"):
            await second


async def test_limits_end_with_time_and_counts_are_forgotten(village: Village, tmp_path: Path) -> None:
    await settle(allow(ANN, "recipients-per-hour=5", "recipients-per-day=8"))
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        assert (await send(client, 5)).startswith("250")
        assert (await send(client, 1)).startswith("450")

        async def hours_pass(hours: int) -> None:
            async with db.transaction() as tx:
                await tx.execute(f"UPDATE sending_count SET began = began - interval '{hours} hours'")

        await hours_pass(2)
        assert (await send(client, 4)).startswith("450 4.7.1 Your account may send to 8 recipients a day")
        assert (await send(client, 3)).startswith("250")
        await hours_pass(23)
        assert (await send(client, 5)).startswith("250")
        async with db.transaction() as tx:
            assert await limits.forget(tx) == 0
        await hours_pass(48)
        async with db.transaction() as tx:
            counts = await tx.one("SELECT count(*) FROM sending_count")
            assert counts and await limits.forget(tx) == counts[0] > 0


async def test_people_send_as_what_they_were_granted_and_nothing_else(village: Village, tmp_path: Path) -> None:
    await settle(
        lambda: rights.grant(people.get_account(ANN), BOB),
        lambda: rights.grant(people.get_account(ANN), "example.net"),
        lambda: groups.add_group("team@example.org", [ANN, CHARLIE], send_as=True),
        lambda: groups.add_group("quiet@example.org", [ANN]),
        lambda: people.add_domain_alias("example.com", "example.org"),
    )
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        for address, reply in (
            (BOB, "250"),
            ("bob+x@example.com", "250"),
            ("ann@example.com", "250"),
            (CHARLIE, "250"),
            ("anything@example.net", "250"),
            ("team@example.org", "250"),
            ("quiet@example.org", "550 5.7.1 You may not"),
            ("nobody@example.org", "550 5.7.1 You may not"),
            ("ann@elsewhere.example", "550 5.7.1 You may not"),
        ):
            # In the envelope, and in From.
            await client.expect(f"MAIL FROM:<{address}>", reply)
            await client.expect("RSET", "250")
            await client.expect(f"MAIL FROM:<{ANN}>", "250")
            await client.expect(f"RCPT TO:<{BOB}>", "250")
            await client.expect("DATA", "354")
            await client.expect(message(address) + b".", reply[:9].rstrip("."))
        await settle(lambda: rights.revoke(people.get_account(ANN), BOB))
        await asyncio.sleep(senders.KEEP + 0.1)
        await client.expect(f"MAIL FROM:<{BOB}>", "550 5.7.1")


async def test_mail_is_held_back_until_the_moment_that_was_asked_for(village: Village, tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    async with running(tmp_path) as world:
        async with world.client("submission") as client:
            lines = await client.ask("EHLO client.example")
            offer = re.search(r"FUTURERELEASE (\d+)( )(\S+)", lines)
            assert offer
            interval, _, latest = offer.groups()
            expected = datetime.now(UTC) + timedelta(seconds=int(interval))
            assert abs(datetime.fromisoformat(latest) - expected) < timedelta(minutes=1)
            await client.login()
            for parameter, reply in (
                ("HOLDFOR=0", "250"),
                (f"HOLDFOR={interval}", "250"),
                (f"HOLDFOR={int(interval) + 3600}", "501 5.5.4 Mail can be held back"),
                ("HOLDFOR=9999999999", "501"),
                ("HOLDFOR=-1", "501"),
                ("HOLDFOR", "501"),
                ("HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z", "501"),
                (f"HOLDUNTIL={latest}", "250"),
                ("HOLDUNTIL=2020-01-01T00:00:00Z", "250"),
                ("HOLDUNTIL=2090-01-01T00:00:00Z", "501"),
                ("HOLDUNTIL=2030-13-01T00:00:00Z", "501"),
                ("HOLDUNTIL=2030-01-01T00:00:00", "501"),
                ("HOLDUNTIL=tomorrow", "501"),
            ):
                await client.expect(f"MAIL FROM:<{ANN}> {parameter}", reply)
                await client.expect("RSET", "250")
            await client.expect(f"MAIL FROM:<{ANN}> HOLDUNTIL={later:%Y-%m-%dT%H:%M:%S}+00:00", "250")
            for address in (BOB, "far@elsewhere.example", "postmaster"):
                await client.expect(f"RCPT TO:<{address}>", "250")
            await client.expect("RCPT TO:<nobody@example.org>", "550 5.1.1")
            await client.expect("DATA", "354")
            await client.expect(message() + b".", "250")
            assert await world.mail(village.bob) == []
            async with db.read() as tx:
                rows = await tx.fetch("SELECT address, next_attempt_at, state FROM outbound_recipient ORDER BY id")
            assert [row[0] for row in rows] == [BOB, "far@elsewhere.example", ANN]
            assert all(abs(row[1] - later) < timedelta(seconds=2) and row[2] == "queued" for row in rows)
        async with world.client() as client:
            assert "FUTURERELEASE" not in await client.ask("EHLO client.example")
            await client.expect("MAIL FROM:<far@elsewhere.example> HOLDFOR=60", "555")


async def test_nothing_is_counted_when_limits_are_off(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settle(allow(ANN, "recipients-per-hour=1"))

    def shown() -> tuple[int, int]:
        with closing(connection), db.django_transaction() as tx:  # the thread's own
            return db.run_sync(limits.sent(tx, village.ann))

    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        monkeypatch.setattr(sending, "conf", replace(conf, send_limits=False))
        assert (await send(client, 3)).startswith("250")
        monkeypatch.setattr(sending, "conf", replace(conf, send_limits=True))
        assert (await send(client, 1)).startswith("250")
        assert (await send(client, 1)).startswith("450")
        assert await asyncio.to_thread(shown) == (1, 1)
