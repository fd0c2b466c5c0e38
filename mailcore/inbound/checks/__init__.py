"""What is looked at before a message is taken.

A check is a function from a Letter to its findings, async if it asks others.

REQUIRED guards ourselves and the network and cannot be switched off; OPTIONAL judges the message and runs unless
MAILSTEAD_CHECKS is `off`. A check runs in at most `TIMEOUT` seconds; one that fails or is late is noted in the trace
and lets the message pass (it never fails silently, and never costs a message)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mailcore.inbound.envelope import Envelope
from mailcore.inbound.verdict import Action, Finding

log = logging.getLogger(__name__)

TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """What a check may look at: the envelope, the header as it came, and the whole message."""

    envelope: Envelope
    header: bytes
    raw: bytes


Findings = Sequence[Finding]
Check = Callable[[Letter], Findings | Awaitable[Findings]]


async def run(checks: Sequence[tuple[str, Check]], letter: Letter) -> list[Finding]:
    """The findings of all `checks`, in order."""
    findings: list[Finding] = []
    for name, check in checks:
        try:
            result = check(letter)
            if isinstance(result, Awaitable):
                async with asyncio.timeout(TIMEOUT):
                    result = await result
            findings.extend(result)
        except TimeoutError:
            findings.append(Finding(name, Action.NOTE, f"no result within {TIMEOUT:.0f} s"))
        except Exception as error:
            log.exception("the check %s failed", name)
            findings.append(Finding(name, Action.NOTE, f"failed: {type(error).__name__}"))
    return findings
