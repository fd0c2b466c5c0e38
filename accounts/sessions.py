"""Who is signed in, for code that runs beside Django's middleware: the asynchronous JMAP and push endpoints.

A session cookie is worth what django.contrib.sessions and django.contrib.auth say it is worth: the row exists and has
not expired, its data is signed by us, its account is active and still has the password it signed in with. All of that
is asked of the database each time (one statement, once a session has been seen), so signing out, a changed password
and a disabled account act at once.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from accounts.models import Account

SESSION = "SELECT session_data FROM django_session WHERE session_key = %s AND expire_date > now()"
PERSON = """SELECT a.password, a.is_active AND d.is_active
FROM accounts_account a JOIN accounts_domain d ON d.id = a.domain_id WHERE a.id = %s"""
BOTH = """SELECT s.session_data, a.password, a.is_active AND d.is_active
FROM django_session s, accounts_account a JOIN accounts_domain d ON d.id = a.domain_id
WHERE s.session_key = %s AND s.expire_date > now() AND a.id = %s"""

MAX_KEY = 40  # characters; django_session's column
MAX_SEEN = 10_000


class Reader(Protocol):
    """What we need of a database: mailcore.db's Tx has it."""

    async def one(self, query: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None: ...


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a session row said when it was last decoded (its signature held)."""

    data: str
    account_id: int
    auth_hash: str


# Decoded rows by session key, so that an unchanged row is neither verified nor parsed again. Never trusted by itself.
_seen: OrderedDict[str, _Signed] = OrderedDict()


async def account_id(reader: Reader, cookie: str | None) -> int | None:
    """The account that a session cookie (settings.SESSION_COOKIE_NAME) stands for, or None."""
    found = await signed_in(reader, cookie)
    return None if found is None else found[0]


async def signed_in(reader: Reader, cookie: str | None) -> tuple[int, str] | None:
    """The account that a session cookie stands for and its encoded password, or None."""
    if not cookie or len(cookie) > MAX_KEY or not (cookie.isascii() and cookie.isalnum()):
        return None
    known = _seen.get(cookie)
    if known is not None:
        row = await reader.one(BOTH, (cookie, known.account_id))
        if row is not None and row[0] == known.data:
            return (known.account_id, row[1]) if row[2] and _same_password(known.auth_hash, row[1]) else None
        _seen.pop(cookie, None)  # ended, signed in anew, or changed: look again from the start
    row = await reader.one(SESSION, (cookie,))
    signed = None if row is None else _decode(row[0])
    if signed is None:
        return None
    row = await reader.one(PERSON, (signed.account_id,))
    if row is None or not row[1] or not _same_password(signed.auth_hash, row[0]):
        return None
    _seen[cookie] = signed
    if len(_seen) > MAX_SEEN:
        _seen.popitem(last=False)
    return signed.account_id, row[0]


def _decode(data: str) -> _Signed | None:
    content = SessionStore().decode(data)  # {} when the signature does not hold
    if content.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
        return None
    try:
        return _Signed(data, int(content[SESSION_KEY]), str(content[HASH_SESSION_KEY]))
    except (KeyError, TypeError, ValueError):
        return None


def _same_password(auth_hash: str, password: str) -> bool:
    """As django.contrib.auth.get_user: the session was begun with this password, under a key that still holds."""
    account = Account(password=password)
    hashes = (account.get_session_auth_hash(), *account.get_session_auth_fallback_hash())
    return any(hmac.compare_digest(auth_hash, candidate) for candidate in hashes)
