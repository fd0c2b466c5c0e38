"""TLS reports: what is counted, what others hear of it and how, and what is read of theirs."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes
from typing import Any

import dkim as dkimpy
import dns.resolver
import pytest
from django.core.management import CommandError
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.addresses import parse_address
from mailcore import db
from mailcore.delivery import dkim
from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls import chores, tlsrpt
from mailcore.delivery.tls.tlsrpt import Sent
from mailcore.inbound import tlsreport
from mailcore.inbound.envelope import Envelope, Recipient, Source
from mailcore.inbound.receive import Receiver
from mailcore.inbound.recipients import Directory, Writer
from mailcore.inbound.tlsreport import ReportError
from mailcore.store import transport
from mailcore.store.accounts import Local
from mailcore.store.ingest import Ingest
from tests.delivery.test_mta_sts import TESTING, Far, far
from tests.delivery.world import ANN, BOB, HOSTNAME, World, command

__all__ = ["far"]

LATER = datetime.now(UTC) + timedelta(days=2)
THEIRS = "reports@collector.example"


async def counted(domain: str = "far.example") -> dict[tuple[str, str], int]:
    """Sessions by kind of policy and result, of today."""
    async with db.read() as tx:
        rows = await tx.fetch("SELECT policy, result, sessions FROM tls_result WHERE domain = %s::text", (domain,))
    return {(json.loads(policy)["policy-type"], result): sessions for policy, result, sessions in rows}


async def yesterday() -> None:
    async with db.transaction() as tx:
        await tx.execute("UPDATE tls_result SET day = day - 1")


def wants(here: World, *uris: str) -> None:
    here.names.zone["_smtp._tls.far.example"] = {"TXT": [f'"v=TLSRPTv1; rua={",".join(uris)}"']}


async def send(far: Far, now: datetime = LATER) -> Sent:
    return await tlsrpt.send_due(far.here.conf, Resolver(far.here.conf.dns), now)


def opened(mail: bytes) -> dict[str, Any]:
    """The report in a message."""
    parts = [part for part in message_from_bytes(mail).walk() if part.get_content_type() == "application/tlsrpt+gzip"]
    found: dict[str, Any] = json.loads(gzip.decompress(parts[0].get_payload(decode=True)))
    return found


async def test_sessions_are_counted_by_policy_and_result(far: Far) -> None:
    sink = await far.here.sink(tls=far.certificate())
    await far.mail()
    assert await counted() == {("no-policy-found", ""): 1}
    await far.forget()
    sink.tls = None
    await far.mail()
    assert await counted() == {("no-policy-found", ""): 1, ("no-policy-found", "starttls-not-supported"): 1}
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM tls_result")
    far.publish(TESTING)
    for certificate in (far.certificate(), far.certificate("mx.other.example"), far.certificate(days=-1), None):
        sink.tls = certificate
        await far.forget()
        await far.mail()
    assert await counted() == {
        ("sts", ""): 1,
        ("sts", "certificate-host-mismatch"): 1,
        ("sts", "certificate-expired"): 1,
        ("sts", "starttls-not-supported"): 1,
    }


async def test_a_host_that_a_policy_in_testing_does_not_name_is_a_failure(far: Far) -> None:
    far.publish(TESTING.replace(b"mx: mx.far", b"mx: other.far"))
    await far.here.sink(tls=far.certificate())
    await far.mail()
    assert await counted() == {("sts", "validation-failure"): 1}
    assert await far.here.states() == {BOB: "delivered"}


async def test_messages_over_one_connection_are_one_session(far: Far) -> None:
    await far.here.sink(tls=far.certificate())
    for _ in range(5):
        await far.here.submit()
    await far.here.deliver()
    assert sum((await counted()).values()) == 1


async def test_a_policy_that_cannot_be_had_is_counted(far: Far) -> None:
    far.publish(b"nonsense")
    await far.here.sink(tls=far.certificate())
    await far.mail()
    assert await counted() == {("sts", "sts-policy-invalid"): 1, ("no-policy-found", ""): 1}


async def test_the_report_goes_by_mail_signed_and_in_the_clear_if_need_be(far: Far) -> None:
    far.publish(TESTING)
    far.here.names.host("collector.example", (10, "mx.far.example", "127.0.0.1"))
    wants(far.here, f"mailto:{THEIRS}")
    sink = await far.here.sink(tls=far.certificate("mx.other.example"))
    await far.mail()
    await yesterday()
    assert await send(far) == Sent(sent=1)
    assert await send(far) == Sent(), "once"
    sink.tls = None
    await far.here.deliver()
    mail = sink.mails[-1]
    assert (mail.sender, mail.recipients, mail.tls) == ("", (THEIRS,), None)
    async with db.read() as tx:
        keys = {record.name: record.value for record in await dkim.dns_records(tx, "example.test")}
    signed = dkimpy.DKIM(mail.data)
    assert signed.verify(dnsfunc=lambda name, timeout=5: keys[name.decode().rstrip(".")].encode())
    message = message_from_bytes(mail.data)
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("far.example", "example.test")
    assert message["TLS-Required"] == "No"
    assert (message.get_content_type(), message.get_param("report-type")) == ("multipart/report", "tlsrpt")
    found = opened(mail.data)
    (policy,) = found["policies"]
    assert policy["policy"]["policy-type"] == "sts"
    assert policy["policy"]["policy-string"][:2] == ["version: STSv1", "mode: testing"]
    assert policy["policy"]["mx-host"] == ["mx.far.example", "*.backup.example"]
    assert policy["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 1}
    (detail,) = policy["failure-details"]
    assert (detail["result-type"], detail["receiving-mx-hostname"], detail["receiving-ip"]) == (
        "certificate-host-mismatch",
        "mx.far.example",
        "127.0.0.1",
    )
    read = tlsreport.find(mail.data, "trace")
    assert [(each.domain, each.successes, each.failures) for each in read] == [("far.example", 0, 1)]


async def test_the_report_goes_by_https_and_is_tried_again(far: Far) -> None:
    await far.here.sink(tls=far.certificate())
    await far.mail()
    await yesterday()
    wants(far.here, f"https://mta-sts.far.example:{far.web.port}/in?x=1")
    assert await send(far) == Sent(later=1)
    far.web.pages["/in?x=1"] = (201, "text/plain", b"thanks")
    assert await send(far) == Sent(sent=1)
    path, headers, body = far.web.posted[-1]
    assert (path, headers["content-type"]) == ("/in?x=1", "application/tlsrpt+gzip")
    found = json.loads(gzip.decompress(body))
    assert found["policies"][0]["summary"]["total-successful-session-count"] == 1
    assert await counted() == {}


async def test_what_nobody_asks_for_is_dropped_and_what_dns_hides_waits(far: Far) -> None:
    await far.here.sink(tls=far.certificate())
    await far.mail()
    assert await send(far) == Sent(), "the day is not over"
    await yesterday()
    far.here.names.failing.add("_smtp._tls.far.example")
    assert await send(far) == Sent(later=1)
    far.here.names.failing.clear()
    assert await send(far) == Sent(unwanted=1)
    assert await counted() == {}


async def test_the_hourly_chores_send_what_is_due_and_renew_policies(far: Far) -> None:
    far.publish()
    wants(far.here, f"mailto:{THEIRS}")
    await far.here.sink(tls=far.certificate())
    await far.mail()
    await yesterday()
    await yesterday()
    await far.days(2)
    await chores.run(far.here.conf)
    async with db.read() as tx:
        assert await tx.fetch("SELECT sender, requiretls FROM outbound WHERE sender = ''") == [("", False)]
        assert await tx.fetch("SELECT fetched_at > now() - interval '1 hour' FROM mta_sts_policy") == [(True,)]


def test_domains_are_told_at_moments_of_their_own_in_the_first_hours() -> None:
    day = date(2026, 11, 21)
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    names = [f"d{number}.example" for number in range(200)]
    assert not any(tlsrpt.is_due(day, name, midnight - timedelta(seconds=1)) for name in names)
    assert 60 < sum(tlsrpt.is_due(day, name, midnight + timedelta(hours=2)) for name in names) < 140
    assert all(tlsrpt.is_due(day, name, midnight + timedelta(hours=4)) for name in names)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("v=TLSRPTv1; rua=mailto:a@b.example", ["mailto:a@b.example"]),
        ("v=TLSRPTv1;rua=mailto:a@b.example,https://c.example/v1", ["mailto:a@b.example", "https://c.example/v1"]),
        ("v=TLSRPTv1; rua=http://c.example/", []),
        ("v=TLSRPTv1;", []),
        ("v=spf1 -all", []),
    ],
)
def test_the_record_says_where_to(text: str, found: list[str]) -> None:
    assert tlsrpt.addresses([text]) == found


# --- received -------------------------------------------------------------------------------------------------------

REPORT: dict[str, Any] = {
    "organization-name": "Company-X",
    "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
    "contact-info": "sts-reporting@company-x.example",
    "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
    "policies": [
        {
            "policy": {"policy-type": "sts", "policy-domain": "Example.Test", "mx-host": ["*.mail.example.test"]},
            "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "2001:db8:abcd:0012::1",
                    "receiving-mx-hostname": "mx1.mail.example.test",
                    "failed-session-count": 100,
                },
                {"result-type": "starttls-not-supported", "failed-session-count": 203, "failure-reason-code": "x\0y"},
            ],
        },
        {"policy": {"policy-type": "sts", "policy-domain": "stranger.example"}, "summary": {}},
    ],
}


def mail_with(report: object, kind: str = "gzip") -> bytes:
    text = json.dumps(report).encode()
    packed = gzip.compress(text) if kind == "gzip" else text
    raw = tlsrpt.message("company-x.example", "example.test", date(2016, 4, 1), "x@example.test", packed, LATER)
    return raw if kind == "gzip" else raw.replace(b"application/tlsrpt+gzip", b"application/tlsrpt+json")


async def arrive(here: World, raw: bytes, to: str = "tls-reports@example.test", trace_id: str = "t1") -> None:
    receiver = Receiver(Ingest(), HOSTNAME)
    local = Local(here.account, ANN)
    source = Source("192.0.2.1", "mail.company-x.example", "ESMTPS")
    await receiver.receive(Envelope(trace_id, source, "r@company-x.example", (Recipient(to, (local,)),)), raw)


async def stored() -> list[transport.Report]:
    async with db.read() as tx:
        return await transport.reports(tx)


@pytest.mark.parametrize("kind", ["gzip", "json"])
async def test_a_report_about_our_domain_is_kept_once_and_delivered_as_well(here: World, kind: str) -> None:
    await arrive(here, mail_with(REPORT, kind))
    await arrive(here, mail_with(REPORT, kind), trace_id="t2")
    (report,) = await stored()
    assert (report.domain, report.organization, report.policy_type) == ("example.test", "Company-X", "sts")
    assert (report.successes, report.failures, report.trace_id) == (5326, 303, "t1")
    assert report.details[0]["result"] == "certificate-expired"
    assert report.details[1] == {"result": "starttls-not-supported", "reason": "x y", "sessions": 203}
    assert len(await here.inbox()) == 2


async def test_the_address_for_reports_is_there_without_being_defined(here: World) -> None:
    found = await Directory().resolve(parse_address("tls-reports@example.test"), Writer("r@company-x.example"))
    assert [local.address for local in found.accounts] == [ANN]


async def test_only_mail_to_the_address_for_reports_is_looked_into(here: World) -> None:
    await arrive(here, mail_with(REPORT), to=ANN)
    assert await stored() == []


async def key_of(here: World) -> tuple[dkim.Key, str]:
    """A signing key as a reporter has it, and its record."""
    async with db.transaction() as tx:
        (key,) = [each for each in await dkim.load_keys(tx, "example.test") if each.algorithm == "ed25519"]
        (text,) = [each.value for each in await dkim.dns_records(tx, "example.test") if "ed25519" in each.value]
    return key, text


@pytest.mark.parametrize(
    ("signer", "published", "signed_by", "doubt"),
    [
        ("company-x.example", "", "company-x.example", ""),
        ("company-x.example", "s=tlsrpt; ", "company-x.example", ""),
        ("company-x.example", "s=other; ", "", "the key is for another service"),
        ("company-x.example", None, "", "cannot be had"),
        ("evil.example", "", "", "no signature is by company-x.example"),
        (None, "", "", "it is not signed"),
    ],
)
async def test_a_report_that_its_domain_did_not_sign_is_kept_and_marked(
    here: World, monkeypatch: pytest.MonkeyPatch, signer: str | None, published: str | None, signed_by: str, doubt: str
) -> None:
    monkeypatch.setattr(tlsreport, "conf", replace(tlsreport.conf, dns=here.conf.dns))
    key, text = await key_of(here)
    raw = mail_with(REPORT)
    if signer is not None:
        raw = dkim.sign(raw, [replace(key, domain=signer, selector="s1")]) + raw
        if published is not None:
            here.names.add(f"s1._domainkey.{signer}", "TXT", f'"{published}{text.removeprefix("v=DKIM1; ")}"')
    await arrive(here, raw)
    (report,) = await stored()
    assert report.signed_by == signed_by
    assert doubt in report.doubt if doubt else report.doubt == ""


async def test_who_forges_a_report_keeps_the_genuine_one_from_nothing(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsreport, "conf", replace(tlsreport.conf, dns=here.conf.dns))
    key, text = await key_of(here)
    here.names.add("s1._domainkey.company-x.example", "TXT", f'"{text}"')
    signed = dkim.sign(mail_with(REPORT), [replace(key, domain="company-x.example", selector="s1")]) + mail_with(REPORT)
    await arrive(here, mail_with(REPORT))
    await arrive(here, signed.replace(b"multipart/report", b"multipart/Report"), trace_id="t2")
    await arrive(here, signed, trace_id="t3")
    assert sorted((each.trace_id, each.signed_by) for each in await stored()) == [
        ("t1", ""),
        ("t3", "company-x.example"),
    ]


BAD = {
    "a bomb": {"x": "0" * (3 << 20)},
    "nested": json.loads("[" * 900 + "]" * 900),
    "a list": [],
    "no dates": REPORT | {"date-range": None},
    "a date of another age": REPORT | {"date-range": {"start-datetime": "0001-01-01T00:00:00Z", "end-datetime": "x"}},
    "no policies": REPORT | {"policies": {}},
    "policies that are none": REPORT | {"policies": [1, "x"]},
}


@pytest.mark.parametrize("report", BAD.values(), ids=BAD)
async def test_what_cannot_be_read_is_delivered_all_the_same(here: World, report: object) -> None:
    with pytest.raises(ReportError):
        tlsreport.find(mail_with(report), "t")
    await arrive(here, mail_with(report))
    assert await stored() == []
    assert len(await here.inbox()) == 1


def test_broken_gzip_is_no_report() -> None:
    with pytest.raises(ReportError):
        tlsreport.unpacked(b"\x1f\x8b\x08 nonsense")


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*REPORT, *REPORT["policies"][0]]), inner),
        max_leaves=30,
    ),
    st.sampled_from([None, *REPORT]),
)
def test_any_json_is_read_or_refused(value: object, at: str | None) -> None:
    try:
        tlsreport.parse(json.dumps(value if at is None else REPORT | {at: value}).encode(), "t")
    except ReportError:
        pass


async def test_the_command_shows_them(here: World) -> None:
    await arrive(here, mail_with(REPORT))
    (report,) = await stored()

    assert "Company-X" in await asyncio.to_thread(command, "tlsreports", "list")
    listed = json.loads(
        await asyncio.to_thread(command, "tlsreports", "list", "--json", "--failed", "--domain", "example.test")
    )
    assert [(each["id"], each["failures"]) for each in listed] == [(report.id, 303)]
    shown = await asyncio.to_thread(command, "tlsreports", "show", str(report.id))
    assert "certificate-expired" in shown
    assert "it is not signed" in shown
    assert json.loads(await asyncio.to_thread(command, "tlsreports", "show", str(report.id), "--json"))["contact"]
    with pytest.raises(CommandError, match="no such report"):
        await asyncio.to_thread(command, "tlsreports", "show", "999999")


async def test_a_machine_without_a_resolver_takes_reports_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsreport, "conf", replace(tlsreport.conf, dns=()))
    monkeypatch.setattr(dns.resolver.BaseResolver.__init__, "__defaults__", ("/nonexistent/resolv.conf", True))
    assert await tlsreport._texts("key._domainkey.far.example") == []
