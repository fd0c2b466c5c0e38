"""What is wrong with this installation, and what to do about it: the checks behind `manage.py doctor`.

Each check looks at one thing and returns what it found; none changes anything, none raises.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum

import dns.exception
import dns.nameserver
import dns.resolver
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Min, Q
from django.utils import timezone

from accounts import people, policies
from accounts.models import Account, Domain
from mailcore import db, dnscheck, tls
from mailcore.certificates import health
from mailcore.conf import Conf
from mailcore.delivery import records
from mailcore.delivery.dkim import DnsRecord
from mailcore.errors import ConfigError, MailError
from mailcore.models import DeliveryPause, FrozenDestination, OutboundRecipient
from mailcore.store import certificates, quota
from mailcore.store.certificates import Stored
from mailcore.supervise import preflight, probes, schema, setup

_LOW_SPACE = 1 << 30  # octets
_LOW_SHARE = 0.05
_CERTIFICATE_WARNING = datetime.timedelta(days=21)
_OVERDUE = datetime.timedelta(minutes=10)
_RECOUNT_ACCOUNTS = 1000
_NEVER_PUBLIC = ("localhost", "test", "example", "invalid")  # RFC 6761: nothing is ever published there


class Level(Enum):
    OK = "ok"
    HINT = "hint"  # could be better, or only matters on the Internet
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `remedy` says what to do when something is wrong, `details` what all is meant."""

    level: Level
    check: str
    text: str
    remedy: str = ""
    details: tuple[str, ...] = ()


def of_domains(conf: Conf, names: Collection[str]) -> list[Finding]:
    """What the DNS says of these domains."""
    return list(_dns(conf, names))


def examine(
    conf: Conf, *, ask_dns: bool = True, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[Finding]:
    """All checks in order; those that need the database are left out when it does not answer.

    `progress` is told how many of how many domains have been looked up in the DNS.
    """

    def of_dns(conf: Conf) -> Iterator[Finding]:
        return _dns(conf, progress=progress)

    yield from _terminal(conf)
    conf = preflight.as_it_runs(conf)
    yield from _settings(conf)
    yield from _certificate(conf)
    yield from _disk(conf)
    yield from _listeners(conf)
    yield from _redis(conf)
    reachable = True
    for finding in _database(conf):
        reachable = reachable and finding.level is not Level.WRONG
        yield finding
    if not reachable:
        yield from _shown(conf, [])
    else:
        checks: list[Callable[[Conf], Iterator[Finding]]] = [_migrations, _certificates, _people, _counters, _queue]
        if ask_dns:
            checks += [of_dns, _tlsa]
        for check in checks:
            try:
                yield from check(conf)
            except (DatabaseError, MailError) as error:
                reason = " ".join(str(error).split())
                yield Finding(
                    Level.WRONG,
                    check.__name__.removeprefix("of").strip("_"),
                    reason,
                    "start `make up` once to bring the database up to date",
                )


def _terminal(conf: Conf) -> Iterator[Finding]:
    if lacking := preflight.exports(conf):
        text = "this terminal has other settings than `make up` that runs: what commands print of them is wrong"
        yield Finding(Level.HINT, "settings", text, f"export {lacking}")


def _settings(conf: Conf) -> Iterator[Finding]:
    known = {each.metadata["env"] for each in fields(Conf)}
    for name in sorted(os.environ):
        if name.startswith("MAILSTEAD_") and name not in known and name.removesuffix("_FILE") not in known:
            yield Finding(Level.HINT, "settings", f"{name} is not a setting", "see `manage.py showconfig` for all")
    if conf.debug:
        yield Finding(Level.WRONG, "settings", "MAILSTEAD_DEBUG is on", "switch it off: its error pages show secrets")
    if conf.plaintext_auth == "always":
        yield Finding(
            Level.HINT,
            "settings",
            "passwords may cross the network in clear (MAILSTEAD_PLAINTEXT_AUTH=always)",
            "set it to never or loopback",
        )
    if "." not in conf.hostname or conf.hostname.startswith("localhost"):
        yield Finding(
            Level.HINT,
            "settings",
            f"other servers will not accept mail from a host that calls itself {conf.hostname!r}",
            "set MAILSTEAD_HOSTNAME to this machine's full name in the DNS",
        )
    if _is_loopback(conf.bind):
        yield Finding(
            Level.HINT,
            "settings",
            f"only this machine can connect (MAILSTEAD_BIND={conf.bind})",
            "set MAILSTEAD_BIND=0.0.0.0 and the standard ports to receive mail from the Internet",
        )


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return text == "localhost"


def _certificate(conf: Conf) -> Iterator[Finding]:
    try:
        tls.Certificates(conf)
    except ConfigError as error:
        yield Finding(
            Level.WRONG, "certificate", str(error), "start `make up` once, or correct MAILSTEAD_TLS_CERT and _KEY"
        )


def _shown(conf: Conf, stored: Sequence[Stored]) -> Iterator[Finding]:
    """Of the certificate that a client gets who names no host."""
    try:
        certificate, _ = health.default_of(conf, stored)
    except ConfigError:  # said by _certificate
        return
    left = certificate.not_valid_after_utc - timezone.now()
    if left < datetime.timedelta():
        yield Finding(
            Level.WRONG, "certificate", f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}", "renew it"
        )
    elif left < _CERTIFICATE_WARNING:
        yield Finding(Level.HINT, "certificate", f"it expires in {left.days} days", "renew it")
    else:
        yield Finding(Level.OK, "certificate", f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    if certificate.issuer == certificate.subject:
        yield Finding(
            Level.HINT,
            "certificate",
            "it is self-signed: mail programs will warn",
            "set MAILSTEAD_ACME=letsencrypt, or MAILSTEAD_TLS_CERT and MAILSTEAD_TLS_KEY to one of your own",
        )
    names = tls.names(certificate)
    if not tls.covers(names, conf.hostname.lower()):
        yield Finding(
            Level.HINT, "certificate", f"it does not name {conf.hostname}, only {', '.join(names)}", "get one that does"
        )


def _disk(conf: Conf) -> Iterator[Finding]:
    try:
        usage = shutil.disk_usage(conf.data)
    except OSError as error:
        yield Finding(Level.WRONG, "disk", f"{conf.data}: {error.strerror}", "check MAILSTEAD_DATA")
        return
    text = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f} GiB for {conf.data}"
    if usage.free < _LOW_SPACE or usage.free < usage.total * _LOW_SHARE:
        yield Finding(Level.WRONG, "disk", text, "make room: mail is refused once the disk is full")
    else:
        yield Finding(Level.OK, "disk", text)


def _listeners(conf: Conf) -> Iterator[Finding]:
    remedy = "look into the output of `make up` for the reason" if preflight.runs(conf.data) else "start `make up`"
    answers = {
        "http_port": lambda: probes.http_ok(conf.bind, conf.http_port, "/readyz"),
        "smtp_port": lambda: probes.greets(conf.bind, conf.smtp_port, b"220", conf.proxy_from),
        "submission_port": lambda: probes.greets(conf.bind, conf.submission_port, b"220", conf.proxy_from),
        "submissions_port": lambda: probes.listens(conf.bind, conf.submissions_port),
        # Whoever may hand in mail there need not be this host: that it listens must do.
        "lmtp_port": lambda: probes.listens(conf.bind, conf.lmtp_port),
        "imap_port": lambda: probes.greets(conf.bind, conf.imap_port, b"* OK", conf.proxy_from),
        "imaps_port": lambda: probes.listens(conf.bind, conf.imaps_port),
    }
    open_ports: list[str] = []
    silent: list[str] = []
    for name, _variable, purpose in preflight.PORTS:
        if port := getattr(conf, name):
            (open_ports if answers[name]() else silent).append(f"{port} ({purpose})")
    if silent:
        yield Finding(Level.WRONG, "ports", "no answer: " + ", ".join(silent), remedy)
    if open_ports:
        yield Finding(Level.OK, "ports", "answering: " + ", ".join(open_ports))


def _redis(conf: Conf) -> Iterator[Finding]:
    try:
        setup.check_redis(conf.redis_url)
    except ConfigError as error:
        yield Finding(Level.WRONG, "redis", str(error), "no mail is lost; but new mail shows late until it runs again")
    else:
        yield Finding(Level.OK, "redis", "answers")


def _database(conf: Conf) -> Iterator[Finding]:
    try:
        setup.check_database(conf.database_url)
    except ConfigError as error:
        yield Finding(Level.WRONG, "database", str(error), "until then no mail is accepted; senders try again")
    else:
        yield Finding(Level.OK, "database", f"answers, {', '.join(setup.DURABILITY)} are on")


def _migrations(_conf: Conf) -> Iterator[Finding]:
    if trouble := schema.misfit():
        what, _, remedy = trouble.partition(": ")
        yield Finding(Level.WRONG, "database", what, remedy)
        return
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        yield Finding(Level.WRONG, "database", f"{len(pending)} migrations are pending", "run `manage.py migrate`")


def _people(_conf: Conf) -> Iterator[Finding]:
    if not Domain.objects.exists():
        yield Finding(Level.WRONG, "people", "no domain is hosted", "run `manage.py domain add NAME`")
    elif not people.has_administrator():
        yield Finding(Level.HINT, "people", "nobody is an administrator", "run `manage.py account add ADDRESS --admin`")


def _counters(_conf: Conf) -> Iterator[Finding]:
    accounts = list(Account.objects.order_by("id").values_list("id", "address")[:_RECOUNT_ACCOUNTS])
    wrong = 0
    for account_id, address in accounts:
        with db.django_transaction() as tx:
            for drift in db.run_sync(quota.recount(tx, account_id)):
                wrong += 1
                yield Finding(
                    Level.WRONG,
                    "counters",
                    f"{address}: {drift.what} is counted as {drift.counted}, and is {drift.recount}",
                    "this is a bug: please report it with what happened before",
                )
    if not wrong:
        yield Finding(Level.OK, "counters", f"equal a recount in {len(accounts)} accounts")


def _queue(_conf: Conf) -> Iterator[Finding]:
    now = timezone.now()
    # Frozen by an administrator, or nobody answers there ("" = at the smarthost): that is no worker's fault.
    stopped = {*FrozenDestination.objects.values_list("destination", flat=True)} | {
        name.partition(" ")[0] for name in DeliveryPause.objects.filter(until__gt=now).values_list("name", flat=True)
    }
    late = Q(state="queued", next_attempt_at__lt=now - _OVERDUE) & ~Q(destination__in=stopped)
    found = OutboundRecipient.objects.aggregate(
        waiting=Count("id", filter=Q(state="queued")),
        held=Count("id", filter=Q(state="held")),
        overdue=Count("id", filter=Q(pk__in=[]) if "" in stopped else late),
        oldest=Min("next_attempt_at", filter=late),
    )
    if found["overdue"]:
        yield Finding(
            Level.WRONG,
            "queue",
            f"{found['overdue']} recipients are overdue, the oldest since {found['oldest']:%Y-%m-%d %H:%M} UTC",
            "check that worker and beat run: their lines in the output of `make up` say what they wait for",
        )
    else:
        yield Finding(Level.OK, "queue", f"waiting recipients: {found['waiting']}, none overdue")
    if found["held"]:
        yield Finding(Level.HINT, "queue", f"held recipients: {found['held']}", "see `manage.py queue list`")


def _certificates(conf: Conf) -> Iterator[Finding]:
    stored = _stored_certificates()
    yield from _shown(conf, stored)
    enforced = [
        each.name for each in Domain.objects.order_by("name") if policies.value_of(each, "mta-sts") == "enforce"
    ]
    for wrong, text, remedy in (*health.of_database(stored), *health.of_mta_sts(conf, stored, enforced)):
        yield Finding(Level.WRONG if wrong else Level.HINT, "certificate", text, remedy)


def _tlsa(conf: Conf) -> Iterator[Finding]:
    resolver = _resolver(conf)

    def ask(name: str) -> list[str]:
        try:
            return [str(each) for each in resolver.resolve(name, "TLSA", lifetime=dnscheck.ANSWER_SECONDS)]
        except dns.exception.DNSException:
            return []

    for wrong, text, remedy in health.of_tlsa(conf, _stored_certificates(), ask):
        yield Finding(Level.WRONG if wrong else Level.HINT, "dns", text, remedy)


def _stored_certificates() -> list[Stored]:
    with db.django_transaction() as tx:
        return db.run_sync(certificates.every(tx))


def _dns(
    conf: Conf, names: Collection[str] | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[Finding]:
    """What the DNS says of the domains, the worst first; of `names` also when they are no public ones."""
    domains = [
        (each.name, policies.value_of(each, "mta-sts"))
        for each in Domain.objects.select_related("alias_of").order_by("name")
        if (names is None and each.name.rpartition(".")[2] not in _NEVER_PUBLIC) or (names and each.name in names)
    ]
    if not domains:
        return

    def wanted() -> Iterator[tuple[str, list[DnsRecord]]]:
        for name, sts in domains:
            with db.django_transaction() as tx:
                yield name, db.run_sync(records.of_domain(tx, name, sts))

    ask = dnscheck.asking(_resolver(conf))
    looked = list(dnscheck.look(wanted(), ask, progress=lambda done: progress(done, len(domains))))
    silent = [each for each in looked if each.silence]
    left = len(domains) - len(looked)
    if len(silent) == len(looked):
        why = silent[0].silence if silent else f"nothing within {dnscheck.TOTAL_SECONDS:.0f} seconds"
        yield Finding(Level.HINT, "dns", f"the DNS does not answer: {why}", "check MAILSTEAD_DNS and the network")
        return
    for each in sorted(looked, key=lambda each: (each.rank, each.domain)):
        if each.silence:
            yield Finding(Level.HINT, "dns", each.text, "ask whoever runs the domain's name servers")
        elif each.problems:
            remedy = f"`manage.py doctor --domain {each.domain}` says what to publish"
            yield Finding(Level.HINT, "dns", each.text, remedy, tuple(str(one) for one in each.problems))
    if left:
        yield Finding(
            Level.HINT,
            "dns",
            f"{left} of {len(domains)} domains were not looked at: the DNS is too slow",
            "`manage.py doctor --domain NAME` looks at one",
        )
    right = sum(not each.silence and not each.problems for each in looked)
    if right:
        yield Finding(Level.OK, "dns", f"domains whose records are as they should be: {right} of {len(domains)}")


def _resolver(conf: Conf) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=not conf.dns)
    if conf.dns:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in conf.dns]
    return resolver
