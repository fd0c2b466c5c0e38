"""Pebble, Let's Encrypt's certificate authority for tests, and the web process that answers its questions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from cryptography import x509
from django.core.wsgi import get_wsgi_application
from django.db import connections

from mailcore import tls
from tests.delivery.authority import Authority
from tests.ports import free_ports


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Web:
    """Django on a port of its own; `asked` = paths."""

    port: int
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def web() -> Iterator[Web]:
    """The web process' pages over plain HTTP, on the database of the tests."""
    pages = get_wsgi_application()
    made = Web(0)

    def application(environ: dict[str, object], start_response: object) -> object:
        made.asked.append(f"{environ['HTTP_HOST']}{environ['PATH_INFO']}")
        return pages(environ, start_response)

    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        made.port = server.server_port

        def serve() -> None:
            server.serve_forever(poll_interval=0.02)
            connections.close_all()  # this thread's

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Pebble:
    """A running Pebble: its directory, and the file of authorities that vouch for its own web server."""

    directory: str
    trust: Path
    _management: int

    def root(self) -> bytes:
        """The root certificate that it issues under, PEM."""
        return self._get("/roots/0")

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether it has revoked a certificate of its own."""
        found = json.loads(self._get(f"/cert-status-by-serial/{certificate.serial_number:x}"))
        return bool(found["Status"] == "Revoked")

    def _get(self, path: str) -> bytes:
        url = f"https://127.0.0.1:{self._management}{path}"
        context = tls.trusting(self.trust)
        context.check_hostname = False
        with urllib.request.urlopen(url, context=context, timeout=60) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def pebble(
    program: str, folder: Path, *, dns: int, http: int, bad_nonces: int = 20, customers: dict[str, str] | None = None
) -> Iterator[Pebble]:
    """Run it: names are looked up at the port `dns`, and asked for by HTTP at `http`; `bad_nonces` in per cent.

    `customers`: it has accounts for these only, by key identifier, with their secrets.
    """
    authority = Authority("Pebble's own")
    issued = authority.issue("localhost")
    issued.context(folder)
    stem = folder / str(issued.certificate.serial_number)
    listen, management, tls_port = free_ports(3)
    config = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": f"{stem}.pem",
        "privateKey": f"{stem}.key",
        "httpPort": http,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": customers is not None,
        "externalAccountMACKeys": customers or {},
    }
    settings = folder / "pebble.json"
    settings.write_text(json.dumps({"pebble": config}))
    environ = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(bad_nonces)}
    environ |= {"PEBBLE_AUTHZREUSE": "0"}
    log = folder / "pebble.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [program, "-config", str(settings), "-dnsserver", f"127.0.0.1:{dns}"],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        made = Pebble(f"https://localhost:{listen}/dir", authority.file(folder), management)
        deadline = time.monotonic() + 60
        while True:
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError):
                made.root()
                break
            time.sleep(0.05)
        yield made
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
