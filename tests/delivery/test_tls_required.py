"""REQUIRETLS and "TLS-Required: No" (RFC 8689): a sender asks for more than the recipients' domain, or for less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailcore import db
from mailcore.conf import Smarthost
from tests.delivery.sink import EXTENSIONS, Sink
from tests.delivery.test_mta_sts import TESTING, Far, far, nothing_in_the_clear
from tests.delivery.world import BOB, World

__all__ = ["far"]

REQUIRE = (*EXTENSIONS, "REQUIRETLS")


async def send(here: World, wish: bool | None = True, to: str = BOB, **more: object) -> dict[str, object]:
    await here.submit(to, requiretls=wish, **more)
    await here.deliver()
    return (await here.rows())[to]


async def test_a_host_that_mta_sts_vouches_for_gets_it_with_the_option(far: Far) -> None:
    far.publish(TESTING)
    sink = await far.here.sink(tls=far.certificate(), extensions=REQUIRE)
    assert (await send(far.here))["state"] == "delivered"
    (mail,) = sink.mails
    assert (mail.tls, mail.mail_line.split()[-1]) == ("TLSv1.3", "REQUIRETLS")


LACKS = {
    "no REQUIRETLS": (dict(extensions=EXTENSIONS), (), "5.7.30"),
    "no STARTTLS": (dict(tls=None), (), "5.7.10"),
    "another host's certificate": ({}, ("mx.other.example",), "5.7.10"),
}


@pytest.mark.parametrize("lack", LACKS, ids=LACKS)
async def test_a_host_that_lacks_something_gets_nothing_and_the_sender_hears_of_it(far: Far, lack: str) -> None:
    far.publish(TESTING)
    settings, names, status = LACKS[lack]
    sink = await far.here.sink(**({"tls": far.certificate(*names), "extensions": REQUIRE} | settings))
    assert (await send(far.here))["state"] == "failed"
    nothing_in_the_clear(sink)
    (notice,) = await far.here.inbox()
    assert f"Status: {status}".encode() in notice
    assert (await send(far.here, None, "carol@far.example"))["state"] == "delivered", "without the option it goes"


async def test_the_next_host_may_have_what_the_first_lacks(far: Far) -> None:
    far.publish(TESTING.replace(b"*.backup", b"mx2.far"))
    far.here.names.zone["far.example"]["MX"] = ["5 mx.far.example.", "20 mx2.far.example."]
    far.here.names.add("mx2.far.example", "A", "127.0.0.2")
    lacking = await far.here.sink(tls=far.certificate())
    good = await far.here.sink("127.0.0.2", tls=far.certificate("mx2.far.example"), extensions=REQUIRE)
    assert (await send(far.here))["state"] == "delivered"
    nothing_in_the_clear(lacking)
    assert len(good.mails) == 1


async def test_a_host_that_cannot_be_reached_keeps_the_mail_waiting(far: Far) -> None:
    far.publish(TESTING.replace(b"*.backup", b"mx2.far"))
    far.here.names.zone["far.example"]["MX"] = ["5 mx2.far.example.", "20 mx.far.example."]
    far.here.names.add("mx2.far.example", "A", "127.0.0.2")
    await far.here.sink(tls=far.certificate())  # no REQUIRETLS; and nothing listens on 127.0.0.2
    assert (await send(far.here))["state"] == "queued"


async def test_where_nobody_vouches_for_the_mail_host_it_is_returned(far: Far) -> None:
    sink = await far.here.sink(tls=far.certificate(), extensions=REQUIRE)
    row = await send(far.here)
    assert row["state"] == "failed"
    assert "neither DNSSEC nor MTA-STS" in str(row["last_reply"])
    assert sink.connections == 0


async def test_the_smarthost_is_asked_the_same(far: Far) -> None:
    relay = await Sink(tls=far.certificate("localhost"), extensions=REQUIRE).start()
    far.here.sinks.append(relay)
    await far.here.start(smarthost=Smarthost("localhost", relay.port))
    assert (await send(far.here))["state"] == "delivered"
    assert relay.mails[0].mail_line.endswith("REQUIRETLS")
    relay.extensions = EXTENSIONS
    await far.here.start()
    assert (await send(far.here, to="carol@far.example"))["state"] == "failed"


async def test_the_notice_about_such_mail_is_as_well_protected(far: Far) -> None:
    far.publish(TESTING)
    await far.here.sink(tls=far.certificate())
    # The account stays, its address has moved to another server: the notice goes there.
    await send(far.here, sender="ann@far.example")
    async with db.read() as tx:
        found = await tx.fetch("SELECT sender, requiretls FROM outbound ORDER BY id")
    assert found == [("ann@far.example", True), ("", True)]


async def test_tls_required_no_overrides_the_policy(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(tls=far.certificate("mx.other.example"))
    assert (await send(far.here, False))["state"] == "delivered"
    sink.tls = None
    await far.here.start()
    assert (await send(far.here, False, "carol@far.example"))["state"] == "delivered"
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3", None]
    assert not any("REQUIRETLS" in mail.mail_line for mail in sink.mails)


async def test_a_connection_opened_for_who_does_not_care_serves_nobody_else(far: Far) -> None:
    far.publish()
    far.here.limits = replace(far.here.limits, linger=5.0)
    sink = await far.here.sink(tls=far.certificate("mx.other.example"))
    await far.here.submit(requiretls=False)
    await far.here.submit("carol@far.example")
    await far.here.deliver()
    assert await far.here.states() == {BOB: "delivered", "carol@far.example": "queued"}
    assert [mail.recipients for mail in sink.mails] == [(BOB,)]
