"""Django's registration of the mailcore app (its models own the schema)."""

from django.apps import AppConfig


class MailcoreConfig(AppConfig):
    name = "mailcore"
    label = "mailcore"
    default_auto_field = "django.db.models.BigAutoField"
