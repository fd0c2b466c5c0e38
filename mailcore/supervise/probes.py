"""Small questions to a server from outside: does the port answer, does it greet. Each takes a second at most."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from mailcore.conf import Network
from mailcore.entrance import is_within
from mailcore.wire.proxy import NO_PROXY

_TIMEOUT = 1.0


def reachable(bind: str) -> str:
    """The address under which a listener on `bind` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(bind, bind)


def greets(bind: str, port: int, greeting: bytes, proxies: Sequence[Network] = ()) -> bool:
    """Whether the server on that port speaks first, with these octets; port 0 (switched off) counts as well.

    `proxies`: MAILSTEAD_PROXY_FROM; when we are within it, the server waits for a PROXY header from us, too.
    """
    if port == 0:
        return True
    try:
        with socket.create_connection((reachable(bind), port), timeout=_TIMEOUT) as client:
            if is_within(client.getsockname()[0], proxies):
                client.sendall(NO_PROXY)
            said = client.recv(512)
            return bool(said) and said.startswith(greeting)
    except OSError:
        return False


def http_ok(bind: str, port: int, path: str) -> bool:
    """Whether `GET path` is answered with 200."""
    if port == 0:
        return True
    try:
        with socket.create_connection((reachable(bind), port), timeout=_TIMEOUT) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def speaks(bind: str, port: int, proxies: Sequence[Network] = ()) -> bool:
    """Whether the server on that port says anything, be it that it has too many clients; port 0 counts as well."""
    return greets(bind, port, b"", proxies)


def accepts(url: str) -> bool:
    """Whether the Redis or Valkey of that URL takes connections (on a Unix socket, if the URL names one)."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_TIMEOUT)
                client.connect(parts.path)
            return True
        with socket.create_connection((parts.hostname or "localhost", parts.port or 6379), timeout=_TIMEOUT):
            return True
    except (OSError, ValueError):
        return False


def listens(bind: str, port: int) -> bool:
    """Whether anything accepts connections on that port."""
    try:
        with socket.create_connection((reachable(bind), port), timeout=_TIMEOUT):
            return True
    except OSError:
        return False
