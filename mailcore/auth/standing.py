"""Whether who is in may stay: open sessions end when what let them in is no longer good.

A login is checked once, a session lasts for days. Each process asks about all of its sessions in one statement every
few seconds, and at once about those of an account whose password, app passwords or state changed here or, as another
process says (mailcore.wake), elsewhere. Sessions with another secret of the same account that still holds stay.

The statement is given what each session came in by and returns those that would not be let in again. For 10,000
sessions it takes Postgres 55 to 90 ms and this process 15 ms, every five seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from mailcore import db, wake
from mailcore.arrays import Byteas, Int4s, Int8s, Texts
from mailcore.db import sql

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
PIECE = 2_000
TOPIC = "credentials"

NO_LONGER = sql("""
    SELECT w.n FROM unnest(%s::int4[], %s::bigint[], %s::text[], %s::bytea[], %s::text[])
            AS w(n, account_id, kind, proof, key)
        LEFT JOIN accounts_account a ON a.id = w.account_id
        LEFT JOIN accounts_domain d ON d.id = a.domain_id
    WHERE NOT coalesce(a.is_active AND d.is_active AND CASE w.kind
        WHEN 'app password' THEN EXISTS (SELECT FROM accounts_apppassword p
            WHERE p.digest = w.proof AND p.account_id = a.id
                AND (w.key = '' OR p.scopes @> ARRAY[w.key]::varchar[]))
        WHEN 'session' THEN sha256(convert_to(a.password, 'UTF8')) = w.proof AND EXISTS (SELECT FROM django_session s
            WHERE s.session_key = w.key AND s.expire_date > now())
        ELSE sha256(convert_to(a.password, 'UTF8')) = w.proof AND NOT EXISTS (SELECT FROM mfa_authenticator m
            WHERE m.user_id = a.id AND m.type IN ('totp', 'webauthn'))
        END, false)""")


@dataclass(frozen=True, slots=True)
class Credential:
    """What somebody came in by. `proof`: the app password's digest, else the SHA-256 of the encoded password."""

    account_id: int
    kind: Literal["password", "app password", "session"]
    proof: bytes
    key: str = ""
    """The scope that is used of an app password, "" for a protocol without one; the key of a web session."""


def of_password(encoded: str) -> bytes:
    """The proof that an account's password is still this one."""
    return hashlib.sha256(encoded.encode()).digest()


def watch(credential: Credential, ended: Callable[[], None]) -> Callable[[], None]:
    """Call `ended()` in this event loop when the credential is no longer good; returns how to stop watching."""
    loop = asyncio.get_running_loop()
    watching = _watches.get(loop)
    if watching is None:
        watching = _watches[loop] = _Watch(loop)
    watching.add(credential, ended)

    def unwatch() -> None:
        watching.remove(credential, ended)

    return unwatch


def announce(account_id: int) -> None:
    """What lets somebody into this account has changed and is committed: have all processes look now. Any thread."""
    _hear([account_id])
    wake.tell(TOPIC, [account_id], at_once=True)


def _hear(content: object) -> None:
    if isinstance(content, list):
        account_ids = {each for each in content if isinstance(each, int)}
        for loop, watching in list(_watches.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(watching.look, account_ids)


async def _no_longer(credentials: Sequence[Credential]) -> list[Credential]:
    async with db.read() as tx:
        rows = await tx.fetch(
            NO_LONGER,
            (
                Int4s(range(len(credentials))),
                Int8s([each.account_id for each in credentials]),
                Texts([each.kind for each in credentials]),
                Byteas([each.proof for each in credentials]),
                Texts([each.key for each in credentials]),
            ),
        )
    return [credentials[row[0]] for row in rows]


class _Watch:
    """The open sessions of one event loop, by what they came in by."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[Credential, list[Callable[[], None]]] = {}
        self._everybody = False
        self._asked: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, credential: Credential, ended: Callable[[], None]) -> None:
        self._open.setdefault(credential, []).append(ended)
        if self._timer is None:
            self._timer = self._loop.call_later(POLL_SECONDS, self._poll)

    def remove(self, credential: Credential, ended: Callable[[], None]) -> None:
        listeners = self._open.get(credential, [])
        if ended in listeners:
            listeners.remove(ended)
            if not listeners:
                del self._open[credential]
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, account_ids: set[int]) -> None:
        """Ask about the sessions of these accounts now."""
        self._asked |= account_ids
        self._start()

    def _poll(self) -> None:
        self._timer = self._loop.call_later(POLL_SECONDS, self._poll)
        self._everybody = True
        self._start()

    def _start(self) -> None:
        if self._task is None and self._open:
            self._task = self._loop.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._everybody or self._asked:
                everybody, asked = self._everybody, self._asked
                self._everybody, self._asked = False, set()
                held = [each for each in self._open if everybody or each.account_id in asked]
                for start in range(0, len(held), PIECE):
                    for credential in await _no_longer(held[start : start + PIECE]):
                        self._end(credential)
        except Exception as error:  # the database is away: that ends no session, and the next poll asks again
            log.warning("open sessions could not be checked: %r", error)
        finally:
            self._task = None

    def _end(self, credential: Credential) -> None:
        for ended in self._open.pop(credential, []):
            try:
                ended()
            except Exception:
                log.exception("a session could not be ended")


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
wake.on_notice(TOPIC, _hear)
