"""STARTTLS between servers: used when it is offered and works, given up rather than the mail."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from mailcore import db
from mailcore.conf import Smarthost
from mailcore.store import routes
from mailcore.store.routes import Rule
from tests.delivery.sink import EXTENSIONS
from tests.delivery.world import BOB, World


@pytest.fixture
def far(here: World) -> World:
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    return here


async def test_a_server_that_offers_starttls_gets_the_mail_encrypted(far: World) -> None:
    sink = await far.sink(tls=far.server_tls())
    name = await far.submit()
    await far.submit()
    await far.deliver()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3", "TLSv1.3"]
    assert sink.connections == 1
    assert [line.split()[0] for line in sink.log[:3]] == ["EHLO", "STARTTLS", "EHLO"], "nothing said before TLS counts"
    assert (await far.steps(name))[-1].detail["tls"].startswith("TLSv1.3 TLS_")


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "501 5.5.4 no", "220 go\r\n250 injected", "220 go", "DROP"])
async def test_where_tls_fails_the_mail_goes_on_a_new_connection_without_it(far: World, reply: str) -> None:
    sink = await far.sink(extensions=(*EXTENSIONS, "STARTTLS"))  # offers it, and cannot do it
    sink.refuse(("STARTTLS", "", reply))
    far.timeouts = replace(far.timeouts, tls=1.0)
    name = await far.submit()
    await far.deliver()
    assert [mail.tls for mail in sink.mails] == [None]
    assert sink.connections == 2
    steps = await far.steps(name)
    assert [step.step for step in steps] == ["queued", "attempt", "delivered"]
    assert steps[1].detail["stage"] == "STARTTLS"
    assert "tls" not in steps[2].detail


async def test_a_handshake_that_fails_is_followed_by_plain_smtp(far: World) -> None:
    sink = await far.sink(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # has no certificate
    await far.submit()
    await far.deliver()
    assert [mail.tls for mail in sink.mails] == [None]
    assert await far.states() == {BOB: "delivered"}


async def test_our_password_is_never_sent_to_a_smarthost_in_the_clear(far: World) -> None:
    relay = await far.sink(extensions=(*EXTENSIONS, "AUTH PLAIN", "STARTTLS"))  # offers TLS, and cannot do it
    far.timeouts = replace(far.timeouts, tls=1.0)
    await far.start(smarthost=Smarthost("127.0.0.1", relay.port, "us", "secret"))
    await far.submit()
    await far.deliver()
    assert not any(line.startswith("AUTH") for line in relay.log)
    row = (await far.rows())[BOB]
    assert row["state"] == "queued"
    assert "TLS" in row["last_reply"]


@pytest.mark.parametrize(
    ("wish", "tls", "delivered"),
    [
        ("require", True, True),
        ("require", False, False),
        ("none", True, True),
        ("none", False, True),
        ("may", False, True),
    ],
)
async def test_a_rule_of_ours_demands_tls_or_does_without(far: World, wish: str, tls: bool, delivered: bool) -> None:
    sink = await far.sink(tls=far.server_tls() if tls else None)
    async with db.transaction() as tx:
        await routes.put(tx, Rule(recipient="far.example", tls=wish))
    await far.submit()
    await far.deliver()
    assert [mail.tls is not None for mail in sink.mails] == ([tls and wish != "none"] if delivered else [])
    if not delivered:
        assert "a rule of this server demands TLS" in (await far.rows())[BOB]["last_reply"]
