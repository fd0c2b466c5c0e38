"""Finding accounts by address; used by Django's and allauth's sign-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import BaseUserManager

from accounts.addresses import normalise
from accounts.errors import AddressError

if TYPE_CHECKING:
    from accounts.models import Account


class AccountManager(BaseUserManager["Account"]):
    """Accounts are made with their domain and address in one go, and only there: accounts.people.add_account."""

    def get_by_natural_key(self, address: str | None) -> Account:
        return self.get(address=_stored(address))

    async def aget_by_natural_key(self, address: str | None) -> Account:
        return await self.aget(address=_stored(address))


def _stored(address: str | None) -> str:
    try:
        return normalise(address or "")
    except AddressError:
        return ""  # nobody's address
