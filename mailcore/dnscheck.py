"""Whether the DNS says of our domains what `manage.py domain show` asks their owners to publish.

Many domains are looked up at a time, and all of it ends in a bounded time: of a thousand domains with dead name servers
the rest is left for another day, and said so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import dns.exception
import dns.resolver

from mailcore.delivery.dkim import DnsRecord

# Domains at a time, seconds for one answer and for everything.
AT_ONCE = 16
ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 60.0
# So many domains without any answer, and none with one: it is our resolver that does not answer.
SILENT = 5

Ask = Callable[[str, str], Sequence[str]]
"""A name and a type to what is published, nothing when there is no such record; raises DNSException."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that is not as it should be. `published` is what the DNS says instead, "" when nothing."""

    purpose: str
    wanted: DnsRecord
    published: str

    def __str__(self) -> str:
        what = f"says {self.published[:200]}" if self.published else "is missing"
        return f"{self.wanted.name} {self.wanted.type} {what}; publish: {self.wanted.value}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A domain, and what is not as it should be, the worst first. `silence`: why its name servers did not answer."""

    domain: str
    problems: tuple[Problem, ...] = ()
    silence: str = ""

    @property
    def rank(self) -> int:
        """How bad it is: the smaller, the worse."""
        worst = min((PURPOSES.index(each.purpose) for each in self.problems), default=len(PURPOSES))
        return worst if not self.silence else 0

    @property
    def text(self) -> str:
        """All of it on one line."""
        if self.silence:
            return f"{self.domain}: its name servers do not answer ({self.silence})"
        said = []
        for purpose in PURPOSES:
            found = [each for each in self.problems if each.purpose == purpose]
            if found:
                missing = all(not each.published for each in found)
                said.append(f"{'no' if missing else 'another'} {purpose}")
        return f"{self.domain}: {', '.join(said)}"


# What records are for, in the order of how much is amiss without them.
PURPOSES = ("MX", "SPF", "DKIM", "DMARC", "MTA-STS", "TLS reports", "set-up of mail programs")


def look(
    domains: Iterable[tuple[str, Sequence[DnsRecord]]],
    ask: Ask,
    *,
    seconds: float = TOTAL_SECONDS,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Checked]:
    """Look at each domain's records; ends early, without the rest, when the time is over or nobody ever answers."""
    end = time.monotonic() + seconds
    silent = answered = done = 0
    waiting: set[Future[Checked | None]] = set()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dns") as threads:
        left = iter(domains)
        more = True
        while more or waiting:
            while more and len(waiting) < 2 * AT_ONCE:
                item = next(left, None)
                more = item is not None and time.monotonic() < end
                if item is not None and more:
                    waiting.add(threads.submit(_look_at, *item, ask, end))
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in finished:
                if (checked := each.result()) is not None:
                    done += 1
                    silent += bool(checked.silence)
                    answered += not checked.silence
                    yield checked
            progress(done)
            if silent >= SILENT and not answered:
                more = False
                for each in waiting:
                    each.cancel()
                waiting = {each for each in waiting if not each.cancelled()}


def _look_at(domain: str, wanted: Sequence[DnsRecord], ask: Ask, end: float) -> Checked | None:
    problems = []
    for record in wanted:
        if time.monotonic() > end:
            return None
        try:
            # An address of its own does as well as a CNAME.
            published = ask(record.name, "A" if record.type == "CNAME" else record.type)
        except dns.exception.DNSException as error:
            return Checked(domain, silence=_short(error))
        right = published if record.type == "CNAME" else any(_agrees(record, each) for each in published)
        if not right:
            problems.append(Problem(_purpose(record), record, "; ".join(published)))
    problems.sort(key=lambda each: PURPOSES.index(each.purpose))
    return Checked(domain, tuple(problems))


def asking(resolver: dns.resolver.Resolver) -> Ask:
    """Ask a resolver of dnspython."""

    def ask(name: str, kind: str) -> list[str]:
        try:
            return [_plain(each) for each in resolver.resolve(name, kind, lifetime=ANSWER_SECONDS)]
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    return ask


def _short(error: dns.exception.DNSException) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return f"nothing within {ANSWER_SECONDS:.0f} seconds"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _purpose(record: DnsRecord) -> str:
    for purpose, sign in (("MX", record.type == "MX"), ("SPF", record.value.startswith("v=spf1"))):
        if sign:
            return purpose
    for part, purpose in (
        ("._domainkey.", "DKIM"),
        ("_dmarc.", "DMARC"),
        ("mta-sts.", "MTA-STS"),
        ("_smtp._tls.", "TLS reports"),
    ):
        if part in record.name:
            return purpose
    return PURPOSES[-1]


def _plain(answer: object) -> str:
    strings = getattr(answer, "strings", None)
    return b"".join(strings).decode(errors="replace") if strings is not None else str(answer)


def _agrees(record: DnsRecord, published: str) -> bool:
    """Whether a record serves its purpose; owners may choose other preferences, policies and spacing."""
    wanted = record.value
    if record.type in ("MX", "SRV"):
        return published.split()[-1].rstrip(".").lower() == wanted.split()[-1].rstrip(".").lower()
    if wanted.startswith(("v=spf1", "v=DMARC1", "v=TLSRPTv1")):
        return published.lower().startswith(wanted.split()[0].rstrip(";").lower())
    return "".join(published.split()) == "".join(wanted.split())
