"""What an administrator may settle for a domain or an account: who may write to it, and how much it may send.

One table, SETTINGS, says what there is. What is set stands as JSON in the `policy` column of the domain or the account;
an account's own value goes before its domain's, that before the default. `effective` reads the two columns, wherever
mail is taken or sent; `change` and `shown` are for the commands and pages of the administration.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from accounts.addresses import domain_name, normalise
from accounts.errors import AddressError, PeopleError

if TYPE_CHECKING:  # the worker reads policies, and loads no models
    from accounts.models import Account, Domain

Subject = Literal["account", "address", "domain"]

MAX_SENDERS = 1_000  # in one list
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _flag(text: str) -> bool:
    try:
        return {"on": True, "yes": True, "off": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("on or off is wanted") from None


def _size(text: str) -> int | None:
    written = text.upper().removesuffix("B").removesuffix("I")
    unit = _UNITS.get(written[-1:], 1)
    digits = written[:-1] if written[-1:] in _UNITS else written
    if text.lower() == "none":
        return None
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:15]) * unit < 1 << 50:
        raise ValueError("a size such as 500K or 25M is wanted, or none")
    return int(digits) * unit


def _limit(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError("a number is wanted, up to 999999999, or none")
    return int(text)


def _priority(text: str) -> int:
    if text not in tuple("0123456789"):
        raise ValueError("a number from 0 to 9 is wanted")
    return int(text)


def _sts(text: str) -> str:
    if text.lower() not in ("none", "testing", "enforce"):
        raise ValueError("none, testing or enforce is wanted")
    return text.lower()


def _senders(text: str) -> list[str]:
    """Addresses, domains (their subdomains with them) and `*`, separated by commas; `none` for an empty list."""
    found: dict[str, None] = {}
    for word in text.replace(",", " ").split():
        word = word.removeprefix("*@")
        if word.lower() == "none":
            continue
        try:
            found[word if word == "*" else normalise(word) if "@" in word else domain_name(word[:300])] = None
        except AddressError as error:
            raise ValueError(f"{word[:100]!r} is neither an address, a domain nor *: {error.text}") from None
    if len(found) > MAX_SENDERS:
        raise ValueError(f"{MAX_SENDERS} senders at most can be listed")
    return list(found)


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing to settle; `of_domain`: for whole domains only."""

    name: str
    default: Any
    parse: Callable[[str], Any]
    meaning: str
    of_domain: bool = False


_LIMITS = (
    *(("messages-per-hour", None), ("messages-per-day", None)),
    *(("recipients-per-hour", 500), ("recipients-per-day", 2000)),
)

SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("plus-tags", True, _flag, "name+tag@ is received by name@"),
        Setting("catch-all", True, _flag, "the alias *@domain receives what nobody else does", of_domain=True),
        Setting("max-message-size", None, _size, "largest message that is taken from anybody"),
        Setting("max-priority", 4, _priority, "highest priority (MT-PRIORITY) that mail may be sent with"),
        Setting("require-tls", False, _flag, "mail from other servers is taken over TLS only"),
        Setting(
            *("refuse-own-senders", False, _flag, "mail from other servers with a sender of this domain is refused"),
            of_domain=True,
        ),
        Setting("mta-sts", "none", _sts, "what our MTA-STS policy asks: none, testing, enforce", of_domain=True),
        Setting("blocked-senders", [], _senders, "addresses and domains that are refused; * = everybody"),
        Setting("allowed-senders", [], _senders, "exceptions from blocked-senders"),
        *(Setting(name, default, _limit, f"{name.replace('-', ' ')} of an account") for name, default in _LIMITS),
        *(
            Setting(f"address-{name}", None, _limit, f"{name.replace('-', ' ')} from one sender address")
            for name, _ in _LIMITS
        ),
        *(
            Setting(f"domain-{name}", None, _limit, f"{name.replace('-', ' ')} of all its accounts", of_domain=True)
            for name, _ in _LIMITS
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be sent; None = no limit."""

    messages_per_hour: int | None
    messages_per_day: int | None
    recipients_per_hour: int | None
    recipients_per_day: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for an account (or for an address that is no account's): its own settings over its domain's.

    `rules`: pairs of senders that are allowed and blocked, the account's before the domain's.
    """

    max_message_size: int | None
    require_tls: bool
    refuse_own_senders: bool
    rules: tuple[tuple[frozenset[str], frozenset[str]], ...]
    account: Limits
    address: Limits
    domain: Limits
    max_priority: int

    def blocks(self, sender: str) -> bool:
        """Whether mail from this address (normalised, without tag) is refused; "", a bounce, never is."""
        if not sender:
            return False
        for allowed, blocked in self.rules:
            if _listed(sender, allowed):
                return False
            if _listed(sender, blocked):
                return True
        return False


def _listed(sender: str, senders: frozenset[str]) -> bool:
    if not senders:
        return False
    if "*" in senders or sender in senders:
        return True
    domain = sender.rpartition("@")[2]
    while domain:
        if domain in senders:
            return True
        domain = domain.partition(".")[2]
    return False


@lru_cache(maxsize=4096)
def effective(domain: str | None, account: str | None = None) -> Policy:
    """The policy of the two columns, as the JSON text that Postgres gives."""
    above, own = json.loads(domain or "{}"), json.loads(account or "{}")
    both = above | own

    def value(name: str, source: Mapping[str, Any] = both) -> Any:
        return source.get(name, SETTINGS[name].default)

    def limits(prefix: str) -> Limits:
        return Limits(*(value(prefix + name) for name, _ in _LIMITS))

    return Policy(
        value("max-message-size"),
        value("require-tls"),
        value("refuse-own-senders"),
        tuple(
            (frozenset(value("allowed-senders", each)), frozenset(value("blocked-senders", each)))
            for each in (own, above)
            if each.get("allowed-senders") or each.get("blocked-senders")
        ),
        limits(""),
        limits("address-"),
        limits("domain-"),
        value("max-priority"),
    )


def value_of(domain: Domain, name: str) -> Any:
    """What is settled for a domain; for another name of one, what is settled for that."""
    policy = domain.alias_of.policy if domain.alias_of else domain.policy
    return policy.get(name, SETTINGS[name].default)


def change(subject: Domain | Account, words: Sequence[str]) -> set[str]:
    """Settle things: `name=value`, or `name=default` to take it back. Raises PeopleError; then nothing has changed.

    Returns the names of what was settled.
    """
    from django.db import transaction

    with transaction.atomic():
        # As it is now, and locked: what somebody else settles at the same moment stays.
        policy = dict(
            type(subject)._default_manager.select_for_update().values_list("policy", flat=True).get(pk=subject.pk)
        )
        settled = _settle(subject, policy, words)
        subject.policy = policy
        subject.save(update_fields=["policy"])
    return settled


def _settle(subject: Domain | Account, policy: dict[str, Any], words: Sequence[str]) -> set[str]:
    from accounts.models import Account

    settled = set()
    for word in words:
        name, equals, text = word.partition("=")
        setting = SETTINGS.get(name.strip().lower())
        if setting is None:
            near = difflib.get_close_matches(name[:100].lower(), SETTINGS, n=1)
            hint = f"is {near[0]} meant?" if near else "without any, `policy` shows all there are."
            raise PeopleError(f"There is no policy {name[:100]!r}: {hint}")
        if isinstance(subject, Account) and setting.of_domain:
            raise PeopleError(f"{setting.name} is settled for whole domains: see `manage.py domain policy`.")
        if not equals:
            raise PeopleError(f"Say what {setting.name} is to be: {setting.name}=VALUE, or {setting.name}=default.")
        settled.add(setting.name)
        if text.strip().lower() == "default":
            policy.pop(setting.name, None)
            continue
        try:
            policy[setting.name] = setting.parse(text.strip())
        except ValueError as error:
            raise PeopleError(f"{setting.name}: {text[:100]!r} cannot be used: {error}.") from None
    return settled


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as it holds; `by` says who settled it: "account", "domain" or "default"."""

    name: str
    value: Any
    by: str
    meaning: str


def shown(subject: Domain | Account) -> list[Shown]:
    """All settings of a domain or an account, with what holds now."""
    layers: list[tuple[str, dict[str, Any]]] = [("domain", subject.policy)]
    from accounts.models import Account

    if isinstance(subject, Account):
        layers = [("account", subject.policy), ("domain", subject.domain.policy)]
    rows = []
    for setting in SETTINGS.values():
        if isinstance(subject, Account) and setting.of_domain:
            continue
        by, value = next(
            ((by, layer[setting.name]) for by, layer in layers if setting.name in layer), ("default", setting.default)
        )
        rows.append(Shown(setting.name, value, by, setting.meaning))
    return rows
