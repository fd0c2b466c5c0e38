"""Small questions to a server from outside: does the port answer, does it greet. Each takes a second at most."""

from __future__ import annotations

import socket

_TIMEOUT = 1.0


def reachable(bind: str) -> str:
    """The address under which a listener on `bind` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(bind, bind)


def greets(bind: str, port: int, greeting: bytes) -> bool:
    """Whether the server on that port speaks first, with these octets; port 0 (switched off) counts as well."""
    if port == 0:
        return True
    try:
        with socket.create_connection((reachable(bind), port), timeout=_TIMEOUT) as client:
            return client.recv(512).startswith(greeting)
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


def listens(bind: str, port: int) -> bool:
    """Whether anything accepts connections on that port."""
    try:
        with socket.create_connection((reachable(bind), port), timeout=_TIMEOUT):
            return True
    except OSError:
        return False
