"""Mail that goes in circles: too many servers have passed it on already (RFC 5321 §6.3)."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.errors import Code
from mailcore.inbound.checks import Letter
from mailcore.inbound.headers import hops
from mailcore.inbound.verdict import Action, Finding

MAX_HOPS = 50


def check(letter: Letter) -> Sequence[Finding]:
    """Refuse what has more than MAX_HOPS Received fields."""
    count = hops(letter.header)
    if count <= MAX_HOPS:
        return ()
    return (Finding("loop", Action.REJECT, f"The message has passed {count} servers: it goes in circles", Code.LOOP),)
