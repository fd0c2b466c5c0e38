"""What the database says about an account at the moment somebody logs in.

Every login asks, so that changes act at once. Questions that arrive while one is being answered share the next
statement: alone a login costs one small query, and a thousand clients that come back after a restart a few large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from accounts import app_passwords
from mailcore import db
from mailcore.arrays import Texts
from mailcore.db import sql

MAX_BATCH = 500
_DIGEST = 32  # octets of a digest; behind it stands what the app password is good for, and its label

# People are told when an account was last used: to the hour is enough, so that a login seldom writes.
SEEN_RESOLUTION_SECONDS = 3600

WHO = sql(f"""
    SELECT a.address, a.id, a.name, d.name, a.password, a.is_active AND d.is_active,
        EXISTS (SELECT FROM mfa_authenticator m WHERE m.user_id = a.id AND m.type IN ('totp', 'webauthn')),
        ARRAY(SELECT p.digest || convert_to(array_to_string(p.scopes, ' ') || E'\\n' || p.label, 'UTF8')
            FROM accounts_apppassword p WHERE p.account_id = a.id LIMIT {app_passwords.MAX_PER_ACCOUNT}),
        coalesce(a.last_login > now() - interval '{SEEN_RESOLUTION_SECONDS} seconds', false)
    FROM accounts_account a JOIN accounts_domain d ON d.id = a.domain_id
    WHERE a.address = ANY(%s::text[])""")


@dataclass(frozen=True, slots=True)
class Person:
    """An account as login sees it; `password` is None when no password can be right (none set, or a second factor).

    `digests` are those of its app passwords, with what each is good for, `labels` what they are called; `seen`: it
    logged in within the hour.
    """

    address: str
    account_id: int
    name: str
    domain: str
    password: str | None
    active: bool
    digests: dict[bytes, list[str]]
    seen: bool = False
    labels: Mapping[bytes, str] = field(default_factory=dict)


async def person(address: str) -> Person | None:
    """The account with this normalised address, as it is now. Raises MailError(UNAVAILABLE)."""
    loop = asyncio.get_running_loop()
    desk = _desks.get(loop)
    if desk is None:
        desk = _desks[loop] = _Desk(loop)
    return await desk.ask(address)


async def _read(addresses: list[str]) -> dict[str, Person]:
    async with db.read() as tx:
        rows = await tx.fetch(WHO, (Texts(addresses),))
    found = {}
    for address, account_id, name, domain, password, active, two_factor, digests, seen in rows:
        usable = password if password.startswith("argon2$") and not two_factor else None
        scopes, labels = {}, {}
        for each in digests:
            good_for, _, label = each[_DIGEST:].decode().partition("\n")
            digest = bytes(each[:_DIGEST])
            scopes[digest], labels[digest] = good_for.split(), label
        found[address] = Person(address, account_id, name, domain, usable, active, scopes, seen, labels)
    return found


class _Desk:
    """Answers one event loop's questions, one statement at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy = False
        self._waiting: dict[str, asyncio.Future[Person | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def ask(self, address: str) -> Person | None:
        if not self._busy:
            self._busy = True
            try:
                return (await _read([address])).get(address)
            finally:
                self._go_on()
        answer = self._waiting.get(address)
        if answer is None:
            answer = self._waiting[address] = self._loop.create_future()
        return await asyncio.shield(answer)  # others may wait for it too

    def _go_on(self) -> None:
        if self._waiting:
            self._task = self._loop.create_task(self._answer())
        else:
            self._busy = False

    async def _answer(self) -> None:
        names = list(self._waiting)[:MAX_BATCH]
        answers = [self._waiting.pop(name) for name in names]
        try:
            found = await _read(names)
        except BaseException as error:
            for answer in answers:
                answer.set_exception(error if isinstance(error, Exception) else ConnectionAbortedError())
                answer.exception()  # seen, even when everybody has hung up
            if not isinstance(error, Exception):
                raise
        else:
            for name, answer in zip(names, answers, strict=True):
                answer.set_result(found.get(name))
        finally:
            self._go_on()


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = WeakKeyDictionary()
