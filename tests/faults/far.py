"""The rest of the world: name servers and a mail server with every fault there is, drawn by lot from a seed.

Both run on an event loop in a thread of their own, so that the test may do what it likes with its own time.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.delivery.nameserver import NameServer
from tests.delivery.sink import DROP, Sink

T = TypeVar("T")

DOMAINS = tuple(f"far{n}.example" for n in range(12))
# Nobody of this name is known anywhere.
UNKNOWN = "nobody"

# (stage, answer, share). What is refused for now comes again; DROP closes the connection; TAKE AND DROP takes the
# message and closes before the answer is sent, so that the sender must send it twice.
FAULTS = (
    ("CONNECT", "421 4.3.2 not now", 0.01),
    ("CONNECT", DROP, 0.01),
    ("EHLO", DROP, 0.005),
    ("MAIL", "451 4.3.0 try later", 0.01),
    ("MAIL", DROP, 0.005),
    ("RCPT", "450 4.2.0 greylisted", 0.02),
    ("RCPT", DROP, 0.005),
    ("DATA", "451 4.3.0 try later", 0.01),
    ("DATA", DROP, 0.005),
    ("CONTENT", "452 4.3.1 no room", 0.01),
    ("CONTENT", "554 5.7.1 I do not like it", 0.01),
    ("CONTENT", DROP, 0.01),
    ("CONTENT", "TAKE AND DROP", 0.01),
)
_MESSAGE_ID = re.compile(rb"^Message-ID: <([^>]+)>", re.M | re.I)


class Far:
    """Every domain of DOMAINS, its mail server on one port of 127.0.0.1."""

    def __init__(self, port: int, seed: int, *, faulty: bool = True) -> None:
        self._lot = random.Random(seed)
        self._faulty = faulty
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="far", daemon=True)
        self._thread.start()
        self.names = NameServer()
        self.sink = Sink(self._answer)
        for domain in DOMAINS:
            self.names.host(domain, (10, f"mx.{domain}", "127.0.0.1"))
        self.call(self.names.start())
        self.call(self.sink.start("127.0.0.1", port))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def heal(self) -> None:
        """No faults any more, but for those who are unknown."""
        self._faulty = False

    def cut(self) -> None:
        """The network is gone: nobody answers, connections break."""
        self.call(self.sink.stop())

    def mend(self) -> None:
        self.call(self.sink.start("127.0.0.1", self._port))

    def close(self) -> None:
        self.call(self.sink.stop())
        self.call(self.names.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def taken(self) -> Counter[tuple[str, str]]:
        """How often (Message-ID, recipient) was taken in."""
        found: Counter[tuple[str, str]] = Counter()
        for mail in self.sink.mails:
            match = _MESSAGE_ID.search(mail.data)
            assert match, mail.data[:500]
            found.update((match[1].decode(), recipient) for recipient in mail.recipients)
        return found

    def _answer(self, verb: str, line: str) -> str | None:
        if verb == "RCPT" and f"<{UNKNOWN}@" in line:
            return "550 5.1.1 no such user"
        if self._faulty:
            for stage, answer, share in FAULTS:
                if stage == verb and self._lot.random() < share:
                    return answer
        return None
