"""What `manage.py doctor` learns from the DNS about many domains: side by side, in bounded time, the worst first."""

from __future__ import annotations

import threading

import dns.exception
import dns.resolver

from mailcore import dnscheck
from mailcore.delivery.dkim import DnsRecord


def wanted(domain: str) -> tuple[str, list[DnsRecord]]:
    return domain, [
        DnsRecord(domain, "MX", "10 mx.example.test."),
        DnsRecord(domain, "TXT", "v=spf1 mx -all"),
        DnsRecord(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=none"),
        DnsRecord(f"autoconfig.{domain}", "CNAME", "mx.example.test."),
    ]


def test_all_that_is_amiss_with_a_domain_is_one_line_and_each_record_a_detail() -> None:
    published = {
        ("a.example", "MX"): ["5 MX.example.test."],
        ("a.example", "TXT"): ["v=spf1 include:far.example ~all", "google-site-verification=x"],
        ("_dmarc.a.example", "TXT"): ["v=DMARC1; p=reject"],
        ("autoconfig.a.example", "A"): ["192.0.2.1"],
        ("b.example", "MX"): ["10 mail.elsewhere.example."],
        ("c.example", "MX"): ["10 mx.example.test."],
    }
    found = list(
        dnscheck.look(map(wanted, ("a.example", "c.example", "b.example")), lambda *key: published.get(key, []))
    )
    lines = [each.text for each in sorted(found, key=lambda each: (each.rank, each.domain)) if each.problems]
    assert lines == [
        "b.example: another MX, no SPF, no DMARC, no set-up of mail programs",
        "c.example: no SPF, no DMARC, no set-up of mail programs",
    ]
    (other,) = [each for each in found if each.domain == "b.example"]
    assert str(other.problems[0]) == "b.example MX says 10 mail.elsewhere.example.; publish: 10 mx.example.test."


def test_domains_are_looked_up_side_by_side() -> None:
    together = threading.Barrier(dnscheck.AT_ONCE, timeout=30)

    def ask(name: str, kind: str) -> list[str]:
        if kind == "MX":
            together.wait()  # nobody gets on before as many have asked
        return []

    counted: list[int] = []
    names = [f"d{number}.example" for number in range(2 * dnscheck.AT_ONCE)]
    found = list(dnscheck.look(map(wanted, names), ask, progress=counted.append))
    assert {each.domain for each in found} == set(names)
    assert counted[-1] == len(names)


def test_one_domain_with_dead_name_servers_is_said_and_a_dead_resolver_ends_it() -> None:
    def dead(name: str, _kind: str) -> list[str]:
        raise dns.resolver.NoNameservers

    def lame(name: str, _kind: str) -> list[str]:
        if "d7." in name:
            raise dns.exception.Timeout
        return []

    names = [f"d{number}.example" for number in range(1000)]
    found = list(dnscheck.look(map(wanted, names[:20]), lame))
    assert len(found) == 20 and [each.domain for each in found if each.silence] == ["d7.example"]
    assert len(list(dnscheck.look(map(wanted, names), dead))) < 100
    assert list(dnscheck.look(map(wanted, names), lame, seconds=0)) == []
