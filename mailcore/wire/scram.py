"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS on the server side (RFC 5802, 7677), with the channel binding of RFC 5929.

The client proves that it knows a secret of which the server keeps only what cannot be used to log in. An account may
have several such secrets: they share salt and iteration count, and whichever fits the proof is the one that was used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from mailcore.wire.sasl_steps import MAX_NAME, Challenge, SaslError, text_of

_FIRST = re.compile(
    rb"((?:n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,]*))?,)(n=([^,]*),r=([\x21-\x2b\x2d-\x7e]{1,1024}))(?:,[A-Za-z]=[^,]*){0,9}"
)
_FINAL = re.compile(
    rb"(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,]*){0,9}),p=([A-Za-z0-9+/=]{1,100})"
)
_ESCAPE = re.compile(rb"=(2C|3D)?")


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """A step: whose keys are needed; Keys are the answer."""

    user: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is kept of one secret; `secret_id` tells which."""

    stored_key: bytes
    server_key: bytes
    secret_id: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """What the server knows of somebody; of somebody who is not there, a salt all the same and no verifier."""

    salt: bytes
    iterations: int
    verifiers: Sequence[Verifier]


@dataclass(frozen=True, slots=True)
class Proven:
    """What SCRAM ends with: the secret that the client knows, None when it knows none of them."""

    mechanism: str
    authcid: str
    secret_id: bytes | None
    authzid: str = ""


Steps = Generator[Challenge | KeysWanted, "bytes | Keys", Proven]


def mechanism(name: str, *, nonce: Callable[[], bytes] | None = None) -> Callable[..., Steps]:
    """The generator of a mechanism; a name that ends in -PLUS demands channel binding."""
    plus = name.endswith("-PLUS")
    make_nonce = nonce or (lambda: base64.b64encode(os.urandom(18)))

    def run(initial: bytes | None, bindings: Mapping[str, bytes]) -> Steps:
        first = initial if initial is not None else (yield Challenge(b""))
        found = _FIRST.fullmatch(_octets(first))
        if found is None:
            raise SaslError(f"{name}: the client's first message cannot be read")
        header, kind, authzid, bare, user, client_nonce = found.groups()
        binding = _binding(header, kind, bindings, plus=plus)
        authcid = _name(user)
        known = yield KeysWanted(authcid)
        assert isinstance(known, Keys)
        whole_nonce = client_nonce + make_nonce()
        server_first = b"r=%b,s=%b,i=%d" % (whole_nonce, base64.b64encode(known.salt), known.iterations)
        final = _FINAL.fullmatch(_octets((yield Challenge(server_first))))
        if final is None:
            raise SaslError(f"{name}: the client's final message cannot be read")
        said, bound, answered, proof = final.groups()
        if answered != whole_nonce:
            raise SaslError(f"{name}: the nonce is another one")
        if not hmac.compare_digest(_base64(bound), header + binding):
            raise SaslError(f"{name}: the channel binding does not fit this connection")
        message = bare + b"," + server_first + b"," + said
        verifier = _fitting(known.verifiers, message, _base64(proof))
        if verifier is not None and (yield Challenge(b"v=" + base64.b64encode(_hmac(verifier.server_key, message)))):
            raise SaslError(f"{name}: nothing was expected after the server's signature")
        secret_id = None if verifier is None else verifier.secret_id
        return Proven(name, authcid, secret_id, _name(authzid) if authzid else "")

    return run


def _octets(value: bytes | Keys) -> bytes:
    assert isinstance(value, bytes)
    return value


def _binding(header: bytes, kind: bytes | None, bindings: Mapping[str, bytes], *, plus: bool) -> bytes:
    """The octets of the channel that the client has to name after its header."""
    if kind is None:
        if plus:
            raise SaslError("The -PLUS mechanism needs channel binding")
        if header.startswith(b"y") and bindings:
            # It believes that we cannot, and we said that we can: somebody took it out of what we said.
            raise SaslError("The server does support channel binding")
        return b""
    if not plus:
        raise SaslError("Channel binding needs the -PLUS mechanism")
    octets = bindings.get(kind.decode("ascii"))
    if octets is None:
        raise SaslError(f"Channel binding can be of {', '.join(sorted(bindings)) or 'no kind'} here")
    return octets


def _name(raw: bytes) -> str:
    """A name with `=2C` and `=3D` for comma and equals sign."""

    def plain(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise SaslError("The user name is badly encoded")
        return b"," if found[1] == b"2C" else b"="

    if not raw:
        raise SaslError("The user name is empty")
    return text_of(_ESCAPE.sub(plain, raw), "user name", MAX_NAME)


def _base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise SaslError("The authentication response is not valid base64") from None


def _fitting(verifiers: Sequence[Verifier], message: bytes, proof: bytes) -> Verifier | None:
    """The verifier of the secret that made the proof; the time taken does not tell which comes close."""
    fitting = None
    if len(proof) != 32:
        return None
    for verifier in verifiers:
        signature = _hmac(verifier.stored_key, message)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
            fitting = verifier
    return fitting


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
