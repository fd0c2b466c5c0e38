"""One way of logging for every process: `logging.getLogger(__name__)` or structlog, one line per event.

Text lines read `LEVEL logger: event key=value`, with the time before them unless a supervisor or systemd adds it;
MAILSTEAD_LOG_FORMAT=json gives one object per line. Django calls `configure` (settings.LOGGING_CONFIG).
Secrets never belong into a log; values named like one are masked all the same.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from mailcore.conf import conf
from mailcore.words import printable

_SECRET_NAMES = ("password", "secret", "token", "authorization", "cookie")

# Libraries that report at INFO what only their developers need.
_QUIET = {
    "aiosmtpd": logging.WARNING,
    "asyncio": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    "mail.log": logging.WARNING,
    "httpx": logging.WARNING,
    "mail.debug": logging.WARNING,
    "kombu": logging.WARNING,
    "django.request": logging.ERROR,
    "psycopg.pool": logging.WARNING,
}


def _no_sweeps(record: logging.LogRecord) -> bool:
    """Beat announces every task it sends, every few seconds."""
    return record.levelno > logging.INFO or not record.getMessage().startswith("Scheduler: Sending due task")


def _mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in event:
        if any(name in key.lower() for name in _SECRET_NAMES):
            event[key] = "***"
    return event


def _text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    level = str(event.pop("level", "info")).upper()
    name = event.pop("logger", "") or "-"
    stamp = event.pop("timestamp", "")
    trouble = event.pop("exception", "")
    words = [f"{stamp} " if stamp else "", f"{level} {name}: {event.pop('event', '')}"]
    words += [
        f" {key}={value!r}" if isinstance(value, str) and " " in value else f" {key}={value}"
        for key, value in event.items()
    ]
    line = printable("".join(words).replace("\r", "\\r").replace("\n", "\\n"))
    return f"{line}\n{trouble}" if trouble else line


def configure(_settings: object = None) -> None:
    """Send everything that is logged, by structlog or the standard library, to standard error."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _mask,
        structlog.processors.format_exc_info,
    ]
    others_add_time = "MAILSTEAD_SUPERVISED" in os.environ or "JOURNAL_STREAM" in os.environ
    if conf.log_format == "json" or not others_add_time:
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer() if conf.log_format == "json" else _text
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(conf.log_level.upper())
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))
    logging.getLogger("celery.beat").addFilter(_no_sweeps)
    for name in ("django", "django.server", "celery", "granian"):  # their own handlers would write every line twice
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
