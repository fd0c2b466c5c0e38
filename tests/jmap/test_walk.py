"""One walk through everything: read, mark, write, send, take back."""

from __future__ import annotations

import pytest

from tests.jmap.world import SIMPLE, World

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_mail_is_read_answered_and_the_answer_arrives(world: World) -> None:
    alice, bob = world.alice, world.bob
    await world.deliver(alice.account, SIMPLE.format(subject="First"))
    session = (await alice.request("GET", "/.well-known/jmap")).json
    assert session["primaryAccounts"]["urn:ietf:params:jmap:mail"] == alice.id
    boxes = await alice.mailboxes()
    answers = await alice.calls(
        ("Email/query", {"filter": {"inMailbox": boxes["INBOX"]}, "collapseThreads": True, "calculateTotal": True}),
        ("Email/get", {"#ids": {"resultOf": "c0", "name": "Email/query", "path": "/ids"}}),
        ("Thread/get", {"#ids": {"resultOf": "c1", "name": "Email/get", "path": "/list/*/threadId"}}),
        ("Email/get", {
            "#ids": {"resultOf": "c2", "name": "Thread/get", "path": "/list/*/emailIds"},
            "fetchTextBodyValues": True,
            "properties": ["bodyValues", "textBody", "from", "bodyStructure", "header:subject:asText"],
        }),
    )  # fmt: skip
    assert answers[0][1]["total"] == 1
    email = answers[1][1]["list"][0]
    assert email["subject"] == "First"
    assert answers[3][1]["list"][0]["bodyValues"] == {
        "1": {"value": "Hello Alice.\n", "isEncodingProblem": False, "isTruncated": False}
    }
    (identity, *_others) = (await alice.call("Identity/get", ids=None))["list"]
    assert identity["email"] == "alice@example.org"
    answers = await alice.calls(
        ("Email/set", {"create": {"draft": {
            "mailboxIds": {boxes["Drafts"]: True},
            "keywords": {"$draft": True, "$seen": True},
            "from": [{"name": "Alice Ångström", "email": "alice@example.org"}],
            "to": [{"name": "Bob", "email": "bob@example.org"}],
            "subject": "Grüße",
            "textBody": [{"partId": "t", "type": "text/plain"}],
            "htmlBody": [{"partId": "h", "type": "text/html"}],
            "bodyValues": {"t": {"value": "Schöne Grüße\n"}, "h": {"value": "<p>Schöne Grüße</p>"}},
        }}}),
        ("EmailSubmission/set", {
            "create": {"send": {"emailId": "#draft", "identityId": identity["id"]}},
            "onSuccessUpdateEmail": {"#send": {
                f"mailboxIds/{boxes['Drafts']}": None, f"mailboxIds/{boxes['Sent']}": True, "keywords/$draft": None,
            }},
        }),
    )  # fmt: skip
    assert [name for name, _ in answers] == ["Email/set", "EmailSubmission/set", "Email/set"], answers
    assert answers[1][1]["notCreated"] is None, answers[1]
    draft = answers[0][1]["created"]["draft"]["id"]
    sent = await alice.email(draft, properties=["mailboxIds", "keywords", "subject", "from"])
    assert sent["mailboxIds"] == {boxes["Sent"]: True} and sent["keywords"] == {"$seen": True}
    (got,) = (await bob.call("Email/query", filter={"text": "schöne"}))["ids"]
    assert (await bob.email(got))["subject"] == "Grüße"
