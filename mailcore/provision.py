"""Makes and removes domains and accounts together with what mail needs of them: DKIM keys, mailboxes, quota.

Commands, the first run of `manage.py up` and the administration pages go through here; one transaction each, so there
is never an account without its mailboxes. Raises accounts.errors.PeopleError, with a text for the person who asked.
"""

from __future__ import annotations

from accounts import people
from accounts.models import Account, Domain
from mailcore import db
from mailcore.delivery import dkim
from mailcore.store import accounts as store
from mailcore.store import quota as quotas


def add_domain(name: str) -> Domain:
    """Host a domain, with DKIM keys of each algorithm."""
    with db.django_transaction() as tx:
        domain = people.add_domain(name)
        db.run_sync(dkim.create_keys(tx, domain.name))
    return domain


def add_domain_alias(name: str, domain: str) -> Domain:
    """Let a hosted domain answer under another name too; what is sent under it is signed with DKIM keys of its own."""
    with db.django_transaction() as tx:
        alias = people.add_domain_alias(name, domain)
        db.run_sync(dkim.create_keys(tx, alias.name))
    return alias


def remove_domain(name: str) -> None:
    """Stop hosting a domain that has no accounts and aliases left.

    Its DKIM keys stay, so that a domain that comes back needs no new DNS records.
    """
    people.remove_domain(name)


def add_account(
    address: str,
    *,
    password: str | None = None,
    name: str = "",
    admin: bool = False,
    quota: int | None = None,
    messages: int | None = None,
) -> Account:
    """Make an account with its default mailboxes; `quota` in octets and `messages`, None = no limit.

    The domain must be hosted.
    """
    with db.django_transaction() as tx:
        account = people.add_account(address, password, name, admin)
        db.run_sync(store.create(tx, account.pk, quota, messages))
    return account


def set_quota(account: Account, quota: int | None, messages: int | None = None) -> None:
    """Change how many octets and messages an account may keep; None = no limit."""
    with db.django_transaction() as tx:
        db.run_sync(quotas.set_limit(tx, account.pk, quota, messages))


def remove_account(account: Account) -> list[str]:
    """Remove an account and all its mail, for good; returns the addresses of aliases that led to it."""
    with db.django_transaction() as tx:
        db.run_sync(store.remove(tx, account.pk))
        return people.remove_account(account)
