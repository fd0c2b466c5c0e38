"""Every script of tests/transcripts/imap, played against the real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from accounts.models import Account
from mailcore import provision
from tests.imap.conftest import Person
from tests.imap.running import HOST, Running
from tests.transcripts.runner import Player, World

SCRIPTS = sorted((Path(__file__).parent.parent / "transcripts" / "imap").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_transcript(script: Path, imap: Running, people: Callable[[str], Person]) -> None:
    def account(name: str) -> tuple[str, str]:
        person = people(name)
        return person.address, person.password

    def deliver(name: str, raw: bytes) -> None:
        imap.deliver(people(name).account_id, raw)

    def quota(name: str, octets: int | None, messages: int | None) -> None:
        provision.set_quota(Account.objects.get(pk=people(name).account_id), octets, messages)

    Player(World(HOST, imap.port, imap.tls_port, account, deliver, quota)).play(script)
