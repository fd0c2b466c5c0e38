"""Mailbox/* (RFC 8621 §2)."""

from __future__ import annotations

from typing import Any

import pytest

from mailcore.store import flags
from tests.jmap.world import SIMPLE, Client, World

pytestmark = pytest.mark.django_db(transaction=True)


async def by_name(client: Client) -> dict[str, Any]:
    return {mailbox["name"]: mailbox for mailbox in (await client.call("Mailbox/get", ids=None))["list"]}


def counts(mailbox: Any) -> tuple[int, int, int, int]:
    return tuple(mailbox[name] for name in ("totalEmails", "unreadEmails", "totalThreads", "unreadThreads"))  # type: ignore[return-value]


async def test_a_new_account_has_its_mailboxes(world: World) -> None:
    found = await by_name(world.alice)
    assert {name: mailbox["role"] for name, mailbox in found.items()} == {
        "INBOX": "inbox",
        "Drafts": "drafts",
        "Sent": "sent",
        "Archive": "archive",
        "Junk": "junk",
        "Trash": "trash",
    }
    inbox = found["INBOX"]
    assert inbox["myRights"]["mayRename"] is False and inbox["myRights"]["maySetSeen"] is True
    assert inbox["isSubscribed"] is True and inbox["parentId"] is None
    order = [mailbox["role"] for mailbox in sorted(found.values(), key=lambda mailbox: mailbox["sortOrder"])]
    assert order[0] == "inbox"
    (only,) = (await world.alice.call("Mailbox/get", ids=[inbox["id"]], properties=["name"]))["list"]
    assert only == {"id": inbox["id"], "name": "INBOX"}
    assert await world.alice.error("Mailbox/get", ids=None, properties=["colour"]) == "invalidArguments"
    assert (await world.alice.call("Mailbox/get", ids=["F99", "junk"]))["notFound"] == ["F99", "junk"]


async def test_counts_are_of_emails_and_of_threads(world: World) -> None:
    alice = world.alice
    boxes = await alice.mailboxes()
    first = await world.deliver(alice.account, SIMPLE.format(subject="Plan"))
    answer = SIMPLE.format(subject="Plan").replace("<Plan@", "<answer@") + "\n"
    answer = answer.replace("Message-ID:", "In-Reply-To: <Plan@far.example>\nMessage-ID:")
    await world.deliver(alice.account, answer, flags=flags.SEEN)
    await world.deliver(alice.account, SIMPLE.format(subject="Other"), flags=flags.SEEN)
    await world.deliver(alice.account, SIMPLE.format(subject="A draft"), mailbox=2, flags=flags.DRAFT)
    found = await by_name(alice)
    assert counts(found["INBOX"]) == (3, 1, 2, 1)
    assert counts(found["Drafts"]) == (1, 0, 1, 0), "an unseen draft is not unread"
    # Half of the conversation is archived: it is unread there too.
    (second,) = [e for e in (await alice.call("Email/query", filter={"subject": "Plan"}))["ids"] if e != first]
    await alice.call("Email/set", update={second: {"mailboxIds": {boxes["Archive"]: True}}})
    found = await by_name(alice)
    assert counts(found["INBOX"]) == (2, 1, 2, 1)
    assert counts(found["Archive"]) == (1, 0, 1, 1)
    # The unread half goes to the bin: only there is it unread now.
    await alice.call("Email/set", update={first: {"mailboxIds": {boxes["Trash"]: True}}})
    found = await by_name(alice)
    assert counts(found["Archive"]) == (1, 0, 1, 0)
    assert counts(found["Trash"]) == (1, 1, 1, 1)


async def test_mail_that_imap_marked_deleted_is_not_there(world: World) -> None:
    alice = world.alice
    gone = await world.deliver(alice.account, SIMPLE.format(subject="Gone"), flags=flags.DELETED)
    await world.deliver(alice.account, SIMPLE.format(subject="Here"))
    found = await by_name(alice)
    assert counts(found["INBOX"]) == (1, 1, 1, 1)
    assert (await alice.call("Email/get", ids=[gone]))["notFound"] == [gone]
    assert len((await alice.call("Email/query", filter={"inMailbox": found["INBOX"]["id"]}))["ids"]) == 1
    assert (await alice.call("Thread/get", ids=["T1"]))["notFound"] == ["T1"]


async def test_mailboxes_are_made_renamed_moved_and_removed(world: World) -> None:
    alice = world.alice
    made = await alice.call(
        "Mailbox/set",
        create={
            "b": {"name": "Beta", "parentId": "#a", "isSubscribed": True},
            "a": {"name": "Alpha", "isSubscribed": True},
            "bad": {"name": "x/y"},
            "empty": {"name": " "},
            "long": {"name": "ü" * 200},
            "odd": {"name": "Odd", "colour": "red"},
            "again": {"name": "Sent"},
            "inbox": {"name": "inbox"},
            "orphan": {"name": "Orphan", "parentId": "F99"},
            "role": {"name": "Second junk", "role": "junk"},
            "mine": {"name": "Mine", "role": "important"},
        },
    )
    assert set(made["created"]) == {"a", "b", "mine"}
    assert {key: error["type"] for key, error in made["notCreated"].items()} == dict.fromkeys(
        ("bad", "empty", "long", "odd", "again", "inbox", "orphan", "role"), "invalidProperties"
    )
    assert made["notCreated"]["orphan"]["properties"] == ["parentId"]
    alpha, beta = made["created"]["a"]["id"], made["created"]["b"]["id"]
    found = await by_name(alice)
    assert found["Beta"]["parentId"] == alpha and found["Mine"]["role"] == "important"
    renamed = await alice.call("Mailbox/set", update={alpha: {"name": "Álpha"}})
    assert renamed["updated"] == {alpha: None}
    found = await by_name(alice)
    assert found["Álpha"]["isSubscribed"] and found["Beta"]["isSubscribed"], "subscriptions follow"
    assert found["Beta"]["parentId"] == alpha
    refused = await alice.call("Mailbox/set", update={alpha: {"parentId": beta}, "F1": {"name": "X"}, "F99": {}})
    kinds = {key: error["type"] for key, error in refused["notUpdated"].items()}
    assert kinds == {alpha: "invalidProperties", "F1": "forbidden", "F99": "notFound"}
    moved = await alice.call("Mailbox/set", update={beta: {"parentId": None, "isSubscribed": False, "role": "all"}})
    assert moved["updated"] == {beta: None}
    found = await by_name(alice)
    assert (found["Beta"]["parentId"], found["Beta"]["isSubscribed"], found["Beta"]["role"]) == (None, False, "all")
    gone = await alice.call("Mailbox/set", destroy=[alpha, "F1", "F99"])
    assert gone["destroyed"] == [alpha]
    assert {key: error["type"] for key, error in gone["notDestroyed"].items()} == {"F1": "forbidden", "F99": "notFound"}


async def test_a_parent_and_its_child_can_go_together_but_not_the_parent_alone(world: World) -> None:
    alice = world.alice
    made = (await alice.call("Mailbox/set", create={"a": {"name": "A"}, "b": {"name": "B", "parentId": "#a"}}))[
        "created"
    ]
    a, b = made["a"]["id"], made["b"]["id"]
    assert (await alice.call("Mailbox/set", destroy=[a]))["notDestroyed"][a]["type"] == "mailboxHasChild"
    assert set((await alice.call("Mailbox/set", destroy=[a, b]))["destroyed"]) == {a, b}


async def test_emails_hold_a_mailbox_back_unless_they_may_go_with_it(world: World) -> None:
    alice = world.alice
    box = (await alice.call("Mailbox/set", create={"a": {"name": "A"}}))["created"]["a"]["id"]
    email = await world.deliver(alice.account, SIMPLE.format(subject="Kept"), mailbox=int(box[1:]))
    assert (await alice.call("Mailbox/set", destroy=[box]))["notDestroyed"][box]["type"] == "mailboxHasEmail"
    assert (await alice.call("Mailbox/set", destroy=[box], onDestroyRemoveEmails=True))["destroyed"] == [box]
    assert (await alice.call("Email/get", ids=[email]))["notFound"] == [email]


async def test_changes_name_what_changed_and_whether_only_counts_did(world: World) -> None:
    alice = world.alice
    since = (await alice.call("Mailbox/get", ids=[]))["state"]
    assert (await alice.call("Mailbox/changes", sinceState=since))["updated"] == []
    await world.deliver(alice.account, SIMPLE.format(subject="New"))
    found = await alice.call("Mailbox/changes", sinceState=since)
    assert (found["updated"], found["created"], found["destroyed"]) == (["F1"], [], [])
    assert set(found["updatedProperties"]) == {"totalEmails", "unreadEmails", "totalThreads", "unreadThreads"}
    assert found["newState"] != since and found["oldState"] == since
    made = await alice.call("Mailbox/set", create={"a": {"name": "A"}}, ifInState=found["newState"])
    box = made["created"]["a"]["id"]
    again = await alice.call("Mailbox/changes", sinceState=found["newState"])
    assert (again["created"], again["updatedProperties"]) == ([box], None)
    assert again["newState"] == made["newState"]
    await alice.call("Mailbox/set", destroy=[box])
    assert (await alice.call("Mailbox/changes", sinceState=again["newState"]))["destroyed"] == [box]
    assert await alice.error("Mailbox/set", ifInState=since, destroy=[]) == "stateMismatch"
    for unknown in ("999999", "never", ""):
        assert await alice.error("Mailbox/changes", sinceState=unknown) == "cannotCalculateChanges"
    assert await alice.error("Mailbox/changes") == "invalidArguments"


async def test_mailboxes_are_queried_by_role_name_and_tree(world: World) -> None:
    alice = world.alice
    made = await alice.call(
        "Mailbox/set", create={"z": {"name": "Zoo"}, "a": {"name": "Ape", "parentId": "#z"}, "b": {"name": "Bee"}}
    )
    zoo, ape, bee = (made["created"][key]["id"] for key in "zab")

    async def query(**args: Any) -> list[str]:
        return list((await alice.call("Mailbox/query", **args))["ids"])

    assert await query(filter={"role": "junk"}) == ["F5"]
    assert await query(filter={"hasAnyRole": False}, sort=[{"property": "name"}]) == [ape, bee, zoo]
    assert await query(filter={"hasAnyRole": False}, sort=[{"property": "name"}], sortAsTree=True) == [bee, zoo, ape]
    assert await query(filter={"name": "AP"}) == [ape]
    assert await query(filter={"name": "AP"}, filterAsTree=True) == []
    assert await query(filter={"parentId": zoo}) == [ape]
    assert await query(filter={"operator": "NOT", "conditions": [{"hasAnyRole": True}]}, limit=1, position=1) == [bee]
    found = await alice.call("Mailbox/query", calculateTotal=True, anchor="F1", anchorOffset=1, limit=1)
    assert (found["total"], found["position"], len(found["ids"])) == (9, 1, 1)
    assert await alice.error("Mailbox/query", filter={"colour": "red"}) == "unsupportedFilter"
    assert await alice.error("Mailbox/query", sort=[{"property": "colour"}]) == "unsupportedSort"
    assert await alice.error("Mailbox/query", anchor="F99") == "anchorNotFound"
    assert await alice.error("Mailbox/queryChanges", sinceQueryState="1") == "cannotCalculateChanges"
