"""The roles of an installation: one command line each, the same that a container or a systemd unit runs.

`manage.py up` does not execute these commands anew: it forks itself after Django and the large libraries are loaded
and runs their entry points in the child (docs/decisions/0001-roles-are-forked.md).
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# So that the title leaves the environment of a process, which stands behind its arguments, as it is.
os.environ.setdefault("SPT_NOENV", "1")
from setproctitle import setproctitle

from mailcore import pulse
from mailcore.conf import Conf
from mailcore.errors import ConfigError
from mailcore.pulse import Pulse
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


# Seconds without a sign of life that are a miss: of mail's event loop, of beat's ticks and the worker's sweeps.
_LATE_LOOP = 20.0
_LATE_TICK = 30.0

Pulses = Mapping[str, Pulse]  # by name of role


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of process: how it is run, and how one sees that it works."""

    name: str
    argv: tuple[str, ...]
    entry: str  # module:function that the command's script calls
    grace: float  # seconds to finish after SIGTERM
    answers: Callable[[Pulses], bool]  # whether it still does its work; asked every now and then
    probe: Callable[[], bool] | None = None  # answers from outside
    ready_line: bytes = b""  # what it has written by then
    hide: re.Pattern[str] | None = None  # routine lines that say nothing to the operator


def table(conf: Conf) -> tuple[Role, ...]:
    """All roles in the order in which they start; they stop the other way round."""

    def redis_is_away() -> bool:
        try:
            return not probes.accepts(conf.redis_url)
        except ConfigError:  # Valkey of our own is being started again
            return True

    def beat_answers(pulses: Pulses) -> bool:
        return pulses["beat"].age() < _LATE_TICK or redis_is_away()

    def worker_answers(names: Sequence[str], pulses: Pulses) -> bool:
        # It is beat that keeps them busy: without ticks there is nothing to answer. Which of them has a tick is chance.
        late = min(pulses[name].age() for name in names) >= _LATE_TICK
        return not late or pulses["beat"].age() >= _LATE_TICK or redis_is_away()

    celery = ("celery", "-A", "mailcore.celery", "--quiet")
    mails = tuple(
        Role(
            name="mail" if conf.processes == 1 else f"mail-{number}",
            argv=(str(MANAGE), "mailserver"),
            entry="django.core.management:execute_from_command_line",
            grace=20,
            answers=functools.partial(_mail_answers, conf, number),
            ready_line=b"READY ",
            hide=re.compile("^READY "),
            probe=lambda: (
                probes.greets(conf.bind, conf.smtp_port, b"220", conf.proxy_from)
                and probes.greets(conf.bind, conf.imap_port, b"* OK", conf.proxy_from)
            ),
        )
        for number in range(1, conf.processes + 1)
    )
    web = Role(
        name="web",
        argv=("granian", "webmail.asgi:application", "--interface", "asgi", "--workers", "1", "--loop", "uvloop")
        + ("--host", conf.bind, "--port", str(conf.http_port), "--no-ws", "--backpressure", "4096")
        + ("--no-access-log", "--log-level", "warning", "--workers-kill-timeout", "10")
        + ("--process-name", "mailstead: web"),
        entry="granian.cli:entrypoint",
        grace=15,
        answers=lambda _: probes.http_ok(conf.bind, conf.http_port, "/healthz"),
        probe=lambda: probes.http_ok(conf.bind, conf.http_port, "/healthz"),
    )
    names = ["worker"] if conf.workers == 1 else [f"worker-{number}" for number in range(1, conf.workers + 1)]
    workers = tuple(
        Role(
            name=name,
            argv=(
                *celery,
                "worker",
                "--loglevel",
                "INFO",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            )
            + ("--hostname", f"{name}@%h"),
            entry="celery.__main__:main",
            grace=30,
            answers=functools.partial(worker_answers, names),
            ready_line=b" ready.",
            hide=re.compile("SecurityWarning: You're running the worker|Connected to redis"),
        )
        for name in names
    )
    beat = Role(
        name="beat",
        argv=(*celery, "beat", "--loglevel", "INFO", "--pidfile=", "--schedule", str(conf.data / "spool" / "beat")),
        entry="celery.__main__:main",
        grace=10,
        answers=beat_answers,
        ready_line=b"beat: Starting",
    )
    return (*mails, web, *workers, beat)


def _mail_answers(conf: Conf, number: int, pulses: Pulses) -> bool:
    if conf.processes > 1:  # they share the ports: who asks cannot choose who answers
        return pulses[f"mail-{number}"].age() < _LATE_LOOP
    return pulses["mail"].age() < _LATE_LOOP and probes.speaks(
        conf.bind, conf.smtp_port or conf.imap_port, conf.proxy_from
    )


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


def enter(role: Role, sign: Pulse) -> None:
    """Be `role`; runs in the forked child and returns or raises SystemExit when the role ends."""
    setproctitle(f"mailstead: {role.name}")
    pulse.wear(sign)
    module, _, function = role.entry.partition(":")
    entry = getattr(importlib.import_module(module), function)
    if module.startswith("celery."):
        # It would write "[celeryd: …]" over our title, and has no setting for that.
        importlib.import_module("celery.platforms")._setproctitle = None  # type: ignore[attr-defined]
    sys.argv = list(role.argv)
    entry(sys.argv) if module == "django.core.management" else entry()
