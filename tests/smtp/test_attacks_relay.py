"""Mail for others that we are to pass on for a stranger: every way of writing an address that ever fooled a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smtp.world import ANN, MESSAGE, Client, Village, World, body_of, running

pytestmark = [pytest.mark.django_db(transaction=True)]

SENDERS = (
    "",
    "spammer@elsewhere.example",
    "ann@example.org",
    "victim@elsewhere.example",
    "postmaster@mx.example.test",
    "spammer@[127.0.0.1]",
)
PROBES = {
    "plain": ("victim@elsewhere.example", "victim@[127.0.0.1]", "victim@[IPv6:::1]", "victim@[IPv6:::ffff:127.0.0.1]"),
    "percent_hack": (
        "victim%elsewhere.example@example.org",
        "victim%elsewhere.example%example.net@example.org",
        "victim%elsewhere.example@[127.0.0.1]",
        "victim%elsewhere.example",
        "victim@elsewhere.example%example.org",
        "victim%elsewhere.example@mx.example.test",
    ),
    "bang_path": (
        "elsewhere.example!victim@example.org",
        "elsewhere.example!victim",
        "example.org!elsewhere.example!victim@example.org",
        "victim%example.org!elsewhere.example@example.org",
    ),
    "source_route": (
        "@example.org:victim@elsewhere.example",
        "@example.org,@example.net:victim@elsewhere.example",
        "@mx.example.test:victim@elsewhere.example",
        "@[127.0.0.1]:victim@elsewhere.example",
        "@example.org:@elsewhere.example:victim",
    ),
    "quoted_local_part": (
        '"victim@elsewhere.example"@example.org',
        '"victim%elsewhere.example"@example.org',
        '"victim@elsewhere.example"',
        '"elsewhere.example!victim"@example.org',
        '"victim\\@elsewhere.example"@example.org',
        '"@example.org:victim@elsewhere.example"@example.org',
    ),
    "two_ats": (
        "victim@elsewhere.example@example.org",
        "victim@elsewhere.example@",
        "<victim@elsewhere.example>",
        "victim@elsewhere.example ,ann@example.org",
        "victim@elsewhere.example>,<ann@example.org",
        "ann@example.org victim@elsewhere.example",
        "ann@example.org,victim@elsewhere.example",
        "ann@example.org:victim@elsewhere.example",
    ),
    "our_name_in_another": (
        "victim@example.org.elsewhere.example",
        "victim@sub.example.org",
        "victim@notexample.org",
        "victim@localhost",
        "victim@mx.example.test",
        "victim@2130706433",
        "victim@127.0.0.1",
        "victim@0x7f.1",
    ),
    "trailing_dots": ("victim@elsewhere.example.", "victim@example.org.", "ann@example.org..", "ann.@example.org"),
    "white_space_and_comments": (
        " victim@elsewhere.example",
        "victim@elsewhere.example ",
        "victim @elsewhere.example",
        "ann@example.org (victim@elsewhere.example)",
        "victim(ann)@elsewhere.example",
        "ann@example.org\tvictim",
    ),
}


async def is_nobodys_relay(client: Client, sender: str, recipient: str) -> None:
    await client.expect(f"MAIL FROM:<{sender}>", "250")
    heard = await client.ask(f"RCPT TO:<{recipient}>")
    assert heard[:3] in ("550", "501", "553"), (sender, recipient, heard)
    await client.expect("DATA", "554 5.5.1")
    await client.expect("RSET", "250")


async def takes_our_mail(world: World, client: Client, village: Village) -> None:
    """The same session with one of our own addresses."""
    for sender in SENDERS:
        assert (await client.deliver(MESSAGE, sender=sender)).startswith("250")
    assert len(await world.mail(village.ann)) == len(SENDERS)
    assert await world.queued() == []


@pytest.mark.parametrize("probe", PROBES)
async def test_relay_probe(village: Village, tmp_path: Path, probe: str) -> None:
    async with running(tmp_path, max_errors=1_000, max_idle_commands=1_000) as world, world.client() as client:
        for recipient in PROBES[probe]:
            for sender in SENDERS:
                await is_nobodys_relay(client, sender, recipient)
        await takes_our_mail(world, client, village)


async def test_relay_probe_postmaster_without_a_domain_is_ours_and_nobody_elses(
    village: Village, tmp_path: Path
) -> None:
    async with running(tmp_path) as world, world.client() as client:
        for recipient in ("victim", "postmaster@elsewhere.example", "postmaster@", "Postmaster@[127.0.0.1]"):
            await is_nobodys_relay(client, "", recipient)
        await client.expect("MAIL FROM:<>", "250")
        await client.expect("RCPT TO:<PostMaster>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1


async def test_relay_probe_a_source_route_to_ourselves_leads_here(village: Village, tmp_path: Path) -> None:
    """RFC 5321 §4.1.1.3: what stands before the colon is ignored, so neither a relay nor an error."""
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(MESSAGE, to="@elsewhere.example:ann@example.org")).startswith("250")
        assert [body_of(each) for each in await world.mail(village.ann)] == [MESSAGE]
        assert await world.queued() == []


async def test_relay_probe_homographs_are_other_addresses(village: Village, tmp_path: Path) -> None:
    """Letters that only look like ours: Cyrillic, Greek, with invisible ones between; none of them reaches anybody."""
    probes = (
        ("ann@ex\u0430mple.org", "550 5.7.1 Relay access denied"),
        ("\u0430nn@example.org", "550 5.1.1"),
        ("ann\u200b@example.org", "5"),
        ("ann\u00ad@example.org", "550 5.1.1"),
        ("\u202eann@example.org", "501 5.1.3"),
        ("ann@example\u2024org", "5"),
        ("\uff41nn@example.org", "550 5.1.1"),
        ("an\u0144@example.org", "550 5.1.1"),
    )
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example> SMTPUTF8", "250")
        for recipient, reply in probes:
            await client.expect(f"RCPT TO:<{recipient}>", reply)
        await client.expect("RCPT TO:<ANN@EXAMPLE.ORG>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1


async def test_relay_probe_on_the_submission_port_without_a_login(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.expect(f"MAIL FROM:<{ANN}>", "530 5.7.0")
        await client.expect("RCPT TO:<victim@elsewhere.example>", "530 5.7.0")
        await client.expect("MAIL FROM:<> AUTH=ann@example.org", "530 5.7.0")
        await client.login()
        mine = MESSAGE.replace(b"far@elsewhere.example", ANN.encode())
        assert (await client.deliver(mine, to="victim@elsewhere.example", sender=ANN)).startswith("250")
        assert [(sender, to) for sender, to, _ in await world.queued()] == [(ANN, "victim@elsewhere.example")]


async def test_relay_probe_auth_parameter_of_mail_is_no_login(village: Village, tmp_path: Path) -> None:
    """RFC 4954 §5: from a client that is not authenticated, AUTH= says nothing."""
    async with running(tmp_path) as world, world.client() as client:
        await client.expect("MAIL FROM:<ann@example.org> AUTH=ann@example.org", "250")
        await client.expect("RCPT TO:<victim@elsewhere.example>", "550 5.7.1 Relay access denied")
        await client.expect("RCPT TO:<ann@example.org>", "250")
        assert await world.queued() == []
