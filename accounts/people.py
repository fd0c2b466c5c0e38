"""The verbs that change who exists; commands, the administration pages and tests all go through them.

Each runs in one transaction (it joins the caller's, so that an account and its mailboxes commit together) and raises
PeopleError, whose text says what is wrong and what to do. An account's mail is mailcore.provision's business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from django.db import IntegrityError, transaction
from django.db.models import Count, Q, QuerySet

from accounts import app_passwords, passwords
from accounts.addresses import (
    CATCH_ALL,
    TAG_SEPARATOR,
    hosted_domain_name,
    normalise,
    parse_address,
    quote_local,
)
from accounts.errors import AddressError, PeopleError
from accounts.leads import canonical_targets, existing_targets, key, main_name, refuse_loops, shown
from accounts.models import Account, Address, AliasTarget, AppPassword, Domain, Group
from accounts.notices import credentials_changed

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    class _Counts(TypedDict):
        account_count: int
        alias_count: int
        group_count: int

    CountedDomain = WithAnnotations[Domain, _Counts]

MAX_ALIAS_TARGETS = 1000
MAX_NAME = 200
MAX_LABEL = 100


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as people see it."""

    address: str
    targets: tuple[str, ...]


# --- domains


def get_domain(name: str) -> Domain:
    """The hosted domain of that name, which is not another name of one."""
    domain = get_any_domain(name)
    if domain.alias_of is not None:
        raise PeopleError(f"{domain.name} is another name of {domain.alias_of.name}: use that.")
    return domain


def get_any_domain(name: str) -> Domain:
    """The hosted domain of that name, be it another name of one."""
    wanted = _domain_name(name)
    try:
        return Domain.objects.select_related("alias_of").get(name=wanted)
    except Domain.DoesNotExist:
        how = f"`manage.py domain add {wanted}` adds it, `domain list` shows all"
        raise PeopleError(f"Domain {wanted} is not hosted here: {how}.") from None


def list_domains() -> QuerySet[CountedDomain]:
    """All domains by name, each with `account_count`, `alias_count`, `group_count`; no domain aliases."""
    return (
        Domain.objects.filter(alias_of=None)
        .annotate(
            account_count=Count("accounts", distinct=True),
            alias_count=Count("addresses", filter=Q(addresses__account=None, addresses__group=None), distinct=True),
            group_count=Count("addresses__group", distinct=True),
        )
        .order_by("name")
    )


def add_domain(name: str) -> Domain:
    """Host a domain from now on."""
    return _create_domain(_domain_name(name), None)


def list_domain_aliases() -> QuerySet[Domain]:
    """The other names of domains."""
    return Domain.objects.exclude(alias_of=None).select_related("alias_of").order_by("name")


@transaction.atomic
def add_domain_alias(name: str, domain: str) -> Domain:
    """Let every address of a hosted domain be reached (and sent as) under another domain's name as well.

    Refused when an alias that led outside, to an address of that name, would now lead back to itself.
    """
    added = _create_domain(_domain_name(name), get_domain(domain))
    for target in AliasTarget.objects.filter(address__endswith=f"@{added.name}").select_related("alias__domain"):
        refuse_loops(str(target.alias), [target.address])
    return added


@transaction.atomic
def remove_domain_alias(name: str) -> None:
    """Take a domain's other name back: mail to it is refused from now on."""
    alias = get_any_domain(name)
    if alias.alias_of is None:
        raise PeopleError(f"{alias.name} is a domain of its own, not another name: see `manage.py domain remove`.")
    alias.delete()


@transaction.atomic
def _create_domain(name: str, alias_of: Domain | None) -> Domain:
    if "." not in name:  # other servers take no mail from one (RFC 7085)
        raise PeopleError(f"{name} has no dot: a mail domain is one such as example.org.")
    taken = PeopleError(f"Domain {name} is hosted here already.")
    if Domain.objects.filter(name=name).exists():  # asked first, so that Postgres has no error to log
        raise taken
    try:
        with transaction.atomic():
            return Domain.objects.create(name=name, alias_of=alias_of)
    except IntegrityError:
        raise taken from None


@transaction.atomic
def remove_domain(name: str) -> None:
    """Stop hosting a domain; refused while it has accounts or aliases, so that no mail is lost by a slip."""
    domain = get_domain(name)
    accounts = domain.accounts.count()
    aliases = domain.addresses.filter(account=None, group=None).count()
    groups = domain.addresses.filter(group__isnull=False).count()
    if accounts or aliases or groups:
        left = [(accounts, "account", "accounts"), (aliases, "alias", "aliases"), (groups, "group", "groups")]
        raise PeopleError(
            f"Domain {domain.name} still has {' and '.join(_count(*each) for each in left if each[0])}: "
            "remove those first (`manage.py account remove`, `alias remove`, `group remove`)."
        )
    if others := [each.name for each in domain.other_names.order_by("name")]:
        raise PeopleError(f"{', '.join(others)} would lead nowhere: `manage.py domain alias remove {others[0]}` first.")
    domain.delete()


# --- accounts


def get_account(address: str) -> Account:
    """The account with that primary address."""
    wanted = normalised(address)
    try:
        return Account.objects.select_related("domain").get(address=wanted)
    except Account.DoesNotExist:
        pass
    if Address.objects.filter(**key(wanted), account=None).exists():
        raise PeopleError(f"{wanted} is an alias, not an account.")
    raise PeopleError(f"There is no account {wanted}: `manage.py account list` shows all.")


def list_accounts(domain: str | None = None) -> QuerySet[Account]:
    """All accounts by address, or those of one domain."""
    accounts = Account.objects.select_related("domain").order_by("domain__name", "address")
    return accounts if domain is None else accounts.filter(domain=get_domain(domain))


@transaction.atomic
def add_account(address: str, password: str | None = None, name: str = "", admin: bool = False) -> Account:
    """Make an account and the address that leads to it. Without a password nobody can sign in until one is set.

    `admin` makes it a superuser. Mailboxes are made by mailcore.provision.
    """
    wanted = normalised(address)
    local = storable_local(wanted)
    domain = get_domain(parse_address(wanted).domain)
    refuse_taken(wanted)
    account = Account(
        address=wanted, domain=domain, name=clean(name, MAX_NAME, "name"), is_staff=admin, is_superuser=admin
    )
    if password is None:
        account.set_unusable_password()
    else:
        _set_password(account, password)
    try:
        with transaction.atomic():
            account.save()
            Address.objects.create(domain=domain, local_part=local, account=account)
    except IntegrityError:
        raise PeopleError(f"{wanted} exists already.") from None
    return account


@transaction.atomic
def set_password(account: Account, password: str) -> None:
    """Change the password; every web session and every mail program's login with the old one ends."""
    _set_password(account, password)
    account.save(update_fields=["password"])
    credentials_changed(account.pk)


def disable_account(account: Account) -> None:
    """Refuse all sign-ins and new mail from now on and end open sessions; the mail that is there stays."""
    account.is_active = False
    account.save(update_fields=["is_active"])
    credentials_changed(account.pk)


def enable_account(account: Account) -> None:
    """Undo disable_account."""
    account.is_active = True
    account.save(update_fields=["is_active"])


def has_administrator() -> bool:
    """Whether anybody who may sign in administers the whole installation."""
    return Account.objects.filter(is_superuser=True, is_active=True).exists()


@transaction.atomic
def remove_account(account: Account) -> list[str]:
    """Delete an account, its addresses and credentials; mailcore.provision removes its mail in the same transaction.

    Aliases and groups no longer lead to it; aliases that led to nobody else go too. Returns the addresses of all that
    changed.
    """
    own = [str(row) for row in account.addresses.select_related("domain")]
    changed = []
    for alias in Address.objects.filter(targets__address__in=own).select_related("domain").distinct():
        changed.append(str(alias))
        alias.targets.filter(address__in=own).delete()
        if not alias.targets.exists() and not Group.objects.filter(pk=alias.pk).exists():
            alias.delete()
    credentials_changed(account.pk)
    account.delete()
    return sorted(changed)


# --- aliases


def list_aliases(address: str | None = None) -> list[Alias]:
    """All aliases with their targets, or those of one address or (given a bare domain name) one domain."""
    rows = Address.objects.filter(account=None, group=None).select_related("domain").prefetch_related("targets")
    if address is not None and "@" in address:
        rows = rows.filter(**key(normalised(address)))
    elif address is not None:
        rows = rows.filter(domain=get_domain(address))
    return _aliases(rows)


def list_aliases_to(address: str) -> list[Alias]:
    """The aliases that lead to an address directly."""
    target = canonical_targets([address])[0]
    rows = Address.objects.filter(id__in=AliasTarget.objects.filter(address=target).values("alias_id"))
    return _aliases(rows.select_related("domain").prefetch_related("targets"))


def _aliases(rows: QuerySet[Address]) -> list[Alias]:
    return [
        Alias(str(row), tuple(sorted(target.address for target in row.targets.all())))
        for row in rows.order_by("domain__name", "local_part")
    ]


@transaction.atomic
def add_alias(address: str, targets: Sequence[str]) -> Alias:
    """Let an address lead to others, here or elsewhere; an alias that exists gets more targets. `*@domain` = catch-all.

    Aliases may lead to aliases, but not in a circle. Whoever expands one at delivery still limits the depth, because
    later changes (a removed account behind a catch-all) can close a circle.
    """
    wanted = normalised(address)
    local = storable_local(wanted, catch_all=True)
    domain = get_domain(parse_address(wanted).domain)
    if not targets:
        raise PeopleError("An alias needs at least one target address.")
    refuse_taken(wanted, accounts_only=True)
    row, _ = Address.objects.get_or_create(domain=domain, local_part=local, account=None)
    found = existing_targets(targets)
    refuse_loops(wanted, found)
    AliasTarget.objects.bulk_create([AliasTarget(alias=row, address=each) for each in found], ignore_conflicts=True)
    if row.targets.count() > MAX_ALIAS_TARGETS:
        raise PeopleError(f"An alias can have at most {MAX_ALIAS_TARGETS} targets.")
    return list_aliases(wanted)[0]


@transaction.atomic
def remove_alias(address: str, targets: Sequence[str] = ()) -> list[str]:
    """Remove an alias, or only some of its targets (with the last of them, the alias goes too); returns the aliases and
    groups that lead to what is gone."""
    wanted = normalised(address)
    row = Address.objects.filter(**key(wanted)).first()
    if row is None:
        raise PeopleError(f"There is no alias {wanted}: `manage.py alias list` shows all.")
    if row.account_id is not None:
        raise PeopleError(f"{wanted} is an account, not an alias: see `manage.py account remove`.")
    _refuse_group(row)
    for target in canonical_targets(targets):
        if not row.targets.filter(address=target).delete()[0]:
            raise PeopleError(f"Alias {wanted} does not lead to {target}.")
    if not targets or not row.targets.exists():
        row.delete()
        left = list(AliasTarget.objects.filter(address=wanted).select_related("alias__domain").order_by("id"))
        for leading in left:
            refuse_loops(str(leading.alias), [wanted])  # a catch-all may now take what led here
        return [str(leading.alias) for leading in left]
    return []


# --- app passwords


def list_app_passwords(account: Account) -> QuerySet[AppPassword]:
    """An account's app passwords, oldest first."""
    return account.app_passwords.order_by("created_at", "id")


@transaction.atomic
def add_app_password(account: Account, label: str = "", scopes: Collection[str] | None = None) -> str:
    """Make an app password and return its secret, which cannot be shown again.

    `scopes` are the mail protocols that it is good for, of app_passwords.SCOPES; None = all of them.
    """
    label = clean(label, MAX_LABEL, "label")
    chosen = app_passwords.every_scope() if scopes is None else [s for s in app_passwords.SCOPES if s in scopes]
    if unknown := sorted(set(scopes or ()) - set(app_passwords.SCOPES)):
        raise PeopleError(f"{shown(unknown[0])} is no protocol of app passwords: {', '.join(app_passwords.SCOPES)}.")
    if not chosen:
        raise PeopleError(f"Name at least one protocol: {', '.join(app_passwords.SCOPES)}.")
    if account.app_passwords.count() >= app_passwords.MAX_PER_ACCOUNT:
        raise PeopleError(f"{account.address} has {app_passwords.MAX_PER_ACCOUNT} app passwords: remove one first.")
    if label and account.app_passwords.filter(label=label).exists():
        raise PeopleError(f"{account.address} has an app password labelled {label!r} already: choose another label.")
    secret = app_passwords.generate()
    AppPassword.objects.create(
        account=account,
        label=label,
        digest=app_passwords.digest(secret),
        scram=app_passwords.sealed_scram(secret, account.address),
        scopes=chosen,
    )
    return secret


@transaction.atomic
def remove_app_password(account: Account, *, label: str | None = None, number: int | None = None) -> AppPassword:
    """Remove and return an app password, by its label or its number; the sessions of mail programs using it end."""
    if number is not None:
        rows, named = account.app_passwords.filter(id=number), f"number {number}"
    else:
        rows, named = account.app_passwords.filter(label=label or ""), f"label {label or ''!r}"
    found = list(rows)
    if not found:
        raise PeopleError(f"{account.address} has no app password with {named}: see `manage.py apppassword list`.")
    if len(found) > 1:
        raise PeopleError(f"{account.address} has {len(found)} app passwords with {named}: name one by its number.")
    (gone,) = found
    rows.delete()
    credentials_changed(account.pk)
    return gone


# --- shared checks


def normalised(address: str) -> str:
    """An address of ours as it is stored, under the main name of its domain."""
    try:
        local, at, domain = normalise(address).rpartition("@")
    except AddressError as error:
        raise PeopleError(f"{shown(address)} is not a mail address: {error.text}.") from None
    return local + at + main_name(domain)


def _domain_name(name: str) -> str:
    try:
        return hosted_domain_name(name.strip().removesuffix("."))  # as zone files write it
    except AddressError as error:
        raise PeopleError(f"{shown(name)} is not a domain name: {error.text}.") from None


def storable_local(normalised: str, *, catch_all: bool = False) -> str:
    local = parse_address(normalised).local
    if local == CATCH_ALL and not catch_all:
        raise PeopleError(f"{normalised} would be the catch-all: make it with `manage.py alias add`.")
    if TAG_SEPARATOR in local:
        raise PeopleError(f"{normalised} contains '+', which is for tags: every address receives its +tags by itself.")
    return quote_local(local)


def refuse_taken(normalised: str, *, accounts_only: bool = False) -> None:
    row = Address.objects.filter(**key(normalised)).first()
    if row is None:
        return
    if row.account_id is not None:
        raise PeopleError(f"There is an account {normalised} already.")
    _refuse_group(row)
    if not accounts_only:
        raise PeopleError(f"{normalised} is an alias already: remove it with `manage.py alias remove {normalised}`.")


def _refuse_group(row: Address) -> None:
    if Group.objects.filter(pk=row.pk).exists():
        raise PeopleError(f"{row} is a group: see `manage.py group`.")


def _set_password(account: Account, password: str) -> None:
    if reason := passwords.unusable_reason(password):
        raise PeopleError(reason)
    account.set_password(password)


def clean(text: str, longest: int, what: str) -> str:
    text = text.strip()
    if len(text) > longest:
        raise PeopleError(f"The {what} is longer than {longest} characters.")
    if not text.isprintable():
        raise PeopleError(f"The {what} contains a control character.")
    return text


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
