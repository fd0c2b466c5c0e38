"""What goes out: how much each may send, and whom forwarded mail came from."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class SendingCount(models.Model):
    """What an account, a sender address or a domain sent in one span of time (see store.limits)."""

    pk = models.CompositePrimaryKey("scope", "subject", "began")
    scope = models.TextField(help_text="account, address or domain")
    subject = models.TextField(help_text="the account's number, the address, the domain's name")
    began = models.DateTimeField()
    messages = models.IntegerField()
    recipients = models.IntegerField()

    class Meta:
        db_table = "sending_count"


class ForwardedSender(models.Model):
    """A sender too long for an SRS address, which names it by `token` (see inbound.srs)."""

    token = models.TextField(primary_key=True)
    sender = models.TextField()
    used_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "forwarded_sender"
