"""Wake-ups: tell whoever shows an account that something in it changed.

After a commit the changes are handed to this process's listeners at once, and to other processes through Redis. It is
only a hint: listeners ask the store what changed since the modseq they know, and `start` polls the subscribed accounts'
modseq with one query, so that a lost hint or a dead Redis costs seconds, never a message.

All processes listen to one channel; whatever happens in a busy moment goes into one message. A channel per account cost
a command for each message that came in, and a subscription for each session (docs/decisions/0010).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import redis
import redis.asyncio

log = logging.getLogger(__name__)

CHANNEL = "mailstead:hints"  # [sending process, [[account, mailbox, modseq, kind], …], [[topic, content], …]]
POLL_SECONDS = 5.0
# Accounts whose hints wait for Redis; those of others are dropped meanwhile, and the poll finds what they spoke of.
BACKLOG = 10_000
# Changes of one account that a message lists; of more it says that there were many, which is "look at everything".
MANY = 50
# Seconds between two deliveries to Redis: the first hint leaves at once, those of a busy moment share a message.
BREATH = 0.02


class Change(NamedTuple):
    """One thing a transaction changed; `kind` is mail, flags, gone, mailbox, rights, metadata or queue (then modseq is
    the outbound id). Between processes it may be many: whatever there is."""

    account_id: int
    mailbox_id: int
    modseq: int
    kind: str


Listener = Callable[[tuple[Change, ...]], None]
ModseqQuery = Callable[[list[int]], Awaitable[dict[int, int]]]

_listeners: dict[int, set[Listener]] = {}
_queue_listeners: set[Callable[[tuple[int, ...]], None]] = set()
_notice_listeners: dict[str, Callable[[Any], None]] = {}
_process = uuid.uuid4().hex[:12]


def _forked() -> None:
    """A forked process is another one: it must not take its parent's hints for its own."""
    global _process
    _process = uuid.uuid4().hex[:12]


os.register_at_fork(after_in_child=_forked)

_hub: _Hub | None = None
_sync_redis: tuple[str, redis.Redis] | None = None
_sync_url: Callable[[], str] | None = None


def subscribe(account_id: int, listener: Listener) -> Callable[[], None]:
    """Call `listener(changes)` in the event loop after each commit that changed the account; returns the way out.

    `changes` is empty when something happened and nobody says what: the poll found it, or it was much at once.
    """
    first = account_id not in _listeners
    _listeners.setdefault(account_id, set()).add(listener)
    if first and _hub is not None:
        _hub.follow(account_id)

    def unsubscribe() -> None:
        listeners = _listeners.get(account_id)
        if listeners is None:
            return
        listeners.discard(listener)
        if not listeners:
            del _listeners[account_id]
            if _hub is not None:
                _hub.unfollow(account_id)

    return unsubscribe


def on_queue(listener: Callable[[tuple[int, ...]], None]) -> Callable[[], None]:
    """Call `listener(outbound_ids)` after each commit of this process that put mail into the outbound queue."""
    _queue_listeners.add(listener)
    return lambda: _queue_listeners.discard(listener)


def on_notice(topic: str, listener: Callable[[Any], None]) -> None:
    """Call `listener(content)` in the event loop when another process tells something of this topic."""
    _notice_listeners[topic] = listener


def tell(topic: str, content: list[Any], *, at_once: bool = False) -> None:
    """Tell the other processes something that is not about one account's mail; `content` is JSON. Waits for nothing.

    A process without an event loop of ours (a command) sends it, and waits, only `at_once`.
    """
    if _hub is not None:
        _hub.loop.call_soon_threadsafe(_hub.notify, topic, content)
    elif at_once:
        _send_now((), [(topic, content)])


def use_redis(url: Callable[[], str]) -> None:
    """Where code outside an event loop (commands, tasks, Django views) publishes its hints."""
    global _sync_url
    _sync_url = url


def publish(changes: Iterable[Change]) -> None:
    """Hand committed changes to every listener; called by the transaction runners of mailcore.db alone."""
    if _hub is not None and threading.get_ident() != _hub.thread:  # a Django view in the async process
        _hub.loop.call_soon_threadsafe(publish, tuple(changes))
        return
    by_account: dict[int, list[Change]] = {}
    queued = []
    for change in changes:
        if change.kind == "queue":
            queued.append(change.modseq)
        else:
            by_account.setdefault(change.account_id, []).append(change)
    for queue_listener in tuple(_queue_listeners) if queued else ():
        _call(queue_listener, tuple(queued))
    for account_id, items in by_account.items():
        _notify(account_id, tuple(items))
    if not by_account:
        return
    if _hub is not None:
        _hub.send(by_account)
    else:
        _send_now([change for items in by_account.values() for change in items], ())


def _notify(account_id: int, changes: tuple[Change, ...]) -> None:
    for listener in tuple(_listeners.get(account_id, ())):
        _call(listener, changes)


def _call(listener: Callable[[tuple[object, ...]], None] | Callable[..., None], argument: tuple[object, ...]) -> None:
    try:
        listener(argument)
    except Exception:
        log.exception("a wake-up listener failed")


def _encode(changes: Iterable[Change], notices: Sequence[tuple[str, Any]]) -> str:
    return json.dumps([_process, list(changes), notices], separators=(",", ":"))


def _send_now(changes: Iterable[Change], notices: Sequence[tuple[str, Any]]) -> None:
    global _sync_redis
    if _sync_url is None:
        return
    try:
        url = _sync_url()
        if _sync_redis is None or _sync_redis[0] != url:
            _sync_redis = (url, redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1))
        _sync_redis[1].publish(CHANNEL, _encode(changes, notices))
    except Exception as error:
        log.warning("no wake-up sent, the poll will find the change: %s", error)


async def start(redis_url: str, modseqs: ModseqQuery) -> None:
    """Listen to the other processes' hints and poll `modseqs(account ids)`; once per async process."""
    global _hub
    if _hub is not None:
        raise RuntimeError("the hub is running already")
    _hub = _Hub(redis_url, modseqs)
    for account_id in _listeners:
        _hub.follow(account_id)


async def stop() -> None:
    global _hub
    if _hub is not None:
        hub, _hub = _hub, None
        await hub.close()


class _Hub:
    """This process's ends of the Redis channel, and its poll."""

    def __init__(self, url: str, modseqs: ModseqQuery) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, socket_connect_timeout=2)
        self._modseqs = modseqs
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self._wanted: set[int] = set()
        self._outbox: dict[int, list[Change]] = {}
        self._notices: list[tuple[str, Any]] = []
        self._outbox_filled = asyncio.Event()
        self._seen: dict[int, int] = {}
        self._tasks = [asyncio.create_task(work) for work in (self._listen(), self._deliver(), self._poll())]

    def follow(self, account_id: int) -> None:
        self._wanted.add(account_id)

    def unfollow(self, account_id: int) -> None:
        self._wanted.discard(account_id)
        self._seen.pop(account_id, None)

    def send(self, by_account: dict[int, list[Change]]) -> None:
        for account_id, changes in by_account.items():
            if len(self._outbox) < BACKLOG or account_id in self._outbox:
                waiting = self._outbox.setdefault(account_id, [])
                waiting.extend(changes)
                if len(waiting) > MANY:
                    waiting[:] = [Change(account_id, 0, max(change.modseq for change in waiting), "many")]
            self._saw(account_id, changes)
        self._outbox_filled.set()

    def notify(self, topic: str, content: list[Any]) -> None:
        if len(self._notices) < BACKLOG:
            self._notices.append((topic, content))
            self._outbox_filled.set()

    async def close(self) -> None:
        left = set(self._tasks)
        while left:  # redis-py takes a cancellation for a timeout while it connects, so once is not always enough
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)
        with suppress(Exception):
            await self._redis.aclose()

    def _saw(self, account_id: int, changes: Iterable[Change]) -> None:
        if account_id in self._seen:
            self._seen[account_id] = max(self._seen[account_id], *(change.modseq for change in changes))

    async def _deliver(self) -> None:
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            batch, self._outbox = self._outbox, {}
            notices, self._notices = self._notices, []
            try:
                changes = [change for items in batch.values() for change in items]
                await self._redis.publish(CHANNEL, _encode(changes, notices))
            except Exception as error:
                log.warning("wake-ups not sent, the poll will find the changes: %s", error)
                await asyncio.sleep(1)
            else:
                await asyncio.sleep(BREATH)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    while True:
                        message = await channel.get_message(timeout=POLL_SECONDS)
                        if message is not None:
                            self._receive(message["data"])
            except Exception as error:
                log.warning("no wake-ups from Redis (%s); polling meanwhile", error)
                await asyncio.sleep(1)

    def _receive(self, data: bytes) -> None:
        if data.startswith(b'["%b",' % _process.encode()):  # our own: most of what a busy process hears
            return
        try:
            _, rows, notices = json.loads(data)
            by_account: dict[int, list[Change]] = {}
            for account_id, box, modseq, kind in rows:
                if account_id in self._wanted:
                    by_account.setdefault(account_id, []).append(Change(account_id, int(box), int(modseq), str(kind)))
            told = [(_notice_listeners[topic], content) for topic, content in notices if topic in _notice_listeners]
        except (ValueError, TypeError) as error:
            log.warning("a wake-up was not understood: %s", error)
            return
        for account_id, changes in by_account.items():
            self._saw(account_id, changes)
            _notify(account_id, () if any(change.kind == "many" for change in changes) else tuple(changes))
        for listener, content in told:
            _call(listener, content)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            accounts = sorted(self._wanted)
            if not accounts:
                continue
            try:
                current = await self._modseqs(accounts)
            except Exception as error:
                log.warning("the poll for changes failed: %s", error)
                continue
            for account_id, modseq in current.items():
                known = self._seen.get(account_id)
                self._seen[account_id] = max(modseq, known or 0)
                # At the first look too: hints that came before the channel was subscribed are lost.
                if known is None or modseq > known:
                    _notify(account_id, ())
