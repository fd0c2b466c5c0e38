"""DANE beside hosts without it, beside MTA-STS, and in TLS reports. (The name server only says that it validates.)"""

from __future__ import annotations

import hashlib

import pytest

from mailcore import db
from tests.delivery.authority import Authority, Issued
from tests.delivery.test_mta_sts import Far, far, nothing_in_the_clear
from tests.delivery.test_tlsrpt import counted
from tests.delivery.world import BOB

__all__ = ["far"]

OTHER = Authority("Other")
SHOWN = OTHER.issue("another.example", days=-1)
WRONG = "3 1 1 " + "00" * 32


def key_of(issued: Issued) -> str:
    return f"3 1 1 {hashlib.sha256(issued.spki()).hexdigest()}"


def tlsa(far: Far, *records: str, host: str = "mx.far.example") -> None:
    far.here.names.secure = True
    far.here.names.add(f"_{far.here.conf.smtp_out_port}._tcp.{host}", "TLSA", *records)


async def test_a_host_without_records_gets_what_one_with_records_may_not_have(far: Far) -> None:
    """Each host is judged by what it publishes itself (RFC 7672 §2.2.1)."""
    far.here.names.host("far.example", (20, "second.far.example", "127.0.0.2"))
    first = await far.here.sink(tls=SHOWN.context(far.folder))
    second = await far.here.sink("127.0.0.2")
    tlsa(far, WRONG)
    await far.mail()
    nothing_in_the_clear(first)
    assert [mail.tls for mail in second.mails] == [None]
    assert await counted() == {("tlsa", "validation-failure"): 1, ("no-policy-found", "starttls-not-supported"): 1}


async def test_dane_counts_and_the_mta_sts_policy_does_not(far: Far) -> None:
    far.publish()  # which wants a certificate of an authority, for a name that it has
    sink = await far.here.sink(tls=SHOWN.context(far.folder))
    tlsa(far, key_of(SHOWN))
    name = await far.mail()
    assert [mail.tls for mail in sink.mails] == ["TLSv1.3"]
    assert (await far.here.steps(name))[-1].detail["tls"].endswith(", proved by DANE")
    assert await counted() == {("tlsa", ""): 1}


async def test_a_certificate_that_mta_sts_likes_and_dane_does_not_is_refused(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(tls=far.certificate())
    tlsa(far, WRONG)
    await far.mail()
    nothing_in_the_clear(sink)
    assert "the TLSA records of mx.far.example demand verified TLS" in str((await far.row())["last_reply"])
    assert await counted() == {("tlsa", "validation-failure"): 1}


async def test_records_that_mail_cannot_use_leave_the_word_to_mta_sts(far: Far) -> None:
    far.publish()
    sink = await far.here.sink(tls=SHOWN.context(far.folder))
    tlsa(far, "1 1 1 " + "00" * 32)
    await far.mail()
    nothing_in_the_clear(sink)
    assert "the MTA-STS policy of far.example" in str((await far.row())["last_reply"])


RESULTS = {
    "tlsa-invalid": ("3 1 1 abcd",),
    "certificate-expired": (f"2 0 0 {OTHER.own.der().hex()}",),
    "validation-failure": (WRONG,),
    "": (WRONG, key_of(SHOWN)),
}


@pytest.mark.parametrize("result", RESULTS)
async def test_reports_tell_what_became_of_the_records(far: Far, result: str) -> None:
    await far.here.sink(tls=SHOWN.context(far.folder))
    tlsa(far, *RESULTS[result])
    await far.mail()
    assert await counted() == {("tlsa", result): 1}
    delivered = result in ("", "tlsa-invalid")
    assert (await far.here.states())[BOB] == ("delivered" if delivered else "queued")
    async with db.read() as tx:
        ((policy,),) = await tx.fetch("SELECT policy FROM tls_result")
    assert RESULTS[result][-1] in policy, "the records are quoted"


async def test_reports_tell_of_records_that_cannot_be_had_and_of_a_host_without_tls(far: Far) -> None:
    sink = await far.here.sink()
    tlsa(far, key_of(SHOWN))
    await far.mail()
    assert await counted() == {("tlsa", "starttls-not-supported"): 1}
    far.here.names.failing.add(f"_{far.here.conf.smtp_out_port}._tcp.mx.far.example")
    await far.here.later(3600)
    await far.forget()
    await far.here.deliver()
    assert await counted() == {("tlsa", "starttls-not-supported"): 1, ("tlsa", "dnssec-invalid"): 1}
    nothing_in_the_clear(sink)
