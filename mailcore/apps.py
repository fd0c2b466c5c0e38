"""Django's registration of the mailcore app (its models own the schema)."""

from django.apps import AppConfig

from mailcore import wake
from mailcore.conf import conf


class MailcoreConfig(AppConfig):
    name = "mailcore"
    label = "mailcore"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Commands and tasks wake the other processes' sessions too.
        wake.use_redis(lambda: conf.redis_url)
