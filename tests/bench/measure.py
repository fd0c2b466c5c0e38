"""What the kernel knows of a tree of processes, and a few statistics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and all below it that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        if process not in found and Path(f"/proc/{process}").exists():
            found.append(process)
            todo += children.get(process, [])
    return found


def cpu_seconds(roots: Sequence[int]) -> float:
    """CPU seconds of the trees, with those of children that have ended."""
    total = 0.0
    for process in {process for root in roots for process in tree(root)}:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            precise = sum(
                int(Path(f"/proc/{process}/task/{task}/schedstat").read_text().split()[0])
                for task in os.listdir(f"/proc/{process}/task")
            )
        except OSError:
            continue
        total += max((int(fields[11]) + int(fields[12])) / _TICK, precise / 1e9)
        total += (int(fields[13]) + int(fields[14])) / _TICK
    return total


def memory_kb(roots: Sequence[int]) -> int:
    """Proportional set size of the trees in kB."""
    total = 0
    for process in {process for root in roots for process in tree(root)}:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share / 100 * (len(ordered) - 1)))]


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)
