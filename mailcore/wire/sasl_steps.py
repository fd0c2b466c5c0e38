"""What SASL mechanisms are made of: their limits, their error and the step that all of them know."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RESPONSE = 12_288
"""Octets of one base64 line (RFC 4954 §4.3 asks for 12,288)."""
MAX_NAME = 1_024
MAX_PASSWORD = 1_024
"""Octets. Longer ones are refused before anything is hashed."""


class SaslError(Exception):
    """The exchange failed before any secret was checked; `text` is for the client. `cancelled`: the client sent `*`."""

    def __init__(self, text: str, *, cancelled: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.cancelled = cancelled


@dataclass(frozen=True, slots=True)
class Challenge:
    """Octets to send (not yet base64)."""

    data: bytes


def text_of(raw: bytes, what: str, limit: int) -> str:
    """Octets as UTF-8 text without NUL, within a limit. Raises SaslError."""
    if len(raw) > limit:
        raise SaslError(f"The {what} is too long")
    if b"\0" in raw:
        raise SaslError(f"The {what} contains NUL")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SaslError(f"The {what} is not UTF-8") from None
