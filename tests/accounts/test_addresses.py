"""The strict address parser: what it takes, what it refuses, and that it is stable under its own output."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accounts.addresses import (
    MAX_ADDRESS,
    MAX_LOCAL,
    Parsed,
    display_domain,
    domain_name,
    fold_local,
    hosted_domain_name,
    normalise,
    parse_address,
    split_tag,
)
from accounts.errors import AddressError


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("ann@example.org", "ann", "example.org"),
        ("Ann.Lee@Example.ORG", "Ann.Lee", "example.org"),
        ("ann+tag@localhost", "ann+tag", "localhost"),
        ("!#$%&'*+/=?^_`{|}~-@example.org", "!#$%&'*+/=?^_`{|}~-", "example.org"),
        ('"ann lee"@example.org', "ann lee", "example.org"),
        ('"ann@home"@example.org', "ann@home", "example.org"),
        (r'"a\"b\\c"@example.org', 'a"b\\c', "example.org"),
        ('"ann"@example.org', "ann", "example.org"),
        ("jürgen@bücher.example", "jürgen", "xn--bcher-kva.example"),
        ("用户@例子.广告", "用户", "xn--fsqu00a.xn--4rr70v"),
        ("a@XN--BCHER-KVA.example", "a", "xn--bcher-kva.example"),
        ("bounce@em_1.example.org", "bounce", "em_1.example.org"),
        ("ann@[192.0.2.1]", "ann", "[192.0.2.1]"),
        ("ann@[IPv6:2001:DB8:0:0::1]", "ann", "[IPv6:2001:db8::1]"),
        ("a" * 64 + "@example.org", "a" * 64, "example.org"),
    ],
)
def test_takes_every_mailbox_of_rfc_5321_and_6531(text: str, local: str, domain: str) -> None:
    assert parse_address(text) == Parsed(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "ann", "ann@", "@example.org", "ann@@example.org", "ann@example.org@example.net",
        " ann@example.org", "ann@example.org ", "ann @example.org", "ann@ example.org", "ann@exa mple.org",
        ".ann@example.org", "ann.@example.org", "ann..lee@example.org", "(x)ann@example.org", "ann(x)@example.org",
        "Ann <ann@example.org>", "<ann@example.org>", "@relay.example:ann@example.org", "a,b@example.org",
        "ann@example.org\r\n", "ann\r\n@example.org", "an\0n@example.org", '"a\nb"@example.org', '"a\\\n"@example.org',
        '"ann@example.org', '""@example.org', '"ann"lee@example.org', '"a"b"@example.org', '"ann\\"@example.org',
        "ann@.example.org", "ann@example..org", "ann@example.org.", "ann@-a.example", "ann@a-.example",
        "ann@192.0.2.1", "ann@[192.0.2]", "ann@[192.0.2.1", "ann@192.0.2.1]", "ann@[300.0.2.1]", "ann@[::1]",
        "ann@[IPv6:::g]", "ann@[IPv6:fe80::1%eth0]", "ann@[]", "ann@[x.example]",
        "a" * 65 + "@example.org", "ü" * 33 + "@example.org", "ann@" + "a" * 64 + ".example",
        "ann@" + ".".join(["a" * 60] * 5), "a" * 60 + "@" + ".".join(["b" * 60] * 4),
        "a\u202eb@example.org", "a\u00a0b@example.org", "a\u2028b@example.org", "a\ud800b@example.org",
        "a\x85b@example.org", "ann@exa\u200emple.org", "ann@xn--.example\u3002", "ann@ex\ud800.org",
        "x" * 2000, '"' + "\\a" * 5000 + '"@example.org',
    ],
)  # fmt: skip
def test_refuses_what_is_no_mailbox_with_a_reason(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_address(text)
    assert refused.value.text and len(refused.value.text) < 100


def test_address_literals_can_be_switched_off() -> None:
    assert parse_address("ann@[192.0.2.1]").is_literal
    with pytest.raises(AddressError):
        parse_address("ann@[192.0.2.1]", literal=False)
    with pytest.raises(AddressError):
        normalise("ann@[192.0.2.1]")


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("Ann@Example.ORG", "ann@example.org"),
        ('"ANN"@example.org', "ann@example.org"),
        ('"Ann Lee"@example.org', '"ann lee"@example.org'),
        ("JÜRGEN@bücher.example", "jürgen@xn--bcher-kva.example"),
        ("ju\u0308rgen@example.org", "jürgen@example.org"),
        ("ΑΣ@example.org", "ας@example.org"),
    ],
)
def test_one_address_has_one_stored_form(text: str, stored: str) -> None:
    assert normalise(text) == stored


def test_a_tag_is_what_follows_the_first_plus() -> None:
    assert split_tag("ann+a+b") == ("ann", "a+b")
    assert split_tag("ann") == ("ann", None)
    assert split_tag("+ann") == ("+ann", None)
    assert str(parse_address("ann+news@example.org").without_tag()) == "ann@example.org"


def test_a_hosted_domain_has_no_underscore_and_is_shown_as_people_write_it() -> None:
    assert hosted_domain_name("Bücher.Example") == "xn--bcher-kva.example"
    assert display_domain("xn--bcher-kva.example") == "bücher.example"
    assert display_domain("xn--a.example") == "xn--a.example"
    with pytest.raises(AddressError):
        hosted_domain_name("a_b.example")


LOCALS = st.text(min_size=1, max_size=70)
DOMAINS = st.text(alphabet=string.ascii_letters + string.digits + "-._üßΣ例", min_size=1, max_size=40)
ODD = st.text(alphabet='ab."\\@[]:()<>+ \t\r\n\0é\u3002\u200d\u202e', max_size=30)


@given(st.one_of(ODD, st.text(max_size=300), st.builds("{}@{}".format, LOCALS, DOMAINS)))
@example("ß@ẞ.example")
@example("İ@example.org")
@example("a@ª.b")
def test_whatever_is_given_it_parses_or_says_why_and_its_output_parses_to_itself(text: str) -> None:
    try:
        parsed = parse_address(text)
    except AddressError:
        return
    written = str(parsed)
    assert parse_address(written) == parsed
    assert len(parsed.local.encode()) <= MAX_LOCAL and len(written.encode()) <= MAX_ADDRESS
    assert not any(ord(char) < 32 or ord(char) == 127 for char in written)
    assert (parsed.domain.isascii() and parsed.domain == parsed.domain.lower()) or parsed.is_literal


@given(st.builds("{}@{}".format, LOCALS, st.sampled_from(["example.org", "Bücher.example"])))
def test_normalising_twice_changes_nothing(text: str) -> None:
    try:
        once = normalise(text)
    except AddressError:
        return
    assert normalise(once) == once


@given(LOCALS.filter(lambda text: all(" " <= char <= "~" for char in text)))
def test_any_printable_local_part_survives_quoting(local: str) -> None:
    if len(local) <= MAX_LOCAL:
        assert parse_address(str(Parsed(local, "example.org"))).local == local


@given(LOCALS)
def test_folding_is_stable(local: str) -> None:
    assert fold_local(fold_local(local)) == fold_local(local)


@given(DOMAINS)
def test_a_domain_name_is_its_own_canonical_form(text: str) -> None:
    try:
        name = domain_name(text)
    except AddressError:
        return
    assert domain_name(name) == name and len(name) <= 253
