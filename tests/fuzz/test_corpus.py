"""Replays what the fuzzer has kept: the inputs that reached new code, and those that once broke something."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.fuzz.__main__ import kept
from tests.fuzz.targets import TARGETS

MUTANTS = 1_500
SECONDS = 20.0


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_keep_the_promises(name: str) -> None:
    inputs = kept(name)
    assert len(inputs) > 10
    for octets in inputs:
        TARGETS[name].check(octets)


@pytest.mark.parametrize("name", TARGETS)
def test_so_do_mutants_of_them(name: str) -> None:
    """Always the same, unless FUZZ_SEED says otherwise."""
    chance = random.Random(int(os.environ.get("FUZZ_SEED", "1")))
    inputs = [*kept(name), *TARGETS[name].seeds()]
    end = time.process_time() + SECONDS
    for _ in range(MUTANTS):
        octets = mutated(chance, inputs)
        try:
            TARGETS[name].check(octets[: TARGETS[name].size])
        except Exception as error:
            raise AssertionError(f"{name}: {octets!r}") from error
        assert time.process_time() < end, "a few hundred small inputs took too long"


def mutated(chance: random.Random, inputs: list[bytes]) -> bytes:
    """One of the inputs with pieces of others, cut, repeated or damaged."""
    octets = bytearray(chance.choice(inputs))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(5):
            case 0:
                other = chance.choice(inputs)
                start = chance.randrange(len(other) + 1)
                octets[at:at] = other[start : start + chance.randrange(1, 60)]
            case 1:
                del octets[at : at + chance.randrange(1, 20)]
            case 2:
                octets[at:at] = octets[at : at + chance.randrange(1, 10)] * chance.randrange(1, 20)
            case 3:
                octets[at : at + 1] = bytes(
                    (chance.choice((0, 9, 10, 13, 32, 34, 40, 41, 42, 92, 123, 125, 128, 255)),)
                )
            case _:
                octets[at : at + 1] = bytes((chance.randrange(256),))
    return bytes(octets)
