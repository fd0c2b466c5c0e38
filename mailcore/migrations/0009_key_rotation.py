"""Signing keys come and go: published before they sign, and for a while after."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0008_certificates")]

    operations = [
        migrations.RemoveField("dkimkey", "is_active"),
        migrations.AddField(
            "dkimkey",
            "state",
            models.TextField(
                db_default="active", help_text="next (published, not yet in use), active, retired (still published)"
            ),
        ),
        migrations.AddField("dkimkey", "changed_at", models.DateTimeField(db_default=Now())),
    ]
