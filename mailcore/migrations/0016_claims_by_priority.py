"""What may wait is passed over within the indexes when something more urgent is claimed from behind it."""

from django.db import migrations, models

_QUEUED = models.Q(state="queued")
_INDEXES = {
    "outbound_due": ["next_attempt_at"],
    "outbound_destination": ["destination", "next_attempt_at"],
    "outbound_sender": ["destination", "sender_domain", "next_attempt_at"],
}


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0015_lanes")]

    operations = [
        operation
        for name, names in _INDEXES.items()
        for operation in (
            migrations.RemoveIndex("outboundrecipient", name),
            migrations.AddIndex(
                "outboundrecipient", models.Index(fields=[*names, "priority"], name=name, condition=_QUEUED)
            ),
        )
    ]
