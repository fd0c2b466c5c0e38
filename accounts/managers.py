"""Making accounts; used by Django itself and by accounts.people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import BaseUserManager

if TYPE_CHECKING:
    from accounts.models import Account


class AccountManager(BaseUserManager["Account"]):
    """Accounts are made with their domain and address in one go: see accounts.people.add_account."""

    def get_by_natural_key(self, address: str | None) -> Account:
        return self.get(address=(address or "").lower())

    async def aget_by_natural_key(self, address: str | None) -> Account:
        return await self.aget(address=(address or "").lower())
