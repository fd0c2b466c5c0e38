"""`manage.py trace`: where is my mail?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser

from mailcore import db
from mailcore.management import base
from mailcore.store import mailboxes, trace
from mailcore.store.trace import Found


class Command(base.Command):
    help = "Show everything that happened to a message."

    def add_arguments(self, parser: CommandParser) -> None:
        what = "trace id, Message-ID, queue number, or the address of a sender or recipient"
        parser.add_argument("text", metavar="ID-or-ADDRESS", help=what)
        parser.add_argument("--limit", type=int, default=20, help="messages at most, the newest (default 20)")
        parser.add_argument("--json", action="store_true")
        parser.set_defaults(verb="timeline")

    def timeline(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            found = db.run_sync(trace.find(tx, options["text"], options["limit"]))
            accounts = {event.account_id for event in found if event.account_id and "mailbox" in event.detail}
            names: dict[tuple[int | None, Any], str] = {
                (account, box.id): box.name for account in accounts for box in db.run_sync(mailboxes.all(tx, account))
            }
        if options["json"]:
            self.show_json([{name: getattr(event, name) for name in Found.__slots__} for event in found])
            return
        if not found:
            raise CommandError(f"Nothing is known of {options['text']}.")
        last = None
        for event in found:
            if event.trace_id != last:
                self.stdout.write(("\n" if last else "") + self._title(event, found))
                last = event.trace_id
            at = event.at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
            who = event.recipient if event.recipient is not None else event.sender
            mailbox = names.get((event.account_id, event.detail.get("mailbox")))
            words = " ".join(part for part in (event.step.ljust(10), who or "", _words(event, mailbox)) if part)
            self.stdout.write(f"  {at}  {words}".rstrip())

    @staticmethod
    def _title(event: Found, found: list[Found]) -> str:
        same = [other for other in found if other.trace_id == event.trace_id]
        sender = next((other.sender for other in same if other.sender is not None), None)
        message_id = next((other.message_id for other in same if other.message_id), None)
        parts = [event.trace_id]
        if sender is not None:
            parts.append(f"from {sender or '<>'}")
        if message_id:
            parts.append(f"<{message_id}>")
        return "  ".join(parts)


def _words(event: Found, mailbox: str | None) -> str:
    """The detail of an event as people say it; keys that are not known are shown as they are."""
    detail = dict(event.detail) if mailbox is None else {**event.detail, "mailbox": mailbox}
    said = _PHRASES.get(event.step, lambda _: "")(detail)
    rest = ", ".join(f"{key} {base.text(value)}" for key, value in detail.items() if value not in (None, "", [], {}))
    return ", ".join(part for part in (said, rest) if part)


def _take(detail: dict[str, Any], *names: str) -> list[Any]:
    return [detail.pop(name, None) for name in names]


def _talk(detail: dict[str, Any]) -> str:
    """Whom we spoke to, how, and what was said."""
    host, tls, reply, stage, _status, attempt = _take(detail, "host", "tls", "reply", "stage", "status", "attempt")
    words = []
    if host:
        words.append(f"{host} ({tls or 'no TLS'})")
    if stage and not (reply and f"({stage})" in reply):
        words.append(f"at {stage}")
    if reply:
        words.append(f"said: {reply}" if host and reply[:1].isdigit() else reply)
    if attempt and attempt > 1:
        words.append(f"attempt {attempt}")
    return ", ".join(words)


def _accepted(detail: dict[str, Any]) -> str:
    source, helo, protocol, size = _take(detail, "from", "helo", "protocol", "size")
    words = [f"from {source}" if source else "", f"({helo})" if helo else "", f"by {protocol}" if protocol else ""]
    if size is not None:
        words.append(base.shown_size(size))
    return " ".join(word for word in words if word)


def _stored(detail: dict[str, Any]) -> str:
    mailbox, uid, email = _take(detail, "mailbox", "uid", "email")
    return f"in {mailbox if isinstance(mailbox, str) else 'a mailbox that is no more'}, uid {uid}, email {email}"


def _queued(detail: dict[str, Any]) -> str:
    size, later = _take(detail, "size", "send_after")
    return (base.shown_size(size) if size is not None else "") + (f", to be sent at {later}" if later else "")


def _deferred(detail: dict[str, Any]) -> str:
    (seconds,) = _take(detail, "retry_in")
    return ", ".join(part for part in (_talk(detail), f"again in {_span(seconds)}" if seconds else "") if part)


def _failed(detail: dict[str, Any]) -> str:
    expired, untold = _take(detail, "expired", "untold")
    words = [_talk(detail), "tried for too long" if expired else ""]
    words.append(f"the sender is not told: {untold}" if untold else "")
    return ", ".join(word for word in words if word)


def _dsn(detail: dict[str, Any]) -> str:
    kind, to, of, name = _take(detail, "kind", "recipients", "of", "id")
    words = [f"told the sender: {kind} ({', '.join(to or ())})" if kind else ""]
    if name:
        words.append(f"in {name}")
    elif of:
        words.append(f"about {of}")
    return ", ".join(word for word in words if word)


def _span(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


_PHRASES: dict[str, Callable[[dict[str, Any]], str]] = {
    "accepted": _accepted,
    "stored": _stored,
    "queued": _queued,
    "attempt": _talk,
    "delivered": _talk,
    "deferred": _deferred,
    "failed": _failed,
    "dsn": _dsn,
}
