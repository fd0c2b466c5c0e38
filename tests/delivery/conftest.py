"""The world of the delivery tests, on the event loop that the worker uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa

from accounts import people
from mailcore import db, provision
from mailcore.delivery import dkim
from tests.delivery.world import ANN, World, world


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def ann(database_url: str, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> int:
    """Ann's account; her domain's RSA key is the same in every test, because making one takes long."""
    monkeypatch.setattr(dkim, "generate_private_key", lambda *_: rsa_key)
    people.add_domain("example.test")
    account = provision.add_account(ANN, name="Ann")
    with db.django_transaction() as tx:
        db.run_sync(dkim.create_keys(tx, "example.test"))
    return account.pk


@pytest.fixture
async def here(ann: int, data_dir: Path) -> AsyncIterator[World]:
    async with world(ann, data_dir) as made:
        yield made
