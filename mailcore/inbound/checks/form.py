"""What RFC 5322 §3.6 asks of a header, noted for the trace: mail without From or Date, or with several, is suspect."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.inbound.checks import Letter
from mailcore.inbound.verdict import Action, Finding

_ONCE = {b"from": "From", b"date": "Date"}


def check(letter: Letter) -> Sequence[Finding]:
    """Note From and Date fields that are missing or repeated."""
    lowered = b"\n" + letter.header.lower()
    findings = []
    for name, shown in _ONCE.items():
        count = lowered.count(b"\n" + name + b":")
        if count != 1:
            findings.append(Finding("form", Action.NOTE, f"{count} {shown} fields" if count else f"no {shown} field"))
    return findings
