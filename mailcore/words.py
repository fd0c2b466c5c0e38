"""Values as people read them, on a terminal and in a page."""

from __future__ import annotations

import re
from typing import Any

# What moves a terminal's cursor, or turns the direction of what follows: strangers choose such words, too.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(words: str) -> str:
    """Words that do no harm to a terminal or a log: control characters as `\\x1b`."""
    return words if words.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", words)


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return printable(", ".join(str(item) for item in value)) or "-"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return printable(str(value))


def shown_size(octets: int | None) -> str:
    """Octets as people read them."""
    if octets is None:
        return "no limit"
    value = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
