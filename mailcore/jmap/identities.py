"""Whom an account may write as: an identity for each of its addresses (RFC 8621 §6)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mailcore import db
from mailcore.auth.senders import sender_addresses
from mailcore.jmap.session import PERSON


@dataclass(frozen=True, slots=True)
class Sender:
    """An address to send as."""

    id: str
    name: str
    email: str


async def identities(tx: db.Tx, account_id: int) -> list[Sender]:
    """The account's identities, its own address first."""
    row = await tx.one(PERSON, (account_id,))
    address, name = row if row else ("", "")
    found = await sender_addresses(tx, account_id)
    found.sort(key=lambda other: other != address)
    return [Sender(_id(other), name, other) for other in found]


def _id(address: str) -> str:
    return "I" + hashlib.blake2b(address.encode(), digest_size=12).hexdigest()


def state_of(found: list[Sender]) -> str:
    """The state string of the identities."""
    joined = "\n".join(f"{one.name}\0{one.email}" for one in found)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()
