"""Sending by JMAP as somebody else, to groups, and more than one may (RFC 8621 §6, §7.5)."""

from __future__ import annotations

import pytest

from accounts import groups, people, policies, rights
from mailcore.jmap import submit as submission
from tests.inbound.settling import settle
from tests.jmap.test_submission import draft, identity, inbox, queue, submit
from tests.jmap.world import ALICE, BOB, CHARLIE, World

pytestmark = pytest.mark.django_db(transaction=True)


async def test_identities_are_what_is_granted_and_how_a_domain_is_called(world: World) -> None:
    await settle(
        lambda: rights.grant(people.get_account(BOB), ALICE),
        lambda: rights.grant(people.get_account(BOB), "example.net"),
        lambda: people.add_domain_alias("example.com", "example.org"),
        lambda: groups.add_group("team@example.org", [BOB], send_as=True),
        lambda: groups.add_group("quiet@example.org", [BOB]),
    )
    found = [one["email"] for one in (await world.bob.call("Identity/get", ids=None))["list"]]
    assert found == [
        "bob@example.org",
        "bob@example.com",
        "sales@example.org",
        "team@example.org",
        "sales@example.com",
        "team@example.com",
        "alice@example.org",
        "alice@example.com",
        "*@example.net",
    ]


async def test_bob_writes_as_alice_and_as_anybody_of_a_domain_only_while_he_may(world: World) -> None:
    await settle(
        lambda: rights.grant(people.get_account(BOB), ALICE),
        lambda: rights.grant(people.get_account(BOB), "example.net"),
    )
    for sender, named in ((ALICE, ALICE), ("press@example.net", "*@example.net")):
        email = await draft(world.bob, "far@elsewhere.example", sender)
        sent = await submit(world.bob, email, identityId=await identity(world.bob, named))
        assert sent["undoStatus"] == "final", sent
    assert [sender for sender, _, _ in await queue()] == [ALICE, "press@example.net"]
    email = await draft(world.bob, "far@elsewhere.example", CHARLIE.replace("charlie", "alice"))
    wish = await identity(world.bob, "*@example.net")
    await settle(lambda: rights.revoke(people.get_account(BOB), "example.net"))
    assert (await submit(world.bob, email, identityId=wish))["type"] == "invalidProperties"
    assert (await submit(world.bob, email))["type"] == "forbiddenFrom"


async def test_who_may_not_write_to_a_group_or_has_sent_too_much_is_told_why(world: World) -> None:
    await settle(
        lambda: groups.add_group("team@example.org", [BOB], posting="members"),
        lambda: policies.change(people.get_account(ALICE), ["recipients-per-hour=2"]),
    )
    refused = await submit(world.alice, await draft(world.alice, "team@example.org"))
    assert refused["type"] == "invalidRecipients"
    assert refused["reasons"] == {"team@example.org": "Only its members may write to team@example.org"}
    three = await draft(world.alice, "a@elsewhere.example b@elsewhere.example c@elsewhere.example")
    refused = await submit(world.alice, three)
    assert (refused["type"], refused["description"]) == (
        "forbiddenToSend",
        "Your account may send to 2 recipients an hour",
    )
    assert (await submit(world.alice, await draft(world.alice, BOB)))["undoStatus"] == "final"
    assert (await submit(world.alice, await draft(world.alice, BOB)))["undoStatus"] == "final"
    refused = await submit(world.alice, await draft(world.alice, BOB))
    assert refused["description"].startswith("Your account may send to 2 recipients an hour; more at ")
    assert len(await inbox(world.village.bob)) == 2 and await queue() == []


async def test_a_group_under_many_tags_is_not_kept_once_for_each(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_WAYS", 3)
    await settle(lambda: groups.add_group("team@example.org", [ALICE, BOB]))
    tags = " ".join(f"team+{number}@example.org" for number in range(30))
    refused = await submit(world.alice, await draft(world.alice, tags))
    assert (refused["type"], refused["maxRecipients"]) == ("tooManyRecipients", 15)
    assert await inbox(world.village.bob) == []
    monkeypatch.setattr(submission, "MAX_WAYS", 1)
    assert (await submit(world.alice, await draft(world.alice, "team@example.org")))["undoStatus"] == "final"
