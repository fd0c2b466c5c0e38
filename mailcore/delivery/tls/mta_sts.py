"""MTA-STS (RFC 8461): policies of domains that want their mail over verified TLS only, found, fetched and kept.

A TXT record says that there is a policy, and by its id when it changes; the policy comes over HTTPS from a host whose
certificate must be right. What was fetched counts until it expires, even if DNS and web server deny it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass

import dns.exception

from mailcore import db
from mailcore.conf import Conf
from mailcore.delivery import fetch
from mailcore.delivery.fetch import FetchError
from mailcore.delivery.mx import Resolver
from mailcore.store import transport
from mailcore.store.transport import StoredPolicy

log = logging.getLogger(__name__)

# RFC 8461 §3.2.
MAX_AGE = 31_557_600
MAX_MX = 100
# Seconds that an answer is kept by this process; Postgres has it for longer.
KEEP, KEEP_NONE = 60.0, 300.0
SIZE = 20_000
# A domain without a policy is the rule, and mail for it does not wait long for a name server that is silent.
TXT_LIFETIME = 5.0
# Policies that are fetched anew at the same time, and how long one may take, which must be less than a round's budget.
AT_ONCE, REFRESH_SECONDS = 8, 20.0

_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_PATTERN = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a domain demands: `mode` enforce, testing or none; `mx` patterns, `max_age` seconds."""

    mode: str
    mx: tuple[str, ...]
    max_age: int

    def allows(self, host: str) -> bool:
        """Whether a host name fits a pattern; a wildcard stands for exactly one label (RFC 8461 §4.1)."""
        host = host.lower().rstrip(".")
        parent = host.partition(".")[2]
        return any(parent == each[2:] if each.startswith("*.") else host == each for each in self.mx)

    def lines(self) -> list[str]:
        """The policy as reports quote it (RFC 8460 §4.4)."""
        hosts = [f"mx: {each}" for each in self.mx]
        return ["version: STSv1", f"mode: {self.mode}", *hosts, f"max_age: {self.max_age}"]


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a domain: its policy, or none; `failure` = why a policy that there is could not be had, as a
    result type of RFC 8460 and a text."""

    policy: Policy | None = None
    failure: tuple[str, str] | None = None


NOTHING = Found()


class PolicyError(Exception):
    """A policy that is none. `result`: the result type of RFC 8460 §4.3.2.2."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


def record_id(texts: list[str]) -> str | None:
    """The id in a domain's TXT records; None when there is no record, or not exactly one that is valid (§3.1)."""
    records = [text for text in texts if re.match(r"v=STSv1[ \t]*(;|$)", text)]
    if len(records) != 1:
        return None
    for part in records[0].split(";")[1:]:
        name, _, value = part.strip(" \t").partition("=")
        if name == "id" and _ID.fullmatch(value):
            return value
    return None


def parse(body: bytes) -> Policy:
    """Read a policy file. Raises PolicyError (sts-policy-invalid)."""
    fields: dict[str, str] = {}
    patterns: list[str] = []
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise _invalid("it is not ASCII") from None
    for line in text.replace("\r\n", "\n").split("\n"):
        name, colon, value = line.partition(":")
        name, value = name.strip(" \t"), value.strip(" \t")
        if not line.strip():
            continue
        if not colon:
            raise _invalid(f"a line is no field: {line[:40]!r}")
        if name == "mx":
            patterns.append(value.lower().rstrip("."))
        else:
            fields.setdefault(name, value)  # the first one counts
    if fields.get("version") != "STSv1":
        raise _invalid("its version is not STSv1")
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if mode not in ("enforce", "testing", "none"):
        raise _invalid(f"its mode is {mode[:20]!r}")
    if not (age.isdigit() and len(age) <= 10):
        raise _invalid(f"its max_age is {age[:20]!r}")
    if len(patterns) > MAX_MX or any(not _PATTERN.fullmatch(each) for each in patterns):
        raise _invalid("an mx is no name of a host")
    if not patterns and mode != "none":
        raise _invalid("it names no mx")
    return Policy(mode, tuple(patterns), min(int(age), MAX_AGE))


def _invalid(text: str) -> PolicyError:
    return PolicyError("sts-policy-invalid", f"the policy is not valid: {text}")


async def load(domain: str, conf: Conf, resolver: Resolver, seconds: float = fetch.SECONDS) -> Policy:
    """Fetch the policy of a domain. Raises PolicyError."""
    port = "" if fetch.PORT == 443 else f":{fetch.PORT}"
    url = f"https://mta-sts.{domain}{port}/.well-known/mta-sts.txt"
    try:
        answer = await fetch.fetch(url, conf, resolver, seconds=seconds)
    except FetchError as error:
        raise PolicyError("sts-webpki-invalid" if error.tls else "sts-policy-fetch-error", str(error)) from error
    if answer.status != 200:
        raise PolicyError("sts-policy-fetch-error", f"mta-sts.{domain} answers with status {answer.status}")
    if answer.media_type != "text/plain":
        raise _invalid(f"its type is {answer.media_type[:40]!r}, not text/plain")
    return parse(answer.body)


class Policies:
    """What is known of domains, for one process: asked for each delivery, hence kept for a minute."""

    def __init__(self, conf: Conf, resolver: Resolver) -> None:
        self._conf = conf
        self._resolver = resolver
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Found]] = {}

    async def of(self, domain: str) -> Found:
        """The policy that counts for a domain now. Raises MailError (UNAVAILABLE) when the database is away: then it
        is not known whether the mail may go in the clear."""
        known = self._known.get(domain)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        task = self._asking.get(domain)
        if task is None:
            task = self._asking[domain] = asyncio.create_task(self._find(domain))
            task.add_done_callback(lambda _: self._asking.pop(domain, None))
        return await asyncio.shield(task)

    async def _find(self, domain: str) -> Found:
        found = await find(domain, self._conf, self._resolver)
        self._known.pop(domain, None)
        self._known[domain] = (time.monotonic() + (KEEP if found.policy else KEEP_NONE), found)
        if len(self._known) > SIZE:
            self._known.popitem(last=False)
        return found


async def find(domain: str, conf: Conf, resolver: Resolver) -> Found:
    """The policy that counts for a domain: what is kept, unless its TXT record names another, which is fetched."""
    async with db.read() as tx:
        kept = await transport.policy(tx, domain)
    alive = _policy(kept) if kept is not None and kept.alive else None
    try:
        now = record_id(await resolver.texts(f"_mta-sts.{domain}", TXT_LIFETIME))
    except dns.exception.DNSException:
        now = None
    failure: tuple[str, str] | None = None
    if now is not None and (alive is None or kept is None or kept.policy_id != now):
        if kept is not None and kept.resting:
            failure = _split(kept.failure)
        else:
            try:
                alive = await renew(domain, now, conf, resolver)
            except PolicyError as error:
                failure = (error.result, str(error))
    if alive is not None:
        async with db.single() as tx:
            await transport.policy_used(tx, domain)
    if alive is None and failure is None:
        return NOTHING
    return Found(alive if alive is not None and alive.mode != "none" else None, failure)


async def renew(domain: str, policy_id: str, conf: Conf, resolver: Resolver, seconds: float = fetch.SECONDS) -> Policy:
    """Fetch a domain's policy and keep it, or that it could not be had. Raises PolicyError."""
    try:
        policy = await load(domain, conf, resolver, seconds)
    except PolicyError as error:
        log.warning("the MTA-STS policy of %s cannot be had: %s", domain, error)
        async with db.single() as tx:
            await transport.fetch_failed(tx, domain, f"{error.result} {error}"[:500])
        raise
    async with db.single() as tx:
        await transport.keep_policy(tx, domain, policy_id, policy.mode, policy.mx, policy.max_age)
    return policy


async def refresh(conf: Conf, resolver: Resolver) -> tuple[int, int]:
    """Fetch anew what is in use and a day old, before it expires; returns how many could be had, and how many not.

    Several at a time, and none for long: a web server that is silent keeps no other domain's policy from living on.
    """
    async with db.read() as tx:
        due = await transport.policies_to_refresh(tx)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(domain: str, policy_id: str) -> bool:
        async with gate:
            try:
                texts = await resolver.texts(f"_mta-sts.{domain}", TXT_LIFETIME)
            except dns.exception.DNSException:
                texts = []
            try:
                await renew(domain, record_id(texts) or policy_id, conf, resolver, REFRESH_SECONDS)
            except PolicyError:
                return False
            return True

    had = await asyncio.gather(*(one(domain, policy_id) for domain, policy_id in due))
    return sum(had), len(had) - sum(had)


def _policy(kept: StoredPolicy) -> Policy | None:
    return Policy(kept.mode, kept.mx, kept.max_age) if kept.mode is not None else None


def _split(failure: str | None) -> tuple[str, str]:
    result, _, text = (failure or "sts-policy-fetch-error").partition(" ")
    return result, text
