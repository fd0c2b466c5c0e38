"""`manage.py queue`: mail on its way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from mailcore import db
from mailcore.conf import conf
from mailcore.delivery import doorbell
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.settle import Settled, settle
from mailcore.management import base
from mailcore.store import queue_admin as queue
from mailcore.store.queue_admin import Row

OPEN = ("queued", "held")
STATES = (*OPEN, "delivered", "failed")


class Command(base.Command):
    help = "Show and manage mail on its way out. ID is a queue number or a trace id."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        listing = verb("list", "List recipients that wait (or those of --state).")
        _filters(listing)
        listing.add_argument("--state", choices=(*STATES, "all"), help="default: queued and held")
        listing.add_argument("--limit", type=int, default=200, help="rows at most (default 200)")
        listing.add_argument("--json", action="store_true")
        show = verb("show", "Show one message and each of its recipients.")
        show.add_argument("id", metavar="ID")
        show.add_argument("--json", action="store_true")
        for name, help in (
            ("retry", "Try again now."),
            ("hold", "Set aside until it is released."),
            ("release", "Queue again what is held."),
            ("bounce", "Return to the sender now."),
            ("remove", "Take out of the queue; nobody is told."),
        ):
            one = verb(name, help)
            one.add_argument("ids", metavar="ID", nargs="*")
            _filters(one)
            one.add_argument("--all", action="store_true", help="everything in the queue")
            if name == "hold":
                one.add_argument("--reason", default="held by an administrator")
            if name in ("bounce", "remove"):
                one.add_argument("--yes", action="store_true", help="do not ask")

    def list(self, options: dict[str, Any]) -> None:
        wanted = options["state"]
        states = STATES if wanted == "all" else (wanted,) if wanted else OPEN
        with db.django_transaction() as tx:
            rows = db.run_sync(queue.rows(tx, states=states, limit=options["limit"], **_wanted(options)))
        if options["json"]:
            self.show_json([_plain(row) for row in rows])
            return
        self.show_rows([_line(row) for row in rows], "Nothing in the queue.")
        if len(rows) == options["limit"]:
            self.stdout.write(f"The first {len(rows)}; --limit shows more.")

    def show(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            rows = db.run_sync(queue.rows(tx, ids=db.run_sync(queue.numbers(tx, [options["id"]]))))
        first = rows[0]
        message = {
            "queue_id": first.queue_id,
            "trace_id": first.trace_id,
            "sender": first.sender or "<> (a notice)",
            "size": first.size,
            "queued_at": first.queued_at,
        }
        if options["json"]:
            self.show_json(message | {"sender": first.sender, "recipients": [_plain(row) for row in rows]})
            return
        self.show_fields((message | {"size": base.shown_size(first.size)}).items())
        for row in rows:
            self.stdout.write("")
            fields = [("recipient", row.recipient), ("state", _state(row)), ("attempts", row.attempts)]
            if row.state == "queued" and not row.at_work:
                fields.append(("next_attempt", row.next_attempt_at))
            if row.finished_at:
                fields.append(("finished_at", row.finished_at))
            fields += [("last_host", row.host), ("last_reply", row.reply)]
            self.show_fields(fields)
        self.stdout.write(f"\nIts history: `manage.py trace {first.trace_id}`")

    def retry(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            ids = _ids(tx, options, ("queued",))
            count = db.run_sync(queue.retry(tx, ids))
        _some(count, "Nothing of it waits for another try.")
        self.ring(ids)
        self.stdout.write(f"{_recipients(count)} will be tried now.")

    def hold(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            count = db.run_sync(queue.hold(tx, _ids(tx, options, ("queued",)), options["reason"]))
        _some(count, "Nothing of it waits to be sent: nothing was held.")
        self.stdout.write(f"{_recipients(count)} held.")

    def release(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            ids = _ids(tx, options, ("held",))
            count = db.run_sync(queue.release(tx, ids))
        _some(count, "Nothing of it is held: nothing was released.")
        self.ring(ids)
        self.stdout.write(f"{_recipients(count)} released.")

    def bounce(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            ids = _ids(tx, options, OPEN)
        self.confirm("Return this mail to its senders?", options)
        verdict = Outcome(Verdict.FAILED, Stage.ROUTE, "5.0.0", "returned by the administrator of this system")
        with db.django_transaction() as tx:
            claims = db.run_sync(queue.seize(tx, ids))
            done = db.run_sync(settle(tx, conf, [Settled(claim, verdict) for claim in claims])) if claims else set()
        _some(len(done), "Nothing of it can be returned: it is finished, or being delivered at this moment.")
        self.stdout.write(f"{_recipients(len(done))} returned to the sender.")

    def remove(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            ids = _ids(tx, options, OPEN)
        self.confirm("Remove this mail for good, without telling anybody?", options)
        with db.django_transaction() as tx:
            done = db.run_sync(queue.remove(tx, ids))
        busy = f"{_messages(done.at_work)} being delivered at this moment; try again in a minute or two."
        _some(done.messages, f"Nothing was removed: {busy}" if done.at_work else "Nothing was left to remove.")
        self.stdout.write(f"{_messages(done.messages)} removed.")
        if done.at_work:
            self.stderr.write(f"Not removed: {busy}")

    def ring(self, ids: Sequence[int]) -> None:
        """Have the workers look now, also at hosts that were out of reach a moment ago."""
        try:
            doorbell.ring_now(ids, force=True)
        except Exception as error:
            self.stderr.write(f"The workers could not be told ({error}); the next sweep will find it.")


def _ids(tx: db.DjangoTx, options: dict[str, Any], states: tuple[str, ...]) -> list[int]:
    """The messages that a verb is to work on. Raises CommandError when there is none."""
    wanted = _wanted(options)
    if options["ids"]:
        ids = db.run_sync(queue.numbers(tx, options["ids"]))
    elif options["all"] or any(wanted.values()):
        rows = db.run_sync(queue.rows(tx, states=states, **wanted))
        ids = sorted({row.queue_id for row in rows})
    else:
        raise CommandError("Say which mail: an ID, --destination, --sender, --recipient or --all.")
    if not ids:
        raise CommandError("Nothing in the queue fits.")
    return ids


def _filters(parser: CommandParser) -> None:
    parser.add_argument("--destination", metavar="DOMAIN")
    parser.add_argument("--sender", metavar="ADDRESS")
    parser.add_argument("--recipient", metavar="ADDRESS")


def _wanted(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("destination", "sender", "recipient")}


def _line(row: Row) -> dict[str, Any]:
    return {
        "id": row.queue_id,
        "state": _state(row),
        "sender": row.sender or "<>",
        "recipient": row.recipient,
        "size": base.shown_size(row.size),
        "tries": row.attempts,
        "next": row.next_attempt_at if row.state == "queued" and not row.at_work else None,
        "last_reply": (row.reply or "")[:80],
    }


def _state(row: Row) -> str:
    if row.state == "held":
        return f"held ({row.held_reason})"
    return "being delivered" if row.at_work else row.state


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _some(count: int, otherwise: str) -> None:
    """Whoever asked for something that was not done hears of it, with exit status 1."""
    if not count:
        raise CommandError(otherwise)


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _recipients(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"
