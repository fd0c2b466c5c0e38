"""The supervisor's care for its children, on children that do nothing but what the test wants."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# A child that ignores SIGTERM and, the first time it runs, does not answer.
DEAF = """
import os, signal, sys, time
from mailcore.supervise import keeper, launch
from mailcore.supervise.output import Output

keeper.ASK_EVERY = 0.05
started, asked = [], []

def child():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("here", flush=True)
    time.sleep(600)

def spawn(out):
    started.append(out)
    return launch.fork(child, out, None, before=lambda: None)

def answers():
    asked.append(len(started))
    return len(started) > 1 or len(asked) == 3  # one answer in between: no four misses in a row before it

made = keeper.Keeper(Output(), lambda children: None)
made.start(keeper.Spec("deaf", spawn, lambda pid, said: b"here" in said, signal.SIGTERM, 0.2, answers=answers))
made.wait_ready(seconds=120)
while len(started) < 2 or asked.count(2) < 5:
    made._step(1.0)
print("asked", asked.count(1), "times", flush=True)
made.stop(("deaf",))
"""


def test_a_child_that_does_not_answer_is_asked_to_end_then_killed_and_runs_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" | ")[2] or line for line in done.stdout.splitlines()]
    words = [line for line in lines if line.startswith("deaf ")]
    assert words[0].startswith("deaf has not answered for ") and words[0].endswith(" s: it is restarted")
    assert words[1] == f"deaf was killed by {signal.SIGKILL.name}; restarting in 0.2 s"
    assert words[2].startswith("deaf runs again (pid ")
    assert "asked 7 times" in lines, "two misses, an answer, four misses"


# A child that dies when it is told, and then hangs while it starts: only that one has little time, so that nothing here
# depends on how fast the others are.
SLOW = """
import os, signal, sys, time
from mailcore.supervise import keeper, launch
from mailcore.supervise.output import Output

started = []

def child():
    if len(started) == 2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
    print("here", flush=True)
    time.sleep(600)

def spawn(out):
    started.append(out)
    keeper.START_SECONDS = 0.5 if len(started) == 2 else 600.0
    return launch.fork(child, out, None, before=lambda: None)

made = keeper.Keeper(Output(), lambda children: None)
made.start(keeper.Spec("slow", spawn, lambda pid, said: b"here" in said, signal.SIGTERM, 0.2, answers=lambda: True))
made.wait_ready(seconds=120)
os.kill(made._children["slow"].running.pid, signal.SIGUSR1)
while len(started) < 3:
    made._step(1.0)
made.wait_ready(seconds=120)
made.stop(("slow",))
"""


def test_a_child_that_hangs_when_it_starts_again_is_started_once_more() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" | ")[2] or line for line in done.stdout.splitlines()]
    words = [line for line in lines if line.startswith("slow ")]
    assert words[0] == "slow ended with exit status 0; restarting in 0.2 s"
    assert words[1].startswith("slow is not ready after ") and words[1].endswith(" s: it is restarted")
    assert words[2] == f"slow was killed by {signal.SIGKILL.name}; restarting in 1 s"
    assert words[3].startswith("slow runs again (pid ")


# The disk is full: who runs cannot be noted, and what died cannot be started again at once.
FULL = """
import errno, os, signal, sys, time
from mailcore.supervise import keeper, launch
from mailcore.supervise.output import Output

keeper._NOTE_AGAIN = 0.05
started, noted, refused = [], [], []
full = OSError(errno.ENOSPC, "No space left on device")

def child():
    print("here", flush=True)
    time.sleep(600)

def spawn(out):
    if started and len(refused) < 2:
        refused.append(out)
        raise full
    started.append(out)
    return launch.fork(child, out, None, before=lambda: None)

def note(children):
    if started and len(refused) < 2:
        raise full
    noted.append(children)

made = keeper.Keeper(Output(), note)
made.start(keeper.Spec("mail", spawn, lambda pid, said: b"here" in said, signal.SIGTERM, 1.0))
made.wait_ready(seconds=120)
os.kill(made._children["mail"].running.pid, signal.SIGKILL)
while len(started) < 2 or not noted or "mail" not in noted[-1]:
    made._step(1.0)
made.wait_ready(seconds=120)
made.stop(("mail",))
"""


def test_a_full_disk_ends_neither_the_supervisor_nor_what_it_keeps_running() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    words = [line.partition(" | ")[2] for line in done.stdout.splitlines()]
    assert words.count("who runs cannot be noted: No space left on device") == 1
    assert (
        sum("mail cannot be restarted (mail cannot be started: No space left on device)" in each for each in words) == 2
    )
    assert any(each.startswith("mail runs again (pid ") for each in words)
