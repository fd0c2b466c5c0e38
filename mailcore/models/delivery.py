"""Tables of outbound delivery: the queue (one row per message and one per recipient) and signing keys."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Outbound(models.Model):
    """A message on its way out; gone from the queue when no recipient row is left open."""

    id = models.BigAutoField(primary_key=True)
    trace_id = models.TextField(help_text="the id in Received and in `manage.py trace`")
    account_id = models.BigIntegerField(null=True, help_text="who submitted it; NULL = the system (a DSN)")
    sender = models.TextField(help_text="envelope sender; '' = null sender")
    blob = models.BinaryField(max_length=32)
    size = models.BigIntegerField()
    prepend = models.BinaryField(db_default=b"", help_text="header lines sent before the blob (Received …)")
    smtputf8 = models.BooleanField(db_default=False)
    body_8bit = models.BooleanField(db_default=False)
    dsn_ret = models.TextField(null=True, help_text="FULL or HDRS (RFC 3461)")
    dsn_envid = models.TextField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    send_after = models.DateTimeField(db_default=Now(), help_text="undo send, schedule send")

    class Meta:
        db_table = "outbound"
        indexes = [
            models.Index(fields=["account_id"], name="outbound_account"),
            models.Index(fields=["blob"], name="outbound_blob"),
        ]


class OutboundRecipient(models.Model):
    """One recipient: state, next attempt, lease. `state` is queued, held, delivered, failed (then done with)."""

    id = models.BigAutoField(primary_key=True)
    # Both rows are written by one statement and deleted together; a constraint would only cost a trigger per row.
    outbound = models.ForeignKey(Outbound, on_delete=models.CASCADE, related_name="recipients", db_constraint=False)
    address = models.TextField()
    destination = models.TextField(help_text="the domain (A-label) whose MX hosts take it")
    state = models.TextField(db_default="queued")
    next_attempt_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True, help_text="by the database's clock")
    fence = models.BigIntegerField(db_default=0, help_text="counts claims; a result must carry the current one")
    attempts = models.IntegerField(db_default=0, help_text="claims; those given back unused are not counted")
    unreported = models.SmallIntegerField(db_default=0, help_text="claims in a row that died without a result")
    held_reason = models.TextField(null=True)
    last_code = models.IntegerField(null=True)
    last_reply = models.TextField(null=True, help_text="the remote's words, or ours")
    last_host = models.TextField(null=True)
    notify = models.TextField(null=True, help_text="NOTIFY of RFC 3461")
    orcpt = models.TextField(null=True)
    delay_notified = models.BooleanField(db_default=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "outbound_recipient"
        indexes = [
            models.Index(fields=["next_attempt_at"], name="outbound_due", condition=models.Q(state="queued")),
            models.Index(
                fields=["destination", "next_attempt_at"],
                name="outbound_destination",
                condition=models.Q(state="queued"),
            ),
        ]


class DkimKey(models.Model):
    """A signing key of a domain; the private half is sealed with the installation key."""

    domain = models.TextField(help_text="d=, A-label form")
    selector = models.TextField()
    algorithm = models.TextField(help_text="rsa or ed25519")
    private_key = models.BinaryField(help_text="PEM (PKCS #8), sealed by accounts.secrets")
    public_key = models.TextField(help_text="p= of the DNS record")
    is_active = models.BooleanField(db_default=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "dkim_key"
        constraints = [models.UniqueConstraint(fields=["domain", "selector"], name="dkim_selector_once")]
