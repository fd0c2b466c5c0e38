"""Tables of outbound delivery: the queue (one row per message and one per recipient) and signing keys."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Lower, Now


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
    body = models.TextField(db_default="7BIT", help_text="7BIT, 8BITMIME or BINARYMIME")
    requiretls = models.BooleanField(null=True, help_text="REQUIRETLS; false = TLS-Required: No (RFC 8689)")
    dsn_ret = models.TextField(null=True, help_text="FULL or HDRS (RFC 3461)")
    dsn_envid = models.TextField(null=True)
    by_mode = models.TextField(null=True, help_text="R, N, RT or NT, of DELIVERBY (RFC 2852)")
    created_at = models.DateTimeField(db_default=Now())
    send_after = models.DateTimeField(db_default=Now(), help_text="undo send, schedule send")

    class Meta:
        db_table = "outbound"
        indexes = [
            models.Index(fields=["account_id"], name="outbound_account"),
            models.Index(fields=["blob"], name="outbound_blob"),
            models.Index(fields=["trace_id"], name="outbound_trace"),
        ]


class OutboundRecipient(models.Model):
    """One recipient: state, next attempt, lease. `state` is queued, held, delivered, failed (then done with)."""

    id = models.BigAutoField(primary_key=True)
    # Both rows are written by one statement and deleted together; a constraint would only cost a trigger per row.
    outbound = models.ForeignKey(Outbound, on_delete=models.CASCADE, related_name="recipients", db_constraint=False)
    address = models.TextField()
    written_to = models.TextField(null=True, help_text="what its sender wrote to, if that led on to this address")
    destination = models.TextField(help_text="the domain (A-label) whose MX hosts take it")
    sender_domain = models.TextField(db_default="", help_text="in lower case, as rules go by it; '' = null sender")
    state = models.TextField(db_default="queued")
    next_attempt_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True, help_text="by the database's clock")
    fence = models.BigIntegerField(db_default=0, help_text="counts claims; a result must carry the current one")
    attempts = models.IntegerField(db_default=0, help_text="claims; those given back unused are not counted")
    unreported = models.SmallIntegerField(db_default=0, help_text="claims in a row that died without a result")
    held_reason = models.TextField(null=True)  # '' = was held, and released by a person
    last_code = models.IntegerField(null=True)
    last_reply = models.TextField(null=True, help_text="the remote's words, or ours")
    last_host = models.TextField(null=True)
    notify = models.TextField(null=True, help_text="NOTIFY of RFC 3461")
    orcpt = models.TextField(null=True)
    delay_notified = models.BooleanField(db_default=False)
    priority = models.SmallIntegerField(db_default=0, help_text="-9 to 9 (RFC 6710): what is larger goes first")
    deliver_by = models.DateTimeField(null=True, help_text="when the time that the sender gave is over (RFC 2852)")
    late_notified = models.BooleanField(db_default=False, help_text="the sender knows that it is over")
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "outbound_recipient"
        indexes = [
            # By age; the priority is there so that a claim passes over what may wait without reading it.
            models.Index(
                fields=["next_attempt_at", "priority"], name="outbound_due", condition=models.Q(state="queued")
            ),
            models.Index(
                fields=["destination", "next_attempt_at", "priority"],
                name="outbound_destination",
                condition=models.Q(state="queued"),
            ),
            models.Index(
                fields=["destination", "sender_domain", "next_attempt_at", "priority"],
                name="outbound_sender",
                condition=models.Q(state="queued"),
            ),
            models.Index(fields=["id"], name="outbound_held", condition=models.Q(state="held")),
            models.Index(Lower("address"), name="outbound_address"),
            # Hardly a row is in one of these: other mail does not pay for them.
            models.Index(
                fields=["destination", "-priority", "next_attempt_at"],
                name="outbound_priority",
                condition=models.Q(state="queued") & ~models.Q(priority=0),
            ),
            models.Index(
                fields=["-priority", "next_attempt_at"],
                name="outbound_priority_any",
                condition=models.Q(state="queued") & ~models.Q(priority=0),
            ),
            models.Index(
                fields=["deliver_by"],
                name="outbound_deliver_by",
                condition=models.Q(state="queued", deliver_by__isnull=False, late_notified=False),
            ),
        ]


class OutboundNotice(models.Model):
    """Something to tell a sender of one recipient; waits a moment, so that one report tells of all that failed."""

    id = models.BigAutoField(primary_key=True)
    outbound_id = models.BigIntegerField()
    recipient_id = models.BigIntegerField()
    address = models.TextField(help_text="as it was then")
    orcpt = models.TextField(null=True)
    action = models.TextField(help_text="of RFC 3464: failed, delayed, delivered, relayed, expanded")
    status = models.TextField()
    text = models.TextField()
    is_remote = models.BooleanField(help_text="the text is the remote's")
    host = models.TextField(null=True, help_text="the server that spoke last")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbound_notice"
        indexes = [
            models.Index(fields=["outbound_id"], name="outbound_notice_message"),
            models.Index(fields=["created_at"], name="outbound_notice_age"),
        ]


class DkimKey(models.Model):
    """A signing key of a domain; the private half is sealed with the installation key."""

    domain = models.TextField(help_text="d=, A-label form")
    selector = models.TextField()
    algorithm = models.TextField(help_text="rsa or ed25519")
    private_key = models.BinaryField(help_text="PEM (PKCS #8), sealed by accounts.secrets")
    public_key = models.TextField(help_text="p= of the DNS record")
    state = models.TextField(
        db_default="active", help_text="next (published, not yet in use), active, retired (still published)"
    )
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "dkim_key"
        constraints = [models.UniqueConstraint(fields=["domain", "selector"], name="dkim_selector_once")]
