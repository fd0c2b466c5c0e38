"""The history of messages: one append-only line for each thing that happened to one, partitioned by time."""

from __future__ import annotations

from django.db import models


class TraceEvent(models.Model):
    """One step of a message's way. The table is made by migration 0002: PARTITION BY RANGE (at)."""

    pk = models.CompositePrimaryKey("at", "id")
    at = models.DateTimeField()
    id = models.BigIntegerField()
    trace_id = models.TextField()
    step = models.TextField(help_text="accepted, stored, queued, attempt, delivered, deferred, bounced, …")
    account_id = models.BigIntegerField(null=True)
    outbound_id = models.BigIntegerField(null=True)
    sender = models.TextField(null=True)
    recipient = models.TextField(null=True)
    message_id = models.TextField(null=True, help_text="the Message-ID field")
    detail = models.JSONField(default=dict)

    class Meta:
        db_table = "trace_event"
        managed = False
