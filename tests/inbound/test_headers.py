"""The lines that are put before a message, and what is taken out of its header."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.errors import Code, MailError
from mailcore.inbound import headers
from mailcore.inbound.checks import Letter, form, loop, run
from mailcore.inbound.envelope import Envelope, Recipient, Source
from mailcore.inbound.file import placements
from mailcore.inbound.verdict import Action, Finding, decide
from mailcore.store.accounts import Local

HOST = "mx.example.test"
RECEIVED = re.compile(
    rb"Received: from [A-Za-z0-9_.:\[\]?-]+ \(\[[0-9A-Za-z.:]+\]\)\r\n(?:\t\(using [!-~ ]+\)\r\n\t\([A-Za-z ]+\)\r\n)?"
    rb"\tby mx\.example\.test with [A-Z0-9]+ id [0-9a-z]+(?:\r\n\tfor <[!-~]+>)?;\r\n"
    rb"\t(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)


def envelope(
    *recipients: str, helo: str = "client.example", sender: str = "far@elsewhere.example", **more: object
) -> Envelope:
    source = Source("192.0.2.1", helo, "ESMTPS", "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384")
    to = tuple(Recipient(address, (Local(1, address),)) for address in recipients)
    return Envelope("0123456789abcde", source, sender, to, **more)  # type: ignore[arg-type]


@given(st.text(st.characters(codec="latin-1"), max_size=40), st.text(max_size=20))
def test_no_name_or_address_breaks_out_of_received(helo: str, local: str) -> None:
    line = headers.received(envelope(f"{local}@example.org", helo=helo or "x"), HOST)
    if local.isascii() and local.isprintable() and " " not in local and '"' not in local:
        assert RECEIVED.fullmatch(line), line
    assert line.startswith(b"Received: from ")


def test_received_of_an_ipv6_client_without_tls() -> None:
    source = Source("2001:db8::1", "[IPv6:2001:db8::1]", "SMTP")
    line = headers.received(Envelope("id1", source, "", (Recipient("a@b.example"), Recipient("b@b.example"))), HOST)
    assert line.startswith(
        b"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby mx.example.test with SMTP id id1;\r\n\t"
    )


def test_the_date_is_that_of_rfc_5322() -> None:
    assert headers.date(0) == "Thu, 01 Jan 1970 00:00:00 +0000"
    assert headers.date(1_795_999_999) == "Mon, 30 Nov 2026 00:53:19 +0000"


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"", b""),
        (b"\r\nbody\r\n", b"\r\n"),
        (b"A: b\r\n\r\nbody\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
    ],
)
def test_split(content: bytes, header: bytes) -> None:
    assert headers.split(content).header == header
    assert headers.split(content).body == content[len(header) :]


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
def test_a_header_without_measure_is_refused_and_not_walked(end: bytes) -> None:
    fits = b"A: " + b"x" * (headers.MAX_HEADER - 3 - len(end)) + end
    assert headers.split(fits + b"body").header == fits
    endless = b"A: " + b"x\r\n\tx" * 10_000_000
    began = time.process_time()
    for content in (b"A" + fits, b"A" + fits + b"body", endless, endless + end + b"body"):
        with pytest.raises(MailError) as refused:
            headers.split(content)
        assert refused.value.code is Code.TOO_BIG
    assert time.process_time() - began < 2


OURS = [
    b"Authentication-Results: mx.example.test; none\r\n",
    b"AUTHENTICATION-RESULTS: MX.Example.Test.; dkim=pass\r\n",
    b'Authentication-Results: "mx.example.test"; dkim=pass\r\n',
    b"Authentication-Results: (a (nested) comment) mx.example.test 1; dkim=pass\r\n",
    b"Authentication-Results:\r\n\tmx.example.test;\r\n\tdkim=pass header.d=example.org\r\n",
    b"Authentication-Results : mx.example.test; spf=pass\r\n",
    b"Authentication-Results: ; mx.example.test spf=pass\r\n",
]
THEIRS = [
    b"Authentication-Results: other.example; spf=pass (mx.example.test)\r\n",
    b"Authentication-Results: mx.example.test.evil.example; spf=pass\r\n",
    b"X-Authentication-Results: mx.example.test; spf=pass\r\n",
    b"ARC-Authentication-Results: i=1; mx.example.test; spf=pass\r\n",
    b"Subject: x\r\n Authentication-Results: mx.example.test; spf=pass\r\n",
]


@given(st.lists(st.sampled_from(OURS + THEIRS + [b"From: a@b.example\r\n"])))
def test_results_in_our_name_go_and_all_else_stays(fields: list[bytes]) -> None:
    header = b"".join(fields) + b"\r\n"
    kept = b"".join(field for field in fields if field not in OURS) + b"\r\n"
    assert headers.without_forged_results(header, HOST) == kept


@given(st.binary(max_size=200))
def test_no_octets_break_the_header_functions(noise: bytes) -> None:
    header = b"Authentication-Results: " + noise + b"\r\nFrom: " + noise + b"\r\n\r\n"
    headers.without_forged_results(header, HOST)
    headers.authors(header)
    headers.hops(header)
    headers.message_id(header)
    headers.completed(noise, envelope("a@b.example"), HOST)


@pytest.mark.parametrize(
    "evil", [b"(" * 100_000, b'"' * 100_000, b"authentication-results:\n " * 400, b"bcc:\r\n" * 20_000]
)
def test_a_hostile_header_costs_linear_time(evil: bytes) -> None:
    header = b"Authentication-Results: " + evil + b"\r\nFrom: " + evil + b"\r\n\r\n"
    began = time.process_time()
    headers.without_forged_results(header, HOST)
    headers.completed(header, envelope("a@b.example"), HOST)
    headers.authors(header)
    assert time.process_time() - began < 5


def test_completed_keeps_what_is_there() -> None:
    whole = b"Date: x\r\nMessage-ID: <1@x>\r\nFrom: a@b.example\r\n\r\n"
    assert headers.completed(whole, envelope("a@b.example"), HOST) == whole
    added = headers.completed(
        b"From: a@b.example\r\nBcc: x@y.example\r\n\r\n", envelope("a@b.example", sender=""), HOST
    )
    assert re.fullmatch(
        rb"Message-ID: <0123456789abcde\.[0-9a-f]{16}@mx\.example\.test>\r\n"
        rb"Date: [^\r\n]+\r\nFrom: a@b\.example\r\n\r\n",
        added,
    )


async def test_the_findings_of_checks_lead_to_a_verdict() -> None:
    def broken(letter: Letter) -> list[Finding]:
        raise ValueError

    async def slow(letter: Letter) -> list[Finding]:
        return [Finding("slow", Action.DEFER, "later")]

    def letter(header: bytes) -> Letter:
        return Letter(envelope("a@b.example"), header, header)

    pipeline = (("loop", loop.check), ("form", form.check), ("broken", broken), ("slow", slow))
    good = decide(await run(pipeline[:2], letter(b"From: a@b.example\r\nDate: x\r\n\r\n")))
    assert (good.action, good.findings, good.decisive) == (Action.NOTE, (), None)
    odd = decide(await run(pipeline, letter(b"From: a\r\nfrom: b\r\n\r\n")))
    assert odd.reasons() == ["form: 2 From fields", "form: no Date field", "broken: failed: ValueError", "slow: later"]
    assert odd.decisive is not None
    assert odd.decisive.check == "slow"
    looping = decide(await run(pipeline, letter(b"Received: x\r\n" * 51)))
    assert looping.decisive is not None
    assert looping.decisive.check == "loop"


def test_an_account_gets_one_copy_however_it_is_addressed() -> None:
    to = (
        Recipient("sales@example.org", (Local(1, "ann@example.org"), Local(2, "bob@example.org"))),
        Recipient("ann+x@example.org", (Local(1, "ann@example.org", "x"),)),
        Recipient("far@elsewhere.example", (), ("far@elsewhere.example",)),
    )
    found = placements(Envelope("id", Source("192.0.2.1", "x", "ESMTP"), "", to), decide([]))
    assert [(place.account_id, place.owner) for place in found] == [
        (1, "ann@example.org"),
        (2, "bob@example.org"),
    ]


def test_results_without_end_are_refused_and_never_read() -> None:
    with pytest.raises(MailError) as refused:
        headers.without_forged_results(b"Authentication-Results: (((mx\r\n" * 100_000, HOST)
    assert refused.value.code is Code.TOO_BIG
    assert headers.without_forged_results(b"Authentication-Results: " + b"(" * 20_000 + b"\r\n", HOST) == b""
