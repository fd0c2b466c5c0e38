"""SASL on the server side (RFC 4422), the same for IMAP, SMTP, POP3 and ManageSieve; sans I/O.

`exchange = start("PLAIN", initial)`, then look at `exchange.step`: a Challenge is sent to the client base64-encoded
and its decoded answer given to `exchange.respond()`; KeysWanted (SCRAM) is answered with Keys. It ends with
Credentials, which are to be checked, or Proven. A mechanism is a generator and a row in MECHANISMS.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from mailcore.wire import scram
from mailcore.wire.sasl_steps import MAX_NAME, MAX_PASSWORD, MAX_RESPONSE, Challenge, SaslError, text_of
from mailcore.wire.scram import Keys, KeysWanted, Proven, Verifier

__all__ = [
    "MAX_NAME",
    "MAX_PASSWORD",
    "MAX_RESPONSE",
    "MECHANISMS",
    "Challenge",
    "Credentials",
    "Exchange",
    "Keys",
    "KeysWanted",
    "Mechanism",
    "Proven",
    "SaslError",
    "Verifier",
    "decode_initial",
    "decode_response",
    "encode_challenge",
    "offered",
    "start",
]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What PLAIN and LOGIN end with: to be checked by auth/login. `authzid` is "" when the client named none."""

    mechanism: str
    authcid: str
    password: str
    authzid: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.mechanism}, authcid={self.authcid!r}, authzid={self.authzid!r}, password=***)"


Step = Challenge | KeysWanted | Credentials | Proven
Steps = Generator[Challenge, bytes, Credentials]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row of the registry. `scram`: it takes app passwords only; `binding`: it needs a channel to be bound to.

    `run` is a generator: yields Challenge and receives the client's octets, yields KeysWanted and receives Keys,
    returns Credentials or Proven. It is given the initial response or None, and the connection's channel bindings.
    """

    name: str
    run: Callable[[bytes | None, Mapping[str, bytes]], Generator[Any, Any, Credentials | Proven]]
    scram: bool = False
    binding: bool = False


def _credentials(mechanism: str, authzid: bytes, authcid: bytes, password: bytes) -> Credentials:
    if not authcid:
        raise SaslError("The user name is empty")
    if not password:
        raise SaslError("The password is empty")
    return Credentials(
        mechanism,
        authcid=text_of(authcid, "user name", MAX_NAME),
        password=text_of(password, "password", MAX_PASSWORD),
        authzid=text_of(authzid, "authorization identity", MAX_NAME),
    )


def _plain(initial: bytes | None, bindings: Mapping[str, bytes]) -> Steps:
    """PLAIN, RFC 4616: [authzid] NUL authcid NUL password."""
    message = (yield Challenge(b"")) if initial is None else initial
    fields = message.split(b"\0")
    if len(fields) != 3:
        raise SaslError("PLAIN wants: authorization identity, NUL, user name, NUL, password")
    return _credentials("PLAIN", *fields)


def _login(initial: bytes | None, bindings: Mapping[str, bytes]) -> Steps:
    """LOGIN, obsolete and still used: user name and password, each asked for. An initial response is the user name."""
    user = (yield Challenge(b"Username:")) if initial is None else initial
    password = yield Challenge(b"Password:")
    return _credentials("LOGIN", b"", user, password)


MECHANISMS: Mapping[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("SCRAM-SHA-256-PLUS", scram.mechanism("SCRAM-SHA-256-PLUS"), scram=True, binding=True),
        Mechanism("SCRAM-SHA-256", scram.mechanism("SCRAM-SHA-256"), scram=True),
        Mechanism("PLAIN", _plain),
        Mechanism("LOGIN", _login),
    )
}


def offered(bindings: Mapping[str, bytes], *, scram: bool) -> list[str]:
    """The mechanisms that a client may use, the strongest first. `bindings`: those of its connection."""
    return [one.name for one in MECHANISMS.values() if (scram or not one.scram) and (bindings or not one.binding)]


class Exchange:
    """A running exchange; `step` is what to do now."""

    __slots__ = ("_run", "step")

    def __init__(self, mechanism: Mechanism, initial: bytes | None, bindings: Mapping[str, bytes]) -> None:
        self._run = mechanism.run(initial, bindings)
        self.step: Step = self._advance(lambda: next(self._run))

    def respond(self, answer: bytes | Keys) -> Step:
        """Give what the step asked for, a decoded answer or Keys; returns (and keeps in `step`) what is to do next.

        Raises SaslError.
        """
        self.step = self._advance(lambda: self._run.send(answer))
        return self.step

    @staticmethod
    def _advance(resume: Callable[[], Challenge | KeysWanted]) -> Step:
        try:
            return resume()
        except StopIteration as end:
            result: Credentials | Proven = end.value
            return result


def start(mechanism: str, initial: bytes | None = None, bindings: Mapping[str, bytes] | None = None) -> Exchange:
    """Begin an exchange with the decoded initial response, None if there was none.

    Raises SaslError, for an unknown mechanism too.
    """
    found = MECHANISMS.get(mechanism.upper())
    if found is None:
        raise SaslError("Unknown authentication mechanism")
    return Exchange(found, initial, bindings or {})


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
