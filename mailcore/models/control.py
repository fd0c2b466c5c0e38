"""Tables that steer outbound delivery: frozen and paused destinations, suppressed addresses, routes."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class FrozenDestination(models.Model):
    """A destination that an administrator has stopped; its mail waits in the queue."""

    destination = models.TextField(primary_key=True, help_text="A-label form")
    until = models.DateTimeField(null=True, help_text="NULL = until it is thawed")
    reason = models.TextField(db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "frozen_destination"


class DeliveryPause(models.Model):
    """A destination, or the address of a host, that could not be reached: all workers leave it alone for a while."""

    name = models.TextField(primary_key=True, help_text="a destination, or host:ADDRESS")
    until = models.DateTimeField()
    failures = models.IntegerField(db_default=1, help_text="in a row")
    reason = models.TextField()
    since = models.DateTimeField(db_default=Now(), help_text="the first failure in a row")
    changed_at = models.DateTimeField(db_default=Now(), help_text="workers read what is new")

    class Meta:
        db_table = "delivery_pause"
        indexes = [models.Index(fields=["changed_at"], name="delivery_pause_changed")]


class Suppression(models.Model):
    """An address (or a whole domain) that refused mail for good; when `active`, mail for it is returned unsent."""

    address = models.TextField(primary_key=True, help_text="lower case; without @: a domain")
    source = models.TextField(help_text="bounce, complaint or admin")
    category = models.TextField(help_text="of delivery.classify")
    reason = models.TextField(help_text="the last refusal")
    failures = models.IntegerField(db_default=1)
    active = models.BooleanField(db_default=False)
    until = models.DateTimeField(null=True, help_text="NULL = until it is removed")
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "suppression"


class Route(models.Model):
    """A rule for mail from and to certain domains: where it goes, and how. The most particular rule wins."""

    id = models.BigAutoField(primary_key=True)
    sender = models.TextField(db_default="*", help_text="domain, *.domain or *")
    recipient = models.TextField(db_default="*", help_text="domain, *.domain or *")
    action = models.TextField(help_text="mx, relay, hold, bounce or discard")
    host = models.TextField(null=True)
    port = models.IntegerField(null=True)
    username = models.TextField(null=True)
    password = models.BinaryField(null=True, help_text="sealed by accounts.secrets")
    tls = models.TextField(db_default="may", help_text="none, may, require")
    source4 = models.TextField(null=True, help_text="our IPv4 address towards it")
    source6 = models.TextField(null=True, help_text="our IPv6 address towards it")
    hello = models.TextField(null=True, help_text="our name in EHLO")
    connections = models.IntegerField(null=True, help_text="at most at a time, of one worker")
    per_connection = models.IntegerField(null=True, help_text="messages over one connection at most")
    per_minute = models.IntegerField(null=True, help_text="messages a minute at most, of all workers")
    minute = models.DateTimeField(null=True, help_text="the minute that `used` counts")
    used = models.IntegerField(db_default=0, help_text="messages in that minute")
    text = models.TextField(db_default="", help_text="what the sender is told, or why it is held")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "route"
        constraints = [models.UniqueConstraint(fields=["sender", "recipient"], name="route_once")]
