"""MTA-STS: a policy is found, fetched, kept and obeyed; whoever sits in between gets nothing in the clear."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailcore import db
from mailcore.delivery import fetch
from mailcore.delivery.fetch import FetchError
from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls import mta_sts
from mailcore.delivery.tls.mta_sts import Policy, PolicyError
from tests.delivery.authority import Authority, WebServer
from tests.delivery.sink import EXTENSIONS, Sink
from tests.delivery.world import BOB, World

PATH = "/.well-known/mta-sts.txt"
ENFORCE = b"version: STSv1\r\nmode: enforce\r\nmx: mx.far.example\r\nmx: *.backup.example\r\nmax_age: 604800\r\n"
TESTING = ENFORCE.replace(b"enforce", b"testing")


@dataclass
class Far:
    """far.example with a policy, and what its owner can do about it."""

    here: World
    web: WebServer
    ca: Authority
    folder: Path

    def publish(self, policy: bytes = ENFORCE, id: str = "1", status: int = 200, kind: str = "text/plain") -> None:
        self.here.names.zone["_mta-sts.far.example"] = {"TXT": [f'"v=STSv1; id={id};"']}
        self.web.pages[PATH] = (status, kind, policy)

    def certificate(self, *names: str, days: int = 30, by: Authority | None = None) -> ssl.SSLContext:
        return (by or self.ca).issue(*names or ("mx.far.example",), days=days).context(self.folder)

    async def mail(self) -> str:
        """One message to Bob, until nothing is at work; returns its trace id."""
        name = await self.here.submit()
        await self.here.deliver()
        return name

    async def row(self) -> dict[str, object]:
        return (await self.here.rows())[BOB]

    async def forget(self) -> None:
        """A new process: what is known is in the database only, and DNS is asked again."""
        await self.here.start()

    async def days(self, days: float) -> None:
        """Let time pass for what is kept."""
        async with db.transaction() as tx:
            await tx.execute(
                "UPDATE mta_sts_policy SET fetched_at = fetched_at - make_interval(secs => %s::float8), "
                "expires_at = expires_at - make_interval(secs => %s::float8), "
                "failed_at = failed_at - make_interval(secs => %s::float8)",
                (days * 86400,) * 3,
            )


@pytest.fixture
async def far(here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    ca = Authority()
    web = await WebServer(ca.issue("mta-sts.far.example").context(tmp_path)).start()
    monkeypatch.setattr(fetch, "PORT", web.port)
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    here.names.add("mta-sts.far.example", "A", "127.0.0.1")
    here.conf = replace(here.conf, tls_ca=ca.file(tmp_path))
    yield Far(here, web, ca, tmp_path)
    await web.stop()


def nothing_in_the_clear(sink: Sink) -> None:
    assert not sink.mails
    assert not any(line.startswith(("MAIL", "RCPT", "DATA", "BDAT")) for line in sink.log)


async def test_mail_goes_to_a_host_that_the_policy_names_and_whose_certificate_is_right(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(tls=far.certificate())
    name = await far.mail()
    await far.mail()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3", "TLSv1.3"]
    assert far.web.asked == [PATH], "it is fetched once"
    assert (await far.here.steps(name))[-1].detail["tls"].endswith(", proved by its certificate")


ATTACKS = {
    "STARTTLS is taken out of the answer to EHLO": {"tls": None},
    "STARTTLS is answered with 454": {"refuse": ("STARTTLS", "", "454 4.7.0 not now")},
    "STARTTLS is answered with 502": {"refuse": ("STARTTLS", "", "502 5.5.1 what?")},
    "STARTTLS is answered with silence": {"refuse": ("STARTTLS", "", "HANG")},
    "the connection ends at STARTTLS": {"refuse": ("STARTTLS", "", "DROP")},
    "octets are put behind the answer to STARTTLS": {"refuse": ("STARTTLS", "", "220 go\r\n250 injected")},
    "the certificate is another host's": {"names": ("mx.evil.example",)},
    "the certificate has expired": {"days": -1},
    "the certificate is from an unknown authority": {"by": Authority("Nobody")},
}


@pytest.mark.parametrize("attack", ATTACKS, ids=ATTACKS)
async def test_under_enforce_a_downgrade_ends_in_deferral_with_nothing_said_in_the_clear(far: Far, attack: str) -> None:
    how = dict(ATTACKS[attack])
    far.publish()
    far.here.timeouts = replace(far.here.timeouts, tls=1.0)
    names, days, by = how.pop("names", ()), how.pop("days", 30), how.pop("by", None)
    rule = how.pop("refuse", None)
    sink = await far.here.sink(**({"tls": far.certificate(*names, days=days, by=by)} | how))
    if rule:
        sink.refuse(rule)
    name = await far.mail()
    nothing_in_the_clear(sink)
    row = await far.row()
    assert row["state"] == "queued"
    assert str(row["last_reply"]).startswith("the MTA-STS policy of far.example demands verified TLS, but ")
    last = (await far.here.steps(name))[-1]
    assert (last.step, last.detail["stage"]) == ("deferred", "STARTTLS")
    assert last.detail["status"] in ("4.7.5", "4.7.10")


async def test_a_thousand_messages_do_not_each_ask_a_host_that_lacks_what_the_policy_demands(far: Far) -> None:
    far.publish()
    sink = await far.here.sink()
    for _ in range(60):
        await far.here.submit()
    await far.here.deliver()
    assert set((await far.here.states()).values()) == {"queued"}
    assert sink.connections < 20
    nothing_in_the_clear(sink)


async def test_the_same_server_gets_the_mail_when_the_attack_ends(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(extensions=EXTENSIONS)
    await far.mail()
    nothing_in_the_clear(sink)
    sink.tls = far.certificate()
    await far.here.later(3600)
    await far.here.deliver()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3"]


async def test_a_host_that_the_policy_does_not_name_gets_nothing_and_the_next_one_is_asked(far: Far) -> None:
    far.publish()
    far.here.names.zone["far.example"]["MX"] = ["5 mx.evil.example.", "20 mx.far.example."]
    far.here.names.add("mx.evil.example", "A", "127.0.0.2")
    good = await far.here.sink(tls=far.certificate())
    evil = await far.here.sink("127.0.0.2", tls=far.certificate("mx.evil.example"))
    await far.mail()
    assert evil.connections == 0
    assert len(good.mails) == 1
    far.here.names.zone["far.example"]["MX"] = ["5 mx.evil.example."]
    await far.forget()
    await far.mail()
    assert evil.connections == 0
    assert "does not name the host mx.evil.example" in str((await far.here.rows())[BOB]["last_reply"])


async def test_a_policy_in_testing_reports_and_delivers(far: Far) -> None:
    far.publish(TESTING)
    sink = await far.here.sink(tls=far.certificate("mx.other.example"))
    name = await far.mail()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3"], "encrypted at least"
    steps = await far.here.steps(name)
    assert [step.step for step in steps] == ["queued", "attempt", "delivered"]
    assert "Hostname mismatch" in str(steps[1].detail["reply"])


async def test_a_policy_in_testing_delivers_in_the_clear_where_there_is_no_tls(far: Far) -> None:
    far.publish(TESTING)
    sink = await far.here.sink()
    await far.mail()
    assert [mail.tls for mail in sink.mails] == [None]


async def test_mode_none_is_no_policy(far: Far) -> None:
    far.publish(b"version: STSv1\nmode: none\nmax_age: 86400\n")
    sink = await far.here.sink()
    await far.mail()
    assert [mail.tls for mail in sink.mails] == [None]


OUTAGES = ["the record is gone", "DNS fails", "DNS is silent", "the web server is gone", "its certificate is forged"]


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_policy_that_was_fetched_outlives_what_an_attacker_does_to_dns_and_web(
    far: Far, outage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.publish()
    sink = await far.here.sink(tls=far.certificate())
    await far.mail()
    monkeypatch.setattr(mta_sts, "TXT_LIFETIME", 0.5)
    record = "_mta-sts.far.example"
    if outage == "the record is gone":
        del far.here.names.zone[record]
    elif outage == "DNS fails":
        far.here.names.failing.add(record)
    elif outage == "DNS is silent":
        far.here.names.silent.add(record)
    elif outage == "the web server is gone":
        far.publish(id="2")
        await far.web.stop()
    else:
        far.publish(TESTING, id="2")
        await far.web.stop()
        forged = await WebServer(
            Authority("Evil").issue("mta-sts.far.example").context(far.folder), far.web.pages
        ).start()
        monkeypatch.setattr(fetch, "PORT", forged.port)
    sink.tls = None
    await far.forget()
    sink.log.clear()
    sink.mails.clear()
    await far.mail()
    nothing_in_the_clear(sink)
    assert (await far.row())["state"] == "queued"
    await far.days(8)  # and when it has expired, it counts no more
    await far.forget()
    await far.here.later(3600)
    await far.here.deliver()
    assert len(sink.mails) == 1


async def test_a_new_id_in_dns_has_the_policy_fetched_again(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(tls=far.certificate())
    await far.mail()
    far.publish(TESTING, id="2")
    await far.forget()
    sink.tls = None
    await far.mail()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3", None]
    assert far.web.asked == [PATH, PATH]


async def test_a_fetch_that_failed_is_not_repeated_within_five_minutes(far: Far) -> None:
    far.publish(status=500)
    sink = await far.here.sink()
    await far.mail()
    await far.forget()
    await far.mail()
    assert far.web.asked == [PATH]
    assert len(sink.mails) == 2, "a policy that never was seen cannot be obeyed"
    await far.days(301 / 86400)
    await far.forget()
    await far.mail()
    assert far.web.asked == [PATH, PATH]


async def test_what_is_in_use_is_fetched_again_before_it_expires(far: Far) -> None:
    far.publish()
    await far.here.sink(tls=far.certificate())
    await far.mail()
    resolver = Resolver(far.here.conf.dns)
    assert await mta_sts.refresh(far.here.conf, resolver) == (0, 0), "it is fresh"
    await far.days(2)
    assert await mta_sts.refresh(far.here.conf, resolver) == (1, 0)
    await far.days(6)
    async with db.read() as tx:
        assert await tx.fetch("SELECT expires_at > now() FROM mta_sts_policy") == [(True,)]
    far.web.pages.clear()
    assert await mta_sts.refresh(far.here.conf, resolver) == (0, 1)
    assert await mta_sts.refresh(far.here.conf, resolver) == (0, 0), "a failure rests for an hour"


BAD_ANSWERS = {
    "a redirect": (301, "text/plain", ENFORCE),
    "not text/plain": (200, "text/html", ENFORCE),
    "too long": (200, "text/plain", ENFORCE + b"x: y\r\n" * 20_000),
    "no version": (200, "text/plain", ENFORCE.replace(b"STSv1", b"STSv2")),
    "no mx": (200, "text/plain", b"version: STSv1\r\nmode: enforce\r\nmax_age: 1000\r\n"),
    "no age": (200, "text/plain", ENFORCE.replace(b"604800", b"soon")),
    "a pattern that is none": (200, "text/plain", ENFORCE.replace(b"*.backup", b"a*.backup")),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_an_answer_that_is_no_policy_is_an_error(far: Far, answer: tuple[int, str, bytes]) -> None:
    far.publish()
    far.web.pages[PATH] = answer
    with pytest.raises(PolicyError):
        await mta_sts.load("far.example", far.here.conf, Resolver(far.here.conf.dns))
    far.publish()
    policy = await mta_sts.load("far.example", far.here.conf, Resolver(far.here.conf.dns))
    assert policy == Policy("enforce", ("mx.far.example", "*.backup.example"), 604800)


async def test_a_fetch_never_reaches_into_our_own_network(far: Far) -> None:
    far.publish()
    conf = replace(far.here.conf, out_allow=())
    with pytest.raises(FetchError, match="no public address"):
        await fetch.fetch(f"https://mta-sts.far.example:{far.web.port}{PATH}", conf, Resolver(conf.dns))
    assert not far.web.asked


@pytest.mark.parametrize(
    "url",
    [
        "http://far.example/",
        "https:///x",
        "https://u:p@far.example/",
        "https://far.example:0/",
        "file:///etc/passwd",
        "https://far.example/\r\nX: y",
    ],
)
async def test_only_plain_https_addresses_are_fetched(far: Far, url: str) -> None:
    with pytest.raises(FetchError, match="not an address"):
        await fetch.fetch(url, far.here.conf, Resolver(far.here.conf.dns))


async def test_a_web_server_that_never_ends_is_left(far: Far) -> None:
    url = f"https://mta-sts.far.example:{far.web.port}{PATH}"
    resolver = Resolver(far.here.conf.dns)
    far.web.hang = True
    with pytest.raises(FetchError, match="in time"):
        await fetch.fetch(url, far.here.conf, resolver, seconds=0.5)
    far.web.hang = False
    far.web.raw = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000
    with pytest.raises(FetchError, match="HTTP"):
        await fetch.fetch(url, far.here.conf, resolver)
    far.web.raw = b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000
    with pytest.raises(FetchError, match="longer"):
        await fetch.fetch(url, far.here.conf, resolver)
    far.web.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"
    with pytest.raises(FetchError):
        await fetch.fetch(url, far.here.conf, resolver)


def test_a_wildcard_stands_for_one_label() -> None:
    policy = Policy("enforce", ("mx.example.org", "*.mail.example.org"), 1)
    assert [policy.allows(each) for each in ("mx.example.org", "MX.Example.org.", "a.mail.example.org")] == [True] * 3
    assert [policy.allows(each) for each in ("mail.example.org", "a.b.mail.example.org", "example.org")] == [False] * 3


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*ENFORCE.splitlines(), b"mode: none", b"max_age: 99999999999", b"mx: *.*.x", b"", b":"])
        | st.binary(max_size=40)
    ),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_any_octets_are_a_policy_or_none(lines: list[bytes], newline: bytes) -> None:
    try:
        policy = mta_sts.parse(newline.join(lines))
    except PolicyError:
        return
    assert policy.mode in ("enforce", "testing", "none") and 0 <= policy.max_age <= mta_sts.MAX_AGE
    assert policy.mx or policy.mode == "none"
    assert not policy.allows("")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["something else", "v=STSv1;id=a1"], "a1"),
        (["v=STSv1; id=a1;", "v=STSv1; id=a2;"], None),
        (["v=STSv1; id=" + "a" * 33], None),
        (["v=STSv1"], None),
        (["v=STSv10; id=a"], None),
        ([], None),
    ],
)
def test_the_record_has_exactly_one_valid_id(texts: list[str], found: str | None) -> None:
    assert mta_sts.record_id(texts) == found
