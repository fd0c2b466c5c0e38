"""What is known of other servers' transport security: MTA-STS policies, TLS reports."""

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0005_trace")]

    operations = [
        migrations.AddField(
            "outbound", "body", models.TextField(db_default="7BIT", help_text="7BIT, 8BITMIME or BINARYMIME")
        ),
        migrations.AddField(
            "outbound",
            "requiretls",
            models.BooleanField(help_text="REQUIRETLS; false = TLS-Required: No (RFC 8689)", null=True),
        ),
        migrations.RunSQL(
            "UPDATE outbound SET body = '8BITMIME' WHERE body_8bit", "UPDATE outbound SET body_8bit = body <> '7BIT'"
        ),
        migrations.RemoveField("outbound", "body_8bit"),
        migrations.CreateModel(
            name="TlsResult",
            fields=[
                ("day", models.DateField()),
                ("domain", models.TextField()),
                ("key", models.BinaryField(help_text="hash of the columns that follow")),
                ("policy", models.TextField(help_text="JSON: policy-type, policy-string, mx-host")),
                ("result", models.TextField(help_text="'' = success, else a result type of RFC 8460 §4.3")),
                ("host", models.TextField(db_default="")),
                ("helo", models.TextField(db_default="")),
                ("ip", models.TextField(db_default="")),
                ("reason", models.TextField(db_default="")),
                ("sessions", models.IntegerField()),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "day", "domain", "key", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
            ],
            options={
                "db_table": "tls_result",
            },
        ),
        migrations.CreateModel(
            name="MtaStsPolicy",
            fields=[
                ("domain", models.TextField(primary_key=True, serialize=False)),
                (
                    "policy_id",
                    models.TextField(db_default="", help_text="id of the TXT record that it was fetched for"),
                ),
                (
                    "mode",
                    models.TextField(help_text="enforce, testing or none; NULL = it could never be fetched", null=True),
                ),
                (
                    "mx",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(), db_default=[], help_text="patterns of host names", size=None
                    ),
                ),
                ("max_age", models.IntegerField(db_default=0, help_text="seconds")),
                ("fetched_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("failed_at", models.DateTimeField(help_text="when fetching last failed", null=True)),
                ("failure", models.TextField(help_text="result type of RFC 8460, then what was wrong", null=True)),
                (
                    "used_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="when mail last asked for it, to the day",
                    ),
                ),
            ],
            options={
                "db_table": "mta_sts_policy",
                "indexes": [models.Index(fields=["fetched_at"], name="mta_sts_fetched")],
            },
        ),
        migrations.CreateModel(
            name="TlsReport",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("domain", models.TextField(help_text="policy-domain")),
                ("organization", models.TextField()),
                ("report_id", models.TextField()),
                ("begins_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("policy_type", models.TextField()),
                ("successes", models.BigIntegerField()),
                ("failures", models.BigIntegerField()),
                ("details", models.TextField(help_text="JSON: the failures with result, sessions, host, ip, reason")),
                ("contact", models.TextField(db_default="")),
                ("trace_id", models.TextField(help_text="the message that brought it")),
                (
                    "signed_by",
                    models.TextField(db_default="", help_text="domain whose DKIM signature vouches for it; '' = none"),
                ),
                ("doubt", models.TextField(db_default="", help_text="why no signature vouches for it")),
                ("received_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "tls_report",
                "indexes": [models.Index(fields=["domain", "ends_at"], name="tls_report_domain")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("domain", "organization", "report_id", "policy_type", "signed_by"),
                        name="tls_report_once",
                    )
                ],
            },
        ),
    ]
