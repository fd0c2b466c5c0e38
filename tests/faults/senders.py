"""People and servers that send mail at a steady rate, and note exactly what they were told."""

from __future__ import annotations

import contextlib
import itertools
import random
import smtplib
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from tests.faults.far import DOMAINS, UNKNOWN

HOME = "home.example"
PEOPLE = tuple(f"person{n}@{HOME}" for n in range(8))
PASSWORD = "correct horse battery"


@dataclass(slots=True)
class Ledger:
    """What was accepted: Message-ID to (sender, recipients). `repeated`: messages that were offered more than once."""

    accepted: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    refusals: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Sender:
    """One connection that is used until it breaks; inbound from a stranger, or submission by one of our people."""

    ledger: Ledger
    ports: dict[str, int]
    number: int
    interval: float
    rng: random.Random
    stop: threading.Event
    _client: smtplib.SMTP | None = None

    @property
    def person(self) -> str | None:
        """Who submits; None = a stranger's server."""
        return PEOPLE[self.number % len(PEOPLE)] if self.number % 2 else None

    def run(self) -> None:
        """Send one message after the other until it is told to stop; the last one is sent to its end."""
        for n in itertools.count():
            if self.stop.is_set():
                break
            begun = time.monotonic()
            self._send(f"{self.number}.{n}@test.example")
            self.stop.wait(max(0.0, self.interval - (time.monotonic() - begun)))
        self._hang_up()

    def _recipients(self) -> tuple[str, ...]:
        local = self.rng.sample(PEOPLE, self.rng.choice((1, 1, 2)))
        if self.person is None:
            return tuple(local)
        far = [
            f"{UNKNOWN if self.rng.random() < 0.03 else f'reader{self.rng.randrange(50)}'}@{domain}"
            for domain in self.rng.sample(DOMAINS, self.rng.choice((1, 1, 2)))
        ]
        return tuple(far + local[: self.rng.choice((0, 0, 1))])

    def _send(self, name: str) -> None:
        """A sender's duty (RFC 5321 §4.5.4): what was not accepted is offered again."""
        sender = self.person or f"stranger{self.number}@elsewhere.example"
        recipients = self._recipients()
        text = "x" * self.rng.choice((200, 1_500, 1_500, 12_000))
        raw = f"From: {sender}\r\nSubject: {name}\r\nMessage-ID: <{name}>\r\n\r\n{text}\r\n".encode()
        for attempt in itertools.count():
            try:
                client = self._connected()
                client.mail(sender)
                taken = []
                for recipient in recipients:
                    code, said = client.rcpt(recipient)
                    if code == 250:
                        taken.append(recipient)
                    elif code < 500:
                        raise smtplib.SMTPRecipientsRefused({recipient: (code, said)})
                if not taken:  # all of them are known to be nobody by now
                    client.rset()
                    return
                code, said = client.data(raw)
                if code == 250:
                    with self.ledger.lock:
                        self.ledger.accepted[name] = (sender, tuple(taken))
                    return
                raise smtplib.SMTPDataError(code, said)
            except (smtplib.SMTPException, OSError, ssl.SSLError):
                with self.ledger.lock:
                    self.ledger.refusals += 1
                    self.ledger.repeated.add(name)
                self._hang_up()
                if self.stop.is_set() and attempt > 3:
                    return  # never accepted: nothing is promised
                time.sleep(min(2.0, 0.1 * 2**attempt))

    def _connected(self) -> smtplib.SMTP:
        if self._client is None:
            person = self.person
            if person is None:
                self._client = smtplib.SMTP("127.0.0.1", self.ports["SMTP"], "client.example", timeout=60)
                self._client.ehlo()
            else:
                context = ssl._create_unverified_context()  # its certificate is self-signed
                port = self.ports["SUBMISSIONS"]
                client = smtplib.SMTP_SSL("127.0.0.1", port, "client.example", timeout=60, context=context)
                try:
                    client.login(person, PASSWORD)
                except BaseException:
                    client.close()
                    raise
                self._client = client
        return self._client

    def _hang_up(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._client.close()
            self._client = None


def start(
    ledger: Ledger, ports: dict[str, int], senders: int, rate: float, seed: int, stop: threading.Event
) -> list[threading.Thread]:
    """So many senders, half of them strangers, together `rate` messages a second."""
    socket.setdefaulttimeout(30)
    threads = []
    for number in range(senders):
        sender = Sender(ledger, ports, number, senders / rate, random.Random(seed * 1000 + number), stop)
        threads.append(threading.Thread(target=sender.run, name=f"sender {number}", daemon=True))
    for thread in threads:
        thread.start()
    return threads
