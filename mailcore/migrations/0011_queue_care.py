"""Notices that wait a moment for others of their message, when a pause was last changed, and who is in the queue."""

import django.db.models.functions.datetime
import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0010_mail_extensions")]

    operations = [
        migrations.CreateModel(
            name="OutboundNotice",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("outbound_id", models.BigIntegerField()),
                ("recipient_id", models.BigIntegerField()),
                ("address", models.TextField(help_text="as it was then")),
                ("orcpt", models.TextField(null=True)),
                ("action", models.TextField(help_text="of RFC 3464: failed, delayed, delivered, relayed, expanded")),
                ("status", models.TextField()),
                ("text", models.TextField()),
                ("is_remote", models.BooleanField(help_text="the text is the remote's")),
                ("host", models.TextField(null=True, help_text="the server that spoke last")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "outbound_notice",
                "indexes": [models.Index(fields=["outbound_id"], name="outbound_notice_message")],
            },
        ),
        migrations.AddField(
            "deliverypause",
            "changed_at",
            models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), help_text="workers read what is new"
            ),
        ),
        migrations.AddIndex(
            "deliverypause",
            models.Index(fields=["changed_at"], name="delivery_pause_changed"),
        ),
        migrations.AddIndex(
            "outboundrecipient",
            models.Index(django.db.models.functions.text.Lower("address"), name="outbound_address"),
        ),
        migrations.AddIndex(
            "outbound",
            models.Index(fields=["trace_id"], name="outbound_trace"),
        ),
    ]
