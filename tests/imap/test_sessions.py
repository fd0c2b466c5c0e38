"""Random operations from many sessions on shared mailboxes: every client's picture is checked after each answer.

Clients of all kinds (tests.imap.strict), the owner's and a guest's, in one mail process and in two, which break off in
the middle of commands and come back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from mailcore import db as store_db
from mailcore.store import quota
from tests.imap.conftest import Person
from tests.imap.process import MailProcess, mail_process
from tests.imap.running import Running
from tests.imap.strict import KINDS, MESSAGE, Client, Kind
from tests.waiting import PATIENCE

BOXES = ("INBOX", "Archive")


@pytest.fixture(scope="module")
def second(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailProcess]:
    with mail_process(tmp_path_factory.mktemp("second")) as running:
        yield running


def _play(dice: random.Random, clients: list[Client], watcher: Client, turns: int) -> None:
    for client in clients:
        client.select(dice.choice(BOXES))
    for turn in range(1, turns + 1):
        dice.choice(clients).step(dice)
        if turn % (turns // 3) == 0:
            _compare(clients, watcher)


def _compare(clients: list[Client], watcher: Client) -> None:
    """Whoever has a mailbox selected knows what is there; so does whoever has it told by NOTIFY."""
    for box in BOXES:
        # Commands that were broken off may still be running: then the truth changes once more.
        deadline = time.monotonic() + PATIENCE
        while True:
            watcher.select(box)
            truth = watcher.settle()
            inside = [client for client in clients if client.box == box]
            beside = [client for client in clients if client.box != box and client.kind.notify]
            wrong = [client for client in inside if client.settle() != truth]
            wrong += [client for client in beside if client.told(box) != len(truth[0])]
            if not wrong:
                break
            assert time.monotonic() < deadline, (box, truth, wrong[0].uids, wrong[0].status, wrong[0].story())
            time.sleep(0.05)


def _close(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def _names(owner: Person | None) -> dict[str, str]:
    return {box: f'"Other Users/{owner.address}/{box}"' if owner is not None else box for box in BOXES}


def _meet(
    seed: int, imap: Running, people: Callable[[str], Person], ports: list[int], kinds: list[Kind], turns: int = 150
) -> None:
    alice, bob = people("alice"), people("bob")
    dice = random.Random(seed)
    for _ in range(8):
        imap.deliver(alice.account_id, MESSAGE.encode())
    clients: list[Client] = []
    recents: dict[tuple[int, str, int], int] = {}
    watcher = Client(imap.port, alice, KINDS[1], _names(None), recents)
    try:
        for box in BOXES:
            watcher.ok(f"SETACL {box} {bob.address} lrswite")
        for number, kind in enumerate(kinds):
            guest = number % 3 == 2
            person, owner = (bob, alice) if guest else (alice, None)
            clients.append(Client(ports[number % len(ports)], person, kind, _names(owner), recents))
        _play(dice, clients, watcher, turns)
    finally:
        _close([*clients, watcher])
    with store_db.django_transaction() as tx:
        for person in (alice, bob):
            assert store_db.run_sync(quota.recount(tx, person.account_id)) == []


@pytest.mark.parametrize("seed", range(6))
def test_every_session_ends_with_the_same_picture(seed: int, imap: Running, people: Callable[[str], Person]) -> None:
    dice = random.Random(seed)
    _meet(seed, imap, people, [imap.port], dice.sample(KINDS, 6))


@pytest.mark.parametrize("seed", range(3))
def test_sessions_of_two_processes_end_with_the_same_picture(
    seed: int, imap: Running, second: MailProcess, people: Callable[[str], Person]
) -> None:
    dice = random.Random(100 + seed)
    _meet(seed, imap, people, [imap.port, second.port], dice.sample(KINDS, 6))


def test_many_sessions_of_all_kinds(imap: Running, second: MailProcess, people: Callable[[str], Person]) -> None:
    _meet(7, imap, people, [imap.port, second.port], [*KINDS, *KINDS])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_many_sessions_for_long(seed: int, imap: Running, second: MailProcess, people: Callable[[str], Person]) -> None:
    dice = random.Random(seed)
    _meet(seed, imap, people, [imap.port, second.port], dice.sample([*KINDS, *KINDS], 10), turns=400)
