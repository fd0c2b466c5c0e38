"""The roles of an installation: one command line each, the same that a container or a systemd unit runs.

`manage.py up` does not execute these commands anew: it forks itself after Django and the large libraries are loaded
and runs their entry points in the child (docs/decisions/0001-roles-are-forked.md).
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailcore.conf import Conf
from mailcore.supervise import probes

MANAGE = Path(__file__).resolve().parent.parent.parent / "manage.py"

# Large, and free of state that two processes must not share; the project's own servers are imported after the fork.
PRELOAD = (
    "aiosmtpd.smtp",
    "asyncio",
    "celery.app.amqp",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "cryptography.x509",
    "django.contrib.auth.forms",
    "django.core.handlers.asgi",
    "django.core.management.commands.migrate",
    "django.db.backends.postgresql.base",
    "dns.asyncresolver",
    "granian.cli",
    "granian.server.mp",
    "http.client",
    "kombu.transport.redis",
    "psycopg_pool",
    "redis.asyncio",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process: how it is run, and how one sees that it works."""

    name: str
    argv: tuple[str, ...]
    entry: str  # module:function that the command's script calls
    grace: float  # seconds to finish after SIGTERM
    probe: Callable[[], bool] | None = None  # answers from outside
    ready_line: bytes = b""  # what it has written by then
    hide: re.Pattern[str] | None = None  # routine lines that say nothing to the operator


def table(conf: Conf) -> tuple[Role, ...]:
    """All roles in the order in which they start; they stop the other way round."""
    celery = ("celery", "-A", "mailcore.celery", "--quiet")
    mails = tuple(
        Role(
            name="mail" if conf.processes == 1 else f"mail-{number}",
            argv=(str(MANAGE), "mailserver"),
            entry="django.core.management:execute_from_command_line",
            grace=20,
            ready_line=b"READY ",
            hide=re.compile("^READY "),
            probe=lambda: (
                probes.greets(conf.bind, conf.smtp_port, b"220") and probes.greets(conf.bind, conf.imap_port, b"* OK")
            ),
        )
        for number in range(1, conf.processes + 1)
    )
    web = Role(
        name="web",
        argv=("granian", "webmail.asgi:application", "--interface", "asgi", "--workers", "1", "--loop", "uvloop")
        + ("--host", conf.bind, "--port", str(conf.http_port), "--no-ws", "--backpressure", "4096")
        + ("--no-access-log", "--log-level", "warning", "--workers-kill-timeout", "10"),
        entry="granian.cli:entrypoint",
        grace=15,
        probe=lambda: probes.http_ok(conf.bind, conf.http_port, "/healthz"),
    )
    worker = Role(
        name="worker",
        argv=(*celery, "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        entry="celery.__main__:main",
        grace=30,
        ready_line=b" ready.",
        hide=re.compile("SecurityWarning: You're running the worker|Connected to redis"),
    )
    beat = Role(
        name="beat",
        argv=(*celery, "beat", "--loglevel", "INFO", "--pidfile=", "--schedule", str(conf.data / "spool" / "beat")),
        entry="celery.__main__:main",
        grace=10,
        ready_line=b"beat: Starting",
    )
    return (*mails, web, worker, beat)


def preload() -> None:
    """Load Django and the large libraries, once for all roles."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webmail.settings")
    import django

    gc.disable()
    django.setup()
    for name in PRELOAD:
        importlib.import_module(name)
    # The collector writes into every object it visits: what all roles share must not be copied into each.
    gc.collect()
    gc.freeze()
    gc.enable()


def enter(role: Role) -> None:
    """Be `role`; runs in the forked child and returns or raises SystemExit when the role ends."""
    module, _, function = role.entry.partition(":")
    entry = getattr(importlib.import_module(module), function)
    sys.argv = list(role.argv)
    entry(sys.argv) if module == "django.core.management" else entry()
