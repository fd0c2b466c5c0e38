"""Groups: lists of people behind one address, with a rule for who may write to them.

A group is an alias with members for targets (so that it may stand in aliases and other groups), and a row of Group that
says who may post. The verbs here run in one transaction each and raise PeopleError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, QuerySet

from accounts import people
from accounts.addresses import parse_address
from accounts.errors import PeopleError
from accounts.leads import canonical_targets, existing_targets, key, refuse_loops
from accounts.models import Address, AliasTarget, Group

MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A group with how many members it has."""

    group: Group
    members: int


def get_group(address: str) -> Group:
    """The group of that address."""
    wanted = people.normalised(address)
    group = Group.objects.select_related("address__domain").filter(address__in=_row(wanted)).first()
    if group is not None:
        return group
    what = _row(wanted).first()
    if what is None:
        raise PeopleError(f"There is no group {wanted}: `manage.py group list` shows all.")
    raise PeopleError(f"{wanted} is an {'alias' if what.account_id is None else 'account'}, not a group.")


def list_groups(domain: str | None = None) -> list[Listed]:
    """All groups by address, or those of one domain."""
    groups = Group.objects.select_related("address__domain").annotate(count=Count("address__targets"))
    if domain is not None:
        groups = groups.filter(address__domain=people.get_domain(domain))
    return [Listed(each, each.count) for each in groups.order_by("address__domain__name", "address__local_part")]


def members(group: Group) -> list[str]:
    """The addresses of a group's members, in the order in which they came."""
    return list(group.address.targets.order_by("id").values_list("address", flat=True))


@transaction.atomic
def add_group(
    address: str,
    targets: Sequence[str] = (),
    *,
    name: str | None = None,
    posting: str | None = None,
    send_as: bool | None = None,
) -> Group:
    """Make a group, or add members to one that exists and change what is given of its name and rules.

    `posting`: who may write to it, "anyone", "domain" (who has logged in and is of the group's domain) or "members".
    `send_as`: whether members may send as the group. Members may be accounts, aliases, groups and addresses elsewhere.
    """
    wanted = people.normalised(address)
    local = people.storable_local(wanted)
    domain = people.get_domain(parse_address(wanted).domain)
    row = _row(wanted).first()
    if row is None or not Group.objects.filter(pk=row.pk).exists():
        people.refuse_taken(wanted)
        row = Address.objects.create(domain=domain, local_part=local)
    group, _ = Group.objects.get_or_create(address=row)
    if name is not None:
        group.name = people.clean(name, people.MAX_NAME, "name")
    if posting is not None:
        if posting not in Group.Posting.values:
            raise PeopleError(f"Who may write to a group is one of {', '.join(Group.Posting.values)}.")
        group.posting = Group.Posting(posting)
    if send_as is not None:
        group.send_as = send_as
    group.save()
    found = existing_targets(targets)
    refuse_loops(wanted, found, "Group")
    AliasTarget.objects.bulk_create(
        [AliasTarget(alias=row, address=each) for each in found], ignore_conflicts=True, batch_size=1000
    )
    if row.targets.count() > MAX_MEMBERS:
        raise PeopleError(f"A group can have at most {MAX_MEMBERS} members.")
    return get_group(wanted)


@transaction.atomic
def remove_members(group: Group, targets: Sequence[str]) -> None:
    """Take members out; a group without members stays, and refuses mail."""
    found = canonical_targets(targets)
    there = set(group.address.targets.filter(address__in=found).values_list("address", flat=True))
    if missing := [each for each in found if each not in there]:
        raise PeopleError(f"{missing[0]} is no member of {group}.")
    group.address.targets.filter(address__in=found).delete()


@transaction.atomic
def remove_group(group: Group) -> None:
    """Remove a group; its address is free again. Refused when a catch-all would close a circle then."""
    address = str(group)
    group.address.delete()
    for target in AliasTarget.objects.filter(address=address).select_related("alias__domain"):
        refuse_loops(str(target.alias), [address])


def _row(normalised: str) -> QuerySet[Address]:
    return Address.objects.filter(**key(normalised))
