"""Runs the fuzzer on one target after the other and keeps what it learned.

make fuzz SECONDS=60                       every target for a minute
python -m tests.fuzz imap --seconds 300    one of them
python -m tests.fuzz imap --keep           … and put the smallest inputs that reach everything into corpus/imap.txt

What it finds is written to crash-… files in the folder that it names; once repaired, each becomes a line of
corpus/TARGET.found.txt by `--add FILE`.
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.targets import CORPUS, TARGETS, Target

COVERED = ("/mailcore/wire/", "/mailcore/mime/", "/mailcore/delivery/outcome", "/accounts/addresses")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="which (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="write a small set of inputs that reaches the same code")
    parser.add_argument("--add", type=Path, help="add this input to the target's kept ones")
    options = parser.parse_args()
    chosen = options.targets or list(TARGETS)
    if unknown := set(chosen) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.add is not None:
        if len(chosen) != 1:
            parser.error("name the target that --add is for")
        with (CORPUS / f"{chosen[0]}.found.txt").open("ab") as file:
            file.write(base64.b64encode(options.add.read_bytes()) + b"\n")
        return 0
    return max(_run(name, options) for name in chosen)


def kept(name: str) -> list[bytes]:
    """The inputs of a target that the suite replays: what reaches most code, and what once broke something."""
    files = [file for file in (CORPUS / f"{name}.txt", CORPUS / f"{name}.found.txt") if file.exists()]
    return [base64.b64decode(line) for file in files for line in file.read_text().split()]


def keep(name: str, inputs: set[bytes]) -> None:
    lines = (base64.b64encode(each).decode() + "\n" for each in sorted(inputs, key=lambda each: (len(each), each)))
    (CORPUS / f"{name}.txt").write_text("".join(lines))


def _run(name: str, options: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own; 0 when nothing was found."""
    target = TARGETS[name]
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus = work / "corpus"
    corpus.mkdir()
    for number, octets in enumerate((*target.seeds(), *kept(name))):
        (corpus / f"seed{number}").write_bytes(octets[: target.size])
    found = _libfuzzer(name, work, f"-max_total_time={options.seconds}", f"-max_len={target.size}", str(corpus))
    if "stat::number_of_executed_units" not in found:
        print(found[-6000:], f"{name}: the fuzzer did not run", sep="\n")
        return 1
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", found))
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", found)
    edges, features, size = reached[-1] if reached else ("?", "?", "?")
    executions = stats.get("number_of_executed_units", "?")
    crashes = sorted(each.name for each in work.glob("*-*") if each.is_file())
    print(
        f"{name}: {executions} executions, {edges} edges, {features} features, corpus {size}; "
        + (f"FOUND {' '.join(crashes)} in {work}" if crashes else "nothing found"),
        flush=True,
    )
    if crashes:
        print(found[-6000:])
    elif options.keep:
        keep(name, fewest(target, [each.read_bytes() for each in corpus.iterdir()]))
        print(f"{name}: {len(kept(name))} inputs kept")
    if not crashes:
        shutil.rmtree(work)
    return 1 if crashes else 0


def fewest(target: Target, inputs: list[bytes]) -> set[bytes]:
    """Of these inputs the shortest ones that together run through every pair of lines that all of them do."""
    chosen: set[bytes] = set()
    known: set[tuple[str, int, int]] = set()
    for octets in sorted(set(inputs), key=len):
        reached = _pairs(target, octets)
        if not reached <= known:
            known |= reached
            chosen.add(octets)
    return chosen


def _pairs(target: Target, octets: bytes) -> set[tuple[str, int, int]]:
    reached: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        file, last = frame.f_code.co_filename, 0
        if not any(part in file for part in COVERED):
            return None

        def step(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            nonlocal last
            reached.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        target.check(octets)
    finally:
        sys.settrace(None)
    return reached


def _libfuzzer(name: str, work: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.fuzz.engine", name, str(work), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
