"""The Celery application: its tasks are doorbells and clocks; what there is to do stands in Postgres.

A message on the broker carries ids only, may come twice, late or never, and nothing is lost by it: beat's sweep finds
whatever is due. Hence no results, no `eta`, no `countdown` (Redis redelivers them twice and three times).
"""

from __future__ import annotations

import importlib
import os
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from celery.signals import beat_init, before_task_publish, celeryd_init

from mailcore import pulse
from mailcore.conf import conf

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webmail.settings")

QUEUE = "mailstead"
SWEEP_SECONDS = 3.0
INDEX_SECONDS = 5.0
HOUSEKEEPING_SECONDS = 3600.0
TRANSPORT_SECONDS = 3600.0
ROTATION_SECONDS = 600.0
CERTIFICATE_SECONDS = 300.0


def broker_url(url: str) -> str:
    """The Redis URL as kombu writes it; a Unix socket (unix://:password@/path?db=0) has a scheme of its own there."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"


class _Celery(Celery):
    """Reads the broker's address only when it connects, so that importing needs no running server."""

    def on_configure(self) -> None:
        self.conf.broker_url = broker_url(conf.redis_url)


# Without Celery's part for Django: beat needs none of it (40 MB less), and no task uses Django's connections.
app = _Celery("mailstead", set_as_current=True, fixups=[])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    # Tasks only wake the engine (mailcore.delivery.engine), which has an event loop of its own in the process: two
    # threads keep the bell ringing while housekeeping works, and cost nothing; more processes would cost 60 MB each.
    worker_pool="threads",
    worker_concurrency=2,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 900,
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
    },
    task_publish_retry=False,
    beat_scheduler="celery.beat:Scheduler",  # keeps nothing on disk: the schedule is this code
    beat_schedule={
        # A sweep that waited too long in a queue without a worker is worth nothing: the next one does its work.
        "sweep": {"task": "mailcore.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": 30}},
        "index": {"task": "mailcore.index", "schedule": INDEX_SECONDS, "options": {"expires": 30}},
        "rotate keys": {
            "task": "mailcore.rotate_keys",
            "schedule": ROTATION_SECONDS,
            "options": {"expires": ROTATION_SECONDS},
        },
        "certificates": {
            "task": "mailcore.certificates",
            "schedule": CERTIFICATE_SECONDS,
            "options": {"expires": CERTIFICATE_SECONDS},
        },
        "housekeeping": {
            "task": "mailcore.housekeeping",
            "schedule": HOUSEKEEPING_SECONDS,
            "options": {"expires": HOUSEKEEPING_SECONDS},
        },
        "transport": {
            "task": "mailcore.transport",
            "schedule": TRANSPORT_SECONDS,
            "options": {"expires": TRANSPORT_SECONDS},
        },
    },
    timezone="UTC",
)


@beat_init.connect
def _beat_begins(**_: object) -> None:
    """Each tick that beat sends is its sign of life."""
    before_task_publish.connect(_ticks, weak=False)


def _ticks(**_: object) -> None:
    pulse.give()


@celeryd_init.connect
def _load_tasks(**_: object) -> None:
    """Only a worker runs tasks; who sends them needs but their names.

    Of Django a worker uses the settings; no task touches a model, and loading all of them would cost 20 MB.
    """
    from django.conf import settings
    from django.utils.log import configure_logging

    configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
    importlib.import_module("mailcore.tasks")
