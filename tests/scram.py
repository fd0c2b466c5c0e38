"""SCRAM as a client speaks it (RFC 5802), written for tests from the RFC alone."""

from __future__ import annotations

import base64
import hashlib
import hmac


class ScramClient:
    """One exchange: `first()`, then `final(server-first)`, then `accepts(server-final)`."""

    def __init__(self, user: str, password: str, *, header: bytes = b"n,,", binding: bytes = b"") -> None:
        self._password = password.encode()
        self._header = header
        self._binding = binding
        name = user.replace("=", "=3D").replace(",", "=2C").encode()
        self._bare = b"n=%b,r=rOprNGfwEbeRWgbNEkqO" % name
        self._server_signature = b""

    def first(self) -> bytes:
        return self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(fields[b"s"]), int(fields[b"i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        said = b"c=%b,r=%b" % (base64.b64encode(self._header + self._binding), fields[b"r"])
        message = b",".join((self._bare, server_first, said))
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return said + b",p=" + base64.b64encode(proof)

    def accepts(self, server_final: bytes) -> bool:
        return server_final == b"v=" + base64.b64encode(self._server_signature)
