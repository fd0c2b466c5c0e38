"""Policies and limits per domain, account and address."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0006_transport")]

    operations = [
        migrations.CreateModel(
            name="SendingCount",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "scope", "subject", "began", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("scope", models.TextField(help_text="account, address or domain")),
                ("subject", models.TextField(help_text="the account's number, the address, the domain's name")),
                ("began", models.DateTimeField()),
                ("messages", models.IntegerField()),
                ("recipients", models.IntegerField()),
            ],
            options={"db_table": "sending_count"},
        ),
        migrations.CreateModel(
            name="ForwardedSender",
            fields=[
                ("token", models.TextField(primary_key=True, serialize=False)),
                ("sender", models.TextField()),
                ("used_at", models.DateTimeField(db_default=Now())),
            ],
            options={"db_table": "forwarded_sender"},
        ),
    ]
