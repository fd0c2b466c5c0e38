"""The event source (RFC 8620 §7.3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection

from accounts import people
from mailcore import db, wake
from mailcore.auth import standing
from mailcore.jmap import limits, push
from mailcore.store import changes, flags
from mailcore.wake import Change
from tests.jmap.world import ALICE, PASSWORD, SIMPLE, Client, World
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


class Stream:
    """An event stream as a browser reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.open = True
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.leave = asyncio.Event()
        self.ready = asyncio.Event()
        self.blocked = asyncio.Event()
        self.blocked.set()

    async def receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.blocked.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            if message.get("body"):
                self.arrived.put_nowait(message["body"])
                self.ready.set()
            if not message.get("more_body"):
                self.arrived.put_nowait(None)

    async def line(self) -> str | None:
        octets = await asyncio.wait_for(self.arrived.get(), 60)
        return octets.decode() if octets is not None else None

    async def event(self) -> dict[str, Any]:
        """The data of the next event; comments are passed over."""
        while True:
            text = await self.line()
            assert text is not None, "the stream has ended"
            fields = dict(line.split(": ", 1) for line in text.strip().splitlines() if not line.startswith(":"))
            if fields:
                return {**fields, "data": json.loads(fields["data"])}


@asynccontextmanager
async def stream(client: Client, query: str = "types=*&closeafter=no&ping=0", **headers: str) -> AsyncIterator[Stream]:
    reader = Stream()
    scope = {
        "type": "http", "method": "GET", "path": "/jmap/events", "query_string": query.encode(),
        "client": ("192.0.2.7", 1),
        "headers": [(name.encode(), value.encode()) for name, value in {**client.headers, **headers}.items()],
    }  # fmt: skip
    task = asyncio.create_task(client.application(scope, reader.receive, reader.send))
    try:
        await asyncio.wait_for(reader.ready.wait(), 60)
        yield reader
    finally:
        reader.leave.set()
        await asyncio.wait_for(task, 60)


async def test_a_delivery_is_told(world: World) -> None:
    """At once: nothing polls here."""
    alice = world.alice
    async with stream(alice) as events:
        assert events.status == 200 and events.headers["content-type"].startswith("text/event-stream")
        assert events.headers["cache-control"] == "no-store"
        await world.deliver(alice.account, SIMPLE.format(subject="New"))
        event = await events.event()
        state = (await alice.call("Email/get", ids=[]))["state"]
        assert event["event"] == "state" and event["id"] == state
        assert event["data"] == {
            "@type": "StateChange",
            "changed": {alice.id: {"Email": state, "Mailbox": state, "Thread": state, "EmailDelivery": state}},
        }
        await alice.call("Email/set", update={"M1": {"keywords/$seen": True}})
        changed = (await events.event())["data"]["changed"][alice.id]
        assert set(changed) == {"Email", "Mailbox", "Thread"}, "a read mark is no delivery"
        await alice.call("Mailbox/set", create={"a": {"name": "A"}})
        assert (await events.event())["data"]["changed"][alice.id]["Mailbox"] != changed["Mailbox"]


async def test_nobody_hears_of_others_mail(world: World) -> None:
    async with stream(world.bob) as events:
        await world.deliver(world.village.alice, SIMPLE.format(subject="For Alice"))
        await world.deliver(world.village.bob, SIMPLE.format(subject="For Bob"))
        assert set((await events.event())["data"]["changed"]) == {world.bob.id}


async def test_another_process_is_heard_through_redis(world: World, valkey: str) -> None:
    async def modseqs(accounts: list[int]) -> dict[int, int]:
        async with db.read() as tx:
            return await changes.states(tx, accounts)

    import redis.asyncio

    alice = world.alice
    await wake.start(valkey, modseqs)
    try:
        async with stream(alice) as events:
            hint = json.dumps(["another process", [[alice.account, 1, 77, "mail"]], []])
            client = redis.asyncio.Redis.from_url(valkey)
            # It hears nothing before it has subscribed; nobody else listens here.
            await eventually(lambda: client.publish(wake.CHANNEL, hint))
            await client.aclose()
            assert (await events.event())["id"] == "77"
    finally:
        await wake.stop()


async def test_a_poll_that_knows_no_more_asks_for_the_state(world: World) -> None:
    alice = world.alice
    async with stream(alice) as events:
        await world.deliver(alice.account, SIMPLE.format(subject="New"))
        told = int((await events.event())["id"])
        wake._notify(alice.account, ())
        async with db.transaction() as tx:
            await flags.store(tx, alice.account, 1, [1], "+", flags.SEEN)
            tx.changes.clear()  # a hint that got lost
        wake._notify(alice.account, ())
        assert int((await events.event())["id"]) == told + 1


async def test_a_stream_that_is_resumed_is_told_what_it_missed(world: World) -> None:
    alice = world.alice
    await world.deliver(alice.account, SIMPLE.format(subject="Missed"))
    state = (await alice.call("Email/get", ids=[]))["state"]
    async with stream(alice, **{"last-event-id": str(int(state) - 1)}) as events:
        assert (await events.event())["id"] == state
    async with stream(alice, **{"last-event-id": state}) as events:
        await asyncio.sleep(0.05)
        assert events.arrived.qsize() == 1, "nothing but the greeting"


async def test_types_closeafter_and_ping(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.alice
    async with stream(alice, "types=Mailbox,Calendar&closeafter=state&ping=300") as events:
        await world.deliver(alice.account, SIMPLE.format(subject="New"))
        assert set((await events.event())["data"]["changed"][alice.id]) == {"Mailbox"}
        assert await events.line() is None, "closed after the first state"
    monkeypatch.setattr(limits, "MIN_PING", 1)
    async with stream(alice, "types=*&closeafter=no&ping=1") as events:
        event = await events.event()
        assert event["event"] == "ping" and event["data"] == {"interval": 1}
    for query in ("closeafter=soon", "ping=x", "ping=-1", "ping=9999999"):
        answer = await alice.request("GET", f"/jmap/events?{query}")
        assert answer.status == 400, query


async def test_a_stream_ends_with_its_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "POLL_SECONDS", 0.1)
    async with stream(world.alice) as events:
        await asyncio.to_thread(Session.objects.all().delete)
        while (line := await events.line()) is not None:
            assert "StateChange" not in line


async def test_streams_end_with_the_password_or_app_password_that_they_came_in_by(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "POLL_SECONDS", 3600)  # they are told

    def app_password() -> str:
        return people.add_app_password(people.get_account(ALICE), "reader")

    def changing(what: Callable[[], object]) -> None:
        what()
        connection.close()

    def program(secret: str) -> Client:
        return world.program(world.village.alice, ALICE, secret)

    async def over(events: Stream) -> bool:
        while (line := await events.line()) is not None:
            assert "StateChange" not in line
        return True

    secret = await asyncio.to_thread(app_password)
    async with (
        stream(world.alice) as by_cookie,
        stream(program(PASSWORD)) as by_password,
        stream(program(secret)) as by_secret,
        stream(world.bob) as bobs,
    ):
        await asyncio.to_thread(changing, lambda: people.set_password(people.get_account(ALICE), "another horse"))
        assert await over(by_cookie) and await over(by_password)
        await world.deliver(world.village.alice, SIMPLE.format(subject="New"))
        assert (await by_secret.event())["event"] == "state", "its own secret still holds"
        await asyncio.to_thread(changing, lambda: people.remove_app_password(people.get_account(ALICE), label="reader"))
        assert await over(by_secret)
        await world.deliver(world.village.bob, SIMPLE.format(subject="Bob's"))
        assert (await bobs.event())["event"] == "state"


async def test_a_slow_reader_costs_one_number(world: World) -> None:
    alice = world.alice
    async with stream(alice) as events:
        events.blocked.clear()
        for n in range(30):
            wake._notify(alice.account, (Change(alice.account, 1, 100 + n, "mail"),))
            await asyncio.sleep(0)
        events.blocked.set()
        seen = [(await events.event())["id"]]
        while seen[-1] != "129":
            seen.append((await events.event())["id"])
        assert len(seen) <= 2


async def test_an_accounts_streams_are_counted(world: World) -> None:
    alice = world.alice
    taken = [push.STREAMS.taken(alice.account) for _ in range(limits.MAX_EVENT_STREAMS)]
    for one in taken:
        one.__enter__()
    assert (await alice.request("GET", "/jmap/events")).status == 429
    for one in taken:
        one.__exit__(None, None, None)
    async with stream(alice) as events:
        assert events.status == 200
    assert not push.STREAMS._taken and alice.account not in wake._listeners, "nothing of it is left behind"
