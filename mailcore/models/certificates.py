"""Our own certificates, and what it takes to get them; every host of the installation reads them here."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Certificate(models.Model):
    """A certificate, or one that is wanted and that nobody has issued yet (no chain). Private keys are sealed."""

    name = models.TextField(primary_key=True, help_text="a host's name, or a hosted domain's for its service names")
    source = models.TextField(help_text="acme or imported")
    names = ArrayField(models.TextField(), db_default=[], help_text="what the certificate is for; * may stand in front")
    chain = models.TextField(null=True, help_text="PEM, the certificate first")
    private_key = models.BinaryField(help_text="PEM, sealed; kept over renewals, because TLSA records name it")
    next_key = models.BinaryField(help_text="PEM, sealed: the one that comes after it, for a TLSA record in advance")
    not_before = models.DateTimeField(null=True)
    not_after = models.DateTimeField(null=True)
    version = models.BigIntegerField(help_text="of all certificates' changes")
    failures = models.IntegerField(db_default=0, help_text="attempts to get it since the last that succeeded")
    error = models.TextField(db_default="", help_text="what was wrong the last time")
    tried_at = models.DateTimeField(null=True)
    next_try_at = models.DateTimeField(db_default=Now())
    renew_at = models.DateTimeField(null=True, help_text="when the authority wants it renewed; NULL = it does not say")
    ask_at = models.DateTimeField(db_default=Now(), help_text="when to ask the authority for that again")

    class Meta:
        db_table = "certificate"


class AcmeAccount(models.Model):
    """Our account with a certificate authority."""

    directory = models.TextField(primary_key=True, help_text="URL")
    private_key = models.BinaryField(help_text="PEM, sealed")
    uri = models.TextField()

    class Meta:
        db_table = "acme_account"


class AcmeChallenge(models.Model):
    """What a certificate authority is about to ask the web process for (RFC 8555 §8.3)."""

    token = models.TextField(primary_key=True)
    answer = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "acme_challenge"
