"""Outbound mail measured: `python -m tests.bench.outbound mixed` and `… stream`, each with `--rival` beside Postfix.

mixed   20,000 messages of 2 KB to 1,000 destinations are in the queue; 90 % of the servers are healthy, 5 % answer
        after 5 s, 3 % are dead, 2 % greylist. When is the healthy ones' mail out? Once with, once without the bad.
        With `--backlog N`, N more wait meanwhile: a third was deferred until tomorrow, a third is due at destinations
        that are paused, a third at 300 whose servers refuse connections. With `--volume N`, N more are due at the same
        moment to 500 other healthy destinations.
stream  Mail of 35 KB on average is submitted by SMTP, signed (DKIM, RSA-2048) and delivered to one server. Messages
        a second from the first command to the last arrival, and CPU per message. Postfix signs with OpenDKIM.

Mailstead runs as `manage.py up` runs it, with Postgres durable; `--workers` processes send. Postfix gets a table of
routes instead of DNS. Everything stands in scratch folders and ends with the bench. Needs root for the rival.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

from tests.bench import corpus, measure
from tests.bench.clients import Smtp
from tests.bench.outbound_servers import SENDERS, Sender, Sinks, mailstead, manage, postfix_server, say, sinks
from tests.bench.outbound_sinks import NETS, domain
from tests.bench.servers import PASSWORD, ROOT, BenchError

SENDER = SENDERS[0]
NOBODY = dict.fromkeys(NETS, 0)
SHARES = {"healthy": 0.90, "slow": 0.05, "dead": 0.03, "grey": 0.02}
TEXT = b"From: out@bench.test\r\nTo: x@y\r\nSubject: bench\r\n\r\n" + b"A line of text that is not very long.\r\n" * 50


# --- mixed ----------------------------------------------------------------------------------------------------------

_FILL = """
import sys, json
from mailcore import db
from mailcore.store import queue, trace
from mailcore.store.queue import Outgoing, Recipient
from accounts.models import Account
from datetime import datetime, timedelta, UTC
wanted = json.load(sys.stdin)
raw = wanted["raw"].encode()
account = Account.objects.get(address=wanted["sender"]).pk if wanted["signed"] else None
later = datetime.now(UTC) + timedelta(days=1)
items = [Outgoing(wanted["sender"], [Recipient(to)], trace.new_id(), raw, account_id=account, send_after=later)
         for to in wanted["to"]]
for at in range(0, len(items), 500):
    with db.django_transaction() as tx:
        db.run_sync(queue.enqueue_many(tx, items[at : at + 500]))
"""

# What is measured comes due, and what waits besides as it would have come to wait.
_GO = """
from django.db import connection, transaction
with transaction.atomic(), connection.cursor() as cursor:
    where = "destination NOT LIKE '%.later.test'"
    cursor.execute("UPDATE outbound o SET created_at = now(), send_after = now() FROM outbound_recipient r "
        "WHERE r.outbound_id = o.id AND " + where)
    cursor.execute("UPDATE outbound_recipient SET next_attempt_at = now() WHERE " + where)
    cursor.execute("UPDATE outbound_recipient SET attempts = 3, last_code = 450, last_reply = '450 4.2.0 not now' "
        "WHERE NOT " + where)
    cursor.execute("INSERT INTO delivery_pause (name, until, failures, reason) SELECT DISTINCT destination, "
        "now() + interval '1 hour', 6, 'connection refused' FROM outbound_recipient "
        "WHERE destination LIKE '%.paused.test'")
"""
WAITING = ("later", "paused", "gone")
GONE, BULK = 300, 500


def mixed_mailstead(options: argparse.Namespace, counts: dict[str, int]) -> dict[str, float]:
    with sinks(counts) as world, mailstead(world, options.workers) as server:
        wanted = {"sender": SENDER, "to": _recipients(world, options), "signed": options.signed, "raw": TEXT.decode()}
        made = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "shell", "-v0", "-c", _FILL],
            **{"env": server.environment, "input": json.dumps(wanted), "text": True, "cwd": ROOT},
            capture_output=True,
        )
        if made.returncode:
            raise BenchError(made.stderr[-2000:])
        cpu, all_cpu = measure.cpu_seconds(server.workers), measure.cpu_seconds(server.roots)
        begun = time.monotonic()
        manage(server.environment, "shell", "-v0", "-c", _GO)
        # The rows are there when that transaction commits: the clock begins then.
        begun = max(begun, time.monotonic() - 0.5)
        found = _watch(world, options, begun)
        waiting = json.loads(manage(server.environment, "queue", "list", "--json", "--limit", "5000"))
        healthy = [row for row in waiting if ".healthy." in row["destination"]]
        for row in healthy[:5]:
            say(f"  late: {row['recipient']} {row['attempts']} {row['waits']} {row['host']}: {row['reply']}")
        sent = max(sum(map(len, world.report()["arrived"].values())), 1)
        found["worker_cpu"] = (measure.cpu_seconds(server.workers) - cpu) / sent * 1000
        found["cpu"] = (measure.cpu_seconds(server.roots) - all_cpu) / sent * 1000
        return found


def mixed_postfix(options: argparse.Namespace, counts: dict[str, int]) -> dict[str, float]:
    options = argparse.Namespace(**vars(options) | {"backlog": 0, "volume": 0})
    with sinks(counts) as world, postfix_server(world, signed=False, hold=True, tuned=options.tuned) as server:
        asyncio.run(_submit(server.submission, [(to, TEXT) for to in _recipients(world, options)], 16, False))
        postconf = ["postconf", "-c", str(server.folder), "-e", "defer_transports="]
        subprocess.run(postconf, check=True)
        cpu, begun = measure.cpu_seconds(server.roots), time.monotonic()
        for verb in (["postfix", "-c", str(server.folder), "reload"], ["postqueue", "-c", str(server.folder), "-f"]):
            subprocess.run(verb, check=True, capture_output=True)
        found = _watch(world, options, begun)
        sent = max(sum(map(len, world.report()["arrived"].values())), 1)
        found["cpu"] = (measure.cpu_seconds(server.roots) - cpu) / sent * 1000
        return found


def _recipients(world: Sinks, options: argparse.Namespace) -> list[str]:
    """The mail takes turns with the destinations, as newsletters and people do."""
    places = world.destinations()
    waiting = [f"w{n}@{domain(WAITING[n % 3], n // 3 % GONE)}" for n in range(options.backlog)]
    waiting += [f"b{n}@{domain('bulk', n % BULK)}" for n in range(options.volume)]
    return waiting + [f"r{n}@{domain(*places[n % len(places)])}" for n in range(options.messages)]


def _watch(world: Sinks, options: argparse.Namespace, begun: float) -> dict[str, float]:
    """Wait until the healthy servers have all their mail."""
    share = world.counts["healthy"] / len(world.destinations())
    wanted, deadline = int(options.messages * share), begun + options.limit
    while world.arrived() < wanted and time.monotonic() < deadline:
        time.sleep(0.25)
    times = sorted(each - begun for each in world.report()["arrived"]["healthy"])
    if len(times) < wanted:
        say(f"  only {len(times)} of {wanted} arrived in {options.limit} s")
    found = {f"p{each}": measure.percentile(times, each) for each in (10, 50, 90, 95, 99)}
    return found | {"all": times[-1], "delivered": float(len(times)), "rate": len(times) / times[-1]}


# --- stream ---------------------------------------------------------------------------------------------------------


def stream_mailstead(options: argparse.Namespace) -> dict[str, float]:
    with sinks(NOBODY | {"healthy": 1}) as world, mailstead(world, options.workers) as server:
        return _stream(options, world, server, login=True)


def stream_postfix(options: argparse.Namespace) -> dict[str, float]:
    with (
        sinks(NOBODY | {"healthy": 1}) as world,
        postfix_server(world, signed=True, hold=False, tuned=options.tuned) as server,
    ):
        return _stream(options, world, server, login=False)


def _stream(options: argparse.Namespace, world: Sinks, server: Sender, *, login: bool) -> dict[str, float]:
    to = f"someone@{domain('healthy', 0)}"
    warm = [(to, _mine(raw)) for raw in corpus.mail(50)]
    asyncio.run(_submit(server.submission, warm, 4, login))
    while world.arrived() < len(warm):
        time.sleep(0.1)
    mail = [(to, _mine(raw)) for raw in corpus.mail(options.messages, 50)]
    cpu, workers, mails = (measure.cpu_seconds(each) for each in (server.roots, server.workers, server.mail))
    begun = time.monotonic()
    say(f"submitting {len(mail)} messages")
    asyncio.run(_submit(server.submission, mail, 16, login))
    accepted = time.monotonic() - begun
    deadline = begun + options.limit
    while world.arrived() < len(mail) + len(warm) and time.monotonic() < deadline:
        time.sleep(0.1)
    times = world.report()["arrived"]["healthy"][len(warm) :]
    seconds = max(times) - begun
    used = measure.cpu_seconds(server.roots) - cpu
    return {
        "rate": len(times) / seconds,
        "accepted": len(mail) / accepted,
        "cpu": used / len(times) * 1000,
        "worker_cpu": (measure.cpu_seconds(server.workers) - workers) / len(times) * 1000,
        "mail_cpu": (measure.cpu_seconds(server.mail) - mails) / len(times) * 1000,
        "delivered": float(len(times)),
    }


def _mine(raw: bytes) -> bytes:
    """The corpus's mail as its sender would write it: from the account."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    kept, skip = [], False
    for line in lines:
        skip = line[:1] in b" \t" and skip if line[:1] in b" \t" else line.lower().startswith(b"from:")
        if not skip:
            kept.append(line)
    return b"From: " + SENDER.encode() + b"\r\n" + b"\r\n".join(kept) + b"\r\n\r\n" + body


async def _submit(port: int, mail: Sequence[tuple[str, bytes]], connections: int, login: bool) -> None:
    waiting = deque(mail)

    async def work(sender: str) -> None:
        client = await Smtp.connect(port)
        if login:
            await client.login(sender, PASSWORD)
        while waiting:
            to, raw = waiting.popleft()
            await client.send(to, raw.replace(SENDER.encode(), sender.encode(), 1), sender)
        client.close()

    async with asyncio.TaskGroup() as group:
        for sender in SENDERS[:connections]:
            group.create_task(work(sender))


# --- main -----------------------------------------------------------------------------------------------------------


COLUMNS = {
    "rate": "messages/s",
    "accepted": "accepted/s",
    "p10": "p10, s",
    "p50": "p50, s",
    "p90": "p90, s",
    "p95": "p95, s",
    "p99": "p99, s",
    "all": "all, s",
    "cpu": "CPU, ms",
    "worker_cpu": "workers, ms",
    "mail_cpu": "mail, ms",
    "delivered": "delivered",
}


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """The figures as Markdown; CPU for each message."""
    shown = [name for name in COLUMNS if any(name in found for _, found in rows)]
    lines = [f"| | {' | '.join(COLUMNS[name] for name in shown)} |", "|---" + "|---:" * len(shown) + "|"]
    for title, found in rows:
        cells = [
            f"{found[name]:.3g}" if found.get(name, 1e6) < 1000 else f"{found.get(name, 0):,.0f}" for name in shown
        ]
        lines.append(f"| {title} | {' | '.join('–' if cell == '0' else cell for cell in cells)} |")
    return "\n".join(lines)


def _leave(*_: object) -> None:
    """Whoever ends it leaves nothing behind, though `timeout` says it twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.outbound", description=__doc__)
    parser.add_argument("scenario", choices=("mixed", "stream"))
    parser.add_argument("--messages", type=int, help="default 20,000 (mixed), 3,000 (stream)")
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--backlog", type=int, default=0, help="mixed: so many more that have to wait (not Postfix)")
    parser.add_argument("--volume", type=int, default=0, help="mixed: so many more to others at once (not Postfix)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--signed", action="store_true", help="mixed: DKIM-sign (Postfix does not)")
    parser.add_argument("--healthy-only", action="store_true", help="mixed: only the run without bad servers")
    parser.add_argument("--bad-only", action="store_true", help="mixed: only the run with bad servers")
    parser.add_argument("--rival", action="store_true", help="Postfix (and OpenDKIM) in the same run")
    parser.add_argument("--tuned", action="store_true", help="the rival with more processes and shorter time-outs")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a run is over")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    options.messages = options.messages or (20_000 if options.scenario == "mixed" else 3_000)
    rows: list[tuple[str, dict[str, float]]] = []

    def add(title: str, found: dict[str, float]) -> None:
        rows.append((title, found))
        say(f"{title}: " + "  ".join(f"{key} {value:.4g}" for key, value in found.items()))

    if options.scenario == "stream":
        add("Mailstead", stream_mailstead(options))
        if options.rival:
            add("Postfix + OpenDKIM", stream_postfix(options))
        print(table(rows))
        return 0
    besides = {"bulk": BULK if options.volume else 0, "gone": GONE if options.backlog else 0}
    bad = NOBODY | {kind: round(options.destinations * share) for kind, share in SHARES.items()} | besides
    good = NOBODY | {"healthy": options.destinations} | besides
    for name, counts in (("all servers healthy", good), ("a tenth slow, dead or greylisting", bad)):
        if (options.bad_only and counts is good) or (options.healthy_only and counts is bad):
            continue
        add(f"Mailstead, {name}", mixed_mailstead(options, counts))
        if options.rival:
            add(f"Postfix, {name}", mixed_postfix(options, counts))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
