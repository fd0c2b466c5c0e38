"""What is refused at RCPT because somebody settled it: policies of domains and accounts, rules of groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from accounts import groups, people, policies
from mailcore import db
from mailcore.delivery import local
from mailcore.inbound import recipients
from mailcore.smtp import transaction
from mailcore.store import queue
from tests.inbound.settling import settle
from tests.smtp.world import ANN, BOB, CHARLIE, Village, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = b"From: far@elsewhere.example\r\nSubject: x\r\n\r\nHello.\r\n"
TEAM = "team@example.org"


async def test_who_may_write_to_a_group_is_its_rule(village: Village, tmp_path: Path) -> None:
    await settle(
        lambda: groups.add_group(TEAM, [ANN, "Far@elsewhere.example"], posting="members"),
        lambda: groups.add_group("staff@example.org", [BOB], posting="domain"),
        lambda: groups.add_group("open@example.org", [BOB]),
        lambda: people.add_alias("crew@example.org", [TEAM]),
        lambda: groups.add_group("outer@example.org", [TEAM]),
        lambda: people.add_domain_alias("example.com", "example.org"),
    )
    async with running(tmp_path) as world:
        async with world.client() as client:
            # A member elsewhere is believed; people of ours must have logged in.
            for sender, address, reply in (
                ("far@elsewhere.example", TEAM, "250"),
                ("Far+x@elsewhere.example", TEAM, "250"),
                ("eve@elsewhere.example", TEAM, "550 5.7.1 Only its members may write to team@example.org"),
                (ANN, TEAM, "550 5.7.1"),
                ("", TEAM, "550 5.7.1"),
                ("eve@elsewhere.example", "crew@example.org", "550 5.7.1 Only its members"),
                ("eve@elsewhere.example", "outer@example.org", "250"),
                (ANN, "staff@example.org", "550 5.7.1 Only people of its domain"),
                ("eve@elsewhere.example", "open@example.org", "250"),
                ("", "open@example.com", "250"),
            ):
                await client.expect(f"MAIL FROM:<{sender}>", "250")
                await client.expect(f"RCPT TO:<{address}>", reply)
                await client.expect("RSET", "250")
        for who, answers in ((ANN, ("250", "250")), (BOB, ("550", "250")), (CHARLIE, ("550", "550"))):
            async with world.client("submission") as client:
                await client.login(who)
                await client.expect(f"MAIL FROM:<{who}>", "250")
                await client.expect(f"RCPT TO:<{TEAM}>", answers[0])
                await client.expect("RCPT TO:<staff@example.com>", answers[1])


async def test_a_large_group_is_served_by_the_queue_and_stored_once(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "AT_ONCE", 2)
    monkeypatch.setattr(local, "AT_ONCE", 2)
    await settle(lambda: groups.add_group(TEAM, [ANN, BOB, CHARLIE, "far@elsewhere.example"]))
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<eve@elsewhere.example>", "250")
        await client.expect(f"RCPT TO:<{TEAM}>", "250")
        await client.expect(f"RCPT TO:<{ANN}>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        queued = [(sender.partition("=")[0], address) for sender, address, _ in await world.queued()]
        assert queued == [
            ("eve@elsewhere.example", BOB),
            ("eve@elsewhere.example", CHARLIE),
            ("SRS0", "far@elsewhere.example"),
        ]
        async with db.transaction() as tx:
            claims = [each for each in await queue.claim(tx) if each.address != "far@elsewhere.example"]
        await local.deliver(claims)
        ((anns,), (bobs,), (charlies,)) = [
            await world.mail(each) for each in (village.ann, village.bob, village.charlie)
        ]
        assert bobs == charlies and anns.endswith(MESSAGE)
        assert bobs.startswith(b"Return-Path: <eve@elsewhere.example>\r\nReceived: ")
        async with db.read() as tx:
            assert await tx.fetch("SELECT count(*) FROM blob WHERE hash IN (SELECT blob FROM message)") <= [(2,)]


async def test_a_group_under_many_tags_is_not_kept_once_for_each(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "MAX_WAYS", 5)
    await settle(lambda: groups.add_group(TEAM, [ANN, BOB, CHARLIE]))
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<eve@elsewhere.example>", "250")
        await client.expect("RCPT TO:<team+1@example.org>", "250")
        for number in range(2, 5):
            await client.expect(f"RCPT TO:<team+{number}@example.org>", "452 4.5.3 Too many recipients")
        await client.expect(f"RCPT TO:<{ANN}>", "452 4.5.3")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.charlie)) == 1
        await client.expect("MAIL FROM:<eve@elsewhere.example>", "250")
        monkeypatch.setattr(transaction, "MAX_WAYS", 2)
        await client.expect("RCPT TO:<team+2@example.org>", "250")


async def test_a_policy_refuses_mail_and_postmaster_is_reached_nevertheless(village: Village, tmp_path: Path) -> None:
    ours = ["require-tls=on", "blocked-senders=spam.example", "refuse-own-senders=on"]
    bobs = ["require-tls=off", "max-message-size=2000", "allowed-senders=spam.example"]
    charlies = ["blocked-senders=*", "allowed-senders=example.org"]
    await settle(
        lambda: policies.change(people.get_domain("example.org"), ours),
        lambda: policies.change(people.get_account(BOB), bobs),
        lambda: policies.change(people.get_account(CHARLIE), charlies),
        lambda: people.add_alias("pair@example.net", [ANN, CHARLIE]),
    )
    async with running(tmp_path) as world:
        async with world.client() as client:
            for sender, address, reply in (
                ("far@elsewhere.example", ANN, "550 5.7.1 Mail for this recipient is taken over TLS only"),
                ("far@elsewhere.example", BOB, "250"),
                ("far@elsewhere.example", "postmaster@example.org", "250"),
                ("far@spam.example", "abuse@example.org", "250"),
                ("far@spam.example", BOB, "250"),
                ("far@elsewhere.example", CHARLIE, "550 5.7.1 This recipient takes no mail from far@elsewhere"),
                ("", CHARLIE, "250"),
                (ANN, BOB, "550 5.7.1 Who writes as somebody of example.org has to log in"),
                (ANN, CHARLIE, "550 5.7.1 Who writes"),
                (CHARLIE, BOB, "250"),
            ):
                await client.expect(f"MAIL FROM:<{sender}>", "250")
                await client.expect(f"RCPT TO:<{address}>", reply)
                await client.expect("RSET", "250")
            await client.talk(f"""
                C: MAIL FROM:<far@elsewhere.example> SIZE=2001
                S: 250
                C: RCPT TO:<{BOB}>
                S: 552 5.3.4 This recipient takes messages of 2000 octets at most
                C: RSET
                S: 250
            """)
            refused = await client.deliver(MESSAGE + b"x" * 2000 + b"\r\n", to=BOB)
            assert refused == "552 5.3.4 Bob@example.org takes messages of 2000 octets at most"
            assert (await client.deliver(MESSAGE, to=BOB)).startswith("250")
            assert len(await world.mail(village.bob)) == 1
            await client.start_tls()
            await client.expect("EHLO client.example", "250-")
            await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "250")
            await client.expect("RSET", "250")
            await client.expect("MAIL FROM:<far@mail.spam.example>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "550 5.7.1 This recipient takes no mail")
            # One of two behind an alias blocks the sender: the other gets it.
            await client.expect("RSET", "250")
            assert (await client.deliver(MESSAGE, to="pair@example.net")).startswith("250")
            assert len(await world.mail(village.ann)) == 1 and await world.mail(village.charlie) == []
        # A front end has looked at TLS and at who may use our addresses.
        async with world.client("lmtp") as client:
            await client.expect(f"MAIL FROM:<{BOB}>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "250")
            await client.expect("RSET", "250")
            await client.expect("MAIL FROM:<far@spam.example>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "550 5.7.1")
        async with world.client("submission") as client:
            await client.login(BOB)
            await client.expect(f"MAIL FROM:<{BOB}>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "250")
            await client.expect(f"RCPT TO:<{CHARLIE}>", "250")


async def later(change: Callable[[], object]) -> None:
    await settle(change)
    await asyncio.sleep(recipients.KEEP + 0.1)


async def test_what_is_settled_holds_a_second_later(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<ann+shop@example.org>", "250")
        await later(lambda: policies.change(people.get_account(ANN), ["plus-tags=off"]))
        await client.expect("RCPT TO:<ann+shop@example.org>", "550 5.1.1")
        await later(lambda: people.add_domain_alias("example.com", "example.org"))
        await client.expect("RCPT TO:<Ann@Example.COM>", "250")
        await later(lambda: people.remove_domain_alias("example.com"))
        await client.expect("RCPT TO:<ann@example.com>", "550 5.7.1 Relay access denied")


async def test_a_size_that_nobody_declared_counts_behind_an_alias_as_well(village: Village, tmp_path: Path) -> None:
    await settle(
        lambda: policies.change(people.get_account(BOB), ["max-message-size=1000"]),
        lambda: people.add_alias("pair@example.net", [ANN, BOB]),
        lambda: people.add_alias("bobs@example.net", [BOB]),
    )
    async with running(tmp_path) as world, world.client() as client:
        large = MESSAGE + b"x" * 900 + b"\r\n" + b"y" * 900 + b"\r\n"
        assert (await client.deliver(MESSAGE, to="pair@example.net")).startswith("250")
        assert (await client.deliver(large, to="pair@example.net")).startswith("250")
        assert (await client.deliver(large, to="bobs@example.net")).startswith("552 5.3.4 Bobs@example.net takes")
        assert [len(await world.mail(each)) for each in (village.ann, village.bob)] == [2, 1]


async def test_nor_is_it_queued_for_members_of_a_large_group(
    village: Village, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipients, "AT_ONCE", 1)
    await settle(
        lambda: policies.change(people.get_account(BOB), ["max-message-size=1000"]),
        lambda: people.add_alias("pair@example.net", [ANN, BOB]),
    )
    async with running(tmp_path) as world, world.client() as client:
        large = MESSAGE + b"x" * 900 + b"\r\n" + b"y" * 900 + b"\r\n"
        assert (await client.deliver(large, to="pair@example.net")).startswith("250")
        assert [to for _, to, _ in await world.queued()] == [ANN]
        assert (await client.deliver(MESSAGE, to="pair@example.net")).startswith("250")
        assert sorted(to for _, to, _ in await world.queued()) == [ANN, ANN, BOB]
