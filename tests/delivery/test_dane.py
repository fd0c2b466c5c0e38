"""DANE with a real validating resolver (unbound) and real signed zones (nsd): the right certificate, or no mail."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import dns.rdata
import pytest

from mailcore.delivery.mx import Resolver
from mailcore.delivery.tls.dane import usable
from mailcore.delivery.tlsa import TLSA
from tests.delivery.authority import Authority, Issued
from tests.delivery.sink import EXTENSIONS
from tests.delivery.test_mta_sts import nothing_in_the_clear
from tests.delivery.world import World
from tests.delivery.zone import Zone, serve

pytestmark = [pytest.mark.programs("unbound", "nsd")]

REQUIRE = (*EXTENSIONS, "REQUIRETLS")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha512(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


@dataclass(frozen=True)
class Case:
    """A domain under signed.example: its TLSA records, the certificate its host shows (None = no TLS), what happens."""

    name: str
    tlsa: tuple[str, ...]
    shown: Issued | None
    delivered: bool
    says: str = ""
    extra: tuple[Issued, ...] = ()


ROOT = Authority("Root")
MIDDLE = Authority("Middle", under=ROOT)
OTHER = Authority("Other")
WRONG = OTHER.issue("another.example", days=-1)  # for DANE-EE neither name nor date matters
ANY = OTHER.issue("another.example")


def under(domain: str, days: int = 30, by: Authority = MIDDLE) -> Issued:
    return by.issue(f"mx.{domain}.signed.example", days=days)


FIT, TA_KEY, TA_FULL, NAME, DATE, SNI = (
    under(each) for each in ("ta", "ta-key", "ta-full", "ta-name", "ta-date", "mix")
)
EXPIRED = under("ta-date", days=-1)
FAKE_CA = ROOT.issue("customer.example")  # no authority, and signs all the same
BY_CUSTOMER = Authority("Customer", ROOT, FAKE_CA).issue("mx.ta-fake.signed.example")

CASES = [
    Case("ee", (f"3 1 1 {sha256(WRONG.spki())}",), WRONG, True),
    Case("ee-full", (f"3 0 2 {sha512(WRONG.der())}",), WRONG, True),
    Case("ee-exact", (f"3 0 0 {WRONG.der().hex()}",), WRONG, True),
    Case("ee-key", (f"3 1 0 {WRONG.spki().hex()}",), WRONG, True),
    Case("ee-two", (f"3 1 1 {'00' * 32}", f"3 1 1 {sha256(WRONG.spki())}"), WRONG, True),
    Case("ee-not", (f"3 1 1 {sha256(ANY.spki())}",), WRONG, False, "no TLSA record fits the certificate"),
    Case("ee-no-tls", (f"3 1 1 {sha256(ANY.spki())}",), None, False, "does not offer STARTTLS"),
    Case("ta", (f"2 0 1 {sha256(ROOT.own.der())}",), FIT, True, extra=(ROOT.own,)),
    Case("ta-key", (f"2 1 2 {sha512(MIDDLE.own.spki())}",), TA_KEY, True),
    Case("ta-full", (f"2 0 0 {ROOT.own.der().hex()}",), TA_FULL, True),
    Case("ta-hidden", (f"2 0 1 {sha256(ROOT.own.der())}",), under("ta-hidden"), False, "no TLSA record fits"),
    Case("ta-name", (f"2 0 1 {sha256(ROOT.own.der())}",), FIT, False, "not for mx.ta-name", extra=(ROOT.own,)),
    Case("ta-date", (f"2 0 1 {sha256(ROOT.own.der())}",), EXPIRED, False, "has expired", extra=(ROOT.own,)),
    Case("ta-other", (f"2 0 1 {sha256(OTHER.own.der())}",), under("ta-other"), False, "chain", extra=(OTHER.own,)),
    Case("ta-fake", (f"2 0 1 {sha256(ROOT.own.der())}",), BY_CUSTOMER, False, "chain", extra=(FAKE_CA, ROOT.own)),
    Case("pkix", (f"1 1 1 {sha256(ANY.spki())}", f"0 0 1 {'00' * 32}", "3 1 9 00"), WRONG, True),
    Case("pkix-no-tls", (f"1 1 1 {sha256(ANY.spki())}",), None, False, "does not offer STARTTLS"),
    # A digest of the wrong length, or none at all, is passed over (RFC 6698 §4.1), as what mail cannot use is.
    Case("short-beside", ("3 1 1 abcd", f"3 1 1 {sha256(WRONG.spki())}"), WRONG, True),
    Case("short-beside-not", ("3 1 2 abcd", f"3 1 1 {sha256(ANY.spki())}"), WRONG, False, "no TLSA record fits"),
    Case("pkix-short", ("3 1 1 abcd",), WRONG, True),
    Case("pkix-short-no-tls", ("3 1 1 abcd",), None, False, "does not offer STARTTLS"),
    Case("none", (), None, True),
]


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Iterator[int]:
    signed, plain = Zone("signed.example"), Zone("plain.example", signed=False)
    for case in CASES:
        signed.host(f"{case.name}.signed.example", *case.tlsa)
    mismatch = f"3 1 1 {'00' * 32}"
    signed.host("forged.signed.example", mismatch)
    signed.forged["*._tcp.mx.forged.signed.example", "TLSA"] = f"3 1 1 {sha256(WRONG.spki())}"
    signed.host("forged-mx.signed.example", mismatch)
    signed.forged["forged-mx.signed.example", "MX"] = "10 mx.plain.example."
    signed.host("alias.signed.example", mx="alias-mx.signed.example")
    signed.lines.append("alias-mx.signed.example. 60 IN CNAME mx.ee.signed.example.")
    signed.host("elsewhere.signed.example", mx="mx.plain.example")
    signed.host("bridge.signed.example", f"3 1 1 {sha256(WRONG.spki())}", mx="bridge-mx.signed.example")
    signed.lines.append("bridge-mx.signed.example. 60 IN CNAME mx.plain.example.")
    plain.host("plain.example", mismatch)
    with serve(program("unbound"), program("nsd"), tmp_path_factory.mktemp("dns"), (signed, plain)) as port:
        yield port


@pytest.fixture
async def far(here: World, resolver: int) -> World:
    here.conf = replace(here.conf, dns=(("127.0.0.1", resolver),))
    return here


async def mail(far: World, domain: str, **more: bool | None) -> dict[str, object]:
    """One message to bob@domain; what became of it."""
    await far.submit(f"bob@{domain}", **more)
    await far.deliver()
    return (await far.rows())[f"bob@{domain}"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_host_gets_the_mail_when_its_records_fit(far: World, case: Case, tmp_path: Path) -> None:
    sink = await far.sink(tls=case.shown.context(tmp_path, *case.extra) if case.shown else None)
    row = await mail(far, f"{case.name}.signed.example")
    if case.delivered:
        assert row["state"] == "delivered", row
        assert [mail.tls for mail in sink.mails] == (["TLSv1.3"] if case.shown else [None])
    else:
        nothing_in_the_clear(sink)
        assert row["state"] == "queued"
        what = "TLS" if case.name.startswith("pkix") else "verified TLS"
        assert str(row["last_reply"]).startswith(
            f"the TLSA records of mx.{case.name}.signed.example demand {what}, but"
        )
        assert case.says in str(row["last_reply"])


@pytest.mark.programs("openssl")
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.shown and case.tlsa and not case.name.startswith("pkix")],
    ids=lambda c: c.name,
)
def test_openssl_is_of_the_same_opinion(case: Case, tmp_path: Path, program: Callable[[str], str]) -> None:
    assert case.shown is not None
    case.shown.context(tmp_path, *case.extra)
    number = case.shown.certificate.serial_number
    chain, key = tmp_path / f"{number}.pem", tmp_path / f"{number}.key"
    records = [word for each in case.tlsa for word in ("-dane_tlsa_rrdata", each)]
    name = f"mx.{case.name}.signed.example"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    server = subprocess.Popen(
        [program("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", chain, "-cert_chain", chain,
         "-key", key, "-naccept", "1", "-quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while True:
            client = subprocess.run(
                [program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-dane_tlsa_domain", name, *records,
                 "-dane_ee_no_namechecks", "-verify_return_error", "-brief"],
                input=b"", capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            if b"connect:errno" not in client.stderr and b"Connection refused" not in client.stderr:
                break
            assert time.monotonic() < deadline, client.stderr
    finally:
        server.kill()
        server.wait()
    assert (b"Verification: OK" in client.stderr) is case.delivered, client.stderr


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 what?", "DROP"])
async def test_a_downgrade_of_a_host_with_records_ends_in_deferral(far: World, reply: str, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    sink.refuse(("STARTTLS", "", reply))
    assert (await mail(far, "ee.signed.example"))["state"] == "queued"
    nothing_in_the_clear(sink)


@pytest.mark.parametrize("domain", ["forged.signed.example", "forged-mx.signed.example"])
async def test_a_forged_answer_ends_in_deferral(far: World, domain: str, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    row = await mail(far, domain)
    assert row["state"] == "queued"
    assert sink.connections == 0
    assert "forged" in str(row["last_reply"]) or "SERVFAIL" in str(row["last_reply"])


async def test_records_that_dnssec_does_not_vouch_for_do_not_count(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    assert (await mail(far, "plain.example"))["state"] == "delivered"
    assert (await mail(far, "elsewhere.signed.example"))["state"] == "delivered", "signed MX, unsigned host"
    assert len(sink.mails) == 2


async def test_an_alias_of_a_host_has_the_records_of_what_it_leads_to(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    assert (await mail(far, "alias.signed.example"))["state"] == "delivered"
    await far.start()
    sink.tls = ANY.context(tmp_path)
    await far.submit("carol@alias.signed.example")
    await far.deliver()
    assert "TLSA records" in str((await far.rows())["carol@alias.signed.example"]["last_reply"])


async def test_a_signed_alias_into_an_unsigned_zone_has_records_of_its_own(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=ANY.context(tmp_path))
    assert (await mail(far, "bridge.signed.example"))["state"] == "queued"
    sink.tls = WRONG.context(tmp_path)
    await far.later(3600)
    await far.start()
    await far.deliver()
    assert await far.states() == {"bob@bridge.signed.example": "delivered"}


def test_a_record_too_short_to_say_anything_is_none() -> None:
    octets = [b"", b"\3", b"\3\1", b"\3\1\1", b"\3\1\1" + bytes(31)]
    assert usable([cast(TLSA, dns.rdata.from_wire("IN", "TLSA", each, 0, len(each))) for each in octets]) == ()


async def test_a_resolver_that_is_not_trusted_vouches_for_nothing(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    await far.start(dnssec="off")
    assert (await mail(far, "ee-not.signed.example"))["state"] == "delivered"
    assert len(sink.mails) == 1


def test_only_resolvers_on_loopback_are_trusted_by_themselves() -> None:
    assert Resolver((("127.0.0.53", 53), ("::1", 53)), "auto").trusts_dnssec
    assert not Resolver((("127.0.0.1", 53), ("9.9.9.9", 53)), "auto").trusts_dnssec
    assert not Resolver((("127.0.0.11", 53),), "auto").trusts_dnssec, "Docker's says what another one says"
    assert not Resolver((("resolver.example", 53),), "auto").trusts_dnssec
    assert Resolver((("9.9.9.9", 53),), "on").trusts_dnssec
    assert not Resolver((("127.0.0.1", 53),), "off").trusts_dnssec


async def test_a_sender_who_does_not_care_gets_his_mail_through(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path))
    assert (await mail(far, "ee-not.signed.example", requiretls=False))["state"] == "delivered"
    sink.tls = None
    assert (await mail(far, "ee.signed.example", requiretls=False))["state"] == "delivered"
    assert [one.tls for one in sink.mails] == ["TLSv1.3", None]
    assert (await mail(far, "ee-full.signed.example"))["state"] == "queued", "who does care is not served so"


async def test_with_requiretls_a_host_that_dane_proves_gets_the_mail_and_the_option(far: World, tmp_path: Path) -> None:
    sink = await far.sink(tls=WRONG.context(tmp_path), extensions=REQUIRE)
    await far.submit("bob@ee.signed.example", requiretls=True)
    await far.submit("carol@ee.signed.example")
    await far.deliver()
    assert [one.mail_line.split().count("REQUIRETLS") for one in sink.mails] == [1, 0]
    assert sink.connections == 1, "what is secure enough for one is for the other"


async def test_a_domain_without_records_whose_mx_is_signed_needs_a_certificate_for_requiretls(
    far: World, tmp_path: Path
) -> None:
    far.conf = replace(far.conf, tls_ca=OTHER.file(tmp_path))
    good = OTHER.issue("mx.none.signed.example")
    sink = await far.sink(tls=good.context(tmp_path), extensions=REQUIRE)
    assert (await mail(far, "none.signed.example", requiretls=True))["state"] == "delivered"
    assert len(sink.mails) == 1
    assert (await mail(far, "plain.example", requiretls=True))["state"] == "failed", "who says that this is its host?"
    assert "neither DNSSEC nor MTA-STS" in str((await far.rows())["bob@plain.example"]["last_reply"])
