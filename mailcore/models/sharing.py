"""What people say about mailboxes (METADATA) and who else may use them (ACL)."""

from __future__ import annotations

from django.db import models


class Annotation(models.Model):
    """One entry of a mailbox's or, with `mailbox_id` 0, the server's metadata (RFC 5464)."""

    pk = models.CompositePrimaryKey("account_id", "mailbox_id", "reader_id", "name")
    account_id = models.BigIntegerField(help_text="whose mailbox")
    mailbox_id = models.BigIntegerField()
    reader_id = models.BigIntegerField(help_text="the account that a /private entry belongs to; 0 = /shared")
    name = models.TextField(help_text="lower case, with /private or /shared")
    value = models.BinaryField()

    class Meta:
        db_table = "annotation"
        indexes = [models.Index(fields=["reader_id"], name="annotation_reader")]


class Grant(models.Model):
    """Rights of somebody else in a mailbox (RFC 4314)."""

    pk = models.CompositePrimaryKey("account_id", "mailbox_id", "grantee_id")
    account_id = models.BigIntegerField(help_text="whose mailbox")
    mailbox_id = models.BigIntegerField()
    grantee_id = models.BigIntegerField(help_text="an account; negative = everybody of the domain with that number")
    rights = models.IntegerField(help_text="bit mask, see store.acl")

    class Meta:
        db_table = "mailbox_grant"
        indexes = [models.Index(fields=["grantee_id"], name="mailbox_grant_grantee")]
