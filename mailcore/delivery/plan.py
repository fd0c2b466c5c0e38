"""Which rule mail follows, by the domains of its sender and recipient (`manage.py route`).

The rule for the more particular recipient wins (a domain before `*.domain` before `*`, the longer one of two), then the
one for the more particular sender. Without a rule mail goes to MAILSTEAD_SMARTHOST, else to the MX hosts.

A destination has one way for the mail of everybody, and one more for each rule that certain senders have: each with
connections, limits and pauses of its own, so that no dead host holds up what goes elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from accounts import secrets
from accounts.addresses import AddressError, display_domain, parse_address
from mailcore.conf import Conf, Smarthost
from mailcore.store.queue import Share
from mailcore.store.routes import Rule

log = logging.getLogger(__name__)

SMTP_PORT, SUBMISSION_PORT = 25, 587
ANY, NULL_SENDER = "*", "<>"


@dataclass(frozen=True, slots=True)
class Plan:
    """How mail leaves. `relay` is set when a certain host takes it; limits that are None are the engine's own."""

    action: str = "mx"
    relay: Smarthost | None = None
    tls: str = "may"
    source4: str | None = None
    source6: str | None = None
    hello: str | None = None
    connections: int | None = None
    per_connection: int | None = None
    per_minute: int | None = None
    text: str = ""
    rule: int = 0

    @property
    def sends(self) -> bool:
        """Mail goes somewhere; else the rule itself decides its fate."""
        return self.action in ("mx", "relay")


@dataclass(frozen=True, slots=True)
class Way:
    """Mail to a destination ("" = to all of them, by the smarthost) that goes by one plan; `name` is unique.

    Of the sender's domains (LIKE patterns, "" = the null sender): those that fit `mine` (None = any) and none of
    `others`, whose mail goes another way.
    """

    name: str
    destination: str
    plan: Plan
    mine: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()

    @property
    def share(self) -> Share | None:
        """What of the destination's mail it is; None = all."""
        return Share(self.name, self.mine, self.others) if self.mine is not None or self.others else None


class Plans:
    """The rules at one time. The mail of a rule whose password cannot be opened waits ("unusable"), no other."""

    def __init__(self, conf: Conf, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        relay = conf.smarthost
        self._default = Plan() if relay is None else Plan("relay", relay)
        self._plans = {(rule.recipient, rule.sender): _plan(rule) for rule in rules}
        self._by_recipient: dict[str, dict[str, Plan]] = {}
        for (recipient, sender), plan in self._plans.items():
            self._by_recipient.setdefault(recipient, {})[sender] = plan
        self._lookup = lru_cache(maxsize=20_000)(self._find)
        self._ways = lru_cache(maxsize=20_000)(self._find_ways)
        self.sender_patterns = _like(rule.sender for rule in rules if rule.sender != ANY)
        """Whose mail may go by a rule of its own (LIKE patterns)."""

    @property
    def one_relay(self) -> bool:
        """All mail goes to one host, whatever its destination."""
        return self._default.relay is not None and not self._plans

    def ways(self, destination: str) -> tuple[Way, ...]:
        """The ways to a domain: the first is everybody's."""
        return self._ways("" if self.one_relay else destination)

    def way(self, sender: str, destination: str) -> Way:
        """The way of mail from an address ("" = null sender), or a domain, to a domain."""
        ways = self.ways(destination)
        if len(ways) > 1:
            plan = self.of(sender if "@" in sender or not sender else f"x@{sender}", destination)
            return next((each for each in ways[1:] if each.plan.rule == plan.rule), ways[0])
        return ways[0]

    def of(self, sender: str, destination: str, *, released: bool = False) -> Plan:
        """The plan for mail from an address ("" = null sender) to a domain. What was `released` no rule holds again:
        the next best one counts."""
        if not self._plans:
            return self._default
        try:
            return self._lookup(parse_address(sender).domain if sender else NULL_SENDER, destination, released)
        except AddressError:
            return self._lookup("?", destination)

    def _find(self, sender: str, destination: str, released: bool = False) -> Plan:
        for recipient in _patterns(destination):
            if (of := self._by_recipient.get(recipient)) is not None:
                for each in _patterns(sender):
                    plan = of.get(each)
                    if plan is not None and not (released and plan.action == "hold"):
                        return plan
        return self._default

    def _find_ways(self, destination: str) -> tuple[Way, ...]:
        if not self.sender_patterns or not destination:
            return (Way(destination, destination, self._lookup("?", destination) if destination else self._default),)
        found: dict[str, Plan] = {}
        for recipient in _patterns(destination):
            if (of := self._by_recipient.get(recipient)) is not None:
                # As `_find` goes: a domain, then the longest *.domain that fits.
                for sender in sorted(of, key=lambda each: (each == ANY, each.startswith("*"), -len(each))):
                    found.setdefault(sender, of[sender])
                if ANY in of:
                    break
        before: list[str] = []
        ways = []
        for sender, plan in found.items():
            if sender != ANY:
                name = f"{destination} by rule {plan.rule}"
                ways.append(Way(name, destination, plan, _like([sender]), _like(before)))
                before.append(sender)
        return Way(destination, destination, found.get(ANY, self._default), None, _like(before)), *ways


def _like(senders: Iterable[str]) -> tuple[str, ...]:
    """Sender patterns as LIKE has them, domains also as people write them."""
    texts: dict[str, None] = {}
    for sender in senders:
        star, domain = ("%", sender[1:]) if sender.startswith("*") else ("", sender)
        for each in (domain, display_domain(domain.removeprefix("."))) if domain != NULL_SENDER else ("",):
            dot = "." if star and not each.startswith(".") else ""
            text = each.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            texts[star + dot + text] = None
    return tuple(texts)


def _patterns(domain: str) -> Iterator[str]:
    """Patterns that a domain fits, the most particular first."""
    yield domain
    rest = domain
    while "." in rest and not rest.startswith("["):
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    yield ANY


def _plan(rule: Rule) -> Plan:
    relay = None
    if rule.action == "relay" and rule.host:
        try:
            password = secrets.unseal(rule.password).decode() if rule.password is not None else None
        except secrets.SealError as error:
            text = f"the password of rule {rule.id} cannot be opened: {error}"
            log.error("mail waits: %s (`manage.py route add` with the same domains replaces it)", text)
            return Plan("unusable", text=text, rule=rule.id)
        relay = Smarthost(rule.host, rule.port or SMTP_PORT, rule.username, password)
    return Plan(
        *(rule.action, relay, rule.tls, rule.source4, rule.source6, rule.hello),
        *(rule.connections, rule.per_connection, rule.per_minute, rule.text, rule.id),
    )
