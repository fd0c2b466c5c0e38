"""Who asks: the webmail by its session cookie, other programs by HTTP Basic over the one login path.

A cookie is sent by the browser whoever made it ask, so what changes something must carry the header `X-Mailstead: 1`,
which no other site's page can add (a form cannot, and CORS is never granted).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from django.conf import settings

from accounts import sessions
from mailcore import db
from mailcore.auth.login import login
from mailcore.auth.standing import Credential, of_password
from mailcore.errors import Code, MailError
from mailcore.jmap import limits
from mailcore.jmap.errors import Problem, limit_problem
from mailcore.jmap.http import Request

CHALLENGE = (b"www-authenticate", b'Basic realm="Mailstead", charset="UTF-8"')
MAX_CREDENTIALS = 4096
SAFE_METHODS = frozenset({"GET", "HEAD"})
STATUS = {Code.AUTH_FAILED: 401, Code.DISABLED: 403, Code.TOO_MANY: 429, Code.UNAVAILABLE: 503}


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated account, and by what: auth.standing tells an event stream when that is no longer good."""

    account_id: int
    credential: Credential
    source: str
    how: str = "browser session"
    """By what, in words."""

    @property
    def by_cookie(self) -> bool:
        """For the webmail, which is in by its session."""
        return self.credential.kind == "session"


async def authenticate(request: Request) -> Caller:
    """The caller; raises Problem 401 (nobody), 403 (a cookie without the header, a disabled account), 429."""
    scheme, _, credentials = request.header(b"authorization").partition(" ")
    if scheme:
        return await _basic(request, scheme, credentials)
    cookie = request.cookie(settings.SESSION_COOKIE_NAME)
    try:
        async with db.read() as tx:
            found = await sessions.signed_in(tx, cookie)
    except MailError as error:
        raise _refused(error) from None
    if cookie is None or found is None:
        raise Problem(401, "about:blank", "sign in first")
    if request.method not in SAFE_METHODS and request.header(b"x-mailstead") != "1":
        raise Problem(403, "about:blank", "requests with a session cookie need the header X-Mailstead: 1")
    account_id, password = found
    return Caller(account_id, Credential(account_id, "session", of_password(password), cookie), request.source)


def challenge(request: Request, problem: Problem) -> tuple[tuple[bytes, bytes], ...]:
    """Ask for credentials, but never make a browser show its own dialog in the middle of the webmail."""
    by_browser = b"sec-fetch-mode" in request.headers or b"x-mailstead" in request.headers
    return (CHALLENGE,) if problem.status == 401 and not by_browser else ()


async def _basic(request: Request, scheme: str, credentials: str) -> Caller:
    if scheme.lower() != "basic" or len(credentials) > MAX_CREDENTIALS:
        raise Problem(401, "about:blank", "only HTTP Basic authentication is understood")
    try:
        address, colon, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise Problem(401, "about:blank", "the credentials cannot be read")
    try:
        identity = await login(address, secret, protocol="jmap", source=request.source)
    except MailError as error:
        raise _refused(error) from None
    return Caller(identity.account_id, identity.credential, request.source, identity.how)


def _refused(error: MailError) -> Problem:
    return Problem(STATUS.get(error.code, 500), "about:blank", error.text)


class Slots:
    """How many things of a kind an account does at once; one per event loop."""

    def __init__(self, limit: int, name: str, status: int = 400) -> None:
        self._limit = limit
        self._name = name
        self._status = status
        self._taken: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    @contextmanager
    def taken(self, account_id: int) -> Iterator[None]:
        """Hold a slot; raises Problem when all are taken."""
        if self._taken[account_id] >= self._limit:
            raise self._problem()
        self._taken[account_id] += 1
        try:
            yield
        finally:
            self._leave(account_id)

    @asynccontextmanager
    async def awaited(self, account_id: int) -> AsyncIterator[None]:
        """Hold a slot, waiting a little for it; as many again as there are slots may wait, the others get a Problem."""
        if self._taken[account_id] < self._limit:
            self._taken[account_id] += 1
        else:
            queue = self._waiting.setdefault(account_id, deque())
            if len(queue) >= self._limit:
                raise self._problem()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(turn)
            try:
                async with asyncio.timeout(limits.PATIENCE):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled():
                    self._leave(account_id)  # the slot was ours already
                elif turn in queue:
                    queue.remove(turn)
                if isinstance(error, TimeoutError):
                    raise self._problem() from None
                raise
        try:
            yield
        finally:
            self._leave(account_id)

    def _problem(self) -> Problem:
        return limit_problem(self._name, f"at most {self._limit} at once", self._status)

    def _leave(self, account_id: int) -> None:
        """Hand the slot on, or give it back."""
        queue = self._waiting.get(account_id)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._waiting.pop(account_id, None)
        self._taken[account_id] -= 1
        if self._taken[account_id] <= 0:
            del self._taken[account_id]
