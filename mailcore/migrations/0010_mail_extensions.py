"""What a sender may ask for: a time within which his mail is delivered (RFC 2852), and a priority (RFC 6710)."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0009_key_rotation")]

    operations = [
        migrations.AddField(
            "outbound",
            "by_mode",
            models.TextField(null=True, help_text="R, N, RT or NT, of DELIVERBY (RFC 2852)"),
        ),
        migrations.AddField(
            "outboundrecipient",
            "priority",
            models.SmallIntegerField(db_default=0, help_text="-9 to 9 (RFC 6710): what is larger goes first"),
        ),
        migrations.AddField(
            "outboundrecipient",
            "deliver_by",
            models.DateTimeField(null=True, help_text="when the time that the sender gave is over (RFC 2852)"),
        ),
        migrations.AddField(
            "outboundrecipient",
            "late_notified",
            models.BooleanField(db_default=False, help_text="the sender knows that it is over"),
        ),
        migrations.AddIndex(
            "outboundrecipient",
            models.Index(
                fields=["destination", "-priority", "next_attempt_at"],
                name="outbound_priority",
                condition=models.Q(state="queued") & ~models.Q(priority=0),
            ),
        ),
        migrations.AddIndex(
            "outboundrecipient",
            models.Index(
                fields=["-priority", "next_attempt_at"],
                name="outbound_priority_any",
                condition=models.Q(state="queued") & ~models.Q(priority=0),
            ),
        ),
        migrations.AddIndex(
            "outboundrecipient",
            models.Index(
                fields=["deliver_by"],
                name="outbound_deliver_by",
                condition=models.Q(state="queued", deliver_by__isnull=False),
            ),
        ),
    ]
