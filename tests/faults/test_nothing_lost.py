"""Whatever dies, whenever: mail that was accepted is in a mailbox, delivered, in the queue, or back with its sender.

The suite has a minute of it; `make soak` has all: 20,000 messages, 60 processes killed, a disk that fills up.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults import senders
from tests.faults.account import Balance, balance
from tests.faults.far import Far
from tests.faults.killer import Killer
from tests.faults.senders import HOME, PASSWORD, PEOPLE, Ledger
from tests.ops.installation import Installation, installation
from tests.ports import free_ports

DISK = "3G"


@contextlib.contextmanager
def disk(small: bool) -> Iterator[Path]:
    """A folder for an installation; `small` = a file system of its own, which can be filled."""
    folder = Path(tempfile.mkdtemp(prefix="mailstead-faults-"))
    folder.chmod(0o755)
    if small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        if small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def command(made: Installation, *arguments: str) -> str:
    done = made.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def connect(made: Installation) -> psycopg.Connection[tuple[object, ...]]:
    url = json.loads((made.data / "embedded.json").read_text())["database_url"]
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


def settle(made: Installation, seconds: float) -> None:
    """Wait until the queue is empty and every sender was told, which follows a moment after the failure.

    Nobody waits minutes for the next attempt, and leases of the dead lapse now.
    """
    deadline = time.monotonic() + seconds
    while True:
        with connect(made) as database:
            # Whoever lives has prolonged the lease within its last quarter.
            database.execute(
                "UPDATE outbound_recipient SET lease_until = now() "
                "WHERE state = 'queued' AND lease_until BETWEEN now() AND now() + interval '75 seconds'"
            )
            row = database.execute(
                "SELECT (SELECT count(*) FROM outbound_recipient WHERE state IN ('queued', 'held')),"
                " (SELECT count(*) FROM outbound_notice)"
            ).fetchone()
        if row == (0, 0):
            return
        assert time.monotonic() < deadline, f"{row} recipients and notices still wait:\n{made.output()[-5000:]}"
        made.run("queue", "release", "--all")
        made.run("queue", "retry", "--all")
        time.sleep(2)


def storm(folder: Path, messages: int, kills: int, rate: float, seed: int, *, full: bool) -> Balance:
    """Send so many messages at this rate while so many processes are killed; then settle and balance the accounts."""
    (far_port,) = free_ports(1)
    far = Far(far_port, seed)
    stop = threading.Event()
    try:
        with installation(
            folder / "data",
            MAILSTEAD_DNS=f"127.0.0.1:{far.names.port}",
            MAILSTEAD_SMTP_OUT_PORT=str(far_port),
            MAILSTEAD_OUT_ALLOW="127.0.0.0/8",
        ) as made:
            made.start()
            made.wait_ready()
            command(made, "domain", "add", HOME)
            command(made, "domain", "policy", HOME, "recipients-per-hour=none", "recipients-per-day=none")
            for person in PEOPLE:
                command(made, "account", "add", person, "--password", PASSWORD)
            ledger, killer, lot = Ledger(), Killer(made, far, seed), random.Random(seed)
            begun = time.monotonic()
            threads = senders.start(ledger, made.ports, 8, rate, seed, stop)
            pause = messages / rate / (kills + 1)
            while sum(killer.killed.values()) < kills or len(ledger.accepted) < messages:
                assert made.process is not None and made.process.poll() is None, made.output()[-3000:]
                if sum(killer.killed.values()) < kills:
                    time.sleep(pause * lot.uniform(0.5, 1.5))
                    killer.kill()
                    if lot.random() < 0.2:
                        killer.something_else(full)
                else:
                    time.sleep(0.2)
            stop.set()
            for thread in threads:
                thread.join(120)
                assert not thread.is_alive(), f"{thread.name} hangs"
            sent = time.monotonic() - begun
            far.heal()
            made.greeting("SMTP", 120)
            settle(made, 600 if full else 240)
            with connect(made) as database:
                result = balance(ledger, far, database)
            findings = json.loads(command(made, "doctor", "--json", "--no-dns"))
            wrong = [each["text"] for each in findings if each["level"] == "wrong" and each["check"] == "counters"]
            print(
                f"\n{len(ledger.accepted)} messages accepted for {result.promised} recipients in {sent:.0f} s,"
                f" {ledger.refusals} times not; killed: {dict(killer.killed)}; besides: {dict(killer.other)}\n"
                f"found in: {dict(result.places)}; lost: {len(result.lost)}; copies too many: {dict(result.duplicates)}"
            )
            assert not wrong
            if result.lost or result.twofold:
                shown = [command(made, "trace", name) for name, _ in (result.lost + result.twofold)[:5]]
                print("\n".join(shown), made.output()[-3000:])
            return result
    finally:
        stop.set()
        far.close()


def test_a_minute_of_kills_loses_nothing() -> None:
    with disk(small=False) as folder:
        result = storm(folder, 300, 6, 20, seed=int(os.environ.get("FAULTS_SEED", "7")), full=False)
    assert result.lost == [] and result.twofold == []
    assert result.places["mailbox"] and result.places["far server"] and result.places["returned"]
    # What is sent again is what was on the wire when something died or a far server broke off: a few, never a flood.
    assert sum(result.duplicates.values()) < 0.2 * result.promised


@pytest.mark.soak
def test_twenty_thousand_messages_and_sixty_kills_lose_nothing() -> None:
    with disk(small=os.geteuid() == 0) as folder:
        seed = int(os.environ.get("FAULTS_SEED", "20261122"))
        result = storm(folder, 20_000, 60, 40, seed=seed, full=os.geteuid() == 0)
    assert result.lost == [] and result.twofold == []
    assert sum(result.duplicates.values()) < 0.1 * result.promised
