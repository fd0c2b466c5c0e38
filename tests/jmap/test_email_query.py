"""Email/query and Email/changes, Thread/* and SearchSnippet/get (RFC 8621 §3 to §5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mailcore import db
from mailcore.store import flags, housekeeping
from tests.jmap.world import SIMPLE, Client, World

pytestmark = pytest.mark.django_db(transaction=True)

LETTERS: list[tuple[str, str, dict[str, Any]]] = [
    # (name, message, how it is stored)
    ("plan", "From: Zoe <zoe@far.example>\nTo: alice@example.org\nSubject: Plan\nMessage-ID: <1@x>\n"
     "Date: Fri, 02 Jan 2026 10:00:00 +0000\n\nThe quick brown fox.\n", {"flags": flags.SEEN}),
    ("reply", "From: Adam <adam@far.example>\nTo: alice@example.org\nCc: Cora <cora@x.example>\nSubject: Re: Plan\n"
     "Message-ID: <2@x>\nIn-Reply-To: <1@x>\nDate: Thu, 01 Jan 2026 10:00:00 +0000\n\nJumps over.\n",
     {"flags": flags.FLAGGED, "keywords": ("work",)}),
    ("big", "From: Zoe <zoe@far.example>\nTo: bea@x.example\nSubject: Ärger\nMessage-ID: <3@x>\nX-Mood: grim\n"
     f"Date: Sat, 03 Jan 2026 10:00:00 +0000\n\n{'Lazy dog. ' * 300}\n", {"flags": flags.SEEN}),
    ("file", "From: Mia <mia@far.example>\nTo: alice@example.org\nBcc: hidden@x.example\nSubject: A file\n"
     "Message-ID: <4@x>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nSee below.\n--b\n"
     "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nx\n--b--\n", {"mailbox": 4}),
]  # fmt: skip


@pytest.fixture
async def letters(world: World) -> dict[str, str]:
    found = {}
    for n, (name, raw, how) in enumerate(LETTERS):
        at = datetime(2026, 2, 1 + n, tzinfo=UTC)
        found[name] = await world.deliver(world.village.alice, raw, internal_date=at, **how)
    return found


async def query(client: Client, letters: dict[str, str], filter: Any = None, **args: Any) -> list[str]:
    names = {email_id: name for name, email_id in letters.items()}
    return [names[email_id] for email_id in (await client.call("Email/query", filter=filter, **args))["ids"]]


FILTERS: list[Any] = [
    (None, "file big reply plan"),
    ({}, "file big reply plan"),
    ({"inMailbox": "F1"}, "big reply plan"),
    ({"inMailbox": "F99"}, ""),
    ({"inMailbox": "junk"}, ""),
    ({"inMailboxOtherThan": ["F1"]}, "file"),
    ({"before": "2026-02-02T00:00:00Z"}, "plan"),
    ({"after": "2026-02-02T00:00:00+00:00"}, "file big reply"),
    ({"minSize": 1000}, "big"),
    ({"maxSize": 1000}, "file reply plan"),
    ({"hasKeyword": "$seen"}, "big plan"),
    ({"notKeyword": "$seen"}, "file reply"),
    ({"hasKeyword": "WORK"}, "reply"),
    ({"notKeyword": "work"}, "file big plan"),
    ({"someInThreadHaveKeyword": "$flagged"}, "reply plan"),
    ({"allInThreadHaveKeyword": "$seen"}, "big"),
    ({"noneInThreadHaveKeyword": "$flagged"}, "file big"),
    ({"hasAttachment": True}, "file"),
    ({"hasAttachment": False}, "big reply plan"),
    ({"text": "lazy"}, "big"),
    ({"text": "BROWN quick"}, "plan"),
    ({"text": '"quick brown"'}, "plan"),
    ({"text": '"brown quick"'}, ""),
    ({"from": "zoe"}, "big plan"),
    ({"to": "bea@x"}, "big"),
    ({"cc": "cora"}, "reply"),
    ({"bcc": "hidden"}, "file"),
    ({"subject": "ärger"}, "big"),
    ({"subject": "ARGER"}, ""),
    ({"body": "jumps"}, "reply"),
    ({"body": "plan"}, ""),
    ({"header": ["x-mood"]}, "big"),
    ({"header": ["X-Mood", "GRIM"]}, "big"),
    ({"header": ["X-Mood", "merry"]}, ""),
    ({"from": "zoe", "hasKeyword": "$seen", "minSize": 1000}, "big"),
    ({"operator": "OR", "conditions": [{"from": "mia"}, {"from": "adam"}]}, "file reply"),
    ({"operator": "NOT", "conditions": [{"from": "mia"}, {"from": "adam"}]}, "big plan"),
    (
        {"operator": "AND", "conditions": [{"inMailbox": "F1"}, {"operator": "NOT", "conditions": [{"text": "dog"}]}]},
        "reply plan",
    ),
    ({"operator": "AND", "conditions": []}, "file big reply plan"),
    ({"operator": "OR", "conditions": []}, ""),
    ({"text": ""}, "file big reply plan"),
    ({"text": "%' OR 1=1 --"}, ""),
]


async def test_filters(world: World, letters: dict[str, str]) -> None:
    for filter, names in FILTERS:
        assert await query(world.alice, letters, filter) == names.split()


NO_FILTERS: list[Any] = [
    ({"colour": "red"}, "unsupportedFilter"),
    ([], "invalidArguments"),
    ("text", "invalidArguments"),
    ({"operator": "XOR", "conditions": []}, "invalidArguments"),
    ({"operator": "AND"}, "invalidArguments"),
    ({"text": 5}, "invalidArguments"),
    ({"before": "yesterday"}, "invalidArguments"),
    ({"before": "2026-02-02"}, "invalidArguments"),
    ({"minSize": -1}, "invalidArguments"),
    ({"minSize": True}, "invalidArguments"),
    ({"hasAttachment": "yes"}, "invalidArguments"),
    ({"header": ["a b"]}, "invalidArguments"),
    ({"header": []}, "invalidArguments"),
    ({"inMailboxOtherThan": "F1"}, "invalidArguments"),
    ({"hasKeyword": ""}, "invalidArguments"),
    ({"operator": "OR", "conditions": [{"text": str(n)} for n in range(2000)]}, "requestTooLarge"),
]


async def test_filters_that_cannot_be(world: World) -> None:
    for filter, kind in NO_FILTERS:
        assert await world.alice.error("Email/query", filter=filter) == kind


async def test_a_deeply_nested_filter_is_refused(world: World) -> None:
    filter: Any = {"text": "x"}
    for _ in range(50):
        filter = {"operator": "NOT", "conditions": [filter]}
    assert await world.alice.error("Email/query", filter=filter) == "unsupportedFilter"


SORTS: list[Any] = [
    ([{"property": "receivedAt"}], "plan reply big file"),
    ([{"property": "receivedAt", "isAscending": False}], "file big reply plan"),
    ([{"property": "size", "isAscending": False}], "big file reply plan"),
    ([{"property": "from"}, {"property": "receivedAt"}], "reply file plan big"),
    ([{"property": "subject"}, {"property": "receivedAt"}], "file big plan reply"),
    (
        [{"property": "hasKeyword", "keyword": "$flagged", "isAscending": False}, {"property": "receivedAt"}],
        "reply plan big file",
    ),
    ([], "file big reply plan"),
]


async def test_sort_orders(world: World, letters: dict[str, str]) -> None:
    for sort, names in SORTS:
        assert await query(world.alice, letters, sort=sort) == names.split()


async def test_sort_orders_that_cannot_be(world: World) -> None:
    assert await world.alice.error("Email/query", sort=[{"property": "colour"}]) == "unsupportedSort"
    assert (
        await world.alice.error("Email/query", sort=[{"property": "hasKeyword", "keyword": "x"}]) == "unsupportedSort"
    )
    assert await world.alice.error("Email/query", sort="size") == "invalidArguments"


async def test_windows_of_a_query(world: World, letters: dict[str, str]) -> None:
    alice = world.alice

    async def window(**args: Any) -> tuple[int, list[str], Any]:
        answer = await alice.call("Email/query", sort=[{"property": "receivedAt"}], **args)
        names = {email_id: name for name, email_id in letters.items()}
        return answer["position"], [names[one] for one in answer["ids"]], answer.get("total")

    assert await window(limit=2) == (0, ["plan", "reply"], None)
    assert await window(position=1, limit=2, calculateTotal=True) == (1, ["reply", "big"], 4)
    assert await window(position=-1, calculateTotal=True) == (3, ["file"], 4)
    assert await window(position=-9, limit=1) == (0, ["plan"], None)
    assert await window(position=9, calculateTotal=True) == (9, [], 4)
    assert await window(limit=0, calculateTotal=True) == (0, [], 4)
    assert await window(anchor=letters["big"], limit=1) == (2, ["big"], None)
    assert await window(anchor=letters["big"], anchorOffset=-1, limit=2) == (1, ["reply", "big"], None)
    assert await window(anchor=letters["plan"], anchorOffset=-5, limit=1) == (0, ["plan"], None)
    assert await window(collapseThreads=True, calculateTotal=True) == (0, ["plan", "big", "file"], 3)
    assert await alice.error("Email/query", anchor="M99") == "anchorNotFound"
    assert await alice.error("Email/query", limit=-1) == "invalidArguments"
    assert await alice.error("Email/query", limit="x") == "invalidArguments"
    assert await alice.error("Email/query", collapseThreads="x") == "invalidArguments"
    assert await alice.error("Email/queryChanges", sinceQueryState="1") == "cannotCalculateChanges"


async def test_threads_hold_their_emails_oldest_first(world: World, letters: dict[str, str]) -> None:
    alice = world.alice
    thread = (await alice.email(letters["reply"]))["threadId"]
    found = await alice.call("Thread/get", ids=[thread, "T99", thread])
    assert found["list"] == [{"id": thread, "emailIds": [letters["plan"], letters["reply"]]}]
    assert found["notFound"] == ["T99"]


async def test_a_state_from_before_what_is_remembered_cannot_be_told_from(world: World) -> None:
    alice = world.alice
    number = await world.deliver(alice.account, SIMPLE.format(subject="away"))
    old = (await alice.call("Email/get", ids=[]))["state"]
    await alice.call("Email/set", destroy=[number])
    new = (await alice.call("Email/get", ids=[]))["state"]
    assert (await alice.call("Email/changes", sinceState=old))["destroyed"] == [number]
    assert len((await alice.call("Thread/changes", sinceState=old))["destroyed"]) == 1
    async with db.transaction() as tx:  # a month later
        await tx.execute("UPDATE expunged SET expunged_at = now() - interval '31 days'")
        assert await housekeeping.expunged(tx) == 1
    assert (await alice.call("Email/changes", sinceState=old))["destroyed"] == [number]
    assert await alice.error("Thread/changes", sinceState=old) == "cannotCalculateChanges"
    async with db.transaction() as tx:  # a year later
        await tx.execute("UPDATE expunged SET expunged_at = now() - interval '401 days'")
        assert await housekeeping.tombstones(tx) == 1
    for name in ("Email/changes", "Thread/changes"):
        assert await alice.error(name, sinceState=old) == "cannotCalculateChanges"
        assert (await alice.call(name, sinceState=new))["destroyed"] == []


async def test_changes_of_emails_and_threads(world: World, letters: dict[str, str]) -> None:
    alice = world.alice
    since = (await alice.call("Email/get", ids=[]))["state"]
    fresh = await world.deliver(alice.account, LETTERS[0][1].replace("1@x", "5@x"))
    await alice.call("Email/set", update={letters["plan"]: {"keywords/$flagged": True}}, destroy=[letters["file"]])
    brief = await world.deliver(alice.account, LETTERS[0][1].replace("1@x", "6@x"))
    await alice.call("Email/set", destroy=[brief])
    found = await alice.call("Email/changes", sinceState=since)
    assert (found["created"], found["updated"], found["destroyed"]) == ([fresh], [letters["plan"]], [letters["file"]])
    assert found["hasMoreChanges"] is False
    threads = await alice.call("Thread/changes", sinceState=since)
    file_thread = f"T{letters['file'][1:]}"
    assert threads["destroyed"] == [file_thread, f"T{brief[1:]}"] or file_thread in threads["destroyed"]
    assert "T1" in threads["updated"]
    # Step by step, the same.
    seen: dict[str, set[str]] = {"created": set(), "updated": set(), "destroyed": set()}
    state, more = since, True
    while more:
        step = await alice.call("Email/changes", sinceState=state, maxChanges=1)
        assert sum(len(step[kind]) for kind in seen) <= 1
        for kind, ids in seen.items():
            ids.update(step[kind])
        state, more = step["newState"], step["hasMoreChanges"]
    assert state == found["newState"]
    assert seen["created"] == {fresh} and seen["updated"] == {letters["plan"]} and letters["file"] in seen["destroyed"]
    nothing = await alice.call("Email/changes", sinceState=state)
    assert (nothing["created"], nothing["updated"], nothing["destroyed"]) == ([], [], [])
    for unknown in ("99999", "x", "-1"):
        assert await alice.error("Email/changes", sinceState=unknown) == "cannotCalculateChanges"
        assert await alice.error("Thread/changes", sinceState=unknown) == "cannotCalculateChanges"
    assert await alice.error("Email/changes", sinceState=since, maxChanges=0) == "invalidArguments"


async def test_what_imap_marks_deleted_is_destroyed_for_jmap(world: World, letters: dict[str, str]) -> None:
    from mailcore import db

    alice = world.alice
    since = (await alice.call("Email/get", ids=[]))["state"]
    async with db.transaction() as tx:
        await flags.store(tx, alice.account, 4, [1], "+", flags.DELETED)
    found = await alice.call("Email/changes", sinceState=since)
    assert (found["updated"], found["destroyed"]) == ([], [letters["file"]])


async def test_snippets_mark_what_was_found_and_escape_the_rest(world: World) -> None:
    alice = world.alice
    raw = "From: a@x\nSubject: <b>Plan</b> & plan\n\nA plan is a plan.\n"
    email = await world.deliver(alice.account, raw)
    filter = {"operator": "AND", "conditions": [{"text": "PLAN"}, {"operator": "NOT", "conditions": [{"text": "is"}]}]}
    answer = await alice.call("SearchSnippet/get", filter=filter, emailIds=[email, "M99"])
    assert answer["list"] == [
        {
            "emailId": email,
            "subject": "&lt;b&gt;<mark>Plan</mark>&lt;/b&gt; &amp; <mark>plan</mark>",
            "preview": "A <mark>plan</mark> is a <mark>plan</mark>.",
        }
    ]
    assert answer["notFound"] == ["M99"]
    (none,) = (await alice.call("SearchSnippet/get", filter={"from": "x"}, emailIds=[email]))["list"]
    assert none["subject"] is None and none["preview"] is None
