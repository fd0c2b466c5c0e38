"""Ann of example.test, whose mail an engine carries to scripted servers that a scripted name server leads to."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.management import call_command
from django.db import connection

from mailcore import db, tls
from mailcore.conf import Conf, conf
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.engine import Engine, Limits
from mailcore.store import fetch, queue, trace
from mailcore.store.queue import Outgoing, Recipient
from tests.delivery.nameserver import NameServer
from tests.delivery.sink import Sink

ROOT = Path(__file__).resolve().parent.parent.parent

ANN = "ann@example.test"
BOB = "bob@far.example"
HOSTNAME = "mx.example.test"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)

RAW = (
    b"From: Ann <ann@example.test>\r\nTo: Bob <bob@far.example>\r\nBcc: secret@far.example\r\n"
    b"Subject: hello\r\nDate: Sun, 22 Nov 2026 06:00:00 +0000\r\nMessage-ID: <one@example.test>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    b"Hello Bob\r\n.\r\n..two dots\r\n"
)

# Long enough for a busy machine, short enough for a test that runs into one.
QUICK = Timeouts(8, 8, 8, 8, 8, 8, 8, 8, 8, 0.2, 60)


@dataclass
class World:
    """What a test has in hand; `account` is Ann's number."""

    account: int
    conf: Conf
    names: NameServer
    limits: Limits
    sinks: list[Sink] = field(default_factory=list)
    engine: Engine | None = None
    timeouts: Timeouts = QUICK

    async def sink(self, address: str = "127.0.0.1", **settings: Any) -> Sink:
        """Another server; all of them listen on the same port, as mail servers do."""
        sink = await Sink(**settings).start(address, self.conf.smtp_out_port)
        self.sinks.append(sink)
        if self.conf.smtp_out_port == 0:
            self.conf = replace(self.conf, smtp_out_port=sink.port)
        return sink

    async def start(self, **settings: Any) -> Engine:
        """The engine, with settings of conf changed; replaces one that runs."""
        if self.engine is not None:
            await self.engine.stop()
        self.conf = replace(self.conf, **settings)
        self.engine = Engine(self.conf, self.limits, self.timeouts)
        return self.engine

    async def submit(
        self,
        *to: str | Recipient,
        raw: bytes = RAW,
        sender: str = ANN,
        account: int | None = -1,
        **more: Any,
    ) -> str:
        """Queue a message of Ann's (or, with account=None, one that passes through); returns its trace id."""
        name = trace.new_id()
        recipients = [Recipient(each) if isinstance(each, str) else each for each in to or (BOB,)]
        account = self.account if account == -1 else account
        async with db.transaction() as tx:
            await queue.enqueue(tx, Outgoing(sender, recipients, name, raw, account_id=account, **more))
        return name

    async def deliver(self) -> None:
        """Everything due, until nothing is at work."""
        engine = self.engine or await self.start()
        await engine.sweep()
        await engine.idle()
        await engine.tell()
        await asyncio.sleep(0)  # until what was queued for it has rung
        await engine.idle()

    async def rows(self) -> dict[str, dict[str, Any]]:
        """The queue by recipient."""
        names = "address state attempts last_code last_reply last_host unreported delay_notified lease held_reason wait"
        async with db.read() as tx:
            found = await tx.fetch(
                "SELECT address, state, attempts, last_code, last_reply, last_host, unreported, delay_notified, "
                "lease_until, held_reason, extract(epoch FROM next_attempt_at - now())::float8 "
                "FROM outbound_recipient ORDER BY id"
            )
        return {row[0]: dict(zip(names.split(), row, strict=True)) for row in found}

    async def states(self) -> dict[str, str]:
        return {address: row["state"] for address, row in (await self.rows()).items()}

    async def later(self, seconds: float) -> None:
        """Let time pass for the queue."""
        async with db.transaction() as tx:
            await tx.execute(
                "UPDATE outbound_recipient SET next_attempt_at = next_attempt_at - make_interval(secs => %s::float8), "
                "lease_until = lease_until - make_interval(secs => %s::float8)",
                (seconds, seconds),
            )
            await tx.execute("UPDATE delivery_pause SET until = until - make_interval(secs => %s::float8)", (seconds,))
            await tx.execute("UPDATE suppression SET last_at = last_at - make_interval(secs => %s::float8)", (seconds,))
            await tx.execute(
                "UPDATE outbound SET created_at = created_at - make_interval(secs => %s::float8), "
                "send_after = send_after - make_interval(secs => %s::float8)",
                (seconds, seconds),
            )

    async def inbox(self, account: int | None = None) -> list[bytes]:
        """The messages in Ann's INBOX."""
        async with db.read() as tx:
            number = self.account if account is None else account
            rows = await fetch.rows(tx, number, 1, 1, 1 << 31, ("message_id",))
            stored = await fetch.raws(tx, number, [row[0] for row in rows])
            return [stored[row[0]] for row in rows]

    async def steps(self, text: str) -> list[trace.Found]:
        async with db.read() as tx:
            return await trace.find(tx, text)

    def server_tls(self) -> ssl.SSLContext:
        tls.ensure_certificate(self.conf)
        return tls.Certificates(self.conf).context


def run(verb: Any, *args: Any, **names: Any) -> Any:
    """A verb of the store, as commands do it."""
    with db.django_transaction() as tx:
        return db.run_sync(verb(tx, *args, **names))


def command(*arguments: str) -> str:
    """What a command of `manage.py` says."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


@asynccontextmanager
async def world(account: int, data: Any) -> AsyncIterator[World]:
    """A world with a name server and an open pool; everything in it is closed at the end."""
    names = await NameServer().start()
    ours = replace(
        conf,
        data=data,
        hostname=HOSTNAME,
        dns=(("127.0.0.1", names.port),),
        out_allow=LOOPBACK,
        smtp_out_port=0,
        smarthost=None,
    )
    here = World(account, ours, names, Limits(linger=0.05, together=0.0))
    await db.open_pool(6)
    try:
        yield here
    finally:
        if here.engine is not None:
            await here.engine.stop(1.0)
        for sink in here.sinks:
            await sink.stop()
        await names.stop()
        await db.close_pool()


def environment(here: World) -> dict[str, str]:
    """Environment of another process that works on this test's database."""
    names = connection.settings_dict
    login = f"{quote(names['USER'], safe='')}:{quote(names['PASSWORD'], safe='')}"
    url = f"postgresql://{login}@/{names['NAME']}?host={quote(names['HOST'], safe='')}&port={names['PORT']}"
    return os.environ | {
        "DATABASE_URL": url,
        "MAILSTEAD_DNS": f"127.0.0.1:{here.names.port}",
        "MAILSTEAD_OUT_ALLOW": "127.0.0.0/8",
        "MAILSTEAD_SMTP_OUT_PORT": str(here.conf.smtp_out_port),
        "MAILSTEAD_HOSTNAME": here.conf.hostname,
        "DJANGO_SETTINGS_MODULE": "webmail.settings",
        "PYTHONPATH": str(ROOT),
    }
