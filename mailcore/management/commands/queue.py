"""`manage.py queue`: mail on its way out."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import people
from accounts.addresses import domain_name, parse_address
from accounts.errors import AddressError
from accounts.leads import existing_targets
from mailcore import db
from mailcore.conf import conf
from mailcore.delivery import doorbell
from mailcore.delivery.bounce import tell_noted
from mailcore.delivery.outcome import Outcome, Stage, Verdict
from mailcore.delivery.plan import Plans
from mailcore.delivery.settle import Settled, settle
from mailcore.management import base
from mailcore.store import destinations, routes
from mailcore.store import queue_admin as queue
from mailcore.store.destinations import Pause
from mailcore.store.queue_admin import MAX_ROWS, Done, Row, Selection

OPEN = ("queued", "held")
STATES = (*OPEN, "delivered", "failed")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(base.Command):
    help = "Show and manage mail on its way out. ID is a queue number, a trace id or a recipient's address."

    def add_arguments(self, parser: CommandParser) -> None:
        verb = self.subcommands(parser)
        listing = verb("list", "List recipients that wait (or those of --state).")
        _filters(listing, STATES)
        listing.add_argument("--limit", type=base.count, default=200, help="rows at most (default 200)")
        listing.add_argument("--json", action="store_true")
        show = verb("show", "Show one message and each of its recipients.")
        show.add_argument("id", metavar="ID", type=_id)
        show.add_argument("--json", action="store_true")
        for name, help in (
            ("retry", "Try again now, also at hosts that were out of reach a moment ago."),
            ("hold", "Set aside until it is released."),
            ("release", "Queue again what is held."),
            ("bounce", "Return to the sender now."),
            ("remove", "Take out of the queue; nobody is told."),
            ("redirect", "Send to another address instead."),
        ):
            one = verb(name, help)
            _filters(one, OPEN)
            one.add_argument("--all", action="store_true", help="everything in the queue")
            one.add_argument("--json", action="store_true", help="say what was done as JSON")
            if name == "hold":
                one.add_argument("--reason", default="held by an administrator")
            if name == "redirect":
                one.add_argument("--to", metavar="ADDRESS", required=True)
            if name in ("bounce", "remove", "redirect"):
                one.add_argument("--yes", action="store_true", help="do not ask")
        freeze = verb("freeze", "Stop all deliveries to a destination; its mail waits.")
        freeze.add_argument("destination", metavar="DOMAIN")
        freeze.add_argument("--until", type=_time, metavar="TIME", help="90m, 6h, 2d, or 2026-11-24T08:00 (UTC)")
        freeze.add_argument("--reason", default="")
        thaw = verb("thaw", "Let mail go again to frozen destinations.")
        thaw.add_argument("destination", metavar="DOMAIN", nargs="*")
        thaw.add_argument("--all", action="store_true")
        verb("frozen", "List what is frozen, and what is paused because nobody answers there.").add_argument(
            "--json", action="store_true"
        )

    # --- looking

    def list(self, options: dict[str, Any]) -> None:
        options["all"] = True
        with db.django_transaction() as tx:
            wanted = _selection(tx, options, STATES if options["state"] else OPEN)
            rows = _with_pauses(tx, db.run_sync(queue.rows(tx, wanted, options["limit"])))
        if options["json"]:
            self.show_json([_plain(row) for row in rows])
            return
        lines = [_line(row) for row in rows]
        if not any(row.priority for row in rows):
            for line in lines:
                del line["priority"]
        self.show_rows(lines, "Nothing in the queue.")
        if len(rows) == min(options["limit"], MAX_ROWS):
            self.stdout.write(f"The first {len(rows)}; --limit shows more (up to {MAX_ROWS}).")

    def show(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            if "@" in options["id"]:  # the newest message for that recipient
                found = db.run_sync(queue.rows(tx, Selection(recipient=options["id"])))
                ids = [row.queue_id for row in found[-1:]]
            else:
                ids = db.run_sync(queue.numbers(tx, [options["id"]]))
            rows = _with_pauses(tx, db.run_sync(queue.rows(tx, Selection(ids=ids))))
        if not rows:
            raise CommandError(f"Nothing for {options['id']} is in the queue.")
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
            if row.written_to:
                fields.insert(1, ("written_to", row.written_to))
            if row.state == "queued" and not row.at_work:
                fields.append(("next_attempt", _next(row)))
            if row.waits:
                fields.append(("waits", row.waits))
            if row.finished_at:
                fields.append(("finished_at", row.finished_at))
            if row.priority:
                fields.append(("priority", row.priority))
            if row.deliver_by:
                late = "its sender is told" if (row.by_mode or "").startswith("N") else "it comes back"
                fields.append(("deliver_by", f"{base.text(row.deliver_by)} UTC; else {late}"))
            fields += [("last_host", row.host), ("last_reply", row.reply)]
            self.show_fields(fields)
        self.stdout.write(f"\nIts history: `manage.py trace {first.trace_id}`")

    # --- doing

    def retry(self, options: dict[str, Any]) -> None:
        rung: set[int] = set()
        frozen: set[str] = set()

        def work(tx: db.DjangoTx, rows: Sequence[Row]) -> Done:
            frozen.update(row.destination for row in rows if (row.waits or "").startswith("frozen"))
            db.run_sync(destinations.cut_short(tx, sorted({row.destination for row in rows})))
            rung.update(row.queue_id for row in rows)
            return db.run_sync(queue.retry(tx, [row.recipient_id for row in rows]))

        done = self._each(options, ("queued",), work)
        self._some(done, options, "Nothing of it waits for another try.")
        self.ring(sorted(rung))
        but = f" But {', '.join(sorted(frozen))} is frozen: `manage.py queue thaw`." if frozen else ""
        self._say(done, options, f"{_recipients(done.recipients)} will be tried now.{but}")

    def hold(self, options: dict[str, Any]) -> None:
        done = self._each(
            options,
            ("queued",),
            lambda tx, rows: db.run_sync(queue.hold(tx, [row.recipient_id for row in rows], options["reason"])),
        )
        self._some(done, options, "Nothing of it waits to be sent: nothing was held.")
        more = f" {_recipients(done.at_work)} of them on the wire now: held unless delivered." if done.at_work else ""
        self._say(done, options, f"{_recipients(done.recipients)} held.{more}")

    def release(self, options: dict[str, Any]) -> None:
        rung: set[int] = set()

        def work(tx: db.DjangoTx, rows: Sequence[Row]) -> Done:
            rung.update(row.queue_id for row in rows)
            return db.run_sync(queue.release(tx, [row.recipient_id for row in rows]))

        done = self._each(options, ("held",), work)
        self._some(done, options, "Nothing of it is held: nothing was released.")
        self.ring(sorted(rung))
        self._say(done, options, f"{_recipients(done.recipients)} released.")

    def bounce(self, options: dict[str, Any]) -> None:
        verdict = Outcome(Verdict.FAILED, Stage.QUEUE, "5.0.0", "returned by the administrator of this system")

        def work(tx: db.DjangoTx, rows: Sequence[Row]) -> Done:
            claims = db.run_sync(queue.seize(tx, [row.recipient_id for row in rows]))
            kept = db.run_sync(settle(tx, [Settled(claim, verdict) for claim in claims])) if claims else set()
            db.run_sync(tell_noted(tx, conf, sorted({claim.outbound_id for claim in claims})))
            return Done(len(kept), sum(row.at_work for row in rows), len({claim.outbound_id for claim in claims}))

        done = self._each(options, OPEN, work, "Return this mail to its senders?")
        self._some(done, options, "Nothing of it can be returned: it is finished, or being delivered at this moment.")
        self._say(done, options, f"{_recipients(done.recipients)} returned to the sender.{_busy(done)}")

    def remove(self, options: dict[str, Any]) -> None:
        done = self._each(
            options,
            OPEN,
            lambda tx, rows: db.run_sync(queue.remove(tx, [row.recipient_id for row in rows])),
            "Remove this mail for good, without telling anybody?",
        )
        self._some(
            done, options, f"Nothing was removed.{_busy(done)}" if done.at_work else "Nothing was left to remove."
        )
        self._say(done, options, f"{_recipients(done.recipients)} removed.{_busy(done)}")

    def redirect(self, options: dict[str, Any]) -> None:
        rung: set[int] = set()
        try:
            parsed = parse_address(options["to"])
        except AddressError as error:
            raise CommandError(f"--to {options['to']}: {error.text}") from None
        to = str(parsed)
        if not parsed.is_literal:
            existing_targets([to])

        def work(tx: db.DjangoTx, rows: Sequence[Row]) -> Done:
            rung.update(row.queue_id for row in rows)
            return db.run_sync(queue.redirect(tx, rows, to))

        done = self._each(options, OPEN, work, f"Send this mail to {to} instead?")
        self._some(done, options, f"Nothing was redirected.{_busy(done)}" if done.at_work else "Nothing of it waits.")
        self.ring(sorted(rung))
        self._say(done, options, f"{_recipients(done.recipients)} redirected to {to}.{_busy(done)}")

    # --- destinations

    def freeze(self, options: dict[str, Any]) -> None:
        name = _domain(options["destination"])
        with db.django_transaction() as tx:
            waiting = db.run_sync(destinations.freeze(tx, name, options["until"], options["reason"]))
        until = f" until {base.text(options['until'])} UTC" if options["until"] else ""
        self.stdout.write(f"{name} is frozen{until}; {_recipients(waiting)} in the queue for it.")

    def thaw(self, options: dict[str, Any]) -> None:
        if not options["destination"] and not options["all"]:
            raise CommandError("Say which destination, or --all.")
        names = None if options["all"] else [_domain(each) for each in options["destination"]]
        with db.django_transaction() as tx:
            thawed = db.run_sync(destinations.thaw(tx, names))
            ids = {row.queue_id for name in thawed for row in db.run_sync(queue.rows(tx, Selection(destination=name)))}
        if not thawed:
            raise CommandError("None of it is frozen: `manage.py queue frozen` lists what is.")
        self.ring(sorted(ids))
        self.stdout.write(f"Thawed: {', '.join(thawed)}.")

    def frozen(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            frozen = db.run_sync(destinations.frozen(tx))
            pauses = [each for each in db.run_sync(destinations.pauses(tx)) if each.left > 0]
        now = datetime.now(UTC)
        lines: Sequence[dict[str, Any]] = [
            {"destination": each.destination, "state": "frozen", "since": each.since, "until": each.until}
            | {"waiting": each.waiting, "reason": each.reason}
            for each in frozen
        ] + [
            {"destination": _paused(each), "state": "paused", "since": each.since}
            | {"until": now + timedelta(seconds=each.left), "waiting": None, "reason": each.reason}
            for each in pauses
        ]
        if options["json"]:
            self.show_json(lines)
        else:
            self.show_rows(lines, "Nothing is frozen, and nothing paused.")
            if any(each.host for each in pauses):
                self.stdout.write("A host that did not answer is left out for a while: mail goes to the other hosts.")

    # --- common to the verbs

    def ring(self, ids: Sequence[int]) -> None:
        """Have the workers look now, also at hosts that were out of reach a moment ago."""
        try:
            doorbell.ring_now(ids[: doorbell.MAX_IDS], force=True)
        except Exception as error:
            self.stderr.write(f"The workers could not be told ({error}); the next sweep will find it.")

    def _each(
        self,
        options: dict[str, Any],
        states: tuple[str, ...],
        work: Callable[[db.DjangoTx, Sequence[Row]], Done],
        question: str = "",
    ) -> Done:
        """Do something to everything that is selected, in pieces; what was done in all."""
        total = Done(0)
        for rows in _pieces(options, states):
            if question:
                self.confirm(question, options)
                question = ""
            with db.django_transaction() as tx:
                done = work(tx, rows)
            total = Done(
                total.recipients + done.recipients, total.at_work + done.at_work, total.messages + done.messages
            )
        return total

    def _some(self, done: Done, options: dict[str, Any], otherwise: str) -> None:
        """Whoever asked for something that was not done hears why, with exit status 1."""
        if done.recipients:
            return
        with db.django_transaction() as tx:
            rows = db.run_sync(queue.rows(tx, _selection(tx, options, STATES)))
        if not rows:
            raise CommandError("Nothing in the queue fits.")
        busy = [row for row in rows if row.at_work]
        if busy:
            text = f"{_recipients(len(busy))} being delivered at this moment; try again in a minute or two."
            raise CommandError(f"{otherwise} {text}" if text not in otherwise and not done.at_work else otherwise)
        states = {row.state for row in rows}
        if "held" in states:
            otherwise += " What is held has to be released first: `manage.py queue release`."
        elif states == {"failed"}:
            otherwise += (
                f" It has failed for good ({rows[0].reply or 'no reply'}), and a queue that told the sender so cannot"
                " take it back: have it sent again. Where the reason is mended, nothing else is needed; an address"
                " that was refused often may be suppressed: `manage.py suppression list`."
            )
        elif states == {"delivered"}:
            otherwise += f" It was delivered ({rows[0].reply or 'stored here'})."
        raise CommandError(otherwise)

    def _say(self, done: Done, options: dict[str, Any], text: str) -> None:
        if options["json"]:
            self.show_json({"recipients": done.recipients, "messages": done.messages, "at_work": done.at_work})
        else:
            self.stdout.write(text)


def _pieces(options: dict[str, Any], states: tuple[str, ...]) -> Iterator[Sequence[Row]]:
    with db.django_transaction() as tx:
        wanted = _selection(tx, options, states)
    while True:
        with db.django_transaction() as tx:
            rows = db.run_sync(queue.rows(tx, wanted))
        if rows:
            yield rows
        if len(rows) < MAX_ROWS:
            return
        wanted = replace(wanted, after=rows[-1].recipient_id)


def _selection(tx: db.DjangoTx, options: dict[str, Any], states: tuple[str, ...]) -> Selection:
    """What the options choose, of these states at most. Raises CommandError when they choose nothing in particular."""
    ids = [each for each in options.get("ids", ()) if "@" not in each]
    addresses = [each for each in options.get("ids", ()) if "@" in each]
    recipient = options["recipient"] or (addresses[0] if addresses else None)
    given = (ids, recipient, options["domain"], options["sender"], options["account"], options["state"])
    if len(addresses) + bool(options["recipient"]) > 1:
        raise CommandError("One recipient at a time.")
    if not any(given) and not options.get("all"):
        raise CommandError("Say which mail: an ID, --domain, --sender, --recipient, --account, --state or --all.")
    sender = options["sender"]
    by_domain = sender is not None and "@" not in sender and sender not in ("", "<>")
    if options["state"] == "all":
        states = STATES
    elif options["state"]:
        states = tuple(each for each in states if each == options["state"])
    return Selection(
        ids=db.run_sync(queue.numbers(tx, ids)) if ids else None,
        states=states,
        recipient=recipient,
        destination=_domain(options["domain"]) if options["domain"] else None,
        sender=None if sender is None or by_domain else "" if sender == "<>" else sender,
        sender_domain=_domain(sender) if by_domain and sender else None,
        account_id=people.get_account(options["account"]).pk if options["account"] else None,
    )


def _filters(parser: CommandParser, states: Sequence[str]) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", type=_id)
    parser.add_argument("--domain", "--destination", dest="domain", metavar="DOMAIN", help="recipients there")
    parser.add_argument("--sender", metavar="ADDRESS", help="an address, a domain, or <> for notices")
    parser.add_argument("--recipient", metavar="ADDRESS")
    parser.add_argument("--account", metavar="ADDRESS", help="what this account submitted")
    parser.add_argument("--state", choices=(*states, "all"), help="default: what is not finished")


def _id(text: str) -> str:
    """An argparse type."""
    if not text.strip():
        raise ArgumentTypeError("an ID is a queue number, a trace id or a recipient's address")
    return text.strip()


def _domain(text: str) -> str:
    if text.startswith("["):
        return text
    try:
        return domain_name(text.removeprefix("@"))
    except AddressError as error:
        raise CommandError(f"{text}: {error.text}") from None


def _time(text: str) -> datetime:
    """An argparse type: a time to come."""
    if found := re.fullmatch(r"(\d{1,5})([mhdw])", text):
        return datetime.now(UTC) + timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a time such as 90m, 6h, 2d or 2026-11-24T08:00") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise ArgumentTypeError(f"{text!r} has passed already")
    return moment


def _line(row: Row) -> dict[str, Any]:
    return {
        "id": row.queue_id,
        "state": _state(row),
        "sender": row.sender or "<>",
        "recipient": row.recipient,
        "size": base.shown_size(row.size),
        "tries": row.attempts,
        "priority": row.priority or None,
        "next": _next(row) if row.state == "queued" and not row.at_work else None,
        "last_reply": (row.waits or row.reply or "")[:80],
    }


def _with_pauses(tx: db.DjangoTx, rows: Sequence[Row]) -> list[Row]:
    """Rows with what they wait for when nobody could be reached where they go."""
    plans = Plans(conf, db.run_sync(routes.rules(tx)))
    ways = {
        row.recipient_id: plans.way(row.sender, row.destination).name
        for row in rows
        if row.state == "queued" and not row.waits
    }
    now = datetime.now(UTC)
    found = {each.name: each for each in db.run_sync(destinations.pauses_of(tx, sorted(set(ways.values()))))}
    shown = []
    for row in rows:
        pause = found.get(ways.get(row.recipient_id, "-"))
        if pause is not None and pause.left > 0:
            end = now + timedelta(seconds=pause.left)
            row = replace(row, waits=f"paused: {pause.reason}", next_attempt_at=max(end, row.next_attempt_at or end))
        shown.append(row)
    return shown


def _paused(pause: Pause) -> str:
    return f"the host {pause.host}" if pause.host else pause.name or "the smarthost"


def _next(row: Row) -> datetime | str:
    if row.next_attempt_at is None:
        return "when thawed"
    return row.next_attempt_at if row.next_attempt_at > datetime.now(UTC) else "now"


def _state(row: Row) -> str:
    if row.state == "held":
        return f"held ({row.held_reason})"
    return "being delivered" if row.at_work else row.state


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _busy(done: Done) -> str:
    return (
        f" {_recipients(done.at_work)} being delivered at this moment; try again in a minute or two."
        if done.at_work
        else ""
    )


def _recipients(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"
