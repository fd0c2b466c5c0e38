"""Email/set and Email/import (RFC 8621 §4.6, §4.8)."""

from __future__ import annotations

from typing import Any

import pytest

from mailcore import db
from mailcore.jmap import limits
from mailcore.store import fetch, quota
from tests.jmap.world import SIMPLE, Client, World

pytestmark = pytest.mark.django_db(transaction=True)

DRAFT: dict[str, Any] = {
    "mailboxIds": {"F2": True},
    "keywords": {"$draft": True, "$seen": True},
    "from": [{"name": "Alice Ångström", "email": "alice@example.org"}],
    "to": [{"name": "Böb, the builder", "email": "bob@example.org"}, {"email": "far@elsewhere.example", "name": None}],
    "subject": "Grüße & more",
    "bodyValues": {"t": {"value": "Schöne Grüße\nund Küsse"}, "h": {"value": "<p>Schöne Grüße</p>"}},
    "textBody": [{"partId": "t", "type": "text/plain"}],
    "htmlBody": [{"partId": "h", "type": "text/html"}],
}


async def create(client: Client, **fields: Any) -> Any:
    """Create one email; the server-set properties, or its error."""
    answer = await client.call("Email/set", create={"c": {**DRAFT, **fields}})
    return (answer["created"] or {}).get("c") or answer["notCreated"]["c"]


async def raw_of(client: Client, email_id: str) -> bytes:
    async with db.read() as tx:
        return await fetch.raw(tx, client.account, int(email_id[1:]))


async def recount(account: int) -> list[Any]:
    async with db.read() as tx:
        return await quota.recount(tx, account)


async def test_a_draft_reads_back_as_it_was_written(world: World) -> None:
    alice = world.alice
    made = await create(
        alice, inReplyTo=["one@far.example"], references=["zero@far.example", "one@far.example"], cc=[], bcc=None,
        sentAt="2026-03-01T10:00:00+01:00", replyTo=[{"name": None, "email": "alice+list@example.org"}],
    )  # fmt: skip
    assert set(made) == {"id", "blobId", "threadId", "size"}
    email = await alice.email(made["id"], fetchAllBodyValues=True)
    for name in ("from", "to", "subject"):
        assert email[name] == DRAFT[name], name
    assert email["keywords"] == DRAFT["keywords"] and email["mailboxIds"] == DRAFT["mailboxIds"]
    assert email["inReplyTo"] == ["one@far.example"] and email["references"] == ["zero@far.example", "one@far.example"]
    assert email["sentAt"] == "2026-03-01T10:00:00+01:00" and email["cc"] is None
    assert email["replyTo"] == [{"name": None, "email": "alice+list@example.org"}]
    assert len(email["messageId"]) == 1 and email["messageId"][0].endswith("@example.org")
    assert [part["type"] for part in email["textBody"]] == ["text/plain"]
    assert {v["value"] for v in email["bodyValues"].values()} == {"Schöne Grüße\nund Küsse", "<p>Schöne Grüße</p>"}
    assert email["preview"] == "Schöne Grüße und Küsse" and email["hasAttachment"] is False
    assert email["size"] == made["size"] == len(await raw_of(alice, made["id"]))


async def test_attachments_come_from_uploads_emails_and_parts(world: World) -> None:
    alice = world.alice
    upload = (
        await alice.request("POST", f"/jmap/upload/{alice.id}/", b"%PDF-\0", {"content-type": "application/pdf"})
    ).json
    picture = (await alice.request("POST", f"/jmap/upload/{alice.id}/", b"\x89PNG", {"content-type": "image/png"})).json
    other = await world.deliver(alice.account, SIMPLE.format(subject="Other"))
    first = await create(
        alice,
        attachments=[
            {"blobId": picture["blobId"], "type": "image/png", "name": "p.png", "cid": "c1@x", "disposition": "inline"},
            {"blobId": upload["blobId"], "type": "application/pdf", "name": "Rechnung für März.pdf"},
            {"blobId": f"B{other[1:]}", "type": "message/rfc822", "name": "other.eml", "disposition": "attachment"},
        ],
    )
    email = await alice.email(first["id"], properties=["attachments", "bodyStructure", "hasAttachment"])
    image, pdf, message = email["attachments"]
    assert (image["cid"], image["disposition"], pdf["name"], pdf["disposition"]) == (
        *("c1@x", "inline", "Rechnung für März.pdf", "attachment"),
    )
    assert email["hasAttachment"] and email["bodyStructure"]["type"] == "multipart/mixed"
    alternative = email["bodyStructure"]["subParts"][0]
    assert [part["type"] for part in alternative["subParts"]] == ["text/plain", "multipart/related"]
    for part, octets in ((image, b"\x89PNG"), (pdf, b"%PDF-\0"), (message, await raw_of(alice, other))):
        answer = await alice.request("GET", f"/jmap/download/{alice.id}/{part['blobId']}/x")
        assert answer.body == octets
    # Forwarding: the parts of one email become parts of another.
    second = await create(
        alice, attachments=[{"blobId": pdf["blobId"], "type": "application/pdf", "name": "again.pdf"}]
    )
    (again,) = (await alice.email(second["id"], properties=["attachments"]))["attachments"]
    assert (await alice.request("GET", f"/jmap/download/{alice.id}/{again['blobId']}/x")).body == b"%PDF-\0"


async def test_a_structure_of_ones_own(world: World) -> None:
    alice = world.alice
    structure = {
        "type": "multipart/mixed",
        "subParts": [
            {"partId": "a", "type": "text/plain", "header:X-Part:asText": "Ä"},
            {"type": "multipart/digest", "subParts": [{"partId": "b", "type": "text/markdown", "name": "b.md"}]},
        ],
    }
    made = await create(
        alice, textBody=None, htmlBody=None, bodyStructure=structure,
        bodyValues={"a": {"value": "One"}, "b": {"value": "Two"}},
        **{"header:X-Mailer": " Mine", "header:X-Many:asText:all": ["ü", "b"],
           "header:List-Unsubscribe:asURLs": ["https://x.example/"], "header:X-Date:asDate": "2026-01-01T00:00:00Z"},
    )  # fmt: skip
    email = await alice.email(
        made["id"], fetchAllBodyValues=True, bodyProperties=["type", "name", "partId", "header:X-Part:asText"],
        properties=["bodyStructure", "bodyValues", "header:X-Mailer:asText", "header:X-Many:asText:all",
                    "header:List-Unsubscribe:asURLs", "header:X-Date:asDate"],
    )  # fmt: skip
    first, second = email["bodyStructure"]["subParts"]
    assert first["header:X-Part:asText"] == "Ä"
    assert second["type"] == "multipart/digest" and second["subParts"][0]["name"] == "b.md"
    assert [v["value"] for v in email["bodyValues"].values()] == ["One", "Two"]
    assert email["header:X-Mailer:asText"] == "Mine" and email["header:X-Many:asText:all"] == ["ü", "b"]
    assert email["header:List-Unsubscribe:asURLs"] == ["https://x.example/"]
    assert email["header:X-Date:asDate"] == "2026-01-01T00:00:00Z"


WRONG: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"mailboxIds": {}}, "invalidProperties", ["mailboxIds"]),
    ({"mailboxIds": None}, "invalidProperties", ["mailboxIds"]),
    ({"mailboxIds": {"F99": True}}, "invalidProperties", ["mailboxIds"]),
    ({"mailboxIds": {"F2": False}}, "invalidProperties", ["mailboxIds"]),
    ({"keywords": {"a b": True}}, "invalidProperties", ["keywords"]),
    ({"keywords": {"x": False}}, "invalidProperties", ["keywords"]),
    ({"keywords": {f"k{n}": True for n in range(200)}}, "tooManyKeywords", ["keywords"]),
    ({"receivedAt": "now"}, "invalidProperties", ["receivedAt"]),
    ({"sentAt": "now"}, "invalidProperties", ["sentAt"]),
    ({"subject": 5}, "invalidProperties", ["subject"]),
    ({"to": [{"name": "x"}]}, "invalidProperties", ["to"]),
    ({"to": "bob@example.org"}, "invalidProperties", ["to"]),
    ({"to": [{"email": "a@b", "name": 5}]}, "invalidProperties", ["to"]),
    ({"messageId": ["a b"]}, "invalidProperties", ["messageId"]),
    ({"inReplyTo": ["a>\r\nBcc: x@y"]}, "invalidProperties", ["inReplyTo"]),
    ({"size": 5}, "invalidProperties", ["size"]),
    ({"headers": []}, "invalidProperties", ["headers"]),
    ({"colour": "red"}, "invalidProperties", ["colour"]),
    ({"header:Subject:asText": "again"}, "invalidProperties", ["subject"]),
    ({"header:Content-Type": "text/html"}, "invalidProperties", ["header:Content-Type"]),
    ({"header:X-A": "x\r\nBcc: a@b"}, "invalidProperties", ["header:X-A"]),
    ({"header:X-A\r\nBcc": "x"}, "invalidProperties", ["header:X-A\r\nBcc"]),
    ({"header:X-A": "x", "header:x-a:asText": "y"}, "invalidProperties", ["header:x-a:asText"]),
    ({"header:X-A:asNothing": "x"}, "invalidProperties", ["header:X-A:asNothing"]),
    ({"header:X-A:asText:all": "x"}, "invalidProperties", ["header:X-A:asText:all"]),
    ({"textBody": [{"partId": "none", "type": "text/plain"}]}, "invalidProperties", ["textBody", "bodyValues"]),
    ({"textBody": [{"type": "text/plain"}]}, "invalidProperties", ["textBody"]),
    ({"textBody": [{"partId": "t", "type": "text/html"}]}, "invalidProperties", ["textBody"]),
    ({"textBody": [{"partId": "t"}, {"partId": "h"}]}, "invalidProperties", ["textBody"]),
    ({"textBody": [{"partId": "t", "colour": "red"}]}, "invalidProperties", ["textBody"]),
    ({"bodyStructure": {"partId": "t"}}, "invalidProperties", ["bodyStructure", "textBody"]),
    ({"bodyValues": {"t": {"value": "x", "isTruncated": True}}}, "invalidProperties", ["bodyValues"]),
    ({"bodyValues": {"t": "x"}}, "invalidProperties", ["bodyValues"]),
    ({"attachments": [{"blobId": "B99", "type": "a/b"}]}, "blobNotFound", []),
    ({"attachments": [{"blobId": "U" + "A" * 64, "type": "a/b"}]}, "blobNotFound", []),
    ({"attachments": [{"blobId": "x"}]}, "blobNotFound", []),
    ({"attachments": {"blobId": "x"}}, "invalidProperties", ["attachments"]),
    ({"attachments": [{"partId": "t", "type": "a\r\nBcc: x@y.example/b"}]}, "invalidProperties", ["bodyStructure"]),
]


async def test_what_cannot_be_written_is_refused_with_the_properties_at_fault(world: World) -> None:
    before = await world.alice.call("Email/query", calculateTotal=True)
    for fields, kind, properties in WRONG:
        error = await create(world.alice, **fields)
        assert error.get("type") == kind, (fields, error)
        assert error.get("properties", []) == properties, (fields, error)
    after = await world.alice.call("Email/query", calculateTotal=True)
    assert before["total"] == after["total"] == 0


async def test_no_field_can_be_smuggled_in(world: World) -> None:
    alice = world.alice
    evil = "x\r\nBcc: victim@elsewhere.example\r\n\r\nbody"
    made = await create(
        alice, subject=evil, to=[{"name": evil, "email": "bob@example.org"}, {"name": None, "email": evil}],
        attachments=[{"partId": "t", "type": "text/plain", "name": evil, "disposition": "attachment"}],
    )  # fmt: skip
    raw = await raw_of(alice, made["id"])
    head = raw[: raw.index(b"\r\n\r\n")]
    assert b"\nBcc" not in head and b"\nbcc" not in head.lower()
    assert (await alice.email(made["id"], properties=["bcc"]))["bcc"] is None


async def test_a_full_mailbox_takes_no_draft(world: World) -> None:
    async with db.transaction() as tx:
        await quota.set_limit(tx, world.village.alice, 100)
    assert (await create(world.alice))["type"] == "overQuota"


async def test_a_message_above_the_size_limit_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailcore.jmap.methods import email_set

    big = {"bodyValues": {"t": {"value": "word " * 100_000}}, "htmlBody": None}
    assert "id" in await create(world.alice, **big)

    async def small(context: Any, *args: Any) -> bytes:
        object.__setattr__(context.services, "message_size", 10_000)
        return await compose(context, *args)

    compose = email_set._compose
    monkeypatch.setattr(email_set, "_compose", small)
    error = await create(world.alice, **big)
    assert (error["type"], error["maxSize"]) == ("tooLarge", 10_000)


@pytest.fixture
async def letters(world: World) -> list[str]:
    return [await world.deliver(world.village.alice, SIMPLE.format(subject=f"S{n}")) for n in range(4)]


async def test_keywords_are_set_one_by_one_and_all_together(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, two, three, _ = letters

    async def keywords(email_id: str) -> dict[str, bool]:
        return dict((await alice.email(email_id, properties=["keywords"]))["keywords"])

    answer = await alice.call(
        "Email/set",
        update={
            one: {"keywords/$seen": True, "keywords/Work": True},
            two: {"keywords": {"$Flagged": True, "x/y": True}},
            three: {"keywords/x~1y": True, "keywords/$seen": None},
        },
    )
    assert answer["updated"] == {one: None, two: None, three: None}
    assert await keywords(one) == {"$seen": True, "work": True}
    assert await keywords(two) == {"$flagged": True, "x/y": True}
    assert await keywords(three) == {"x/y": True}
    await alice.call(
        "Email/set", update={two: {"keywords/$flagged": None, "keywords/x~1y": None}, one: {"keywords": {}}}
    )
    assert await keywords(one) == await keywords(two) == {}
    assert await recount(alice.account) == []


async def test_emails_move_between_mailboxes_and_keep_their_ids(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, two, three, four = letters

    async def boxes(email_id: str) -> set[str]:
        return set((await alice.email(email_id, properties=["mailboxIds"]))["mailboxIds"])

    await alice.call(
        "Email/set",
        update={
            one: {"mailboxIds": {"F4": True}},
            two: {"mailboxIds/F1": None, "mailboxIds/F4": True, "keywords/$flagged": True},
            three: {"mailboxIds": {"F1": True, "F3": True, "F4": True}},
            four: {"mailboxIds/F4": True},
        },
    )
    assert [await boxes(one), await boxes(two)] == [{"F4"}, {"F4"}]
    assert [await boxes(three), await boxes(four)] == [{"F1", "F3", "F4"}, {"F1", "F4"}]
    await alice.call("Email/set", update={three: {"mailboxIds": {"F6": True}}, four: {"mailboxIds/F1": None}})
    assert [await boxes(three), await boxes(four)] == [{"F6"}, {"F4"}]
    assert (await alice.email(two, properties=["keywords"]))["keywords"] == {"$flagged": True}
    assert await recount(alice.account) == []
    found = {m["id"]: m["totalEmails"] for m in (await alice.call("Mailbox/get", ids=None))["list"]}
    assert found["F1"] == 0 and found["F4"] == 3 and found["F6"] == 1 and found["F3"] == 0


async def test_an_update_that_cannot_be_fails_alone(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, two, three, four = letters
    answer = await alice.call(
        "Email/set",
        update={
            one: {"keywords/$seen": True},
            two: {"mailboxIds/F1": None},
            three: {"mailboxIds/F99": True},
            four: {"keywords/$seen": False},
            "M99": {"keywords/$seen": True},
            "nonsense": {},
        },
    )
    assert answer["updated"] == {one: None}
    assert {key: error["type"] for key, error in answer["notUpdated"].items()} == {
        two: "invalidProperties",
        three: "invalidProperties",
        four: "invalidPatch",
        "M99": "notFound",
        "nonsense": "notFound",
    }
    for patch, kind in [
        ({"keywords": {}, "keywords/$seen": True}, "invalidPatch"),
        ({"subject": "new"}, "invalidProperties"),
        ({"keywords/a b": True}, "invalidProperties"),
        ({"mailboxIds": {}}, "invalidProperties"),
        ({"keywords/": True}, "invalidPatch"),
    ]:
        found = await alice.call("Email/set", update={one: patch})
        assert found["notUpdated"][one]["type"] == kind, patch


async def test_a_draft_in_several_mailboxes_is_in_all_of_them_or_leaves_no_trace(world: World) -> None:
    alice = world.alice
    boxes = await alice.mailboxes()
    wish = {
        "mailboxIds": {boxes["Drafts"]: True, boxes["Archive"]: True, boxes["INBOX"]: True},
        "keywords": {"$draft": True, "mine": True},
        "subject": "Here and there",
        "bodyValues": {"t": {"value": "x" * 300}},
        "textBody": [{"partId": "t", "type": "text/plain"}],
    }
    answer = await alice.call("Email/set", create={"d": wish})
    made = await alice.email(answer["created"]["d"]["id"], properties=["mailboxIds", "keywords"])
    assert (made["mailboxIds"], made["keywords"]) == (wish["mailboxIds"], wish["keywords"])
    async with db.transaction() as tx:
        used = (await quota.get(tx, alice.account)).bytes
        await quota.set_limit(tx, alice.account, used + used // 3 + 10)  # room for one copy, not for three
    answer = await alice.call("Email/set", create={"d": wish})
    assert answer["notCreated"]["d"]["type"] == "overQuota"
    assert answer["oldState"] == answer["newState"], "nobody ever saw a copy that was taken back"
    async with db.read() as tx:
        assert await tx.fetch("SELECT uid FROM expunged") == []
    assert await recount(alice.account) == []


async def test_one_copy_too_many_for_the_quota_does_not_stop_the_others(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, two, three, _ = letters
    async with db.transaction() as tx:
        used = await quota.get(tx, alice.account)
        await quota.set_limit(tx, alice.account, used.bytes + 1)
    answer = await alice.call(
        "Email/set",
        update={one: {"mailboxIds/F4": True}, two: {"keywords/$seen": True}},
        destroy=[three],
    )
    assert answer["updated"] == {two: None} and answer["destroyed"] == [three]
    assert answer["notUpdated"][one]["type"] == "overQuota"
    assert await recount(alice.account) == []


async def test_destroyed_emails_are_gone_everywhere(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, two, *_ = letters
    await alice.call("Email/set", update={one: {"mailboxIds/F4": True}})
    answer = await alice.call("Email/set", destroy=[one, "M99", one], update={one: {"keywords/$seen": True}, two: {}})
    assert answer["destroyed"] == [one] and answer["notDestroyed"]["M99"]["type"] == "notFound"
    assert answer["notUpdated"][one]["type"] == "willDestroy" and answer["updated"] == {two: None}
    assert (await alice.call("Email/get", ids=[one]))["notFound"] == [one]
    assert await recount(alice.account) == []


async def test_states_and_conditions(world: World, letters: list[str]) -> None:
    alice = world.alice
    one, *_ = letters
    state = (await alice.call("Email/get", ids=[]))["state"]
    answer = await alice.call("Email/set", ifInState=state, update={one: {"keywords/$seen": True}})
    assert answer["oldState"] == state and answer["newState"] != state
    assert (await alice.call("Email/changes", sinceState=state))["newState"] == answer["newState"]
    assert await alice.error("Email/set", ifInState=state, update={one: {"keywords/$seen": None}}) == "stateMismatch"
    assert (await alice.email(one, properties=["keywords"]))["keywords"] == {"$seen": True}
    for args in ({"create": []}, {"update": {"M1": 5}}, {"destroy": "M1"}):
        assert await alice.error("Email/set", **args) == "invalidArguments"


async def test_a_draft_is_replaced_in_one_call(world: World) -> None:
    alice = world.alice
    old = (await create(alice))["id"]
    answer = await alice.call("Email/set", create={"draft": {**DRAFT, "subject": "Second try"}}, destroy=[old])
    new = answer["created"]["draft"]["id"]
    assert answer["destroyed"] == [old]
    assert (await alice.call("Email/query", filter={"inMailbox": "F2"}))["ids"] == [new]
    found = await alice.calls(
        ("Email/set", {"create": {"x": {**DRAFT, "mailboxIds": {"F2": True, "F4": True}}}}),
        ("Email/set", {"update": {"#x": {"keywords/$flagged": True}}}),
        ("Email/get", {"#ids": {"resultOf": "c0", "name": "Email/set", "path": "/created/x/id"}}),
    )
    email_id = found[0][1]["created"]["x"]["id"]
    assert found[1][1]["updated"] == {email_id: None}
    assert found[2][1]["type"] == "invalidArguments", "ids is a list"
    email = await alice.email(email_id, properties=["mailboxIds", "keywords"])
    assert email["mailboxIds"] == {"F2": True, "F4": True} and email["keywords"]["$flagged"]


async def test_imported_mail_is_kept_octet_for_octet(world: World) -> None:
    alice = world.alice
    octets = b"From: a@x\nSubject: bare \xe4 newlines\n\n\0body\r"
    blob = (await alice.request("POST", f"/jmap/upload/{alice.id}/", octets)).json["blobId"]
    empty = (await alice.request("POST", f"/jmap/upload/{alice.id}/", b"")).json["blobId"]
    answer = await alice.call(
        "Email/import",
        emails={
            "a": {
                "blobId": blob,
                "mailboxIds": {"F4": True},
                "keywords": {"$seen": True},
                "receivedAt": "2020-01-02T03:04:05Z",
            },
            "b": {"blobId": "U" + "A" * 64, "mailboxIds": {"F4": True}},
            "c": {"blobId": blob, "mailboxIds": {}},
            "d": {"blobId": empty, "mailboxIds": {"F4": True}},
            "e": {"blobId": blob, "mailboxIds": {"F4": True}, "subject": "x"},
        },
    )
    assert {key: error["type"] for key, error in answer["notCreated"].items()} == {
        "b": "blobNotFound",
        "c": "invalidProperties",
        "d": "invalidEmail",
        "e": "invalidProperties",
    }
    made = answer["created"]["a"]
    assert await raw_of(alice, made["id"]) == octets and made["size"] == len(octets)
    email = await alice.email(made["id"], properties=["receivedAt", "keywords"])
    assert email["receivedAt"] == "2020-01-02T03:04:05Z" and email["keywords"] == {"$seen": True}


async def test_many_at_once_cost_few_statements(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.alice
    ids = [await world.deliver(alice.account, SIMPLE.format(subject=f"S{n}")) for n in range(60)]
    count = 0
    run = db.AsyncTx._run

    async def counted(self: db.AsyncTx, *args: Any) -> Any:
        nonlocal count
        count += 1
        return await run(self, *args)

    monkeypatch.setattr(db.AsyncTx, "_run", counted)
    await alice.call("Email/set", update={one: {"keywords/$seen": True} for one in ids})
    marking = count
    await alice.call("Email/set", update={one: {"mailboxIds": {"F4": True}} for one in ids})
    moving = count - marking
    await alice.call("Email/get", ids=ids, fetchAllBodyValues=True)
    assert marking < 25 and moving < 25 and count - marking - moving < 10
    assert limits.MAX_OBJECTS_IN_SET >= 500, "what the webmail marks in one call"
    assert await recount(alice.account) == []
