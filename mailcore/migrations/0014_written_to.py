"""What a sender wrote to, where that led on to somebody else: he is told of no other address."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0013_notices_by_age")]

    operations = [
        migrations.AddField(
            "outboundrecipient",
            "written_to",
            models.TextField(null=True, help_text="what its sender wrote to, if that led on to this address"),
        ),
    ]
