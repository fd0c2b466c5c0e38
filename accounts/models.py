"""The people of an installation: domains, accounts, the addresses that lead to them, and app passwords."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value

from accounts.app_passwords import every_scope
from accounts.managers import AccountManager


def _no_policy() -> Value:
    return Value({}, models.JSONField())


class Domain(models.Model):
    """A domain whose mail this installation receives; `name` is its lower-case A-label form (xn--…).

    With `alias_of` it is only another name of that domain, whose addresses are its own.
    """

    name = models.CharField(max_length=253, unique=True)
    alias_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="other_names")
    policy = models.JSONField(default=dict, db_default=_no_policy(), blank=True, help_text="see accounts.policies")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Account(AbstractBaseUser, PermissionsMixin):
    """A person with a mailbox, and the Django user; signs in with `address`."""

    address = models.CharField(max_length=320, unique=True, help_text="primary address, lower case")
    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="accounts")
    name = models.CharField(max_length=200, blank=True, help_text="as shown in From")
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False, help_text="may use the administration")
    administers = models.ManyToManyField(
        Domain, blank=True, related_name="administrators", help_text="domains whose people this account looks after"
    )
    policy = models.JSONField(default=dict, db_default=_no_policy(), blank=True, help_text="see accounts.policies")
    created_at = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "address"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = AccountManager()

    def __str__(self) -> str:
        return self.address

    def get_full_name(self) -> str:
        return self.name or self.address


class Address(models.Model):
    """One address of a domain: it leads to an account (`account` set) or, as an alias, to its targets.

    `local_part` is as accounts.addresses.normalise writes it: lower case, quoted only when it must be. `*` is the
    domain's catch-all. Plus-tags are not stored: `ann+x@` finds `ann@`.
    """

    # Without an index of its own: `address_once` begins with it, and must not be passed over for a smaller one.
    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, related_name="addresses", db_index=False)
    local_part = models.CharField(max_length=130, help_text="64 octets, each perhaps escaped, and two quotes")
    account = models.ForeignKey(Account, on_delete=models.CASCADE, null=True, blank=True, related_name="addresses")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["domain", "local_part"], name="address_once"),)
        verbose_name_plural = "addresses"

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain.name}"


class AliasTarget(models.Model):
    """Where an alias leads: any address, local or remote."""

    alias = models.ForeignKey(Address, on_delete=models.CASCADE, related_name="targets")
    address = models.CharField(max_length=320, db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["alias", "address"], name="alias_target_once"),)

    def __str__(self) -> str:
        return self.address


class Group(models.Model):
    """An alias that is a list of people, its targets the members: it has a name and a rule for who may write to it."""

    class Posting(models.TextChoices):
        ANYONE = "anyone"
        DOMAIN = "domain"
        MEMBERS = "members"

    address = models.OneToOneField(Address, on_delete=models.CASCADE, primary_key=True, related_name="group")
    name = models.CharField(max_length=200, blank=True)
    posting = models.CharField(max_length=10, choices=Posting, default=Posting.ANYONE)
    send_as = models.BooleanField(default=False, help_text="members may send as the group")

    def __str__(self) -> str:
        return str(self.address)


class SendAs(models.Model):
    """The right of an account to send as an address of somebody else, or as any address of a domain."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="may_send_as")
    address = models.ForeignKey(Address, on_delete=models.CASCADE, null=True, blank=True, related_name="senders")
    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, null=True, blank=True, related_name="senders")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(address=None, domain__isnull=False) | Q(address__isnull=False, domain=None),
                name="send_as_one_thing",
            ),
            models.UniqueConstraint(fields=["account", "address"], name="send_as_address_once"),
            models.UniqueConstraint(fields=["account", "domain"], name="send_as_domain_once"),
        )

    def __str__(self) -> str:
        return str(self.address or self.domain)


class AppPassword(models.Model):
    """A password for one mail program: 128 random bits, kept as a keyed hash, shown once."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="app_passwords")
    label = models.CharField(max_length=100, blank=True)
    digest = models.BinaryField(max_length=32, unique=True)
    scram = models.BinaryField(max_length=100, help_text="what SCRAM checks it by, sealed")
    scopes = ArrayField(
        models.CharField(max_length=10), default=every_scope, help_text="protocols that it is good for, of SCOPES"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.label or f"app password {self.pk}"
