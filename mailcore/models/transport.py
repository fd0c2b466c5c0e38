"""What is known of other servers' transport security: their MTA-STS policies, and TLS reports, ours and theirs."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class MtaStsPolicy(models.Model):
    """The policy of a domain as it was last fetched (RFC 8461); kept until it expires, whatever DNS says meanwhile."""

    domain = models.TextField(primary_key=True)
    policy_id = models.TextField(db_default="", help_text="id of the TXT record that it was fetched for")
    mode = models.TextField(null=True, help_text="enforce, testing or none; NULL = it could never be fetched")
    mx = ArrayField(models.TextField(), db_default=[], help_text="patterns of host names")
    max_age = models.IntegerField(db_default=0, help_text="seconds")
    fetched_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True, help_text="when fetching last failed")
    failure = models.TextField(null=True, help_text="result type of RFC 8460, then what was wrong")
    used_at = models.DateTimeField(db_default=Now(), help_text="when mail last asked for it, to the day")

    class Meta:
        db_table = "mta_sts_policy"
        indexes = [models.Index(fields=["fetched_at"], name="mta_sts_fetched")]


class TlsResult(models.Model):
    """How many of a day's sessions with a domain's hosts went how: what its owner is told tomorrow (RFC 8460)."""

    day = models.DateField()
    domain = models.TextField()
    key = models.BinaryField(help_text="hash of the columns that follow")
    policy = models.TextField(help_text="JSON: policy-type, policy-string, mx-host")
    result = models.TextField(help_text="'' = success, else a result type of RFC 8460 §4.3")
    host = models.TextField(db_default="")
    helo = models.TextField(db_default="")
    ip = models.TextField(db_default="")
    reason = models.TextField(db_default="")
    sessions = models.IntegerField()
    pk = models.CompositePrimaryKey("day", "domain", "key")

    class Meta:
        db_table = "tls_result"


class TlsReport(models.Model):
    """A report that somebody sent about mail to one of our domains; one row for each of its policies."""

    id = models.BigAutoField(primary_key=True)
    domain = models.TextField(help_text="policy-domain")
    organization = models.TextField()
    report_id = models.TextField()
    begins_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    policy_type = models.TextField()
    successes = models.BigIntegerField()
    failures = models.BigIntegerField()
    details = models.TextField(help_text="JSON: the failures with result, sessions, host, ip, reason")
    contact = models.TextField(db_default="")
    trace_id = models.TextField(help_text="the message that brought it")
    signed_by = models.TextField(db_default="", help_text="domain whose DKIM signature vouches for it; '' = none")
    doubt = models.TextField(db_default="", help_text="why no signature vouches for it")
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "tls_report"
        indexes = [models.Index(fields=["domain", "ends_at"], name="tls_report_domain")]
        constraints = [
            models.UniqueConstraint(
                fields=["domain", "organization", "report_id", "policy_type", "signed_by"], name="tls_report_once"
            )
        ]
