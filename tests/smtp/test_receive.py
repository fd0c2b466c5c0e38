"""Mail from other servers: what is taken, what is refused, and that every octet arrives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from accounts import people
from accounts.models import Account, Domain
from mailcore import provision
from tests.smtp.world import BOB, CHARLIE, Village, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

MESSAGE = (
    b"From: Far <far@elsewhere.example>\r\nTo: ann@example.org\r\nSubject: hello\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@elsewhere.example>\r\n\r\nHello.\r\n"
)


async def test_a_message_arrives_octet_for_octet(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        reply = await client.deliver(MESSAGE)
        assert re.fullmatch(r"250 2\.0\.0 Ok: id [0-9a-z]{15}", reply)
        (stored,) = await world.mail(village.ann)
        assert body_of(stored) == MESSAGE
        trace_id = reply.rpartition(" ")[2]
        assert stored.startswith(
            b"Return-Path: <far@elsewhere.example>\r\nReceived: from client.example ([127.0.0.1])\r\n"
        )
        assert f"by mx.example.test with ESMTP id {trace_id}\r\n\tfor <ann@example.org>;".encode() in stored
        assert await world.steps(trace_id) == ["accepted", "stored"]
        assert await world.steps("1@elsewhere.example") == ["accepted", "stored"]
        await client.expect("QUIT", "221 2.0.0")
        assert await client.closed()


async def test_the_plainest_session(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client(hello=False) as client:
        await client.talk("""
            C: HELO old.example
            S: 250 mx.example.test
            C: mail from:<>
            S: 250 2.1.0
            C: rcpt to:<ANN+tag@Example.ORG>
            S: 250 2.1.5
            C: data
            S: 354
            C: Subject: bounce
            C:
            C: ..dot
            C: .
            S: 250 2.0.0 Ok: id
            C: QUIT
            S: 221
        """)
        (stored,) = await world.mail(village.ann)
        assert stored.startswith(b"Return-Path: <>\r\n")
        assert b"with SMTP id" in stored
        assert body_of(stored) == b"Subject: bounce\r\n\r\n.dot\r\n"


RECIPIENTS = [
    ("nobody@example.org", "550 5.1.1"),
    ("ann@nowhere.example", "550 5.7.1 Relay access denied"),
    ("ann@[127.0.0.1]", "550 5.7.1 Relay access denied"),
    ("ann@", "501 5.1.3"),
    ("ann", "501 5.1.3"),
    ("postmaster", "250 2.1.5"),
    ("Postmaster@example.net", "250 2.1.5"),
    ("abuse@example.org", "250 2.1.5"),
    ("sales@example.org", "250 2.1.5"),
    ("away@example.org", "250 2.1.5"),
]


async def test_a_recipient_is_judged_at_rcpt(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        for recipient, reply in RECIPIENTS:
            await client.expect(f"RCPT TO:<{recipient}>", reply)
        await client.expect("RCPT TO:<ann@example.org>", "250")


async def test_a_disabled_account_and_domain(village: Village, tmp_path: Path) -> None:
    def disable() -> None:
        people.disable_account(people.get_account(BOB))
        Domain.objects.filter(name="example.net").update(is_active=False)
        connection.close()

    await asyncio.to_thread(disable)
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<bob@example.org>", "550 5.2.1")
        await client.expect("RCPT TO:<charlie@example.net>", "550 5.2.1")


async def test_postmaster_goes_to_the_administrator(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for address in ("postmaster", "postmaster@example.net", "abuse@example.org"):
            await client.deliver(MESSAGE, to=address)
        assert len(await world.mail(village.ann)) == 3


async def test_postmaster_of_a_domain_is_reached_whatever_became_of_it(village: Village, tmp_path: Path) -> None:
    def change(what: Callable[[], object]) -> None:
        what()
        connection.close()

    def demote() -> None:
        Account.objects.update(is_superuser=False)

    async with running(tmp_path) as world, world.client() as client:
        mailboxes = {"ann": village.ann, "bob": village.bob, "charlie": village.charlie}

        async def reached(address: str) -> set[str]:
            before = {name: len(await world.mail(number)) for name, number in mailboxes.items()}
            assert (await client.deliver(MESSAGE, to=address)).startswith("250")
            return {name for name, number in mailboxes.items() if len(await world.mail(number)) > before[name]}

        # The domain's own administrator comes before the installation's.
        await asyncio.to_thread(
            change, lambda: people.get_account(BOB).administers.add(people.get_domain("example.net"))
        )
        assert await reached("postmaster@example.net") == {"bob"}
        assert await reached("postmaster@example.org") == {"ann"}
        # An address of that name wins, and when it leads nowhere it does not bounce.
        await asyncio.to_thread(change, lambda: people.add_alias("postmaster@example.org", ["charlie@example.net"]))
        assert await reached("postmaster@example.org") == {"charlie"}
        await asyncio.to_thread(change, lambda: people.disable_account(people.get_account(CHARLIE)))
        assert await reached("postmaster@example.org") == {"ann"}
        # Without any administrator: the first account of the domain, then the first there is.
        await asyncio.to_thread(change, demote)
        await asyncio.to_thread(change, lambda: people.get_account(BOB).administers.clear())
        assert await reached("abuse@example.org") == {"ann"}
        assert await reached("Postmaster@example.net") == {"ann"}
        assert await reached("postmaster") == {"ann"}
        # Nobody at all: later, never 550.
        await asyncio.to_thread(change, lambda: Account.objects.update(is_active=False))
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<postmaster@example.org>", "451 4.3.0 Nobody has a mailbox here yet")
        await client.expect("RCPT TO:<postmaster>", "451 4.3.0")


async def test_several_recipients_share_one_copy_without_naming_them(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        for address in ("ann@example.org", "ann+x@example.org", "bob@example.org", "sales@example.org"):
            await client.expect(f"RCPT TO:<{address}>", "250")
        await client.expect("RCPT TO:<nobody@example.org>", "550")
        await client.expect("DATA", "354")
        trace_id = (await client.ask(MESSAGE + b".")).rpartition(" ")[2]
        anns, bobs = await world.mail(village.ann), await world.mail(village.bob)
        assert anns == bobs
        assert len(anns) == 1
        assert b"\tfor <" not in anns[0]
        assert await world.steps(trace_id) == ["accepted", "expanded", "expanded", "stored", "stored"]


async def test_an_alias_that_leads_elsewhere_is_forwarded(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        reply = await client.deliver(MESSAGE, to="both@example.org")
        (stored,) = await world.mail(village.ann)
        ((sender, recipient, octets),) = await world.queued()
        assert recipient == "far@elsewhere.example"
        assert re.fullmatch(r"SRS0=[a-z2-7]{8}=[a-z2-7]{2}=elsewhere\.example=far@example\.org", sender)
        assert octets.startswith(b"Delivered-To: both@example.org\r\nReceived: from client.example")
        assert octets.endswith(MESSAGE)
        assert b"Return-Path" not in octets
        assert body_of(stored) == MESSAGE
        assert await world.steps(reply.rpartition(" ")[2]) == ["accepted", "expanded", "stored", "queued"]
        await client.deliver(MESSAGE, to="away@example.org")
        assert len(await world.mail(village.ann)) == 1
        assert len(await world.queued()) == 2


async def test_a_full_mailbox_is_refused_for_now(village: Village, tmp_path: Path) -> None:
    await asyncio.to_thread(_set_quota, "ann@example.org", 2_000)
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example> SIZE=3000", "250")
        await client.expect("RCPT TO:<ann@example.org>", "452 4.2.2")
        await client.expect("RCPT TO:<bob@example.org>", "250")
        await client.expect("RCPT TO:<sales@example.org>", "250")  # Bob has room
        await client.expect("RSET", "250")
        # Without SIZE it shows only at the end; then nobody gets it, and the sender's server keeps it.
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<bob@example.org>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b"x" * 3000 + b"\r\n.", "452 4.2.2")
        assert await world.mail(village.ann) == await world.mail(village.bob) == []
        assert (await client.deliver(MESSAGE)).startswith("250 2.0.0")


async def test_a_full_member_of_an_alias_does_not_keep_the_others_from_their_mail(
    village: Village, tmp_path: Path
) -> None:
    await asyncio.to_thread(_set_quota, "ann@example.org", 2_000)
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<sales@example.org>", "250")
        await client.expect("DATA", "354")
        reply = await client.expect(MESSAGE + b"x" * 3000 + b"\r\n.", "250 2.0.0")
        assert await world.mail(village.ann) == []
        (bobs,) = await world.mail(village.bob)
        ((sender, recipient, octets),) = await world.queued()  # it is tried again for days, as for any mail
        assert (sender, recipient) == ("far@elsewhere.example", "ann@example.org")
        assert bobs == b"Return-Path: <far@elsewhere.example>\r\n" + octets
        steps = await world.steps(reply.rpartition(" ")[2])
        assert steps == ["accepted", "expanded", "stored", "queued"]
        await asyncio.to_thread(_set_quota, "bob@example.org", 2_000)
        await client.expect("MAIL FROM:<far@elsewhere.example> SIZE=3000", "250")
        await client.expect("RCPT TO:<sales@example.org>", "452 4.2.2")  # nobody has room


async def test_a_mailbox_with_as_many_messages_as_it_may_have_is_full_too(village: Village, tmp_path: Path) -> None:
    await asyncio.to_thread(_set_quota, "ann@example.org", None, 1)
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(MESSAGE, to="ann@example.org")).startswith("250 2.0.0")
        await asyncio.sleep(1.1)  # the directory remembers for a second
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "452 4.2.2")
        await client.expect("RCPT TO:<sales@example.org>", "250")  # Bob has room


def _set_quota(address: str, octets: int | None, messages: int | None = None) -> None:
    try:
        provision.set_quota(Account.objects.get(address=address), octets, messages)
    finally:
        connection.close()


async def test_mail_in_circles_is_refused(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(b"Received: by x; date\r\n" * 50 + MESSAGE)).startswith("250")
        assert (await client.deliver(b"Received: by x; date\r\n" * 51 + MESSAGE)).startswith("554 5.4.6")
        assert len(await world.mail(village.ann)) == 1


async def test_authentication_results_in_our_name_are_removed(village: Village, tmp_path: Path) -> None:
    forged = (
        b"Authentication-Results: MX.example.test; dkim=pass\r\n"
        b'authentication-results :\r\n (a comment) "mx.example.test" 1;\r\n\tspf=pass\r\n'
        b"Authentication-Results: (unclosed mx.example.test; spf=pass\r\n"
    )
    honest = (
        b"Authentication-Results: other.example; dkim=pass (mx.example.test)\r\n"
        b"X-Authentication-Results: mx.example.test\r\n"
    )
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(honest + forged + MESSAGE)).startswith("250")
        (stored,) = await world.mail(village.ann)
        assert body_of(stored) == honest + MESSAGE


async def test_too_many_recipients(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, max_recipients=3) as world, world.client() as client:
        await client.expect("MAIL FROM:<>", "250")
        for _ in range(3):
            await client.expect("RCPT TO:<ann@example.org>", "250")
        await client.expect("RCPT TO:<ann@example.org>", "452 4.5.3")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1


@pytest.mark.parametrize("how", ["SIZE", "DATA", "BDAT"])
async def test_a_message_beyond_the_limit(village: Village, tmp_path: Path, how: str) -> None:
    async with running(tmp_path, message_size=10_000) as world, world.client() as client:
        if how == "SIZE":
            await client.expect("MAIL FROM:<far@elsewhere.example> SIZE=10001", "552 5.3.4")
        else:
            await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
            await client.expect("RCPT TO:<ann@example.org>", "250")
            large = MESSAGE + b"x" * 9_998 + b"\r\n"
            if how == "DATA":
                await client.expect("DATA", "354")
                await client.expect(large + b".", "552 5.3.4")
            else:
                client.say(b"BDAT %d LAST\r\n" % len(large) + large)
                assert (await client.hear()).startswith("552 5.3.4")
        # The session is in sync and usable.
        assert (await client.deliver(MESSAGE)).startswith("250")
        assert len(await world.mail(village.ann)) == 1


async def test_a_large_message_goes_through_a_file_and_leaves_none(village: Village, tmp_path: Path) -> None:
    large = MESSAGE + b"".join(b"%07d 0123456789 abcdefghijklmnopqrstuvwxyz\r\n" % n for n in range(60_000))
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(large)).startswith("250")
        client.say(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.org>\r\n")
        for start in range(0, len(large), 700_000):
            piece = large[start : start + 700_000]
            client.say(b"BDAT %d%b\r\n" % (len(piece), b" LAST" if start + 700_000 >= len(large) else b"") + piece)
        assert [(await client.hear())[:9] for _ in range(7)] == ["250 2.1.0", "250 2.1.5"] + ["250 2.0.0"] * 5
        assert [body_of(stored) for stored in await world.mail(village.ann)] == [large, large]
        assert list((tmp_path / "spool").iterdir()) == []


async def test_messages_of_every_shape_arrive_as_they_are(village: Village, tmp_path: Path) -> None:
    shapes = [
        b"",
        b"\r\n",
        b"no header at all\r\n",
        b"Subject: only a header\r\n",
        b".\r\n..\r\n.a\r\n",
        b"Subject: caf\xc3\xa9 \xff\r\n\r\n\x01\x7f\x80\xff\r\n",
        b"Subject: long line\r\n\r\n" + b"x" * 100_000 + b"\r\n",
    ]
    async with running(tmp_path) as world, world.client() as client:
        for shape in shapes:
            stuffed = (b"\r\n" + shape).replace(b"\r\n.", b"\r\n..")[2:]
            assert (await client.deliver(stuffed)).startswith("250")
        assert [body_of(stored) for stored in await world.mail(village.ann)] == shapes
