"""The mail process: SMTP and IMAP on one event loop, over one pool, one batcher and one wake-up hub.

Any number of these processes may run beside each other (`MAILSTEAD_PROCESSES`, then they share the ports by
SO_REUSEPORT) or on other machines: all they have in common is the database and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import signal
from collections.abc import Awaitable, Callable

import uvloop

from mailcore import db, pulse, tls, wake
from mailcore.certificates.watch import Watch
from mailcore.conf import Conf
from mailcore.delivery import doorbell
from mailcore.errors import ConfigError
from mailcore.imap import server as imap_server
from mailcore.smtp import server as smtp_server
from mailcore.store import changes
from mailcore.store.ingest import Ingest

log = logging.getLogger(__name__)

# Two batches in flight, recipients and senders looked up, IMAP's reads: more connections would only queue in Postgres.
POOL = 16
PULSE_SECONDS = 5.0


def run(conf: Conf, *, reuse_port: bool = False) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError for a port or certificate that cannot be used, MailError."""
    _give_back_large_blocks()
    uvloop.run(serve(conf, reuse_port=reuse_port or conf.processes > 1))


def _give_back_large_blocks() -> None:
    """Let glibc return blocks of megabytes when they are freed; an Argon2 check takes 19 MB of them.

    Left alone, it raises its threshold with the first one and keeps them: 39 MB of an idle process.
    """
    m_mmap_threshold = -3
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 8 * 1024 * 1024)


async def serve(conf: Conf, *, reuse_port: bool = False) -> None:
    """Open everything, announce it, wait for the signal, close everything in the reverse order."""
    stop = _stop_signal()
    async with contextlib.AsyncExitStack() as closing:
        tls.ensure_certificate(conf)
        certificates = tls.Certificates(conf)
        await db.open_pool(POOL)
        closing.push_async_callback(db.close_pool)
        await wake.start(conf.redis_url, _modseqs)
        closing.push_async_callback(wake.stop)
        closing.callback(wake.on_queue(doorbell.ring))
        ingest = Ingest()
        closing.push_async_callback(ingest.close)
        watch = Watch(conf, certificates)
        await watch.begin()
        watching = asyncio.create_task(watch.run())
        closing.callback(watching.cancel)
        smtp_side = await smtp_server.start(conf, certificates, ingest=ingest, reuse_port=reuse_port)
        closing.push_async_callback(smtp_side.close)
        imap_side = await _imap(conf, certificates, ingest, reuse_port)
        closing.push_async_callback(_close_all, smtp_side.close, imap_side.close)
        # What is loaded now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # A batch makes thousands of short-lived tuples, hardly any of them in cycles: look more rarely.
        gc.set_threshold(20_000, 20, 20)
        print(
            f"READY smtp={conf.smtp_port} submission={conf.submission_port} submissions={conf.submissions_port} "
            f"imap={conf.imap_port} imaps={conf.imaps_port}",
            flush=True,
        )
        _give_pulse()
        await stop.wait()
        log.info("stopping")


def _give_pulse() -> None:
    """The event loop turns: that is the sign of life of this role."""
    pulse.give()
    asyncio.get_running_loop().call_later(PULSE_SECONDS, _give_pulse)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _modseqs(account_ids: list[int]) -> dict[int, int]:
    async with db.read() as tx:
        return await changes.states(tx, account_ids)


async def _imap(conf: Conf, certificates: tls.Certificates, ingest: Ingest, reuse_port: bool) -> imap_server.Server:
    try:
        return await imap_server.start(
            conf.bind,
            conf.imap_port or None,
            conf.imaps_port or None,
            certificates,
            ingest=ingest,
            reuse_port=reuse_port,
            proxies=conf.proxy_from,
        )
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise ConfigError(f"port {conf.imap_port} or {conf.imaps_port} for IMAP on {conf.bind} {why}") from None


async def _close_all(*close: Callable[[], Awaitable[None]]) -> None:
    """All at once: otherwise one protocol's clients would wait for another's grace."""
    for result in await asyncio.gather(*(one() for one in close), return_exceptions=True):
        if isinstance(result, BaseException):
            log.error("a server did not close cleanly: %r", result)
