"""The function that numbers messages to be stored; its text stands beside the verb that calls it."""

from pathlib import Path

from django.db import migrations

FUNCTION = Path(__file__).parent.parent / "store" / "append.sql"


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0002_storage")]

    operations = [migrations.RunSQL(FUNCTION.read_text(), "DROP FUNCTION number_messages")]
