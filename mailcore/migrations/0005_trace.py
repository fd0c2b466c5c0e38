"""A message's history, refused ones included, is found by the address of the client too."""

from django.db import migrations

# No column: only the step that begins a history has it, and storing a message stays as cheap as it was.
CLIENT = """
CREATE INDEX trace_event_client ON trace_event ((detail ->> 'from'), at) WHERE detail ? 'from';
"""


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0004_queue_control")]

    operations = [migrations.RunSQL(CLIENT, "DROP INDEX trace_event_client")]
