"""Our own certificates, shared by all hosts of the installation."""

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0007_policies")]

    operations = [
        migrations.CreateModel(
            name="Certificate",
            fields=[
                (
                    "name",
                    models.TextField(
                        help_text="a host's name, or a hosted domain's for its service names",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("source", models.TextField(help_text="acme or imported")),
                (
                    "names",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(),
                        db_default=[],
                        help_text="what the certificate is for; * may stand in front",
                        size=None,
                    ),
                ),
                ("chain", models.TextField(help_text="PEM, the certificate first", null=True)),
                (
                    "private_key",
                    models.BinaryField(help_text="PEM, sealed; kept over renewals, because TLSA records name it"),
                ),
                (
                    "next_key",
                    models.BinaryField(
                        help_text="PEM, sealed: the one that comes after it, for a TLSA record in advance"
                    ),
                ),
                ("not_before", models.DateTimeField(null=True)),
                ("not_after", models.DateTimeField(null=True)),
                ("version", models.BigIntegerField(help_text="of all certificates' changes")),
                (
                    "failures",
                    models.IntegerField(db_default=0, help_text="attempts to get it since the last that succeeded"),
                ),
                ("error", models.TextField(db_default="", help_text="what was wrong the last time")),
                ("tried_at", models.DateTimeField(null=True)),
                ("next_try_at", models.DateTimeField(db_default=Now())),
                (
                    "renew_at",
                    models.DateTimeField(
                        null=True, help_text="when the authority wants it renewed; NULL = it does not say"
                    ),
                ),
                (
                    "ask_at",
                    models.DateTimeField(db_default=Now(), help_text="when to ask the authority for that again"),
                ),
            ],
            options={"db_table": "certificate"},
        ),
        migrations.CreateModel(
            name="AcmeAccount",
            fields=[
                ("directory", models.TextField(help_text="URL", primary_key=True, serialize=False)),
                ("private_key", models.BinaryField(help_text="PEM, sealed")),
                ("uri", models.TextField()),
            ],
            options={"db_table": "acme_account"},
        ),
        migrations.CreateModel(
            name="AcmeChallenge",
            fields=[
                ("token", models.TextField(primary_key=True, serialize=False)),
                ("answer", models.TextField()),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={"db_table": "acme_challenge"},
        ),
        migrations.RunSQL("CREATE SEQUENCE certificate_version", "DROP SEQUENCE certificate_version"),
    ]
