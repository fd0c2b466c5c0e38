"""From findings to a decision: the worst action wins, every finding is kept as a reason for the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from mailcore.errors import Code


class Action(IntEnum):
    """What a finding asks for, the mildest first."""

    NOTE = 0
    DEFER = 1
    REJECT = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found out. `code` and `text` go to the sender when `action` is more than a note."""

    check: str
    action: Action
    text: str
    code: Code = Code.NO_PERMISSION


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision over a message. Filing by score (Junk) and by Sieve builds on `findings`."""

    action: Action
    findings: tuple[Finding, ...]

    @property
    def decisive(self) -> Finding | None:
        """The finding that decided, None when the message is taken."""
        return next((f for f in self.findings if f.action is self.action), None) if self.action else None

    def reasons(self) -> list[str]:
        """What was found, for the trace."""
        return [f"{finding.check}: {finding.text}" for finding in self.findings]


def decide(findings: Sequence[Finding]) -> Verdict:
    """The verdict over a message."""
    return Verdict(max((finding.action for finding in findings), default=Action.NOTE), tuple(findings))
