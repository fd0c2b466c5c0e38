"""What a message costs in statements: every one is a journey to the database and back, while a client waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mailcore import libpq
from mailcore.auth import senders, standing
from mailcore.conf import conf
from mailcore.inbound import recipients, sending
from tests.smtp.world import ANN, BOB, MESSAGE, Client, Village, running

pytestmark = [pytest.mark.django_db(transaction=True)]

# What a process asks every few seconds, whatever happens.
BACKGROUND = {standing.NO_LONGER}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that this process sends, by psycopg's cursors and past them."""
    found: list[str] = []
    execute, call = psycopg.AsyncCursor.execute, libpq.call

    async def executed(self: Any, query: Any, *more: Any, **named: Any) -> Any:
        found.append(str(query))
        return await execute(self, query, *more, **named)

    async def called(connection: Any, query: str, values: Any) -> Any:
        found.append(query)
        return await call(connection, query, values)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", executed)
    monkeypatch.setattr(libpq, "call", called)
    # What is known for a second is known until the end, however slow the machine is.
    monkeypatch.setattr(senders, "KEEP", 600.0)
    monkeypatch.setattr(recipients, "KEEP", 600.0)
    yield found


def cost(said: list[str]) -> int:
    """How many there were; BEGIN travels with the next one."""
    count = len([each for each in said if each not in BACKGROUND and each != "BEGIN"])
    said.clear()
    return count


async def submit(client: Client, *to: str) -> None:
    await client.expect(f"MAIL FROM:<{ANN}>", "250")
    for each in to:
        await client.expect(f"RCPT TO:<{each}>", "250")
    await client.expect("DATA", "354")
    client.say(b"From: " + ANN.encode() + b"\r\nSubject: x\r\n\r\nHello.\r\n.\r\n")
    assert (await client.hear()).startswith("250")


async def test_a_message_for_elsewhere_costs_a_handful_of_statements(
    village: Village, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as world, world.client("submission") as client:
        await client.login()
        said.clear()
        # Whose address the sender is, what may be sent still, where it goes; counted and committed; queued.
        await submit(client, "far@elsewhere.example")
        assert cost(said) <= 6
        monkeypatch.setattr(sending, "conf", replace(conf, send_limits=False))
        await submit(client, "further@elsewhere.example")
        assert cost(said) <= 2
        assert len(await world.queued()) == 2


async def test_a_message_that_is_received_costs_three_statements_and_the_next_one_less(
    village: Village, tmp_path: Path, said: list[str]
) -> None:
    async with running(tmp_path) as world, world.client() as client:
        said.clear()
        # Which senders are ours, whose the recipient is, and the message; then the message.
        for most in (3, 1):
            assert (await client.deliver(MESSAGE, to=BOB)).startswith("250")
            assert cost(said) <= most
        assert len(await world.mail(village.bob)) == 2
