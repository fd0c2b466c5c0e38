"""Messages of 50 MB on their way through the mail process and the worker: neither event loop stands still for them.

What counts is the processor time of the loop's own thread between two of its turns, so that a slow machine is no fault.
Copying and hashing of megabytes belong into threads or pieces (DESIGN §8).
"""

from __future__ import annotations

import asyncio
import imaplib
import smtplib
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from mailcore import db, tls
from mailcore.conf import conf
from mailcore.delivery.engine import Engine, Limits
from mailcore.imap import server as imap
from mailcore.smtp import server as smtp
from mailcore.smtp.policy import MX, SUBMISSION
from mailcore.store import queue, trace
from mailcore.store.ingest import Ingest
from mailcore.store.queue import Outgoing, Recipient
from tests.delivery.nameserver import NameServer
from tests.delivery.sink import Sink
from tests.delivery.world import LOOPBACK, QUICK
from tests.smtp.world import ANN, BOB, PASSWORD, Village, untrusting

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.soak]

T = TypeVar("T")
SIZE = 49 << 20
MOST = 0.040
"""Seconds of processor time that one turn of an event loop may take: what takes longest is 50 MB going into the
database's socket as fast as it takes them, 20 ms; each of the things that were found here took 60 to 200."""


@dataclass
class Loop:
    """An event loop in a thread of its own, watched: `stalls` = (seconds, where it was) of turns longer than MOST."""

    loop: asyncio.AbstractEventLoop = field(default_factory=uvloop.new_event_loop)
    stalls: list[tuple[float, str]] = field(default_factory=list)
    _last: float = 0.0
    _seen: str = ""
    _over: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self._watcher = threading.Thread(target=self._look, daemon=True)
        self._beating = asyncio.run_coroutine_threadsafe(self._beat(), self.loop)
        self._watcher.start()

    async def _beat(self) -> None:
        self._last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            if now - self._last > MOST:
                self.stalls.append((now - self._last, self._seen))
            self._last, self._seen = now, ""

    def _look(self) -> None:
        clock = time.pthread_getcpuclockid(self.thread.ident or 0)
        while not self._over:
            time.sleep(0.004)
            if time.clock_gettime(clock) - self._last > MOST / 2 and not self._seen:
                frame = sys._current_frames().get(self.thread.ident or 0)
                self._seen = "".join(traceback.format_stack(frame)[-7:])

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def stop(self) -> None:
        self._over = True
        self._watcher.join()
        self._beating.cancel()
        self.call(asyncio.sleep(0.01))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@contextmanager
def loop() -> Iterator[Loop]:
    made = Loop()
    try:
        yield made
    finally:
        made.stop()


def message(sender: str, to: str) -> bytes:
    line = b"0123456789abcdef" * 4 + b"ABCDEFGHIJKL\r\n"
    head = f"From: {sender}\r\nTo: {to}\r\nSubject: large\r\nMessage-ID: <{time.monotonic_ns()}@x>\r\n"
    attachment = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return (head + "MIME-Version: 1.0\r\n" + attachment).encode() + line * (SIZE // len(line))


@contextmanager
def judged(watched: Loop, what: str, found: dict[str, list[tuple[float, str]]]) -> Iterator[None]:
    watched.stalls.clear()
    yield
    watched.call(asyncio.sleep(0.01))  # the turn that is under way ends, and is seen
    found[what] = list(watched.stalls)
    for seconds, where in watched.stalls:
        print(f"--- {what}: {seconds * 1000:.0f} ms\n{where}")


def test_no_turn_of_an_event_loop_is_long(village: Village, tmp_path: Path) -> None:
    found: dict[str, list[tuple[float, str]]] = {}
    with loop() as mail, loop() as far:
        names, sink = far.call(NameServer().start()), far.call(Sink().start())
        names.host("elsewhere.example", (10, "mx.elsewhere.example", "127.0.0.1"))
        ours = replace(
            conf, data=tmp_path, hostname="mx.example.test", smtp_port=0, submission_port=0, submissions_port=0,
            dns=(("127.0.0.1", names.port),), out_allow=LOOPBACK, smtp_out_port=sink.port,
        )  # fmt: skip
        tls.ensure_certificate(ours)
        certificates = tls.Certificates(ours)

        async def start() -> tuple[smtp.Server, imap.Server, Engine, Ingest]:
            await db.open_pool(8)
            ingest = Ingest()
            servers = await smtp.start(ours, certificates, ingest=ingest)
            imaps = await imap.start("127.0.0.1", 0, 0, certificates, ingest=ingest, message_size=ours.message_size)
            return servers, imaps, Engine(ours, Limits(linger=0.05), QUICK), ingest

        server, imaps, engine, ingest = mail.call(start())
        mx = mail.call(server.listen(MX, "127.0.0.1", 0))
        submission = mail.call(server.listen(SUBMISSION, "127.0.0.1", 0))

        async def deliver() -> None:
            await engine.sweep()
            await engine.idle()

        def send(port: int, sender: str, to: str, login: bool = False, *options: str, chunk: bool = False) -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=120) as client:
                if login:
                    client.login(ANN, PASSWORD)
                raw = message(sender, to)
                if not chunk:
                    client.sendmail(sender, [to], raw, options)
                    return
                client.ehlo("client.example")
                assert client.mail(sender)[0] == client.rcpt(to)[0] == 250
                client.send(b"BDAT %d LAST\r\n" % len(raw) + raw)
                assert client.getreply()[0] == 250

        with judged(mail, "received", found):
            send(mx, "far@elsewhere.example", BOB)
        with judged(mail, "received in one chunk", found):
            send(mx, "far@elsewhere.example", BOB, chunk=True)
        with judged(mail, "received and forwarded", found):
            send(mx, "far@elsewhere.example", "both@example.org")
        with judged(mail, "delivered elsewhere", found):
            mail.call(deliver())
        with judged(mail, "submitted", found):
            send(submission, ANN, "x@elsewhere.example", True, "RET=FULL")
        sink.refuse(("RCPT", "x@", "550 5.1.1 no such user"))
        with judged(mail, "bounced in full", found):
            mail.call(deliver())
        raw = message("far@elsewhere.example", BOB)

        async def local() -> None:
            async with db.transaction() as tx:
                await queue.enqueue(tx, Outgoing("f@elsewhere.example", (Recipient(BOB),), trace.new_id(), raw))

        mail.call(local())
        with judged(mail, "delivered locally", found):
            mail.call(deliver())
        client = imaplib.IMAP4("127.0.0.1", imaps.ports[0])
        client.login(BOB, PASSWORD)
        with judged(mail, "appended", found):
            assert client.append("INBOX", "", None, raw)[0] == "OK"
        client.select()
        with judged(mail, "fetched", found):
            kind, data = client.fetch("1", "(BODY.PEEK[])")
            assert kind == "OK" and len(data[0][1]) > SIZE  # type: ignore[arg-type, index]
        with judged(mail, "fetched in part", found):
            assert client.fetch("2", "(BODY.PEEK[1]<1000.2000> ENVELOPE BODYSTRUCTURE)")[0] == "OK"
        with judged(mail, "copied", found):
            assert client.copy("1", "Archive")[0] == "OK"
        client.logout()
        client = imaplib.IMAP4_SSL("127.0.0.1", imaps.ports[1], ssl_context=untrusting())
        client.login(BOB, PASSWORD)
        with judged(mail, "appended over TLS", found):
            assert client.append("INBOX", "", None, raw)[0] == "OK"
        client.select()
        with judged(mail, "fetched over TLS", found):
            assert client.fetch("1", "(BODY.PEEK[])")[0] == "OK"
        client.logout()

        async def stop() -> None:
            await engine.stop(1.0)
            await imaps.close()
            await server.close()
            await ingest.close()
            await db.close_pool()

        mail.call(stop())
        far.call(sink.stop())
        far.call(names.stop())
    assert {what: [round(seconds, 3) for seconds, _ in each] for what, each in found.items() if each} == {}
