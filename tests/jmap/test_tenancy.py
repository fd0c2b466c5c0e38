"""Alice (owner), Bob (colleague), Charlie (outsider): an id of Alice's means nothing to anybody else."""

from __future__ import annotations

from typing import Any

import pytest

from mailcore.jmap import blob_ids
from mailcore.jmap.context import METHODS
from tests.jmap.world import SIMPLE, Client, World

pytestmark = pytest.mark.django_db(transaction=True)

NO_IDS = {
    # What takes no ids, or says only what changed since a state of one's own.
    *("Core/echo", "Mailbox/changes", "Thread/changes", "Email/changes", "Identity/changes", "EmailSubmission/changes"),
    *("Mailbox/queryChanges", "Email/queryChanges", "EmailSubmission/queryChanges"),
}


async def test_every_method_refuses_another_account(world: World) -> None:
    alice = world.alice
    await world.deliver(alice.account, SIMPLE.format(subject="Secret"))
    for other in (world.bob, world.charlie):
        for name in METHODS.keys() - {"Core/echo"}:
            ((answered, body),) = await other.calls((name, {}), account=alice.id)
            assert (answered, body) == ("error", {"type": "accountNotFound"}), name


async def test_every_address_refuses_another_account(world: World) -> None:
    alice = world.alice
    email = await world.deliver(alice.account, SIMPLE.format(subject="Secret"))
    for other in (world.bob, world.charlie):
        for method, path in [
            ("GET", f"/jmap/download/{alice.id}/B{email[1:]}/x"),
            ("POST", f"/jmap/upload/{alice.id}/"),
        ]:
            mine = await other.request(method, path, b"x")
            missing = await other.request(method, path.replace(alice.id, "a999999"), b"x")
            assert mine.status == 404 and (mine.status, mine.body) == (missing.status, missing.body)


async def ids_of(world: World) -> dict[str, str]:
    """One id of each kind that Alice has, numbers that nobody else has got to."""
    alice = world.alice
    for n in range(5):
        email = await world.deliver(alice.account, SIMPLE.format(subject=f"Secret {n}"))
    box = (await alice.call("Mailbox/set", create={"a": {"name": "Hidden"}}))["created"]["a"]["id"]
    blob = (await alice.request("POST", f"/jmap/upload/{alice.id}/", b"secret")).json["blobId"]
    identity = (await alice.call("Identity/get", ids=None))["list"][0]["id"]
    await alice.call("Email/set", update={email: {"mailboxIds": {box: True}}})
    wish = {
        "identityId": identity,
        "emailId": (await draft(alice)),
        "envelope": {
            "mailFrom": {"email": "alice@example.org", "parameters": {"HOLDFOR": "600"}},
            "rcptTo": [{"email": "far@elsewhere.example"}],
        },
    }
    sent = (await alice.call("EmailSubmission/set", create={"s": wish}))["created"]["s"]["id"]
    thread = (await alice.email(email))["threadId"]
    return {"email": email, "box": box, "blob": blob, "identity": identity, "submission": sent, "thread": thread}


async def draft(client: Client) -> str:
    email = {
        "mailboxIds": {"F2": True},
        "from": [{"email": "alice@example.org"}],
        "to": [{"email": "far@elsewhere.example"}],
    }
    return str((await client.call("Email/set", create={"d": email}))["created"]["d"]["id"])


async def test_every_kind_of_id_is_nobodys_in_another_account(world: World) -> None:
    ids = await ids_of(world)
    checked = set()
    for other in (world.bob, world.charlie):

        async def ask(name: str, _other: Client = other, **args: Any) -> Any:
            checked.add(name)
            return await _other.call(name, **args)

        for name, one in [
            ("Mailbox/get", ids["box"]),
            ("Email/get", ids["email"]),
            ("Thread/get", ids["thread"]),
            ("EmailSubmission/get", ids["submission"]),
        ]:
            found = await ask(name, ids=[one])
            assert (found["list"], found["notFound"]) == ([], [one]), name
        found = await ask("SearchSnippet/get", filter={"text": "Secret"}, emailIds=[ids["email"]])
        assert found["list"] == []
        assert (await ask("Email/query", filter={"inMailbox": ids["box"]}))["ids"] == []
        assert (await ask("Email/query"))["ids"] == []
        assert (await ask("Mailbox/query", filter={"parentId": ids["box"]}))["ids"] == []
        assert (await ask("EmailSubmission/query"))["ids"] == []
        found = await ask("Email/set", update={ids["email"]: {"keywords/$seen": True}}, destroy=[ids["email"]])
        assert found["notUpdated"][ids["email"]]["type"] in ("notFound",)
        assert found["notDestroyed"][ids["email"]]["type"] == "notFound"
        mine = await world.deliver(other.account, SIMPLE.format(subject="Mine"))
        found = await ask("Email/set", update={mine: {"mailboxIds": {ids["box"]: True}}})
        assert found["notUpdated"][mine]["type"] == "invalidProperties"
        for blob in (ids["blob"], f"B{ids['email'][1:]}", f"P{ids['email'][1:]}-1"):
            assert (await other.request("GET", f"/jmap/download/{other.id}/{blob}/x")).status == 404
            attachment = {"blobId": blob, "type": "text/plain"}
            found = await ask("Email/set", create={"a": {"mailboxIds": {"F2": True}, "attachments": [attachment]}})
            assert found["notCreated"]["a"]["type"] == "blobNotFound"
            found = await ask("Email/import", emails={"a": {"blobId": blob, "mailboxIds": {"F2": True}}})
            assert found["notCreated"]["a"]["type"] == "blobNotFound"
        found = await ask("Mailbox/set", update={ids["box"]: {"name": "Mine"}}, destroy=[ids["box"]])
        assert found["notUpdated"][ids["box"]]["type"] == found["notDestroyed"][ids["box"]]["type"] == "notFound"
        own = (await ask("Identity/get", ids=None))["list"][0]["id"]
        if other is world.charlie:
            assert (await ask("Identity/get", ids=[ids["identity"]]))["notFound"] == [ids["identity"]]
        for wish in (
            {"identityId": own, "emailId": ids["email"]},
            {"identityId": ids["identity"], "emailId": mine},
        ):
            found = await ask("EmailSubmission/set", create={"s": wish})
            assert found["notCreated"]["s"]["type"] == "invalidProperties"
        found = await ask(
            "EmailSubmission/set",
            update={ids["submission"]: {"undoStatus": "canceled"}},
            destroy=[ids["submission"]],
        )
        assert found["notUpdated"][ids["submission"]]["type"] == "notFound"
        assert found["notDestroyed"][ids["submission"]]["type"] == "notFound"
        found = await ask("Identity/set", update={ids["identity"]: {"name": "x"}}, destroy=[ids["identity"]])
        assert found["notUpdated"]
    assert checked | NO_IDS == set(METHODS), "a new method is to be asked here too"
    alice = world.alice
    assert (await alice.email(ids["email"]))["keywords"] == {}
    (waiting,) = (await alice.call("EmailSubmission/get", ids=[ids["submission"]]))["list"]
    assert waiting["undoStatus"] == "pending"


async def test_knowing_the_hash_of_an_upload_is_not_having_it(world: World) -> None:
    import base64
    import hashlib

    digest = hashlib.sha256(b"secret").digest()
    for_bob = blob_ids.upload_blob_id(world.village.bob, digest)
    blob = (await world.alice.request("POST", f"/jmap/upload/{world.alice.id}/", b"secret")).json["blobId"]
    assert blob == blob_ids.upload_blob_id(world.village.alice, digest) != for_bob
    guess = "U" + base64.urlsafe_b64encode(digest + bytes(16)).decode()
    for forged in (guess, blob, blob[:-1] + ("A" if blob[-1] != "A" else "B"), blob[:20] + "AAAA" + blob[24:]):
        assert (await world.bob.request("GET", f"/jmap/download/{world.bob.id}/{forged}/x")).status == 404
