"""SASL on the server side (RFC 4422), the same for IMAP, SMTP, POP3 and ManageSieve; sans I/O.

`exchange = start("PLAIN", initial)`, then look at `exchange.step`: a Challenge is sent to the client base64-encoded
and its decoded answer given to `exchange.respond()`; Credentials end it. A mechanism is a generator and a row in
MECHANISMS; one that checks the secret itself (SCRAM) will yield a further kind of Step for the keys it needs.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator, Mapping
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
Steps = Generator[Challenge, bytes, Credentials]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row of the registry. `plaintext`: the secret itself crosses the wire, so it needs TLS or an exception to it.

    `run` is a generator: yields Challenge and receives the client's octets, returns Credentials. It is given the
    initial response or None.
    """

    name: str
    plaintext: bool
    run: Callable[[bytes | None], Steps]


def _decode(raw: bytes, what: str, limit: int) -> str:
    if len(raw) > limit:
        raise SaslError(f"The {what} is too long")
    if b"\0" in raw:
        raise SaslError(f"The {what} contains NUL")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SaslError(f"The {what} is not UTF-8") from None


def _credentials(mechanism: str, authzid: bytes, authcid: bytes, password: bytes) -> Credentials:
    if not authcid:
        raise SaslError("The user name is empty")
    if not password:
        raise SaslError("The password is empty")
    return Credentials(
        mechanism,
        authcid=_decode(authcid, "user name", MAX_NAME),
        password=_decode(password, "password", MAX_PASSWORD),
        authzid=_decode(authzid, "authorization identity", MAX_NAME),
    )


def _plain(initial: bytes | None) -> Steps:
    """PLAIN, RFC 4616: [authzid] NUL authcid NUL password."""
    message = (yield Challenge(b"")) if initial is None else initial
    fields = message.split(b"\0")
    if len(fields) != 3:
        raise SaslError("PLAIN wants: authorization identity, NUL, user name, NUL, password")
    return _credentials("PLAIN", *fields)


def _login(initial: bytes | None) -> Steps:
    """LOGIN, obsolete and still used: user name and password, each asked for. An initial response is the user name."""
    user = (yield Challenge(b"Username:")) if initial is None else initial
    password = yield Challenge(b"Password:")
    return _credentials("LOGIN", b"", user, password)


MECHANISMS: Mapping[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("PLAIN", plaintext=True, run=_plain),
        Mechanism("LOGIN", plaintext=True, run=_login),
    )
}


class Exchange:
    """A running exchange; `step` is what to do now."""

    __slots__ = ("_run", "step")

    def __init__(self, mechanism: Mechanism, initial: bytes | None) -> None:
        self._run = mechanism.run(initial)
        self.step: Step = self._advance(lambda: next(self._run))

    def respond(self, data: bytes) -> Step:
        """Give the client's decoded answer; returns (and keeps in `step`) what to do next. Raises SaslError."""
        self.step = self._advance(lambda: self._run.send(data))
        return self.step

    @staticmethod
    def _advance(resume: Callable[[], Challenge]) -> Step:
        try:
            return resume()
        except StopIteration as end:
            result: Credentials = end.value
            return result


def start(mechanism: str, initial: bytes | None = None) -> Exchange:
    """Begin an exchange with the decoded initial response, None if there was none.

    Raises SaslError, for an unknown mechanism too.
    """
    found = MECHANISMS.get(mechanism.upper())
    if found is None:
        raise SaslError("Unknown authentication mechanism")
    return Exchange(found, initial)


def decode_response(line: bytes, *, limit: int = MAX_RESPONSE) -> bytes:
    """Decode a client's base64 line; `*` raises SaslError(cancelled=True), bad base64 or length SaslError."""
    if line == b"*":
        raise SaslError("Authentication cancelled", cancelled=True)
    if len(line) > limit:
        raise SaslError("The authentication response is too long")
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise SaslError("The authentication response is not valid base64") from None


def decode_initial(text: bytes, *, limit: int = MAX_RESPONSE) -> bytes:
    """Decode an initial response: like decode_response, and `=` is empty (RFC 4959)."""
    return b"" if text == b"=" else decode_response(text, limit=limit)


def encode_challenge(data: bytes) -> bytes:
    """Base64 without line breaks."""
    return binascii.b2a_base64(data, newline=False)
