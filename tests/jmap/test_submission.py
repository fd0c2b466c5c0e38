"""EmailSubmission/* and Identity/*: sending, holding back, taking back (RFC 8621 §6, §7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailcore import db
from mailcore.store import fetch, quota, trace
from tests.jmap.world import Client, World

pytestmark = pytest.mark.django_db(transaction=True)


async def identity(client: Client, email: str | None = None) -> str:
    found = (await client.call("Identity/get", ids=None))["list"]
    return next(one["id"] for one in found if email in (None, one["email"]))


async def draft(client: Client, to: str = "bob@example.org", sender: str = "alice@example.org", **more: Any) -> str:
    email = {
        "mailboxIds": {"F2": True},
        "keywords": {"$draft": True},
        "from": [{"name": None, "email": sender}],
        "to": [{"name": None, "email": one} for one in to.split()],
        "subject": "Words",
        "textBody": [{"partId": "t", "type": "text/plain"}],
        "bodyValues": {"t": {"value": "Some words."}},
        **more,
    }
    return str((await client.call("Email/set", create={"d": email}))["created"]["d"]["id"])


async def submit(client: Client, email: str, **fields: Any) -> Any:
    """Submit an email; the created object or the error."""
    wish = {"emailId": email, "identityId": await identity(client), **fields}
    answer = await client.call("EmailSubmission/set", create={"s": wish})
    return (answer["created"] or {}).get("s") or answer["notCreated"]["s"]


async def queue() -> list[tuple[str, str, bytes]]:
    """(sender, recipient, octets as they will leave) of the outbound queue."""
    async with db.read() as tx:
        rows = await tx.fetch(
            "SELECT o.sender, r.address, o.prepend, b.data FROM outbound o JOIN blob b ON b.hash = o.blob "
            "JOIN outbound_recipient r ON r.outbound_id = o.id ORDER BY r.id"
        )
    return [(sender, address, bytes(prepend) + bytes(data)) for sender, address, prepend, data in rows]


async def inbox(account: int) -> list[bytes]:
    async with db.read() as tx:
        rows = await fetch.rows(tx, account, 1, 1, 1 << 31, ("message_id",))
        return list((await fetch.raws(tx, account, [row[0] for row in rows])).values())


def held(sender: str, to: str, seconds: Any) -> dict[str, Any]:
    return {
        "mailFrom": {"email": sender, "parameters": {"HOLDFOR": seconds}},
        "rcptTo": [{"email": one, "parameters": None} for one in to.split()],
    }


async def test_identities_are_the_addresses_one_may_send_as(world: World) -> None:
    found = await world.alice.call("Identity/get", ids=None)
    assert [(one["email"], one["name"]) for one in found["list"]] == [
        ("alice@example.org", "Alice Ångström"),
        ("sales@example.org", "Alice Ångström"),
    ]
    (first, _) = found["list"]
    assert first["mayDelete"] is False and first["replyTo"] is None and first["textSignature"] == ""
    one = await world.alice.call("Identity/get", ids=[first["id"], "x"], properties=["email"])
    assert one["list"] == [{"id": first["id"], "email": "alice@example.org"}] and one["notFound"] == ["x"]
    assert [one["email"] for one in (await world.charlie.call("Identity/get", ids=None))["list"]] == [
        "charlie@example.net"
    ]
    assert (await world.alice.call("Identity/changes", sinceState=found["state"]))["updated"] == []
    assert await world.alice.error("Identity/changes", sinceState="x") == "cannotCalculateChanges"
    answer = await world.alice.call(
        "Identity/set", create={"a": {"email": "a@b"}}, update={first["id"]: {"name": "x"}}, destroy=["x"]
    )
    assert answer["notCreated"]["a"]["type"] == answer["notUpdated"][first["id"]]["type"] == "forbidden"
    assert answer["notDestroyed"]["x"]["type"] == "notFound"


async def test_mail_goes_to_people_here_at_once_and_to_others_by_the_queue(world: World) -> None:
    alice = world.alice
    email = await draft(
        alice, "bob@example.org Far@Elsewhere.example", bcc=[{"name": None, "email": "charlie@example.net"}],
        cc=[{"name": "Bob again", "email": "bob@example.org"}],
    )  # fmt: skip
    made = await submit(alice, email)
    assert made["undoStatus"] == "final" and made["threadId"].startswith("T")
    assert [to["email"] for to in made["envelope"]["rcptTo"]] == [
        *("bob@example.org", "Far@elsewhere.example", "charlie@example.net"),
    ]
    (to_bob,) = await inbox(world.village.bob)
    (to_charlie,) = await inbox(world.village.charlie)
    ((sender, recipient, leaving),) = await queue()
    assert (sender, recipient) == ("alice@example.org", "Far@elsewhere.example")
    for raw in (to_bob, to_charlie, leaving):
        assert b"Some words." in raw and b"charlie" not in raw, "nobody learns of the Bcc"
        assert b"Received: from" in raw and b"192.0.2.7" not in raw, "nor of where Alice sits"
    kept = await alice.email(email)
    assert kept["bcc"] == [{"name": None, "email": "charlie@example.net"}], "but her own copy remembers"
    trace_id = made["id"][1:]
    assert f"id {trace_id}".encode() in leaving
    async with db.read() as tx:
        events = await trace.find(tx, trace_id)
    assert [event.step for event in events] == ["accepted", "stored", "stored", "queued"]
    assert events[0].detail["from"] == "192.0.2.7" and events[0].account_id == alice.account
    (found,) = (await alice.call("EmailSubmission/get", ids=[made["id"]]))["list"]
    assert found["emailId"] == email and found["undoStatus"] == "final"
    assert found["deliveryStatus"]["Far@elsewhere.example"]["delivered"] == "queued"
    assert found["deliveryStatus"]["bob@example.org"]["smtpReply"].startswith("250")


async def test_mail_has_a_time_and_a_priority_when_it_is_given_one(world: World) -> None:
    """RFC 8621 §7: parameters of MAIL, here of RFC 2852 and RFC 6710, as submission takes them."""
    alice = world.alice
    email = await draft(alice)
    envelope = held("alice@example.org", "far@elsewhere.example", "60")
    for parameters, kept in (
        ({"by": "600;NT", "MT-Priority": "9"}, ("NT", 600, 4)),
        ({"BY": "10;R", "HOLDFOR": "60"}, ("R", 10, 0)),
    ):
        envelope["mailFrom"]["parameters"] = parameters
        assert "id" in await submit(alice, email, envelope=envelope)
        async with db.read() as tx:
            rows = await tx.fetch(
                "SELECT o.by_mode, extract(epoch FROM r.deliver_by - greatest(o.created_at, o.send_after))::int, "
                "r.priority FROM outbound o JOIN outbound_recipient r ON r.outbound_id = o.id ORDER BY r.id DESC"
            )
        assert rows[0] == kept
    for name, value in (("BY", "9;R"), ("BY", "60"), ("BY", None), ("BY", "60;R SIZE=1"), ("MT-PRIORITY", "10")):
        envelope["mailFrom"]["parameters"] = {name: value}
        assert (await submit(alice, email, envelope=envelope))["type"] == "invalidProperties", (name, value)


async def test_what_may_not_be_sent_is_refused_with_the_rfcs_words(world: World) -> None:
    alice = world.alice
    email = await draft(alice)
    sender = {"email": "alice@example.org", "parameters": None}
    to_bob = [{"email": "bob@example.org"}]
    refusals: list[tuple[str, dict[str, Any], str]] = [
        (email, {"identityId": "x"}, "invalidProperties"),
        ("M99", {}, "invalidProperties"),
        ("#never", {}, "invalidProperties"),
        (email, {"sendAt": "2030-01-01T00:00:00Z"}, "invalidProperties"),
        (await draft(alice, ""), {}, "noRecipients"),
        (await draft(alice, "nobody@example.org bob@example.org"), {}, "invalidRecipients"),
        (await draft(alice, "not-an-address"), {}, "invalidRecipients"),
        (await draft(alice, sender="bob@example.org"), {}, "forbiddenFrom"),
        (await draft(alice, sender="president@elsewhere.example"), {}, "forbiddenFrom"),
        (await draft(alice, **{"from": None}), {}, "invalidEmail"),
        (email, {"envelope": {"mailFrom": {"email": "bob@example.org"}, "rcptTo": to_bob}}, "forbiddenMailFrom"),
        (email, {"envelope": {"mailFrom": {"email": ""}, "rcptTo": to_bob}}, "forbiddenMailFrom"),
        (email, {"envelope": {"mailFrom": sender, "rcptTo": []}}, "noRecipients"),
        (email, {"envelope": {"mailFrom": sender, "rcptTo": [{"email": f"u{n}@x.example"} for n in range(1001)]}},
         "tooManyRecipients"),
        (email, {"envelope": {"mailFrom": sender, "rcptTo": [{"email": "x@y.example\r\nDATA"}]}}, "invalidRecipients"),
        (email, {"envelope": {"mailFrom": sender, "rcptTo": [{"email": "b@x", "parameters": {"NOTIFY": "NEVER"}}]}},
         "invalidProperties"),
        (email, {"envelope": {"mailFrom": {**sender, "parameters": {"X": "1"}}, "rcptTo": to_bob}},
         "invalidProperties"),
        (email, {"envelope": {"mailFrom": {"parameters": {}}, "rcptTo": to_bob}}, "invalidProperties"),
        (email, {"envelope": []}, "invalidProperties"),
        *[(email, {"envelope": held("alice@example.org", "bob@example.org", seconds)}, "invalidProperties")
          for seconds in ("-1", "x", "", None, "99999999")],
    ]  # fmt: skip
    for number, fields, kind in refusals:
        error = await submit(alice, number, **fields)
        assert error.get("type") == kind, (fields, error)
    assert error["properties"] == ["envelope"]
    error = await submit(alice, refusals[5][0])
    assert error["invalidRecipients"] == ["nobody@example.org"]
    assert error["reasons"] == {"nobody@example.org": error["description"]}
    assert await queue() == [] and await inbox(world.village.bob) == []


async def test_a_full_mailbox_is_said_of_its_recipient(world: World) -> None:
    async with db.transaction() as tx:
        await quota.set_limit(tx, world.village.bob, 10)
    error = await submit(world.alice, await draft(world.alice))
    assert (error["type"], error["invalidRecipients"]) == ("invalidRecipients", ["bob@example.org"])
    assert "full" in error["description"]


async def test_one_may_send_as_an_alias_and_with_a_tag(world: World) -> None:
    alice = world.alice
    sales = await identity(alice, "sales@example.org")
    made = await submit(alice, await draft(alice, sender="sales@example.org"), identityId=sales)
    assert made["envelope"]["mailFrom"]["email"] == "sales@example.org"
    envelope = {"mailFrom": {"email": "alice+shop@example.org"}, "rcptTo": [{"email": "bob@example.org"}]}
    made = await submit(alice, await draft(alice, sender="alice+shop@example.org"), envelope=envelope)
    assert made["undoStatus"] == "final"
    assert len(await inbox(world.village.bob)) == 2


async def test_octets_of_mail_taken_back_after_days_go_with_it(world: World) -> None:
    email = await draft(world.alice, "far@elsewhere.example")
    made = await submit(world.alice, email, envelope=held("alice@example.org", "far@elsewhere.example", "600"))
    async with db.transaction() as tx:
        # As when the draft was destroyed a month ago, and the mail has waited for all that time.
        for table in ("entry", "message_text", "message"):
            await tx.execute(f"DELETE FROM {table}")
        await tx.execute("UPDATE blob SET touched_at = now() - interval '10 days'")
    await world.alice.call("EmailSubmission/set", update={made["id"]: {"undoStatus": "canceled"}})
    async with db.read() as tx:
        assert await tx.fetch("SELECT hash FROM blob") == []


async def test_what_is_held_back_waits_for_everybody_and_can_be_taken_back(world: World) -> None:
    alice = world.alice
    email = await draft(alice, "bob@example.org far@elsewhere.example")
    envelope = held("alice@example.org", "bob@example.org far@elsewhere.example", "600")
    before = datetime.now(UTC)
    made = await submit(alice, email, envelope=envelope)
    assert made["undoStatus"] == "pending"
    asked = datetime.fromisoformat(made["sendAt"]) - timedelta(seconds=600)
    assert before - timedelta(seconds=1) < asked < datetime.now(UTC), "it is told in whole seconds"
    assert await inbox(world.village.bob) == []
    assert [to for _, to, _ in await queue()] == ["bob@example.org", "far@elsewhere.example"]
    async with db.read() as tx:
        from mailcore.store import queue as store

        assert await store.claim(tx) == [], "nothing of it is due"
    listed = await alice.call("EmailSubmission/query", filter={"undoStatus": "pending"}, calculateTotal=True)
    assert (listed["ids"], listed["total"]) == ([made["id"]], 1)
    state = listed["queryState"]
    answer = await alice.call("EmailSubmission/set", update={made["id"]: {"undoStatus": "canceled"}})
    assert answer["updated"] == {made["id"]: None} and answer["oldState"] == state != answer["newState"]
    assert await queue() == []
    (found,) = (await alice.call("EmailSubmission/get", ids=[made["id"]]))["list"]
    assert found["undoStatus"] == "canceled" and found["sendAt"] == made["sendAt"]
    assert {one["delivered"] for one in found["deliveryStatus"].values()} == {"no"}
    async with db.read() as tx:
        steps = [event.step for event in await trace.find(tx, made["id"][1:])]
    assert steps == ["accepted", "queued", "queued", "canceled", "canceled"]
    # Once more is the same; back to pending is impossible.
    again = await alice.call("EmailSubmission/set", update={made["id"]: {"undoStatus": "canceled"}})
    assert again["updated"] == {made["id"]: None}
    for patch in ({"undoStatus": "pending"}, {"sendAt": "2030-01-01T00:00:00Z"}):
        refused = await alice.call("EmailSubmission/set", update={made["id"]: patch})
        assert refused["notUpdated"][made["id"]]["type"] == "invalidProperties"


async def test_it_is_too_late_once_somebody_has_begun(world: World) -> None:
    from mailcore.store import queue as store

    alice = world.alice
    envelope = held("alice@example.org", "a@elsewhere.example b@other.example", "600")
    made = await submit(alice, await draft(alice), envelope=envelope)
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_recipient SET next_attempt_at = now() WHERE address LIKE 'a@%%'")
        assert len(await store.claim(tx)) == 1
    answer = await alice.call("EmailSubmission/set", update={made["id"]: {"undoStatus": "canceled"}})
    assert answer["notUpdated"][made["id"]]["type"] == "cannotUnsend"
    assert len(await queue()) == 2, "nothing was taken back by halves"
    (found,) = (await alice.call("EmailSubmission/get", ids=[made["id"]]))["list"]
    assert found["undoStatus"] == "final"
    sent = await submit(alice, await draft(alice))
    answer = await alice.call("EmailSubmission/set", update={sent["id"]: {"undoStatus": "canceled"}})
    assert answer["notUpdated"][sent["id"]]["type"] == "cannotUnsend"


async def test_holduntil_is_a_date(world: World) -> None:
    alice = world.alice
    for at, status in ((datetime.now(UTC) + timedelta(days=1), "pending"), (datetime(2020, 1, 1, tzinfo=UTC), "final")):
        envelope = held("alice@example.org", "bob@example.org", "0")
        envelope["mailFrom"]["parameters"] = {"holduntil": at.isoformat()}
        assert (await submit(alice, await draft(alice), envelope=envelope))["undoStatus"] == status


async def test_after_success_the_email_is_filed_or_destroyed(world: World) -> None:
    alice = world.alice
    filed, dropped, failing = await draft(alice), await draft(alice), await draft(alice, "nobody@example.org")
    who = await identity(alice)
    answers = await alice.calls(
        (
            "EmailSubmission/set",
            {
                "create": {
                    "a": {"emailId": filed, "identityId": who},
                    "b": {"emailId": dropped, "identityId": who},
                    "c": {"emailId": failing, "identityId": who},
                },
                "onSuccessUpdateEmail": {
                    key: {"mailboxIds/F2": None, "mailboxIds/F3": True, "keywords/$draft": None} for key in ("#a", "#c")
                },
                "onSuccessDestroyEmail": ["#b"],
            },
        )
    )
    (_, submitted), (name, implicit) = answers
    assert set(submitted["created"]) == {"a", "b"} and set(submitted["notCreated"]) == {"c"}
    assert name == "Email/set" and implicit["updated"] == {filed: None} and implicit["destroyed"] == [dropped]
    assert implicit["accountId"] == alice.id
    assert (await alice.email(filed, properties=["mailboxIds"]))["mailboxIds"] == {"F3": True}
    assert (await alice.email(failing, properties=["mailboxIds"]))["mailboxIds"] == {"F2": True}
    assert await alice.error("EmailSubmission/set", onSuccessUpdateEmail={"#nope": {}}) == "invalidArguments"


async def test_what_goes_wrong_after_sending_is_not_said_of_the_sending(world: World) -> None:
    """A client that is told "not sent" sends again."""
    alice = world.alice
    wish = {"emailId": await draft(alice), "identityId": await identity(alice)}
    answers = await alice.calls(
        ("EmailSubmission/set", {"create": {"a": wish}, "onSuccessUpdateEmail": {"#a": {"mailboxIds/F99": True}}})
    )
    assert [name for name, _ in answers] == ["EmailSubmission/set", "Email/set"]
    assert answers[0][1]["created"]["a"] and answers[1][1]["notUpdated"]
    assert len(await inbox(world.village.bob)) == 1


async def test_submissions_are_found_and_not_forgotten(world: World) -> None:
    alice = world.alice
    first = await submit(alice, await draft(alice, "a@elsewhere.example"))
    second = await submit(alice, await draft(alice, "b@elsewhere.example"))

    async def query(**args: Any) -> list[str]:
        return list((await alice.call("EmailSubmission/query", **args))["ids"])

    assert await query() == [second["id"], first["id"]]
    assert await query(sort=[{"property": "sentAt"}]) in ([first["id"], second["id"]], [second["id"], first["id"]])
    (one,) = (await alice.call("EmailSubmission/get", ids=[first["id"]], properties=["emailId"]))["list"]
    assert await query(filter={"emailIds": [one["emailId"]]}) == [first["id"]]
    assert await query(filter={"operator": "NOT", "conditions": [{"emailIds": [one["emailId"]]}]}) == [second["id"]]
    assert await query(filter={"before": "2020-01-01T00:00:00Z"}) == []
    assert await alice.error("EmailSubmission/query", filter={"colour": "red"}) == "unsupportedFilter"
    assert {s["id"] for s in (await alice.call("EmailSubmission/get", ids=None))["list"]} == {first["id"], second["id"]}
    state = (await alice.call("EmailSubmission/get", ids=[]))["state"]
    assert (await alice.call("EmailSubmission/changes", sinceState=state))["updated"] == []
    assert await alice.error("EmailSubmission/changes", sinceState="1") == "cannotCalculateChanges"
    gone = await alice.call("EmailSubmission/set", destroy=[first["id"], "S" + "0" * 15], ifInState=state)
    assert {key: error["type"] for key, error in gone["notDestroyed"].items()} == {
        first["id"]: "forbidden",
        "S" + "0" * 15: "notFound",
    }


async def test_internationalised_mail_asks_for_smtputf8(world: World) -> None:
    alice = world.alice
    await submit(alice, await draft(alice, "jürgen@bücher.example"))
    ((_, address, raw),) = await queue()
    assert address == "jürgen@xn--bcher-kva.example"
    assert "jürgen@".encode() in raw
    async with db.read() as tx:
        assert await tx.fetch("SELECT smtputf8 FROM outbound") == [(True,)]
