"""Rules for where mail goes: which of them counts, what each of them does, and how an administrator writes them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from ipaddress import ip_network

import pytest
from django.core.management import CommandError

from mailcore import db
from mailcore.conf import Conf, Smarthost
from mailcore.delivery.plan import Plans
from mailcore.delivery.route import hop, ordered
from mailcore.store import routes
from mailcore.store.routes import Rule
from tests.delivery.world import ANN, BOB, LOOPBACK, World, command

CONF = Conf(hostname="mx.example.test")


@pytest.mark.parametrize(
    ("sender", "destination", "wanted"),
    [
        ("a@elsewhere.test", "other.test", "mx"),
        ("a@elsewhere.test", "far.test", "far"),
        ("a@elsewhere.test", "sub.far.test", "below far"),
        ("a@elsewhere.test", "deep.sub.far.test", "below sub"),
        ("a@ours.test", "other.test", "ours"),
        ("a@ours.test", "far.test", "far"),
        ("a@special.test", "far.test", "special to far"),
        ("", "other.test", "notices"),
        ("a@elsewhere.test", "[192.0.2.1]", "mx"),
    ],
)
def test_the_rule_for_the_more_particular_recipient_counts_then_the_senders(
    sender: str, destination: str, wanted: str
) -> None:
    plans = Plans(
        CONF,
        [
            Rule("*", "far.test", "hold", text="far"),
            Rule("*", "*.far.test", "hold", text="below far"),
            Rule("*", "*.sub.far.test", "hold", text="below sub"),
            Rule("ours.test", "*", "hold", text="ours"),
            Rule("special.test", "far.test", "hold", text="special to far"),
            Rule("<>", "*", "hold", text="notices"),
        ],
    )
    plan = plans.of(sender, destination)
    assert (plan.text or plan.action) == wanted


def test_without_a_rule_mail_goes_to_the_smarthost() -> None:
    smarthost = Smarthost("relay.test", 587)
    conf = Conf(smarthost=smarthost)
    assert Plans(conf).of("a@x.test", "far.test").relay == smarthost
    assert Plans(conf).one_relay
    with_rule = Plans(conf, [Rule(recipient="far.test", action="mx")])
    assert not with_rule.one_relay
    assert with_rule.of("a@x.test", "far.test").relay is None
    assert with_rule.of("a@x.test", "other.test").relay == smarthost


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [("ipv4", "4a 6a 4b 6b 4c"), ("ipv6", "6a 4a 6b 4b 4c"), ("ipv4-only", "4a 4b 4c"), ("ipv6-only", "6a 6b")],
)
def test_the_families_take_turns(prefer: str, wanted: str) -> None:
    names = {"4a": "192.0.2.1", "4b": "192.0.2.2", "4c": "192.0.2.3", "6a": "2001:db8::1", "6b": "2001:db8::2"}
    assert ordered(list(names.values()), prefer) == [names[each] for each in wanted.split()]


async def test_a_rule_sends_mail_of_a_domain_to_a_relay_with_its_name_and_address(here: World) -> None:
    relay, sink = await here.sink("127.0.0.2"), await here.sink("127.0.0.1")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    here.names.host("near.example", (10, "mx.near.example", "127.0.0.1"))
    rule = Rule(
        *("*", "near.example", "relay", "127.0.0.2", relay.port), source4="127.0.0.77", hello="other.example.test"
    )
    async with db.transaction() as tx:
        await routes.put(tx, rule)
        (number,) = [each.id for each in await routes.rules(tx)]
    name = await here.submit(BOB, "carol@near.example")
    await here.deliver()
    assert [mail.recipients for mail in sink.mails] == [(BOB,)]
    assert [(mail.recipients, mail.helo) for mail in relay.mails] == [(("carol@near.example",), "other.example.test")]
    assert relay.peers == ["127.0.0.77"]
    rules = {step.recipient: step.detail.get("rule") for step in await here.steps(name) if step.step == "delivered"}
    assert rules == {BOB: None, "carol@near.example": number}, "the history says which rule it went by"


async def test_a_senders_rule_wins_over_none_and_connections_are_not_mixed_up(here: World) -> None:
    relay, sink = await here.sink("127.0.0.2"), await here.sink("127.0.0.1")
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule("other.test", "*", "relay", "127.0.0.2", relay.port))
    for n in range(4):
        await here.submit(BOB, sender=ANN if n % 2 else "zoe@other.test")
    await here.deliver()
    assert [mail.sender for mail in sink.mails] == [ANN] * 2
    assert [mail.sender for mail in relay.mails] == ["zoe@other.test"] * 2


async def test_rules_hold_return_and_discard(here: World) -> None:
    async with db.transaction() as tx:
        await routes.put(tx, Rule(recipient="held.test", action="hold", text="to be looked at"))
        await routes.put(tx, Rule(recipient="back.test", action="bounce", text="we do not write to them"))
        await routes.put(tx, Rule(recipient="gone.test", action="discard"))
    name = await here.submit("a@held.test", "b@back.test", "c@gone.test")
    await here.deliver()
    rows = await here.rows()
    assert [rows[each]["state"] for each in ("a@held.test", "b@back.test", "c@gone.test")] == [
        *("held", "failed", "delivered")
    ]
    assert rows["a@held.test"]["held_reason"] == "to be looked at"
    (notice,) = await here.inbox()
    assert b"we do not write to them" in notice and b"c@gone.test" not in notice
    assert "discarded" in [step.step for step in await here.steps(name)]


async def test_a_rule_limits_messages_over_one_connection(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule(recipient="far.example", per_connection=2, connections=1))
    for _ in range(6):
        await here.submit()
    await here.deliver()
    assert (len(sink.mails), sink.connections, sink.most_open) == (6, 3, 1)


async def test_a_rule_limits_messages_a_minute_and_the_rest_waits_for_the_next(here: World) -> None:
    sink = await here.sink()
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    async with db.transaction() as tx:
        await routes.put(tx, Rule(recipient="far.example", per_minute=3))
    for _ in range(8):
        await here.submit()
    await here.deliver()
    first = len(sink.mails)
    assert first in (3, 6), "a minute, or two when the clock turned"
    rows = (await here.rows()).values()
    assert all(row["state"] in ("delivered", "queued") for row in rows)
    async with db.transaction() as tx:
        await tx.execute("UPDATE route SET minute = minute - interval '1 minute'")
    assert here.engine is not None
    here.engine.ring(["far.example"], force=True)
    await here.engine.idle()
    assert len(sink.mails) > first


async def test_ipv6_is_used_and_the_other_family_takes_over_where_it_leads_nowhere(here: World) -> None:
    here.conf = replace(here.conf, out_allow=(*LOOPBACK, ip_network("::/126")))
    sink = await here.sink("::1")
    here.names.add("far.example", "MX", "10 mx.far.example.")
    here.names.zone["mx.far.example"] = {"A": ["127.0.0.3"], "AAAA": ["::1"]}
    await here.submit()
    await here.deliver()  # nobody listens on 127.0.0.3
    (mail,) = sink.mails
    assert mail.recipients == (BOB,)
    four = await here.sink("127.0.0.4")
    here.names.add("near.example", "MX", "10 mx.near.example.")
    here.names.zone["mx.near.example"] = {"A": ["127.0.0.4"], "AAAA": ["::2"]}
    await here.start(out_prefer="ipv6")
    name = await here.submit("carol@near.example")
    await here.deliver()
    assert [mail.recipients for mail in four.mails] == [("carol@near.example",)]
    assert [step.step for step in await here.steps(name)] == ["queued", "attempt", "delivered"]


async def test_domains_of_one_provider_share_its_limits(here: World) -> None:
    here.names.host("a.example", (10, "a-example.mail.provider.test", "127.0.0.1"))
    here.names.host("b.example", (10, "b-example.mail.provider.test", "127.0.0.1"))
    here.names.host("c.example", (10, "mx.c.example", "127.0.0.1"))
    from mailcore.delivery.mx import Resolver

    resolver, plan = Resolver(here.conf.dns), Plans(here.conf).ways("a.example")[0].plan
    names = [await hop(f"{each}.example", resolver, plan) for each in "abc"]
    assert names == ["mail.provider.test", "mail.provider.test", "mx.c.example"]


@pytest.mark.django_db
def test_rules_are_written_and_shown_without_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("very secret\n"))
    said = command(
        *("route", "add", "relay", "--recipient", "*.Example.com", "--host", "relay.example.net:587"),
        *("--user", "ann", "--password-stdin", "--tls", "require", "--per-minute", "60"),
    )
    assert said.startswith("Rule ") and "added" in said
    (rule,) = json.loads(command("route", "list", "--json"))
    assert (rule["recipient"], rule["host"], rule["port"], rule["has_password"]) == (
        *("*.example.com", "relay.example.net", 587),
        True,
    )
    shown = command("route", "list")
    assert "relay.example.net:587 as ann, tls require, per minute 60" in shown and "secret" not in shown
    with db.django_transaction() as tx:
        plans = Plans(CONF, db.run_sync(routes.rules(tx)))
    assert plans.of("", "a.example.com").relay == Smarthost("relay.example.net", 587, "ann", "very secret")
    assert "replaced" in command("route", "add", "mx", "--recipient", "*.example.com")
    assert command("route", "remove", str(rule["id"])).endswith("removed.\n")
    with pytest.raises(CommandError, match="There is no rule"):
        command("route", "remove", str(rule["id"]))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("relay",), "relay needs --host"),
        (("mx", "--host", "a.test"), "only relay"),
        (("relay", "--host", "a.test:99999"), "a port is"),
        (("mx", "--recipient", "not a domain"), "not a domain"),
        (("mx", "--source", "elsewhere"), "no IP address"),
        (("mx", "--per-minute", "0"), "is 1 to"),
    ],
)
def test_rules_that_mean_nothing_are_refused(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        command("route", "add", *arguments)


@pytest.mark.django_db
def test_route_test_says_which_rule_and_where() -> None:
    command("route", "add", "relay", "--recipient", "far.example", "--host", "127.0.0.1:2525")
    shown = json.loads(command("route", "test", BOB, "--json"))
    assert (shown["action"], shown["hosts"]) == ("relay", ["127.0.0.1:2525"])
    command("route", "add", "bounce", "--recipient", "far.example", "--text", "never")
    assert "never" in command("route", "test", BOB)
    command("domain", "add", BOB.partition("@")[2])
    assert "hosted here" in command("route", "test", BOB), "rules are not for mail to mailboxes here"
