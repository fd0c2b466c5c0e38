"""Mail that waits is not forgotten, does not wait for others' sake, and goes where it should when its time comes."""

from __future__ import annotations

from dataclasses import replace

from mailcore import db
from mailcore.conf import Smarthost
from mailcore.delivery.plan import Plans
from mailcore.store import queue_admin, routes
from mailcore.store.queue_admin import Selection
from mailcore.store.routes import Rule
from tests.delivery.world import ANN, BOB, World

ZOE = "zoe@other.test"


async def test_senders_of_mail_behind_a_dead_smarthost_hear_of_it_and_get_it_back_in_the_end(here: World) -> None:
    dead = await here.sink("127.0.0.9")
    await dead.stop()
    here.conf = replace(here.conf, smarthost=Smarthost("127.0.0.9", here.conf.smtp_out_port))
    for n in range(4):
        await here.submit(f"r{n}@far{n}.example")
    for age, wanted in ((5 * 3600, b"Action: delayed"), (5 * 86400, b"Action: failed")):
        await here.start()
        await here.deliver()
        await here.later(age)
        async with db.transaction() as tx:
            await tx.execute("UPDATE delivery_pause SET until = now() + interval '10 minutes'")
        await here.start()
        await here.deliver()
        assert sum(wanted in notice for notice in await here.inbox()) == 4
    assert set((await here.states()).values()) == {"failed"}


async def test_a_limit_a_minute_for_one_sender_does_not_hold_up_the_others(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule(sender="other.test", per_minute=2))
    for n in range(40):
        await here.submit(f"r{n}@far.example", sender=ZOE)
    await here.submit()
    await here.deliver()
    senders = [mail.sender for mail in sink.mails]
    assert senders.count(ANN) == 1
    assert senders.count(ZOE) in (2, 4), "a minute, or two when the clock turned"
    asked = {address for address, row in (await here.rows()).items() if row["attempts"]}
    assert len(asked) == len(senders), "what is too much waits, and has not been tried"
    async with db.transaction() as tx:
        await tx.execute("UPDATE route SET minute = minute - interval '1 minute'")
    await here.start()
    await here.deliver()
    assert len(sink.mails) >= len(senders) + 2


async def test_what_a_rule_holds_goes_when_somebody_releases_it(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule(recipient="far.example", action="hold", text="to be looked at"))
    await here.submit(BOB, "carol@far.example")
    await here.deliver()
    assert set((await here.states()).values()) == {"held"}
    async with db.transaction() as tx:
        (row,) = await queue_admin.rows(tx, Selection(recipient=BOB))
        await queue_admin.release(tx, [row.recipient_id])
    await here.deliver()
    assert [mail.recipients for mail in sink.mails] == [(BOB,)]
    assert await here.states() == {BOB: "delivered", "carol@far.example": "held"}


async def test_a_password_that_cannot_be_opened_holds_up_only_its_own_rules_mail(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        broken = Rule("other.test", "*", "relay", "127.0.0.1", 25, "zoe", b"sealed with another key")
        await routes.put(tx, broken)
    await here.submit()
    await here.submit("carol@far.example", sender=ZOE)
    await here.deliver()
    assert [mail.sender for mail in sink.mails] == [ANN]
    row = (await here.rows())["carol@far.example"]
    assert (row["state"], "password" in row["last_reply"]) == ("queued", True)


async def test_a_connection_to_one_domains_host_is_not_used_for_another_domains_mail(here: World) -> None:
    """A smarthost's lane is at work when a rule comes that sends some domains' mail to their own hosts."""
    first, second = await here.sink("127.0.0.1"), await here.sink("127.0.0.2")
    here.names.host("a.near.example", (10, "mx.a.near.example", "127.0.0.1"))
    here.names.host("b.near.example", (10, "mx.b.near.example", "127.0.0.2"))
    await here.submit("one@a.near.example")
    await here.submit("two@b.near.example")
    engine = await here.start(smarthost=Smarthost("127.0.0.9", here.conf.smtp_out_port))
    await engine.refresh()
    engine.ring(["a.near.example"])  # the lane of the smarthost, as there is no rule yet
    engine._knowledge._plans = Plans(here.conf, [Rule(recipient="*.near.example")])
    await engine.idle()
    assert [mail.recipients for mail in first.mails] == [("one@a.near.example",)]
    assert [mail.recipients for mail in second.mails] == [("two@b.near.example",)]
