"""What an account handed in is found by the account: a person's own history, also of what was sent as somebody else."""

from django.db import migrations

INDEX = """
CREATE INDEX trace_event_account ON trace_event (account_id, at)
    WHERE account_id IS NOT NULL AND step IN ('accepted', 'refused', 'aborted');
"""


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0011_queue_care")]

    operations = [migrations.RunSQL(INDEX, "DROP INDEX trace_event_account")]
