"""Holds up another mail server in mid-delivery: Postfix asks here what to say to RCPT, and waits for the answer."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Gate:
    """`asked` is set as soon as somebody is at RCPT; everybody waits there until `open` is."""

    asked: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def gate(port: int) -> Iterator[Gate]:
    """A policy server of Postfix (SMTPD_POLICY_README) that has no objection."""
    made = Gate()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                if line == b"\n":  # the end of a question
                    made.asked.set()
                    made.open.wait()
                    self.wfile.write(b"action=dunno\n\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.open.set()
            server.shutdown()
            thread.join()
