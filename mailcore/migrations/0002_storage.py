"""What Django's schema language cannot say: storage modes, vacuum settings, the partitioned trace table."""

from django.db import migrations

STORAGE = """
-- Mail is rarely compressible enough to pay for it: default compression costs 3.5 times the insert rate.
ALTER TABLE blob ALTER COLUMN data SET STORAGE EXTERNAL;
-- For the sweep of blobs that nobody refers to; costs inserts next to nothing.
CREATE INDEX blob_touched ON blob USING brin (touched_at) WITH (pages_per_range = 32);
-- Tables that grow at their end: what is old is found by the block.
CREATE INDEX expunged_at ON expunged USING brin (expunged_at) WITH (pages_per_range = 32);
CREATE INDEX flag_change_at ON flag_change USING brin (changed_at) WITH (pages_per_range = 32);
ALTER TABLE message_text ALTER COLUMN text SET STORAGE EXTERNAL;
ALTER TABLE message
    ALTER COLUMN envelope SET STORAGE MAIN,
    ALTER COLUMN bodystructure SET STORAGE MAIN,
    ALTER COLUMN headers SET STORAGE MAIN,
    ALTER COLUMN sort_keys SET STORAGE MAIN,
    ALTER COLUMN ancestry SET STORAGE MAIN,
    ALTER COLUMN parts SET STORAGE EXTERNAL,
    ALTER COLUMN summary SET STORAGE EXTERNAL;
-- Hot narrow rows: leave room for in-page updates and vacuum them early.
ALTER TABLE account_state SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE mailbox SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- Half a page free: flags of a whole mailbox change within its pages, 13 instead of 72 ms for 10,000.
ALTER TABLE entry SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- Search: compressed already; many rows go at once when segments become one. Numbers of segments are never used again.
ALTER TABLE search_block ALTER COLUMN words SET STORAGE EXTERNAL, ALTER COLUMN sections SET STORAGE EXTERNAL;
ALTER TABLE search_filter ALTER COLUMN bits SET STORAGE EXTERNAL;
ALTER TABLE search_block SET (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE search_filter SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE search_index SET (fillfactor = 70);
ALTER TABLE outbound_recipient SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
"""

TRACE = """
CREATE SEQUENCE trace_event_id;
CREATE TABLE trace_event (
    at timestamptz NOT NULL DEFAULT now(),
    id bigint NOT NULL DEFAULT nextval('trace_event_id'),
    trace_id text NOT NULL,
    step text NOT NULL,
    account_id bigint,
    outbound_id bigint,
    sender text,
    recipient text,
    message_id text,
    detail jsonb NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (at);
CREATE TABLE trace_event_default PARTITION OF trace_event DEFAULT;
-- Old events are swept by time; nothing else asks for it alone.
CREATE INDEX trace_event_at ON trace_event USING brin (at) WITH (pages_per_range = 32);
CREATE INDEX trace_event_trace ON trace_event (trace_id);
CREATE INDEX trace_event_recipient ON trace_event (recipient, at) WHERE recipient IS NOT NULL;
CREATE INDEX trace_event_sender ON trace_event (sender, at) WHERE sender IS NOT NULL;
CREATE INDEX trace_event_message ON trace_event (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX trace_event_outbound ON trace_event (outbound_id) WHERE outbound_id IS NOT NULL;
"""

# Not a column's own: a segment's rows in three tables bear its number.
SEGMENTS = "CREATE SEQUENCE search_segment_number;"

DROP_TRACE = "DROP TABLE trace_event; DROP SEQUENCE trace_event_id;"


class Migration(migrations.Migration):
    dependencies = [("mailcore", "0001_initial")]

    operations = [
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        migrations.RunSQL(TRACE, DROP_TRACE),
        migrations.RunSQL(SEGMENTS, "DROP SEQUENCE search_segment_number;"),
    ]
