"""Django's registration of the mailcore app (its models own the schema)."""

from typing import Any

from django.apps import AppConfig

from mailcore import wake
from mailcore.conf import conf


def _note_migrations(**signal: Any) -> None:
    from mailcore.supervise import schema  # hardly any process needs it

    schema.note(**signal)


class MailcoreConfig(AppConfig):
    name = "mailcore"
    label = "mailcore"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Commands and tasks wake the other processes' sessions too.
        wake.use_redis(lambda: conf.redis_url)
        # Models can be imported from here on.
        from django.db.models.signals import pre_migrate

        from accounts import notices
        from accounts.throttle import sign_ins
        from mailcore.auth import standing

        pre_migrate.connect(_note_migrations, sender=self)
        notices.listen(standing.announce)
        # Failed sign-ins count in all processes.
        sign_ins.share = lambda content: wake.tell("sign-in", content)
        wake.on_notice("sign-in", sign_ins.hear)
