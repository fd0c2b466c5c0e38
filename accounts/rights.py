"""Rights to send as somebody else: an address that is another's (or an alias's, a group's), or a whole domain.

What an account may send as without such a right (its own addresses, aliases that lead to it, groups that allow it) and
how it is asked stands in mailcore.auth.senders.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from accounts import people
from accounts.errors import PeopleError
from accounts.leads import key
from accounts.models import Account, Address, Domain, SendAs

MAX_RIGHTS = 500


def list_rights(account: Account | None = None) -> QuerySet[SendAs]:
    """All rights, or those of one account."""
    rights = SendAs.objects.select_related("account", "address__domain", "domain").order_by("account__address", "id")
    return rights if account is None else rights.filter(account=account)


@transaction.atomic
def grant(account: Account, what: str) -> SendAs:
    """Let an account send as an address of ours or, given a bare domain name, as any address of that domain."""
    address, domain = _thing(what)
    if address is not None and address.account_id == account.pk:
        raise PeopleError(f"{address} is an address of {account.address}'s own: nothing needs to be granted.")
    if SendAs.objects.filter(account=account).count() >= MAX_RIGHTS:
        raise PeopleError(f"{account.address} has {MAX_RIGHTS} rights already: grant a whole domain, or remove some.")
    right, _ = SendAs.objects.get_or_create(account=account, address=address, domain=domain)
    return right


@transaction.atomic
def revoke(account: Account, what: str) -> SendAs:
    """Take a right back and return it; it holds no longer from the next message on."""
    address, domain = _thing(what)
    right = SendAs(account=account, address=address, domain=domain)
    if not SendAs.objects.filter(account=account, address=address, domain=domain).delete()[0]:
        raise PeopleError(
            f"{account.address} has no right to send as {address or domain}: see `manage.py sendas list`."
        )
    return right


def _thing(what: str) -> tuple[Address | None, Domain | None]:
    if "@" not in what:
        return None, people.get_domain(what)
    wanted = people.normalised(what)
    row = Address.objects.select_related("domain").filter(**key(wanted)).first()
    if row is None or row.local_part == "*":
        people.get_domain(wanted.rpartition("@")[2])
        raise PeopleError(f"There is no address {wanted} here: name an account, an alias, a group or a whole domain.")
    return row, None
