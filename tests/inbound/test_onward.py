"""Mail that an alias leads elsewhere: its sender, its way back, and no circles."""

from __future__ import annotations

from pathlib import Path

import pytest

from accounts import people, policies
from mailcore import db
from mailcore.delivery import local
from mailcore.store import queue
from tests.inbound.settling import settle
from tests.smtp.world import ANN, BOB, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
BOUNCE = b"From: mailer@elsewhere.example\r\nAuto-Submitted: auto-replied\r\nSubject: no\r\n\r\nNo.\r\n"


async def test_a_bounce_of_forwarded_mail_goes_back_to_where_it_came_from(village: Village, tmp_path: Path) -> None:
    long = f"bounces+12345-{'x' * 30}=example.org@mailing.elsewhere.example"
    async with running(tmp_path) as world, world.client() as client:
        for number, original in enumerate(("Carol@elsewhere.example", long)):
            assert (await client.deliver(MESSAGE, to="away@example.org", sender=original)).startswith("250")
            sender, recipient, _ = (await world.queued())[2 * number]
            assert recipient == "far@elsewhere.example" and sender.endswith("@example.org")
            assert (await client.deliver(BOUNCE, to=sender, sender="")).startswith("250")
            back, to, octets = (await world.queued())[2 * number + 1]
            assert (back, to) == ("", original)
            assert octets.endswith(BOUNCE)
            # It takes bounces and nothing else, and only what we made.
            await client.expect("MAIL FROM:<eve@elsewhere.example>", "250")
            await client.expect(f"RCPT TO:<{sender}>", "550 5.7.1 This address takes bounces only")
            await client.expect("RSET", "250")
            await client.expect("MAIL FROM:<>", "250")
            for forged in (
                sender.replace("=elsewhere.example=", "=victim.example=").replace("==", "=.=x"),
                "SRS0=aaaaaaaa=aa=victim.example=eve@example.org",
                "SRS1=aaaaaaaa=victim.example==HHH=TT=victim.example=eve@example.org",
                "srs0-@example.org",
            ):
                if forged != sender:
                    await client.expect(f"RCPT TO:<{forged}>", "550 5.1.1")
            await client.expect(f"RCPT TO:<{sender.replace('example.org', 'elsewhere.example')}>", "550 5.7.1 Relay")
            await client.expect("RSET", "250")


async def test_only_strangers_senders_are_rewritten(village: Village, tmp_path: Path) -> None:
    await settle(lambda: people.add_domain_alias("example.com", "example.org"))
    async with running(tmp_path) as world:
        async with world.client() as client:
            for sender in ("", BOB, "someone@example.com"):
                assert (await client.deliver(MESSAGE, to="away@example.org", sender=sender)).startswith("250")
        async with world.client("submission") as client:
            await client.login()
            message = b"From: ann@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nHello.\r\n"
            assert (await client.deliver(message, to="away@example.org", sender=ANN)).startswith("250")
        assert [sender for sender, _, _ in await world.queued()] == ["", "", "", ANN]


async def test_forwarding_does_not_prove_what_a_stranger_says_of_himself(village: Village, tmp_path: Path) -> None:
    """With an envelope sender of ours it would pass SPF, and so DMARC, as what Bob has written."""
    async with running(tmp_path) as world:
        async with world.client() as client:
            for author in (
                b"Bob <bob@example.org>",
                b"far@x.example, bob@EXAMPLE.ORG",
                b"x@x.example\r\nFrom : <bob@example.org>",
                b"bob@sub.example.org",
            ):
                message = b"From: " + author + b"\r\nSubject: x\r\n\r\nHello.\r\n"
                answer = await client.deliver(message, to="away@example.org", sender="eve@elsewhere.example")
                assert answer.startswith("250")
            await client.deliver(MESSAGE, to="away@example.org", sender="eve@elsewhere.example")
        assert [sender.partition("=")[0] for sender, _, _ in await world.queued()] == ["", "", "", "", "SRS0"]


async def test_what_comes_back_to_the_alias_it_left_goes_in_circles(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.deliver(MESSAGE, to="both@example.org")
        (_, _, octets) = (await world.queued())[0]
        assert octets.startswith(b"Delivered-To: both@example.org\r\nReceived: from client.example")
        (stored,) = await world.mail(village.ann)
        assert b"Delivered-To" not in stored and body_of(stored) == MESSAGE
        returned = b"Received: from far (far [192.0.2.7])\r\n\tby far.example; now\r\n" + octets
        # An alias that leads elsewhere only: there is nothing left to do.
        away = returned.replace(b"both@", b"AWAY@")
        assert (await client.deliver(away, to="away@example.org")).startswith(
            "554 5.4.6 The message has been forwarded"
        )
        # Ann is behind this one as well: she gets the copy that came back, and the circle ends.
        assert (await client.deliver(returned, to="both@example.org")).startswith("250")
        assert len(await world.mail(village.ann)) == 2
        assert len(await world.queued()) == 1
        # To somebody who does not lead on, the field means nothing.
        assert (await client.deliver(returned, to=BOB)).startswith("250")
        (stored,) = await world.mail(village.bob)
        assert body_of(stored) == returned


async def test_no_copy_tells_of_another_alias(village: Village, tmp_path: Path) -> None:
    await settle(lambda: people.add_alias("hidden@example.org", ["other@elsewhere.example", "far@elsewhere.example"]))
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<carol@elsewhere.example>", "250")
        await client.expect("RCPT TO:<away@example.org>", "250")
        await client.expect("RCPT TO:<hidden@example.org>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        queued = {address: octets for _, address, octets in await world.queued()}
        assert len(await world.queued()) == 2  # far@ is reached by both, and gets one copy
        assert b"hidden" not in queued["far@elsewhere.example"]
        assert b"away" not in queued["other@elsewhere.example"]


async def test_what_waited_in_the_queue_is_led_on_in_the_same_way(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        async with db.transaction() as tx:
            for account_id, sender in ((None, "carol@elsewhere.example"), (village.ann, ANN)):
                to = [queue.Recipient("both@example.org")]
                await queue.enqueue(tx, queue.Outgoing(sender, to, "t" * 15, MESSAGE, account_id=account_id))
        async with db.transaction() as tx:
            claims = await queue.claim(tx)
        for claim in claims:
            await local.deliver([claim])
        on = [(sender, octets) for sender, address, octets in await world.queued() if address.startswith("far@")]
        assert on[0][0].startswith("SRS0=") and on[1][0] == ANN
        assert all(octets == b"Delivered-To: both@example.org\r\n" + MESSAGE for _, octets in on)
        assert len(await world.mail(village.ann)) == 2


async def test_mail_that_waits_is_not_led_in_circles_nor_to_who_refuses_it_and_reaches_postmaster(
    village: Village, tmp_path: Path
) -> None:
    await settle(
        lambda: policies.change(people.get_account(BOB), ["blocked-senders=eve@elsewhere.example"]),
        lambda: people.add_alias("pair@example.org", [ANN, BOB]),
    )
    receipt = " NOTIFY=SUCCESS"
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect("MAIL FROM:<eve@elsewhere.example>", "250")
            for name in ("pair", "both", "abuse"):
                await client.expect(f"RCPT TO:<{name}@example.org>{receipt}", "250")
            await client.expect("DATA", "354")
            await client.expect(b"Delivered-To: Both@example.org\r\n" + MESSAGE + b".", "250")
        async with db.transaction() as tx:
            claims = await queue.claim(tx)
        assert len(claims) == 3
        await local.deliver(claims)
        assert await world.mail(village.bob) == [], "the others behind the alias got it"
        assert len(await world.mail(village.ann)) == 3
        assert "far@elsewhere.example" not in [address for _, address, _ in await world.queued()]
