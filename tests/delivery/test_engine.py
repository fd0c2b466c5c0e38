"""Mail leaves: by MX, over one connection, signed, and what the queue and the trace say of it."""

from __future__ import annotations

import dkim as dkimpy
import pytest

from mailcore import db
from mailcore.delivery import dkim
from tests.delivery.world import ANN, BOB, HOSTNAME, RAW, World

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_message_arrives_signed_and_the_trace_tells_how(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    name = await here.submit()
    await here.deliver()
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients, mail.helo) == (ANN, (BOB,), HOSTNAME)
    assert await here.states() == {BOB: "delivered"}
    signatures, _, rest = mail.data.partition(b"From: ")
    assert b"From: " + rest == RAW.replace(b"Bcc: secret@far.example\r\n", b""), "nothing else is changed"
    assert signatures.count(b"DKIM-Signature:") == 2
    async with db.read() as tx:
        for record in await dkim.dns_records(tx, "example.test"):
            here.names.add(record.name, record.type, str(record).split(f" IN {record.type} ")[1])

    def lookup(name: bytes, timeout: float = 5) -> bytes:
        texts = here.names.zone[name.decode().rstrip(".")]["TXT"][0]
        return texts.replace('" "', "").strip('"').encode()

    signed = dkimpy.DKIM(mail.data)
    assert [signed.verify(index, dnsfunc=lookup) for index in (0, 1)] == [True, True]
    steps = await here.steps(name)
    assert [step.step for step in steps] == ["queued", "delivered"]
    assert steps[1].recipient == BOB
    assert steps[1].detail["host"] == "mx.far.example [127.0.0.1]"
    assert steps[1].detail["reply"] == "250 2.0.0 taken"
    assert steps[1].detail["attempt"] == 1


async def test_many_messages_share_one_connection(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    for _ in range(10):
        await here.submit()
    await here.deliver()
    assert len(sink.mails) == 10
    assert sink.connections == 1
    assert "QUIT" in sink.log
