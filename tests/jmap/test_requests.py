"""Who may ask, what a request looks like, and what is said when it does not (RFC 8620 §2, §3)."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from accounts.models import Account
from mailcore.jmap import limits
from mailcore.jmap.app import REQUESTS
from tests.jmap.world import ALICE, USING, World

pytestmark = pytest.mark.django_db(transaction=True)

ECHO = ["Core/echo", {"hello": True}, "b3ff"]


def problem(kind: str) -> str:
    return f"urn:ietf:params:jmap:error:{kind}"


async def test_the_session_says_who_what_and_where(world: World) -> None:
    alice = world.alice
    answer = await alice.request("GET", "/.well-known/jmap")
    session = answer.json
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store"
    assert session["username"] == ALICE
    assert session["accounts"][alice.id]["name"] == ALICE
    assert session["accounts"][alice.id]["isReadOnly"] is False
    assert set(session["primaryAccounts"].values()) == {alice.id}
    assert session["capabilities"][USING[0]]["maxCallsInRequest"] == limits.MAX_CALLS
    assert session["apiUrl"] == "/jmap/"
    for variable in ("accountId", "blobId", "name", "type"):
        assert f"{{{variable}}}" in session["downloadUrl"]
    answered = await alice.api({"using": USING, "methodCalls": [ECHO]})
    assert answered.json["sessionState"] == session["state"]


async def test_a_program_signs_in_with_basic_and_gets_whole_urls(world: World) -> None:
    program = world.program(world.village.alice, ALICE)
    answer = await program.request("GET", "/.well-known/jmap", headers={"host": "mail.example.org:8000"})
    assert answer.json["apiUrl"] == "http://mail.example.org:8000/jmap/"
    hostile = await program.request("GET", "/.well-known/jmap", headers={"host": 'x"/><script>'})
    assert hostile.json["apiUrl"] == "http://127.0.0.1:8000/jmap/"
    # It needs no header of ours: no browser sends its credentials behind its back.
    answer = await program.api({"using": USING, "methodCalls": [ECHO]})
    assert answer.json["methodResponses"] == [ECHO]


async def test_without_credentials_nothing_is_answered(world: World) -> None:
    for method, path in [
        ("GET", "/.well-known/jmap"),
        ("POST", "/jmap/"),
        ("GET", "/jmap/events"),
        ("POST", "/jmap/upload/a1/"),
        ("GET", "/jmap/download/a1/B1/x"),
    ]:
        answer = await world.stranger().request(method, path)
        assert answer.status == 401, path
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    wrong = await world.program(world.village.alice, ALICE, "wrong").request("GET", "/.well-known/jmap")
    assert wrong.status == 401


async def test_a_browser_whose_session_ended_is_not_asked_by_a_dialog(world: World) -> None:
    client = world.stranger()
    for header in ({"x-mailstead": "1"}, {"sec-fetch-mode": "cors"}):
        answer = await client.request("GET", "/.well-known/jmap", headers=header)
        assert answer.status == 401 and "www-authenticate" not in answer.headers


NO_TOKENS: list[Any] = ["", "x", "eA==", "w7w6w7w=", "Og=="]


async def test_unreadable_credentials_are_401(world: World) -> None:
    for token in NO_TOKENS:
        answer = await world.stranger().request("GET", "/.well-known/jmap", headers={"authorization": f"Basic {token}"})
        assert answer.status == 401
        answer = await world.stranger().request("GET", "/.well-known/jmap", headers={"authorization": "Bearer x"})
        assert answer.status == 401


async def test_another_site_cannot_use_the_cookie(world: World) -> None:
    alice = world.alice
    del alice.headers["x-mailstead"]
    # What a form of another site can send: POST with the cookie, text/plain, no headers of its own.
    for path in ("/jmap/", f"/jmap/upload/{alice.id}/"):
        answer = await alice.request("POST", path, b"{}", {"content-type": "text/plain"})
        assert answer.status == 403, path
    answer = await alice.api({"using": USING, "methodCalls": [ECHO]})
    assert answer.status == 403
    with_header = world.alice
    answer = await with_header.request("POST", "/jmap/", b"{}", {"content-type": "text/plain"})
    assert (answer.status, answer.json["type"]) == (400, problem("notJSON"))


async def test_a_disabled_account_is_out_at_once(world: World) -> None:
    alice = world.alice
    assert (await alice.request("GET", "/.well-known/jmap")).status == 200
    await asyncio.to_thread(Account.objects.filter(pk=alice.account).update, is_active=False)
    assert (await alice.request("GET", "/.well-known/jmap")).status == 401


NO_REQUESTS: list[Any] = [
    (b"", "notJSON"),
    (b"{", "notJSON"),
    (b'{"using": [], "methodCalls": [], "x": NaN}', "notJSON"),
    (b"\xff\xfe", "notJSON"),
    (b'{"using": [], "methodCalls": [], "x": "\\ud800"}', "notJSON"),
    (b"[" * 100_000, "notJSON"),
    (b"[" * 300 + b'"\\u00fc"' + b"]" * 300, "notJSON"),
    (b"1" * 5000, "notJSON"),
    (b"[]", "notRequest"),
    (b"{}", "notRequest"),
    (b'{"using": "x", "methodCalls": []}', "notRequest"),
    (b'{"using": [], "methodCalls": [["Core/echo", {}]]}', "notRequest"),
    (b'{"using": [], "methodCalls": [["Core/echo", [], "a"]]}', "notRequest"),
    (b'{"using": [], "methodCalls": [], "createdIds": {"a": 1}}', "notRequest"),
    (b'{"using": ["urn:example:x"], "methodCalls": []}', "unknownCapability"),
]


async def test_a_request_that_is_none_is_refused_as_a_whole(world: World) -> None:
    for body, kind in NO_REQUESTS:
        answer = await world.alice.api(body)
        assert (answer.status, answer.json["type"]) == (400, problem(kind))
        assert answer.headers["content-type"].startswith("application/problem+json")


async def test_limits_of_a_request_are_enforced(world: World) -> None:
    alice = world.alice
    answer = await alice.api({"using": USING, "methodCalls": [ECHO] * (limits.MAX_CALLS + 1)})
    assert (answer.status, answer.json["limit"]) == (400, "maxCallsInRequest")
    for pieces in (1, 7):
        answer = await alice.request(
            "POST", "/jmap/", b" " * (limits.MAX_SIZE_REQUEST + 1), {"content-type": "application/json"}, pieces
        )
        assert (answer.status, answer.json["limit"]) == (413, "maxSizeRequest")
    announced = {"content-type": "application/json", "content-length": str(limits.MAX_SIZE_REQUEST + 1)}
    assert (await alice.request("POST", "/jmap/", b"", announced)).status == 413
    too_many = [f"M{n + 1}" for n in range(limits.MAX_OBJECTS_IN_GET + 1)]
    assert await alice.error("Email/get", ids=too_many) == "requestTooLarge"
    destroy = too_many[: limits.MAX_OBJECTS_IN_SET + 1]
    assert await alice.error("Email/set", destroy=destroy) == "requestTooLarge"


async def test_requests_beyond_the_limit_wait_and_too_many_of_them_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.alice
    request = {"using": USING, "methodCalls": [ECHO]}
    monkeypatch.setattr(limits, "PATIENCE", 600)
    async with AsyncExitStack() as busy:
        for _ in range(limits.MAX_CONCURRENT_REQUESTS):
            await busy.enter_async_context(REQUESTS.awaited(alice.account))
        waiting = [asyncio.create_task(alice.api(request)) for _ in range(limits.MAX_CONCURRENT_REQUESTS)]
        async with asyncio.timeout(60):
            while len(REQUESTS._waiting.get(alice.account, ())) < limits.MAX_CONCURRENT_REQUESTS:
                await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        refused = await alice.api(request)
        assert (refused.status, refused.json["limit"]) == (400, "maxConcurrentRequests")
        assert (await world.bob.api(request)).status == 200, "one account's requests are not another's"
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * limits.MAX_CONCURRENT_REQUESTS
    monkeypatch.setattr(limits, "PATIENCE", 0.05)
    async with AsyncExitStack() as busy:
        for _ in range(limits.MAX_CONCURRENT_REQUESTS):
            await busy.enter_async_context(REQUESTS.awaited(alice.account))
        assert (await alice.api(request)).status == 400, "nobody waits for ever"
    assert (await alice.api(request)).status == 200


async def test_one_bad_call_never_kills_the_others(world: World) -> None:
    alice = world.alice
    calls: list[Any] = [
        ["Core/echo", {"n": 1}, "a"],
        ["No/such", {}, "b"],
        ["Email/get", {"ids": []}, "c"],
        ["Email/get", {"accountId": "a999999", "ids": []}, "d"],
        ["Email/get", {"accountId": alice.id, "ids": "M1"}, "e"],
        ["Email/get", {"accountId": alice.id, "ids": [], "colour": "red"}, "f"],
        ["Email/get", {"accountId": alice.id, "#ids": {"resultOf": "z", "name": "x", "path": "/"}}, "g"],
        ["Core/echo", {"n": 2}, "h"],
    ]
    answer = await alice.api({"using": USING, "methodCalls": calls})
    found = [(name, args.get("type", args.get("n")), call_id) for name, args, call_id in answer.json["methodResponses"]]
    assert found == [
        ("Core/echo", 1, "a"),
        ("error", "unknownMethod", "b"),
        ("error", "invalidArguments", "c"),
        ("error", "accountNotFound", "d"),
        ("error", "invalidArguments", "e"),
        ("error", "invalidArguments", "f"),
        ("error", "invalidResultReference", "g"),
        ("Core/echo", 2, "h"),
    ]


async def test_a_method_needs_its_capability(world: World) -> None:
    alice = world.alice
    request = {"using": [USING[0]], "methodCalls": [["Mailbox/get", {"accountId": alice.id, "ids": None}, "a"], ECHO]}
    found = (await alice.api(request)).json["methodResponses"]
    assert found[0] == ["error", {"type": "unknownMethod"}, "a"] and found[1] == ECHO


async def test_a_failure_of_ours_is_serverfail_and_says_nothing_of_our_insides(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailcore.jmap.methods import thread

    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(thread.queries, "threads", broken)
    answer = await world.alice.calls(("Thread/get", {"ids": ["T1"]}), ("Mailbox/get", {"ids": []}))
    assert answer[0][1]["type"] == "serverFail" and "secret" not in json.dumps(answer)
    assert answer[1][0] == "Mailbox/get"


async def test_back_references_of_the_rfc(world: World) -> None:
    """RFC 8620 §3.7: pointers into lists, `*` that flattens, escapes, and references that lead nowhere."""
    alice = world.alice

    async def resolve(path: str) -> Any:
        calls: list[Any] = [
            ["Core/echo", {"list": [{"ids": ["a", "b"], "x/y": 1}, {"ids": ["c"], "x/y": 2}], "deep": [[["d"]]]}, "t0"],
            ["Core/echo", {"#got": {"resultOf": "t0", "name": "Core/echo", "path": path}}, "t1"],
        ]
        _, (_, args, _) = (await alice.api({"using": USING, "methodCalls": calls})).json["methodResponses"]
        return args.get("got", args.get("type"))

    assert await resolve("/list/0/ids") == ["a", "b"]
    assert await resolve("/list/*/ids") == ["a", "b", "c"]
    assert await resolve("/list/*/x~1y") == [1, 2]
    assert await resolve("/list/1/ids/0") == "c"
    assert await resolve("/deep/*/*") == ["d"]
    for wrong in ("/list/2", "/list/-1", "/list/x", "/nothing", "list", "/list/0/ids/0/x"):
        assert await resolve(wrong) == "invalidResultReference", wrong


async def test_an_argument_is_given_once(world: World) -> None:
    alice = world.alice
    calls: list[Any] = [
        ECHO,
        ["Core/echo", {"a": 1, "#a": {"resultOf": "b3ff", "name": "Core/echo", "path": "/hello"}}, "x"],
        ["Core/echo", {"#a": {"resultOf": "b3ff", "name": "Email/get", "path": "/hello"}}, "y"],
        ["Core/echo", {"#a": "b3ff"}, "z"],
    ]
    found = (await alice.api({"using": USING, "methodCalls": calls})).json["methodResponses"]
    assert [args.get("type") for _, args, _ in found[1:]] == [
        "invalidArguments",
        "invalidResultReference",
        "invalidArguments",
    ]


async def test_created_ids_travel_through_a_request_and_to_the_next(world: World) -> None:
    alice = world.alice
    make = ["Mailbox/set", {"accountId": alice.id, "create": {"m": {"name": "New"}}}, "a"]
    answer = (await alice.api({"using": USING, "createdIds": {"old": "F1"}, "methodCalls": [make]})).json
    made = answer["methodResponses"][0][1]["created"]["m"]["id"]
    assert answer["createdIds"] == {"old": "F1", "m": made}
    below = ["Mailbox/set", {"accountId": alice.id, "create": {"k": {"name": "Below", "parentId": "#m"}}}, "a"]
    answer = (await alice.api({"using": USING, "createdIds": {"m": made}, "methodCalls": [below]})).json
    assert answer["methodResponses"][0][1]["created"]
    (found,) = [m for m in (await alice.call("Mailbox/get", ids=None))["list"] if m["name"] == "Below"]
    assert found["parentId"] == made


async def test_nul_in_a_string_does_no_harm(world: World) -> None:
    alice = world.alice
    found = await alice.call("Email/query", filter={"text": "a\0b"})
    assert found["ids"] == []
    made = await alice.call("Mailbox/set", create={"m": {"name": "a\0b"}})
    assert made["created"]
    assert "ab" in await alice.mailboxes()


async def test_unknown_paths_and_methods(world: World) -> None:
    alice = world.alice
    assert (await alice.request("GET", "/jmap/nowhere")).status == 404
    assert (await alice.request("GET", "/jmap/")).status == 405
    assert (await alice.request("POST", "/.well-known/jmap")).status == 405
    assert (await alice.request("DELETE", "/jmap/events")).status == 405


async def test_references_to_references_do_not_double_the_answer_without_end(world: World) -> None:
    calls: list[Any] = [["Core/echo", {"x": "y" * 1000}, "c0"]]
    for n in range(1, limits.MAX_CALLS):
        before = {"resultOf": f"c{n - 1}", "name": "Core/echo", "path": ""}
        calls.append(["Core/echo", {"#a": before, "#b": before}, f"c{n}"])
    answer = await world.alice.api({"using": USING, "methodCalls": calls})
    kinds = [body.get("type") for _, body, _ in answer.json["methodResponses"]]
    assert "requestTooLarge" in kinds and kinds[1] is None
