"""The world that all tests of this folder share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.world import World, open_world


@pytest.fixture(scope="package")
def world(program: Callable[[str], str]) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("Postfix starts only as root")
    with open_world(program) as opened:
        yield opened
