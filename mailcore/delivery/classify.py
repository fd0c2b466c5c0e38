"""What kind of refusal a reply is, for people, for statistics, and for the list of suppressed addresses.

Servers say the same thing in many ways, and their enhanced status codes are often wrong: the table is asked from top to
bottom, and words that are hard to mistake come before codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mailcore.delivery.outcome import Outcome, Stage, Verdict

Category = Literal[
    "bad-mailbox",
    "inactive",
    "bad-domain",
    "quota",
    "too-big",
    "policy",
    "content",
    "auth",
    "rate",
    "greylist",
    "network",
    "protocol",
    "loop",
    "temporary",
    "other",
]

# Categories that say "there is nobody of this name", today and tomorrow: the only ones that suppress an address.
NOBODY: frozenset[Category] = frozenset({"bad-mailbox", "inactive"})


@dataclass(frozen=True, slots=True)
class _Sign:
    """Matches when everything given does: enhanced status, words, first digit of the reply."""

    category: Category
    status: re.Pattern[str] | None = None
    words: re.Pattern[str] | None = None
    first: int | None = None


def _sign(category: Category, *, status: str = "", words: str = "", first: int | None = None) -> _Sign:
    return _Sign(category, re.compile(status) if status else None, re.compile(words, re.I) if words else None, first)


_SIGNS = (
    _sign("greylist", words=r"gr[ae]y-?list", first=4),
    _sign("rate", words=r"too many (connections|messages|mails|sessions|recipients|concurrent)|rate.?limit|throttl|"
          r"unusual rate|try again later.*(volume|busy)|server (is )?(too )?busy|receiving mail at a rate"),
    _sign("loop", status=r"[45]\.4\.6|5\.4\.14", words=r"loop|hop count|hops|routing"),
    _sign("quota", status=r"[45]\.2\.2"),
    _sign("quota", words=r"over ?quota|quota exceeded|mailbox (is )?full|insufficient (storage|space)"),
    # Blocks of us, before anything about mailboxes: providers answer 5.1.1 and 5.7.1 to those they do not trust.
    _sign("policy", words=r"block(ed|ing|list)|blacklist|spamhaus|spamcop|barracuda|sorbs|\bdnsbl\b|\brbl\b|reputation|"
          r"banned|not accepting mail from|access denied|denied by policy|poor sender|suspicious|relay(ing)? (access )?"
          r"(denied|not permitted)|unable to relay|reverse dns|\bptr\b|\brdns\b"),
    _sign("auth", status=r"[45]\.7\.(2[0-9]|8|9)"),
    _sign("auth", words=r"\bspf\b|\bdkim\b|\bdmarc\b|unauthenticated|authentication (is )?required|not authenticated"),
    _sign("content", words=r"\bspam\b|\bvirus|malware|phish|content (was |is )?(reject|denied)|attachment"),
    _sign("content", status=r"5\.6\.\d+"),
    _sign("inactive", words=r"(account|mailbox|user|recipient).{0,40}(disabled|inactive|suspended|closed|deactivated|"
          r"no longer (available|active|in use|valid|accept))", first=5),
    _sign("inactive", status=r"5\.2\.1", first=5),
    _sign("bad-mailbox", words=r"(no such|unknown|invalid|non-?existent|nonexisting) (local )?(user|recipient|mailbox|"
          r"address|account|person|alias)|(user|recipient|mailbox|address|account)( \S+)? (is )?(unknown|not found|"
          r"does ?n.?t exist|does not exist|not exist|invalid|not known)|user unknown|no mailbox here|not our customer|"
          r"(recipient|address) rejected: (user unknown|undeliverable)|mailbox unavailable", first=5),
    _sign("bad-mailbox", status=r"5\.1\.(1|0|3|6)", first=5),
    _sign("bad-domain", status=r"[45]\.1\.(2|10)|[45]\.4\.4"),
    _sign("too-big", status=r"[45]\.3\.4|5\.2\.3"),
    _sign("too-big", words=r"(message|mail).{0,20}(too (big|large)|exceeds).{0,30}|size limit", first=5),
    _sign("policy", status=r"[45]\.7\.\d+"),
    _sign("network", status=r"[45]\.4\.\d+"),
    _sign("protocol", status=r"[45]\.5\.\d+"),
)  # fmt: skip


def category(outcome: Outcome) -> Category:
    """The kind of an outcome that is no delivery."""
    if not outcome.remote:
        return _ours(outcome)
    first = int(outcome.status[:1]) if outcome.status[:1].isdigit() else (outcome.code or 0) // 100
    for sign in _SIGNS:
        if sign.first is not None and sign.first != first:
            continue
        if sign.status is not None and not sign.status.fullmatch(outcome.status):
            continue
        if sign.words is not None and not sign.words.search(outcome.text):
            continue
        return sign.category
    return "temporary" if outcome.verdict is not Verdict.FAILED else "other"


def _ours(outcome: Outcome) -> Category:
    """What we found out ourselves: by the status that we chose."""
    subject = outcome.status.partition(".")[2]
    if subject in ("1.2", "1.10", "4.4"):
        return "bad-domain"
    if subject == "4.6":
        return "loop"
    if subject == "3.4":
        return "too-big"
    if subject.startswith("6."):
        return "content"
    if subject.startswith("7."):
        return "auth" if outcome.stage is Stage.AUTH else "policy"
    if outcome.stage in (Stage.ROUTE, Stage.CONNECT, Stage.GREETING, Stage.HELLO, Stage.TLS):
        return "network"
    return "temporary" if outcome.verdict is not Verdict.FAILED else "other"


def is_nobody(outcome: Outcome) -> bool:
    """Whether a remote said for good, of this recipient (RCPT TO), that there is nobody of that name."""
    return (
        outcome.verdict is Verdict.FAILED
        and outcome.remote
        and outcome.stage is Stage.RCPT
        and category(outcome) in NOBODY
    )


def is_strain(outcome: Outcome) -> bool:
    """Whether the host says that we are too much for it: fewer connections, then."""
    if outcome.verdict is Verdict.DELIVERED:
        return False
    return outcome.code == 421 or (
        outcome.remote and outcome.verdict is not Verdict.FAILED and category(outcome) == "rate"
    )
