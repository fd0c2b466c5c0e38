"""How children begin: which user, which capabilities, and that they die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mailcore.supervise import launch
from tests.waiting import until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


def output_of(argv: list[str], tmp_path: Path, privileges: tuple[int, ...]) -> str:
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = launch.execute(
            argv, output.fileno(), launch.service_identity(), death=signal.SIGTERM, privileges=privileges
        )
    until(lambda: running.poll() is not None)
    return log.read_text()


@as_root
def test_a_child_of_root_is_somebody_else_without_capabilities(tmp_path: Path) -> None:
    said = output_of(["/bin/sh", "-c", "id -u; grep Cap /proc/self/status"], tmp_path, ())
    uid, *capabilities = said.splitlines()
    assert int(uid) != 0
    held = dict(line.split() for line in capabilities)
    assert {held[name] for name in ("CapInh:", "CapPrm:", "CapEff:", "CapAmb:")} == {"0" * 16}


@as_root
def test_a_closed_directory_is_passed_with_the_one_capability_for_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.write_text("#!/bin/sh\ntest -r $0 && grep CapEff /proc/self/status\necho > $0 || echo no writing\n")
    program.chmod(0o755)
    identity = launch.service_identity()
    assert launch.privileges_to_reach(identity, program) == (launch.CAP_SEARCH,)
    said = output_of([str(program)], tmp_path, (launch.CAP_SEARCH,))
    assert "CapEff:\t0000000000000004" in said
    assert "no writing" in said


def test_an_open_directory_needs_no_capability() -> None:
    identity = launch.Identity("somebody", 54321, 54321)
    assert launch.privileges_to_reach(identity, Path("/usr/bin/env"), Path("/no/such/file")) == ()
    assert launch.privileges_to_reach(None, Path("/root/secret")) == ()


def test_a_child_dies_with_its_parent() -> None:
    code = (
        "import os, signal, sys; from mailcore.supervise import launch;"
        "child = launch.execute(['/bin/sleep', '60'], 1, None, death=signal.SIGTERM);"
        "print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parent.parent.parent
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.wait() == -signal.SIGKILL
    until(lambda: launch.process_age(pid) is None)
