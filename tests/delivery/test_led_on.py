"""Where an address leads is its owner's business: no report to a sender says more than what he wrote to (RFC 3464)."""

from __future__ import annotations

from typing import Any

import pytest

from accounts import groups, people
from accounts.addresses import parse_address
from mailcore import db
from mailcore.delivery import local
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.inbound import recipients
from mailcore.inbound.envelope import Envelope, Source
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory, Writer
from mailcore.store import queue, queue_admin, quota, suppression, trace
from mailcore.store.ingest import Ingest
from mailcore.store.queue import Recipient
from mailcore.timeline import Viewer, messages
from mailcore.wire.smtp.params import By
from tests.delivery.sink import EXTENSIONS
from tests.delivery.test_bounce import Notice
from tests.delivery.test_local import account, alias, apart, spoil
from tests.delivery.world import ANN, World

LIST = "list@example.test"
HIDDEN = "secret@hidden.example"
OTHER = "second@hidden.example"
ZOE = "zoe@other.test"
WORDS = f"<{HIDDEN}> at mx.hidden.example"
REFUSED = ("RCPT", "", f"550 5.1.1 {WORDS}: no such user")
RAW = b"From: Ann <ann@example.test>\r\nSubject: hello\r\nMessage-ID: <one@example.test>\r\n\r\nHello\r\n"


@pytest.fixture
def far(here: World) -> World:
    here.names.host("hidden.example", (10, "mx.hidden.example", "127.0.0.1"))
    here.names.host("other.test", (10, "mx.other.test", "127.0.0.2"))
    return here


async def send(far: World, *to: str, notify: str | None = None, orcpt: str | None = None, **more: Any) -> str:
    """A message of Ann's as submission takes it; returns its trace id."""
    directory, ingest, name = Directory(), Ingest(), trace.new_id()
    writer = Writer(ANN, far.account)
    found = [await directory.resolve(parse_address(each), writer, notify=notify, orcpt=orcpt) for each in to]
    source = Source("192.0.2.1", "client.example", "ESMTPSA")
    await Receiver(ingest, far.conf.hostname).receive(
        Envelope(name, source, ANN, tuple(found), far.account, **more), RAW
    )
    await ingest.close()
    return name


async def reports(far: World) -> list[Notice]:
    return [Notice(raw) for raw in await far.inbox() if b"multipart/report" in raw]


def says_nothing_of_it(notice: Notice) -> bool:
    return b"hidden" not in notice.raw.lower() and b"secret" not in notice.raw.lower()


def sent_on(name: str) -> str:
    return (
        "It was sent on to another address, and could not be delivered there. "
        f"The administrator of this mail system finds the reason under {name}."
    )


def forward() -> None:
    people.add_alias(LIST, [HIDDEN])


def by_two_aliases() -> None:
    people.add_alias("inner@example.test", [HIDDEN])
    people.add_alias(LIST, ["inner@example.test"])


def everything() -> None:
    people.add_alias("*@example.test", [HIDDEN])


def members() -> None:
    groups.add_group(LIST, [HIDDEN, OTHER])


@pytest.mark.parametrize("way", [forward, by_two_aliases, everything, members])
async def test_the_report_names_what_the_sender_wrote_to(far: World, way: Any) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await apart(way)
    name = await send(far, LIST)
    await far.deliver()
    (notice,) = await reports(far)
    (fate,) = notice.recipients
    assert (fate["Final-Recipient"], fate["Action"]) == (f"rfc822; {LIST}", "failed")
    assert fate["Status"] == "5.1.0", "it is not this address that does not exist"
    assert "Remote-MTA" not in fate
    assert f"{LIST}\r\n" in notice.raw.decode() and sent_on(name) in " ".join(notice.words.split())
    assert says_nothing_of_it(notice)
    failed = [step for step in await far.steps(name) if step.step == "failed"]
    assert WORDS in failed[0].detail["reply"] and failed[0].recipient == HIDDEN, "whoever runs the server sees all"


async def test_another_name_of_a_domain_is_one_address(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await apart(lambda: (people.add_domain_alias("example.net", "example.test"), forward()))
    await send(far, "list@example.net")
    await far.deliver()
    (notice,) = await reports(far)
    assert notice.recipients[0]["Final-Recipient"] == "rfc822; list@example.net"
    assert b"list@example.test" not in notice.raw and says_nothing_of_it(notice)


async def test_who_writes_to_both_hears_of_each_as_he_wrote(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await alias(LIST, HIDDEN)
    await send(far, LIST, OTHER, orcpt="rfc822;as+40it.was")
    await far.deliver()
    fates = {notice.recipients[0]["Final-Recipient"]: notice for notice in await reports(far)}
    assert set(fates) == {f"rfc822; {LIST}", f"rfc822; {OTHER}"}
    assert fates[f"rfc822; {OTHER}"].recipients[0]["Diagnostic-Code"] == f"smtp; 550 5.1.1 {WORDS}: no such user"
    assert fates[f"rfc822; {LIST}"].recipients[0]["Original-Recipient"] == "rfc822; as@it.was"
    assert says_nothing_of_it(fates[f"rfc822; {LIST}"])


async def test_a_delay_says_as_little(far: World) -> None:
    sink = await far.sink()
    sink.refuse(("RCPT", "", f"450 4.1.1 {WORDS} not now"))
    await alias(LIST, HIDDEN)
    await send(far, LIST)
    await far.deliver()
    await far.later(5 * 3600)
    await far.deliver()
    (notice,) = await reports(far)
    fate = notice.recipients[0]
    assert (fate["Final-Recipient"], fate["Action"], fate["Status"]) == (f"rfc822; {LIST}", "delayed", "4.1.0")
    assert says_nothing_of_it(notice)


@pytest.mark.parametrize("mode", ["N", "R"])
async def test_what_is_late_says_as_little(far: World, mode: str) -> None:
    sink = await far.sink(extensions=(*EXTENSIONS, "DELIVERBY 30"))
    sink.refuse(("RCPT", "", f"450 4.1.1 {WORDS} not now"))
    await alias(LIST, HIDDEN)
    await send(far, LIST, by=By(60, mode))
    await far.deliver()
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_recipient SET deliver_by = now() - interval '1 second'")
    await far.deliver()
    (notice,) = await reports(far)
    assert notice.recipients[0]["Final-Recipient"] == f"rfc822; {LIST}"
    assert notice.recipients[0]["Action"] == ("delayed" if mode == "N" else "failed")
    assert "The time that you gave for the delivery is over" in notice.words
    assert says_nothing_of_it(notice)


async def test_what_an_alias_leads_on_when_it_is_late_is_told_of_once(far: World) -> None:
    sink = await far.sink(extensions=(*EXTENSIONS, "DELIVERBY 30"))
    sink.refuse(("RCPT", "", "450 4.2.0 not now"))
    await alias(LIST, HIDDEN)
    await far.submit(LIST, by=By(60, "N"))
    async with db.transaction() as tx:
        await tx.execute("UPDATE outbound_recipient SET deliver_by = now() - interval '1 second'")
    for _ in range(3):
        await far.deliver()
        await far.later(600)
    assert await far.states() == {LIST: "delivered", HIDDEN: "queued"}
    assert [notice.recipients[0]["Action"] for notice in await reports(far)] == ["delayed"]


async def test_our_own_words_say_as_little(far: World) -> None:
    """A domain without mail hosts, and an address that is not written to any more."""
    await far.sink()
    await alias(LIST, "secret@nowhere.hidden.example")
    await alias("team@example.test", HIDDEN)
    async with db.transaction() as tx:
        await suppression.add(tx, HIDDEN, source="admin", category="policy", reason=f"asked by {HIDDEN}", until=None)
    await send(far, LIST)
    await send(far, "team@example.test")
    await far.deliver()
    told = {notice.recipients[0]["Final-Recipient"]: notice for notice in await reports(far)}
    assert set(told) == {f"rfc822; {LIST}", "rfc822; team@example.test"}
    assert all(says_nothing_of_it(notice) for notice in told.values())


@pytest.mark.parametrize(("notify", "passed_on"), [("SUCCESS,FAILURE", "FAILURE"), ("SUCCESS", "NEVER")])
@pytest.mark.parametrize("extensions", [EXTENSIONS, ("PIPELINING",)])
async def test_a_receipt_is_no_way_to_ask_where_an_address_leads(
    far: World, notify: str, passed_on: str, extensions: tuple[str, ...]
) -> None:
    """The next server would name the address that it has delivered to: it is not asked (RFC 3461 §5.2.7.4)."""
    sink = await far.sink(extensions=extensions)
    await alias(LIST, HIDDEN)
    await send(far, LIST, notify=notify, orcpt=f"rfc822;{LIST}", envid="E1")
    await far.deliver()
    await far.deliver()
    (mail,) = sink.mails
    if extensions is EXTENSIONS:
        assert f"NOTIFY={passed_on} ORCPT=rfc822;{LIST}" in mail.rcpt_lines[0] and "ENVID=E1" in mail.mail_line
    (notice,) = await reports(far)
    assert (notice.recipients[0]["Final-Recipient"], notice.recipients[0]["Action"]) == (f"rfc822; {LIST}", "relayed")
    assert says_nothing_of_it(notice)


async def test_a_stranger_who_asks_for_a_receipt_does_not_learn_it_either(far: World) -> None:
    await far.sink()
    other = await far.sink("127.0.0.2")
    await alias(LIST, HIDDEN)
    await far.submit(Recipient(LIST, "SUCCESS,FAILURE"), sender=ZOE, account=None, raw=RAW.replace(b"Ann", b"Zoe"))
    for _ in range(3):
        await far.deliver()
    (receipt,) = other.mails
    assert receipt.recipients == (ZOE,) and b"Action: relayed" in receipt.data
    assert b"hidden" not in receipt.data


async def test_a_forward_that_cannot_be_made_does_not_stand_in_the_receipt(far: World) -> None:
    await alias(LIST, ANN, HIDDEN)
    await spoil(HIDDEN)
    await send(far, LIST, notify="SUCCESS")
    await far.deliver()
    (notice,) = await reports(far)
    assert b"forwarded" not in notice.raw and b"no address" not in notice.raw


async def test_a_full_member_of_an_alias_is_not_named(far: World) -> None:
    member = await account("member@example.test")
    async with db.transaction() as tx:
        await quota.set_limit(tx, member, 10)
    await alias(LIST, ANN, "member@example.test")
    await send(far, LIST)
    await far.later(6 * 86400)
    await far.deliver()
    (notice,) = await reports(far)
    assert notice.recipients[0]["Final-Recipient"] == f"rfc822; {LIST}"
    assert b"member@" not in notice.raw


async def test_the_members_of_a_large_group_are_one_to_its_sender(far: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipients, "AT_ONCE", 1)
    monkeypatch.setattr(local, "AT_ONCE", 1)
    for name in ("one", "two"):
        member = await account(f"{name}@example.test")
        async with db.transaction() as tx:
            await quota.set_limit(tx, member, 10)
    await apart(lambda: groups.add_group(LIST, ["one@example.test", "two@example.test"]))
    await send(far, LIST)
    await send(far, LIST, notify="SUCCESS,FAILURE")
    await far.deliver()
    await far.later(6 * 86400)
    await far.deliver()
    expanded, *failed = sorted(await reports(far), key=lambda notice: notice.recipients[0]["Action"])
    assert expanded.recipients[0]["Action"] == "expanded" and len(failed) == 2
    for notice in (expanded, *failed):
        assert [fate["Final-Recipient"] for fate in notice.recipients] == [f"rfc822; {LIST}"]
        assert b"one@" not in notice.raw.replace(b"<one@", b"") and b"two@" not in notice.raw


async def test_what_an_administrator_sends_elsewhere_is_told_of_as_it_was_written(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await alias(LIST, "first@hidden.example")
    await send(far, LIST)
    async with db.transaction() as tx:
        await queue_admin.redirect(tx, await queue_admin.rows(tx), HIDDEN)
    async with db.transaction() as tx:
        (claim,) = await queue.claim(tx)
        assert (claim.written_to, claim.orcpt) == (LIST, f"rfc822;{LIST}"), "nor does the next server know of the first"
        await queue.give_back(tx, [(claim.recipient_id, claim.fence)])
    await far.deliver()
    (notice,) = await reports(far)
    assert notice.recipients[0]["Final-Recipient"] == f"rfc822; {LIST}"
    assert says_nothing_of_it(notice)


async def test_the_words_of_a_report_fit_what_an_administrator_sent_elsewhere(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    name = await send(far, ZOE)
    async with db.transaction() as tx:
        await queue_admin.redirect(tx, await queue_admin.rows(tx), HIDDEN)
    await far.deliver()
    (notice,) = await reports(far)
    assert sent_on(name) in " ".join(notice.words.split())
    assert says_nothing_of_it(notice)


async def test_what_was_sent_back_to_whom_it_was_for_is_told_of_without_where_it_had_been(far: World) -> None:
    await far.sink("127.0.0.2")
    await send(far, ZOE)
    async with db.transaction() as tx:
        await queue_admin.redirect(tx, await queue_admin.rows(tx), HIDDEN)
        (claim,) = await queue.claim(tx)
        refused = Outcome(Verdict.LATER, Stage.RCPT, "4.1.1", f"450 4.1.1 {WORDS} not now", remote=True)
        await settle(tx, [Settled(claim, refused, "mx.hidden.example", elapsed=5 * 3600)])
        await queue_admin.redirect(tx, await queue_admin.rows(tx), ZOE)
    await far.deliver()
    assert await far.states() == {ZOE: "delivered"}
    (notice,) = await reports(far)
    assert (notice.recipients[0]["Final-Recipient"], notice.recipients[0]["Action"]) == (f"rfc822; {ZOE}", "delayed")
    assert says_nothing_of_it(notice)


async def test_the_history_says_of_which_address_the_sender_was_told(far: World) -> None:
    sink = await far.sink()
    sink.refuse(REFUSED)
    await alias(LIST, HIDDEN)
    name = await send(far, LIST)
    await far.deliver()
    found = await far.steps(name)
    (told,) = [step for step in found if step.step == "dsn"]
    assert told.detail["recipients"] == [LIST]
    (seen,) = messages(found, Viewer(far.account, frozenset({ANN})))
    assert [step.sentence for step in seen.steps[1:]] == [
        "Passed on to whoever reads mail for this address",
        "You were told by mail that it could not be delivered",
    ]
    assert seen.states == {LIST: "failed"}
    assert HIDDEN not in str(seen)
