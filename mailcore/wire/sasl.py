"""SASL on the server side (RFC 4422), the same for IMAP, SMTP, POP3 and ManageSieve; sans I/O.

`exchange = start("PLAIN", initial)`, then look at `exchange.step`: a Challenge is sent to the client base64-encoded
and its decoded answer given to `exchange.respond()`; Credentials end it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class Credentials:
    """What PLAIN and LOGIN end with: to be checked by auth/login. `authzid` is "" when the client named none."""

    mechanism: str
    authcid: str
    password: str
    authzid: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.mechanism}, authcid={self.authcid!r}, authzid={self.authzid!r}, password=***)"


Step = Challenge | Credentials


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row of the registry. `plaintext`: the secret itself crosses the wire, so it needs TLS or an exception to it.

    `run` is a generator: yields Challenge and receives the client's octets, returns Credentials. It is given the
    initial response or None.
    """

    name: str
    plaintext: bool
    run: Callable[[bytes | None], Generator[Challenge, bytes, Credentials]]


MECHANISMS: Mapping[str, Mechanism] = {}


class Exchange:
    """A running exchange; `step` is what to do now."""

    step: Step

    def respond(self, data: bytes) -> Step:
        """Give the client's decoded answer. Raises SaslError."""
        raise NotImplementedError


def start(mechanism: str, initial: bytes | None = None) -> Exchange:
    """Begin an exchange with the decoded initial response, None if there was none. Raises SaslError (unknown mechanism too)."""
    raise NotImplementedError


def decode_response(line: bytes, *, limit: int = 12_288) -> bytes:
    """Decode a client's base64 line; `*` raises SaslError(cancelled=True), bad base64 or length SaslError."""
    raise NotImplementedError


def decode_initial(text: bytes, *, limit: int = 12_288) -> bytes:
    """Decode an initial response: like decode_response, and `=` is empty (RFC 4959)."""
    raise NotImplementedError


def encode_challenge(data: bytes) -> bytes:
    """Base64 without line breaks."""
    raise NotImplementedError
