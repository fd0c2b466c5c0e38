"""The people of an installation: domains, accounts, the addresses that lead to them, and app passwords."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models

from accounts.app_passwords import every_scope
from accounts.managers import AccountManager


class Domain(models.Model):
    """A domain whose mail this installation receives; `name` is its lower-case A-label form (xn--…)."""

    name = models.CharField(max_length=253, unique=True)
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

    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, related_name="addresses")
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
