"""Notices are told the oldest first, and found so however many there are."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0012_history")]

    operations = [
        migrations.AddIndex("outboundnotice", models.Index(fields=["created_at"], name="outbound_notice_age")),
    ]
