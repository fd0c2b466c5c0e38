"""The one path from a secret to an account, for SMTP, IMAP, POP3, ManageSieve and JMAP's basic authentication.

A secret is the account's password (unless a second factor is on) or one of its app passwords. Unknown accounts cost the
same Argon2 check and get the same words as wrong passwords. The account's row is read at every login, so a changed
password, a removed app password and a disabled account act at once; only the Argon2 check itself is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from accounts import app_passwords, passwords
from accounts.addresses import normalise
from accounts.errors import AddressError
from accounts.secrets import key_for
from accounts.throttle import sign_ins
from mailcore import db
from mailcore.auth import lookup
from mailcore.auth.lookup import SEEN_RESOLUTION_SECONDS, Person
from mailcore.auth.standing import Credential, of_password
from mailcore.db import sql
from mailcore.errors import Code, MailError

log = logging.getLogger(__name__)

# Argon2 beside the event loop: as many at once as a small machine has cores, and a queue of a few seconds.
THREADS = 2
QUEUE = 400  # attempts, running ones included
# How long, and for how many secrets, a checked password is remembered after it was last used.
REMEMBER_SECONDS = 300.0
MAX_REMEMBERED = 20_000
MAX_REJECTED = 5_000
# What an app password must be good for; for any other protocol it must be good for everything.
SCOPES = {"imap": "imap", "pop3": "pop3", "submission": "smtp", "jmap": "jmap"}

USED = sql(f"""
    UPDATE accounts_apppassword SET last_used_at = now()
    WHERE account_id = %s::bigint AND digest = %s::bytea AND (last_used_at IS NULL
        OR last_used_at < now() - interval '{app_passwords.USED_RESOLUTION_SECONDS} seconds')""")


SEEN = sql(f"""
    UPDATE accounts_account SET last_login = now()
    WHERE id = %s::bigint AND (last_login IS NULL
        OR last_login < now() - interval '{SEEN_RESOLUTION_SECONDS} seconds')""")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in, and by what: auth.standing tells a session when that is no longer good."""

    account_id: int
    address: str
    name: str
    domain: str
    credential: Credential
    label: str = ""
    """What the app password is called."""

    @property
    def how(self) -> str:
        """By what, for the history of what is sent: "password", or "app password" with its label."""
        return f"{self.via} “{self.label}”" if self.label else self.via

    @property
    def via(self) -> str:
        """ "password" or "app password"."""
        return self.credential.kind


async def login(address: str, secret: str, *, protocol: str, source: str) -> Identity:
    """Check a secret; `protocol` is for the log, `source` the client's network address.

    Only account addresses log in (any case, internationalised domain or A-labels), never aliases. Raises MailError:
    AUTH_FAILED (after a delay when it happens often), DISABLED (the secret was right, but the account is disabled or
    the app password is for other protocols), TOO_MANY, UNAVAILABLE.
    """
    wanted, named = names(address)
    refuse_guessing(source, named, protocol)
    person = await lookup.person(wanted)
    credential = await _check(person, named, secret, source, protocol)
    return await admit(person, credential, named, secret, protocol=protocol, source=source)


def names(address: str) -> tuple[str, str]:
    """The account address that is meant, "" when it cannot be one, and what to call it in the log and the throttle."""
    try:
        wanted = normalise(address)
    except AddressError:
        wanted = ""  # nobody's address, and checked like one
    return wanted, wanted or address[:320]


async def admit(
    person: Person | None,
    credential: Credential | None,
    named: str,
    secret: str | None,
    *,
    protocol: str,
    source: str,
) -> Identity:
    """The end of every login: who has no credential waits and is counted, who has one is let in if all is well."""
    if person is None or credential is None:
        # The same guess is counted once, however often it is said.
        guess = os.urandom(8) if secret is None else _guess(named, secret)
        delay = sign_ins.failed(source, named, guess)
        log.warning("login failed: protocol=%s account=%r source=%s", protocol, named, source)
        await asyncio.sleep(delay)
        raise MailError(Code.AUTH_FAILED, "the address or the password is not right")
    sign_ins.succeeded(source, named)
    if not person.active:
        log.warning("login to a disabled account: protocol=%s account=%s source=%s", protocol, person.address, source)
        raise MailError(Code.DISABLED, "this account is disabled")
    if credential.kind == "app password":
        if not app_passwords.covers(person.digests[credential.proof], credential.key):
            log.warning("app password for others: protocol=%s account=%s source=%s", protocol, person.address, source)
            raise MailError(Code.DISABLED, "this app password is not for this protocol")
        await _note(_used, credential.proof, USED, (person.account_id, credential.proof))
    if not person.seen:
        await _note(_seen, person.account_id.to_bytes(8), SEEN, (person.account_id,))
    log.info("login: protocol=%s account=%s source=%s via=%s", protocol, person.address, source, credential.kind)
    label = person.labels.get(credential.proof, "")
    return Identity(person.account_id, person.address, person.name, person.domain, credential, label)


def forget() -> None:
    """Empty this process's memory of checked secrets."""
    _right.clear()
    _wrong.clear()
    _used.clear()
    _seen.clear()


def refuse_guessing(source: str, named: str, protocol: str) -> None:
    """Raises MailError(TOO_MANY) when too many logins from there, or as this account, have failed."""
    if (wait := sign_ins.refusal(source, named)) is not None:
        log.warning("login refused, too many failures: protocol=%s account=%r source=%s", protocol, named, source)
        raise MailError(Code.TOO_MANY, "too many failed logins, try again later", f"{wait:.0f} s left")


async def _check(person: Person | None, named: str, secret: str, source: str, protocol: str) -> Credential | None:
    """What the secret proves to be this person's, or None."""
    if person is not None and (digest := app_passwords.find(secret, person.digests)) is not None:
        return Credential(person.account_id, "app password", digest, SCOPES.get(protocol, ""))
    encoded = person.password if person is not None else None
    right = None
    if person is not None and encoded is not None:
        right = Credential(person.account_id, "password", of_password(encoded))
    token = _token(named, secret)
    fingerprint = _fingerprint(encoded)
    if _right.get(token) == fingerprint:
        return right
    if _wrong.get(token) == fingerprint:
        return None

    async def attempt() -> bool:
        # Asked again, and counted before the next one's turn: guesses sent all at once get no further than one by one.
        refuse_guessing(source, named, protocol)
        matches = await _argon2(secret, encoded)
        (_right if matches else _wrong).put(token, fingerprint)
        if not matches:
            sign_ins.failed(source, named, _guess(named, secret))
        return matches

    return right if await _gate().take_turn(token + fingerprint, attempt) else None


async def _note(noted: _Memory, key: bytes, statement: str, values: tuple[object, ...]) -> None:
    """Keep a time of last use roughly right; a login does not fail for it."""
    if noted.get(key) is not None:
        return
    noted.put(key, b"noted")
    try:
        async with db.transaction() as tx:
            await tx.execute(statement, values)
    except MailError as error:
        log.warning("a use was not noted: %s", error.private or error.text)


# --- what this process remembers: keyed hashes only, under a key that dies with it

_KEY = os.urandom(32)


def _token(named: str, secret: str) -> bytes:
    return hashlib.blake2b(f"{named}\0{secret}".encode("utf-8", "surrogatepass"), key=_KEY, digest_size=24).digest()


def _guess(named: str, secret: str) -> bytes:
    """The same in all processes, for counting a guess once; too short to find the secret by it."""
    text = f"{named}\0{secret[: passwords.MAX_LENGTH]}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=key_for("sign-in throttle"), digest_size=8).digest()


def _fingerprint(encoded: str | None) -> bytes:
    return hashlib.blake2b((encoded or "").encode(), key=_KEY, digest_size=16).digest()


class _Memory:
    """Values by key, forgotten a while after their last use, the oldest first when there are too many."""

    def __init__(self, size: int, seconds: float, *, sliding: bool) -> None:
        self._size = size
        self._seconds = seconds
        self._sliding = sliding
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] < time.monotonic():
            del self._entries[key]
            return None
        if self._sliding:
            self.put(key, entry[1])
        return entry[1]

    def put(self, key: bytes, value: bytes) -> None:
        self._entries[key] = (time.monotonic() + self._seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


_right = _Memory(MAX_REMEMBERED, REMEMBER_SECONDS, sliding=True)
_wrong = _Memory(MAX_REJECTED, REMEMBER_SECONDS, sliding=False)
_used = _Memory(MAX_REMEMBERED, app_passwords.USED_RESOLUTION_SECONDS, sliding=False)
_seen = _Memory(MAX_REMEMBERED, SEEN_RESOLUTION_SECONDS, sliding=False)


# --- Argon2 in threads

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")


async def _argon2(secret: str, encoded: str | None) -> bool:
    """One check in a thread, whether or not there is anything to match."""
    if len(secret) > passwords.MAX_LENGTH:
        secret, encoded = "", None

    def matches() -> bool:
        return passwords.verify(secret, encoded if encoded is not None else passwords.dummy_hash())

    return await asyncio.get_running_loop().run_in_executor(_threads, matches) and encoded is not None


class _Gate:
    """Lets a few attempts of an event loop run at once, and the same one only once."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(THREADS)
        self._running: dict[bytes, asyncio.Task[bool]] = {}

    async def take_turn(self, key: bytes, attempt: Callable[[], Coroutine[None, None, bool]]) -> bool:
        """What `attempt` returns or raises. Raises MailError(UNAVAILABLE) when too many wait already.

        Programs open several connections with one secret at a time: callers with the same `key` share one attempt.
        """
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= QUEUE:
                raise MailError(Code.UNAVAILABLE, "too many logins at once, try again", "argon2 queue is full")
            task = self._running[key] = asyncio.get_running_loop().create_task(self._in_slot(attempt))
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def _in_slot(self, attempt: Callable[[], Coroutine[None, None, bool]]) -> bool:
        async with self._slots:
            return await attempt()

    def _finished(self, key: bytes, task: asyncio.Task[bool]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, even when every caller has hung up


_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = WeakKeyDictionary()


def _gate() -> _Gate:
    loop = asyncio.get_running_loop()
    gate = _gates.get(loop)
    if gate is None:
        gate = _gates[loop] = _Gate()
    return gate
