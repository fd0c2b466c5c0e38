"""Mail that was refused has a history as well: who tried, from where, for whom, and what it was told."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailcore import db, log, phrases, timeline
from mailcore.smtp import floods, refusals
from mailcore.smtp.floods import Floods
from mailcore.store import trace
from mailcore.store.trace import Event, Found
from tests.smtp.world import ANN, BOB, Village, World, gone, running
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True)]

FAR = "far@elsewhere.example"
MESSAGE = b"From: far@elsewhere.example\r\nMessage-ID: <7@elsewhere.example>\r\n\r\nHello.\r\n"


async def history(world: World, text: str) -> list[Found]:
    await world.server.refusals.close()  # which waits for what is being written at this moment
    async with db.read() as tx:
        return await trace.find(tx, text)


async def test_an_unknown_recipient_and_the_message_for_the_others_are_one_history(
    village: Village, tmp_path: Path
) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect(f"MAIL FROM:<{FAR}>", "250")
        said = await client.expect("RCPT TO:<Nobody@example.org>", "550")
        await client.expect(f"RCPT TO:<{ANN}>", "250")
        await client.expect("DATA", "354")
        client.say(MESSAGE + b".\r\n")
        taken = (await client.hear()).rpartition(" ")[2]
        for text in ("nobody@example.org", taken, "127.0.0.1", FAR):
            steps = await history(world, text)
            assert sorted(event.step for event in steps) == ["accepted", "refused", "stored"], text
            assert {event.trace_id for event in steps} == {taken}
        (refused,) = [event for event in steps if event.step == "refused"]
        assert (refused.sender, refused.recipient) == (FAR, "nobody@example.org")
        assert refused.detail["from"] == "127.0.0.1" and refused.detail["helo"] == "client.example"
        assert refused.detail["at"] == "RCPT" and refused.detail["reply"] == said
        (told,) = [step for message in timeline.messages([refused]) for step in message.steps]
        assert told.words.endswith(f"told: {said}"), "the address is not said twice"


async def test_a_sender_that_may_not_send_is_in_the_history(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client("submissions") as client:
        await client.login(ANN)
        await client.expect(f"MAIL FROM:<{BOB}>", "550")
        (refused,) = await history(world, BOB)
        assert (refused.step, refused.account_id, refused.sender) == ("refused", village.ann, BOB)
        assert refused.detail["at"] == "MAIL" and refused.detail["tls"].startswith("TLSv1")


async def test_a_refused_message_is_found_by_its_recipients_and_its_message_id(
    village: Village, tmp_path: Path
) -> None:
    loop = b"".join(b"Received: from a by b; Sun, 22 Nov 2026 10:00:00 +0000\r\n" for _ in range(120))
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.deliver(loop + MESSAGE)).startswith("554 5.4.6")
        (refused,) = await history(world, "7@elsewhere.example")
        assert (refused.step, refused.recipient, refused.detail["at"]) == ("refused", ANN, "the message")
        assert (await client.deliver(b"a bare\nnewline\r\n", BOB)).startswith("550 5.6.0")
        assert [event.step for event in await history(world, BOB)] == ["refused"]


async def test_a_connection_that_breaks_off_in_a_message_is_in_the_history(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect(f"MAIL FROM:<{FAR}>", "250")
            await client.expect(f"RCPT TO:<{ANN}>", "250")
            await client.expect("DATA", "354")
            client.say(b"half of a mess")
        await gone(world)
        (aborted,) = await history(world, ANN)
        assert (aborted.step, aborted.sender, aborted.recipient) == ("aborted", FAR, ANN)


async def test_it_is_written_without_being_asked_for(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect(f"MAIL FROM:<{FAR}>", "250")
        await client.expect("RCPT TO:<nobody@example.org>", "550")
        async with db.read() as tx:
            await eventually(lambda: trace.find(tx, "nobody@example.org"))


async def test_of_a_flood_the_first_are_kept_and_the_rest_is_one_number(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        await client.expect(f"MAIL FROM:<{FAR}>", "250")
        for number in range(floods.FEW + 3):
            await client.expect(f"RCPT TO:<nobody{number}@example.org>", "550")
        await world.server.refusals.close()
        async with db.read() as tx:
            steps = await trace.find(tx, "127.0.0.1")
    assert [event.step for event in steps] == ["refused"] * (floods.FEW + 1)
    (counted,) = [event for event in steps if "more" in event.detail]
    assert counted.detail["more"] == 3 and counted.recipient == "*@example.org"
    (told,) = [step for message in timeline.messages([counted]) for step in message.steps]
    assert "3 more" in told.words and "127.0.0.1" in told.words and "550 5.1.1" in told.words


def refusal(client: str, number: int, reply: str = "550 5.1.1 No such user") -> Event:
    detail = {"from": client, "at": "RCPT", "reply": reply}
    return Event(trace.new_id(), "refused", None, None, FAR, f"n{number}@example.org", detail=detail)


def test_a_flood_grows_the_history_by_a_line_a_minute_and_none_of_it_is_forgotten() -> None:
    flood, day = Floods(), datetime(2026, 11, 22, tzinfo=UTC)
    full, lines = 0, []
    for number in range(16_000):  # ten minutes
        now = number * 600 / 16_000
        full += flood.admit(refusal(f"192.0.2.{number % 250}", number), now, day + timedelta(seconds=now))
        lines += flood.due(now)
    lines += flood.due(600, all=True)
    assert full == floods.FEW and len(lines) == 10
    assert full + sum(int(str(line.detail["more"])) for line in lines) == 16_000
    assert {line.detail["from"] for line in lines} == {"192.0.2.0/24"}
    assert not flood.counting
    # Afterwards it is a quiet day again, and mistyping is told in full.
    assert flood.admit(refusal("192.0.2.9", 1), 700, day)


def test_not_even_a_flood_from_everywhere_with_every_reply_grows_the_history_without_measure() -> None:
    flood, day, written = Floods(), datetime(2026, 11, 22, tzinfo=UTC), 0
    for number in range(20_000):  # two minutes
        now = number * 120 / 20_000
        client = f"10.{number % 250}.{number // 250}.1"
        written += flood.admit(refusal(client, number, f"5{number % 90} no"), now, day) + len(flood.due(now))
    assert written <= floods.BURST + 120 * floods.PER_SECOND + 2 * (floods.MAX_KINDS + 1)


async def test_what_is_being_written_when_the_book_is_closed_is_not_lost(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path):
        book = refusals.Book()
        async with db.transaction() as blocking:
            await blocking.execute("LOCK TABLE trace_event IN EXCLUSIVE MODE")
            book.add([refusal("192.0.2.1", 1)])
            await eventually(lambda: not book._waiting)  # the writing has begun, and waits for us
            closing = asyncio.create_task(book.close())
            await asyncio.sleep(0)
            book.add([refusal("192.0.2.1", 2)])
        await closing
        async with db.read() as tx:
            kept = {event.recipient for event in await trace.find(tx, FAR)}
        assert kept == {"n1@example.org", "n2@example.org"}


async def test_a_store_that_is_cancelled_keeps_its_lines(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path):
        book = refusals.Book()
        book._waiting.append(refusal("192.0.2.1", 1))
        task = asyncio.create_task(book._store())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await book.close()
        async with db.read() as tx:
            assert [event.recipient for event in await trace.find(tx, FAR)] == ["n1@example.org"]


@pytest.mark.parametrize("line", ["MAIL FROM:<\udcff>", "MAIL FROM:<a@b", "MAIL FROM:<" + "x" * 3000 + "@b.example>"])
async def test_what_cannot_be_read_is_refused_and_kept_as_far_as_it_can_be(
    village: Village, tmp_path: Path, line: str
) -> None:
    async with running(tmp_path) as world, world.client() as client:
        assert (await client.ask(line.encode("utf-8", "surrogateescape"))).startswith("5")
        await client.expect("NOOP", "250")
        assert len(await history(world, "127.0.0.1")) <= 1


async def test_no_stranger_writes_on_the_administrators_terminal(
    village: Village, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    colour = "RCPT TO:<\x1b[31m\x9b2J\u202ered@example.org>"
    async with running(tmp_path) as world, world.client() as client:
        with caplog.at_level(logging.INFO):
            await client.expect("MAIL FROM:<\x1b[2J@elsewhere.example>", "501")
            await client.expect(f"MAIL FROM:<{FAR}>", "250")
            await client.expect(colour.encode(), "501")
        ((refused,),) = [[each for each in await history(world, FAR)]]
        assert refused.recipient == "to:<\\x1b[31m\\x9b2j\\x202ered@example.org>"
    assert all(record.getMessage().isprintable() for record in caplog.records if "refused" in record.getMessage())
    event = {"event": "said \x1b[2J\n", "level": "info", "who": "\x07"}
    assert log._text(None, "", event) == "INFO -: said \\x1b[2J\\n who=\\x07"
    assert (
        phrases.words("failed", {"host": "mx", "reply": "550 \x1b]0;x\x07"}) == "mx (no TLS), said: 550 \\x1b]0;x\\x07"
    )


async def test_what_cannot_be_written_does_not_keep_the_rest_from_the_history(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.client() as client:
        world.server.refusals.add([Event(trace.new_id(), "refused", account_id=1 << 70)])
        assert await world.server.refusals._store()
        await client.expect(f"MAIL FROM:<{FAR}>", "250")
        await client.expect("RCPT TO:<nobody@example.org>", "550")
        assert [event.step for event in await history(world, "nobody@example.org")] == ["refused"]


async def test_nothing_stays_in_memory_of_a_session_that_was_refused(village: Village, tmp_path: Path) -> None:
    """An error that is raised again and again keeps the frames of each time, and with them whole sessions."""
    async with running(tmp_path) as world:
        async with world.client() as client:
            await client.expect("DATA", "503 5.5.1")
            await client.expect(f"MAIL FROM:<{FAR}> BY=60;R", "250")
            await client.expect("RCPT TO:<away@example.org>", "550 5.3.3")
            (here,) = world.server.sessions
            session = weakref.ref(here)
            del here

        def is_gone() -> bool:
            gc.collect()
            return session() is None

        await eventually(is_gone, pause=0.1)
    shared = [
        f"{name}.{each}"
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] in ("accounts", "mailcore", "webmail")
        for each, value in vars(module).items()
        if isinstance(value, BaseException)
    ]
    assert not shared
