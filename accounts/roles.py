"""Who may administer what: the one place that every administration query starts from.

Three roles today: a person with a mailbox, the administrator of some domains, and the superuser of the installation.
"""

from __future__ import annotations

from enum import StrEnum

from django.db.models import QuerySet

from accounts.models import Account, Domain


class Role(StrEnum):
    USER = "user"
    DOMAIN_ADMIN = "domain admin"
    SUPERUSER = "superuser"


def role_of(account: Account) -> Role:
    """The highest role of an account."""
    if account.is_superuser:
        return Role.SUPERUSER
    if account.administers.exists():
        return Role.DOMAIN_ADMIN
    return Role.USER


def visible_domains(account: Account) -> QuerySet[Domain]:
    """The domains an account may administer; everybody else's look as if they did not exist."""
    if not account.is_active:
        return Domain.objects.none()
    if account.is_superuser:
        return Domain.objects.all()
    return account.administers.all()


def visible_accounts(account: Account) -> QuerySet[Account]:
    """The accounts an account may administer: those of its domains. Only a superuser may touch a superuser."""
    accounts = Account.objects.filter(domain__in=visible_domains(account))
    return accounts if account.is_superuser else accounts.filter(is_superuser=False)
