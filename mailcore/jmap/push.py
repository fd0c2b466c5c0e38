"""The event source (RFC 8620 §7.3): a line to the browser as soon as something in the account has changed.

A stream remembers one number, the newest state; a reader that is slow gets fewer events, never a queue of them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mailcore import db, wake
from mailcore.auth import standing
from mailcore.errors import MailError
from mailcore.jmap import ids, limits
from mailcore.jmap.auth import Caller, Slots
from mailcore.jmap.errors import Problem
from mailcore.jmap.http import NO_STORE, Receive, Request, Send, disconnected, encode
from mailcore.store import changes
from mailcore.wake import Change

TYPES = ("Email", "Mailbox", "Thread", "EmailDelivery")
STREAMS = Slots(limits.MAX_EVENT_STREAMS, "maxEventStreams", 429)
DEFAULT_PING = 30


_open: set[_Stream] = set()


def end_all() -> None:
    """End every stream: the process stops. Their clients come back to the next one."""
    for stream in _open:
        stream.end()


class _Stream:
    """The newest state that a stream has heard of."""

    def __init__(self) -> None:
        self.state = 0
        self.delivered = False
        self.stirred = asyncio.Event()
        self.unknown = False
        self.ending = False

    def end(self) -> None:
        """Say nothing more, whatever happens."""
        self.ending = True
        self.stirred.set()

    def heard(self, happened: tuple[Change, ...]) -> None:
        """A listener of wake: nothing but notes, whatever the reader does."""
        self.state = max([self.state, *(change.modseq for change in happened)])
        self.delivered = self.delivered or any(change.kind == "mail" for change in happened)
        self.unknown = self.unknown or not happened
        self.stirred.set()


async def events(request: Request, caller: Caller, receive: Receive, send: Send) -> None:
    """GET /jmap/events?types=&closeafter=&ping=: StateChange objects until the client goes or its session ends."""
    types, close_after, ping = _wishes(request)
    with STREAMS.taken(caller.account_id):
        stream = _Stream()
        unsubscribe = wake.subscribe(caller.account_id, stream.heard)
        unwatch = standing.watch(caller.credential, stream.end)
        _open.add(stream)
        writer = asyncio.create_task(_write(request, caller, stream, send, types, close_after, ping))
        reader = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            _open.discard(stream)
            unsubscribe()
            unwatch()
            for task in (writer, reader):
                task.cancel()
            results = await asyncio.gather(writer, reader, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
            raise results[0]


def _wishes(request: Request) -> tuple[tuple[str, ...], bool, int]:
    query = request.query()
    named = query.get("types", "*")
    types = TYPES if named == "*" else tuple(name for name in TYPES if name in named.split(","))
    close = query.get("closeafter", "no")
    if close not in ("state", "no"):
        raise Problem(400, "about:blank", "closeafter is state or no")
    ping = query.get("ping", "0")
    if not ping.isascii() or not ping.isdigit() or len(ping) > 6:
        raise Problem(400, "about:blank", "ping is a number of seconds")
    seconds = int(ping)
    return types, close == "state", max(limits.MIN_PING, min(seconds, limits.MAX_PING)) if seconds else 0


async def _write(
    request: Request,
    caller: Caller,
    stream: _Stream,
    send: Send,
    types: tuple[str, ...],
    close_after: bool,
    ping: int,
) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), NO_STORE, (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # Read before the client knows that the stream stands: whatever changes after its welcome, it is told.
    told = await _state(caller)
    await _send(send, b": welcome\n\n")
    before = request.header(b"last-event-id")
    if before.isascii() and before.isdigit() and len(before) < 19 and int(before) < told:
        await _send(send, _event(caller, told, types, True))
        if close_after:
            await send({"type": "http.response.body", "body": b""})
            return
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stream.stirred.wait(), ping or DEFAULT_PING)
        if not stream.stirred.is_set():
            await _send(send, b'event: ping\ndata: {"interval":%d}\n\n' % ping if ping else b":\n\n")
            continue
        stream.stirred.clear()
        if stream.ending:
            break
        if stream.unknown:
            stream.unknown = False
            stream.state = max(stream.state, await _state(caller))
        delivered, stream.delivered = stream.delivered, False
        if stream.state > told:
            told = stream.state
            await _send(send, _event(caller, told, types, delivered))
            if close_after:
                break
    await send({"type": "http.response.body", "body": b""})


async def _state(caller: Caller) -> int:
    try:
        async with db.read() as tx:
            return await changes.state(tx, caller.account_id)
    except MailError:
        return 0


async def _send(send: Send, octets: bytes) -> None:
    await send({"type": "http.response.body", "body": octets, "more_body": True})


def _event(caller: Caller, state: int, types: tuple[str, ...], delivered: bool) -> bytes:
    changed = {name: str(state) for name in types if name != "EmailDelivery" or delivered}
    body = {"@type": "StateChange", "changed": {ids.account(caller.account_id): changed}}
    return b"id: %d\nevent: state\ndata: %b\n\n" % (state, encode(body))
