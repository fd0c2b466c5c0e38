"""The queue under an administrator's hand: freezes, pauses, suppressed addresses, routes."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0003_append")]

    operations = [
        migrations.CreateModel(
            name="FrozenDestination",
            fields=[
                ("destination", models.TextField(help_text="A-label form", primary_key=True, serialize=False)),
                ("until", models.DateTimeField(help_text="NULL = until it is thawed", null=True)),
                ("reason", models.TextField(db_default="")),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={"db_table": "frozen_destination"},
        ),
        migrations.CreateModel(
            name="DeliveryPause",
            fields=[
                (
                    "name",
                    models.TextField(help_text="a destination, or host:ADDRESS", primary_key=True, serialize=False),
                ),
                ("until", models.DateTimeField()),
                ("failures", models.IntegerField(db_default=1, help_text="in a row")),
                ("reason", models.TextField()),
                ("since", models.DateTimeField(db_default=Now(), help_text="the first failure in a row")),
            ],
            options={"db_table": "delivery_pause"},
        ),
        migrations.CreateModel(
            name="Suppression",
            fields=[
                (
                    "address",
                    models.TextField(help_text="lower case; without @: a domain", primary_key=True, serialize=False),
                ),
                ("source", models.TextField(help_text="bounce, complaint or admin")),
                ("category", models.TextField(help_text="of delivery.classify")),
                ("reason", models.TextField(help_text="the last refusal")),
                ("failures", models.IntegerField(db_default=1)),
                ("active", models.BooleanField(db_default=False)),
                ("until", models.DateTimeField(help_text="NULL = until it is removed", null=True)),
                ("first_at", models.DateTimeField(db_default=Now())),
                ("last_at", models.DateTimeField(db_default=Now())),
            ],
            options={"db_table": "suppression"},
        ),
        migrations.CreateModel(
            name="Route",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("sender", models.TextField(db_default="*", help_text="domain, *.domain or *")),
                ("recipient", models.TextField(db_default="*", help_text="domain, *.domain or *")),
                ("action", models.TextField(help_text="mx, relay, hold, bounce or discard")),
                ("host", models.TextField(null=True)),
                ("port", models.IntegerField(null=True)),
                ("username", models.TextField(null=True)),
                ("password", models.BinaryField(help_text="sealed by accounts.secrets", null=True)),
                ("tls", models.TextField(db_default="may", help_text="none, may, require")),
                ("source4", models.TextField(help_text="our IPv4 address towards it", null=True)),
                ("source6", models.TextField(help_text="our IPv6 address towards it", null=True)),
                ("hello", models.TextField(help_text="our name in EHLO", null=True)),
                ("connections", models.IntegerField(help_text="at most at a time, of one worker", null=True)),
                ("per_connection", models.IntegerField(help_text="messages over one connection at most", null=True)),
                ("per_minute", models.IntegerField(help_text="messages a minute at most, of all workers", null=True)),
                ("minute", models.DateTimeField(help_text="the minute that `used` counts", null=True)),
                ("used", models.IntegerField(db_default=0, help_text="messages in that minute")),
                ("text", models.TextField(db_default="", help_text="what the sender is told, or why it is held")),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "db_table": "route",
                "constraints": [models.UniqueConstraint(fields=("sender", "recipient"), name="route_once")],
            },
        ),
        migrations.AddIndex(
            model_name="outboundrecipient",
            index=models.Index(fields=["id"], name="outbound_held", condition=models.Q(state="held")),
        ),
    ]
