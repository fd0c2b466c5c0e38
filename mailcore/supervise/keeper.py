"""Keeps children running: starts them, prints their lines, restarts the one that dies, stops all in reverse order.

One thread, one selector: children are forked from here, and a fork copies only the thread that calls it.
"""

from __future__ import annotations

import math
import os
import re
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mailcore.supervise import launch
from mailcore.supervise.output import Output

# Seconds before the n-th restart in a row; a child that stayed up for HEALTHY seconds starts from the beginning again.
BACKOFF = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY = 60.0
# A child that has never worked is given up after so many attempts.
START_ATTEMPTS = 3
_PROBE_INTERVAL = 0.03
# Seconds until the note of who runs is tried again.
_NOTE_AGAIN = 1.0
# A child that works is asked so often (seconds), and started anew when it has not answered so many times in a row.
ASK_EVERY = 15.0
MISSES = 4
# One that is started again has so long (seconds) until it works; then it hangs, too. (Servers have all the time.)
START_SECONDS = 120.0
_LONGEST_LINE = 16 * 1024


class StartFailed(Exception):
    """Something could not be started; the text is one line for the operator."""


class Stopped(Exception):
    """A signal asked us to stop."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A child to keep running."""

    name: str
    spawn: Callable[[int], launch.Running]  # given the descriptor for its output
    ready: Callable[[int, bytes], bool]  # given its pid and what it wrote so far
    stop: signal.Signals
    grace: float  # seconds between `stop` and SIGKILL
    kill: signal.Signals = signal.SIGKILL
    before: Callable[[], None] = lambda: None  # clears up what the previous one left
    once: bool = False  # does its work and ends
    answers: Callable[[], bool] | None = None  # whether it still works, once it is ready; takes a second at most
    hide: re.Pattern[str] | None = None  # routine lines that say nothing to the operator


@dataclass(slots=True)
class _Child:
    spec: Spec
    running: launch.Running | None = None
    pipe: int = -1
    partial: bytes = b""
    written: bytes = b""  # until it is ready
    last: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    ready: bool = False
    was_ready: bool = False
    started: float = 0.0
    attempts: int = 0
    restart_at: float | None = None
    ask_at: float = 0.0
    misses: int = 0
    kill_at: float | None = None  # it was told to end, because it did not answer


class Keeper:
    """The children of one installation."""

    def __init__(self, output: Output, on_change: Callable[[dict[str, int]], None]) -> None:
        self._output = output
        self._on_change = on_change
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop_requests = 0
        self._stopping = False
        self._note_at: float | None = None
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the selector
        launch.adopt_orphans()

    def _request_stop(self, number: int, _frame: object) -> None:
        self._stop_requests += 1

    def close_in_child(self) -> None:
        """Let go, in a forked child, of everything that only the supervisor may hold."""
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        for child in self._children.values():
            if child.pipe >= 0:
                os.close(child.pipe)

    # --- starting

    def start(self, spec: Spec) -> None:
        child = self._children[spec.name] = _Child(spec)
        self._spawn(child)

    def _spawn(self, child: _Child) -> None:
        child.attempts += 1
        child.spec.before()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        child.partial = child.written = b""
        child.ready, child.restart_at, child.started = False, None, time.monotonic()
        child.misses, child.kill_at = 0, None
        try:
            child.running = child.spec.spawn(writer)
        except OSError as error:
            os.close(reader)
            raise StartFailed(f"{child.spec.name} cannot be started: {error.strerror}") from None
        finally:
            os.close(writer)
        child.pipe = reader
        self._selector.register(reader, selectors.EVENT_READ, child)
        self._changed()

    def _changed(self) -> None:
        """Have it noted who runs; on a full disk again and again, since nothing else may end for want of a note."""
        try:
            self._on_change({name: child.running.pid for name, child in self._children.items() if child.running})
        except OSError as error:
            if self._note_at is None:
                self._output.say(f"who runs cannot be noted: {error.strerror}", warning=True)
            self._note_at = time.monotonic() + _NOTE_AGAIN
        else:
            self._note_at = None

    def wait_ready(self, *names: str, seconds: float) -> None:
        """Serve until these children (none named: all) are ready; raises StartFailed or Stopped."""
        deadline = time.monotonic() + seconds
        while waiting := [
            child for name, child in self._children.items() if not child.ready and (not names or name in names)
        ]:
            if time.monotonic() > deadline:
                child = waiting[0]
                raise StartFailed(f"{child.spec.name} is not ready after {seconds:.0f} s{self._last_words(child)}")
            self._step()

    def run_once(self, spec: Spec, seconds: float) -> None:
        """Start a child that ends by itself, and serve until it has; raises StartFailed when it takes longer."""
        self.start(spec)
        child = self._children[spec.name]
        deadline = time.monotonic() + seconds
        while child.running:
            if time.monotonic() > deadline:
                raise StartFailed(f"{spec.name} takes longer than {seconds:.0f} s{self._last_words(child)}")
            self._step(1.0)
        del self._children[spec.name]

    def run(self) -> None:
        """Serve until a signal asks to stop (raises Stopped)."""
        while True:
            self._step()

    def _last_words(self, child: _Child) -> str:
        return f": {child.last[-1]}" if child.last else ""

    # --- the loop

    def _step(self, longest: float = 3600.0) -> None:
        now = time.monotonic()
        if any(child.running and not child.ready for child in self._children.values()):
            longest = min(longest, _PROBE_INTERVAL)
        if self._note_at is not None:
            longest = min(longest, max(0.0, self._note_at - now))
        for child in self._children.values():
            for moment in (child.restart_at, child.kill_at, child.ask_at if _is_asked(child) else None):
                if moment is not None:
                    longest = min(longest, max(0.0, moment - now))
        for key, _events in self._selector.select(longest):
            if key.data is None:
                self._drain_wakeups()
            else:
                self._read(key.data)
        self._reap()
        if self._stop_requests and not self._stopping:
            raise Stopped
        if self._stopping:
            return
        now = time.monotonic()
        if self._note_at is not None and now >= self._note_at:
            self._changed()
        for child in self._children.values():
            if child.restart_at is not None and now >= child.restart_at:
                self._restart(child)
            elif child.running and child.kill_at is not None and now >= child.kill_at:
                child.kill_at = math.inf
                _kill(child.running.pid, child.spec.kill)
            elif child.running and not child.ready:
                self._probe(child)
            elif _is_asked(child) and now >= child.ask_at:
                self._ask(child)

    def _restart(self, child: _Child) -> None:
        """Start a child again; what stands in the way now (a full disk, no memory) may be gone in a while."""
        try:
            self._spawn(child)
        except (OSError, StartFailed) as error:
            if not child.was_ready:
                raise
            pause = self._pause(child)
            child.restart_at = time.monotonic() + pause
            self._output.say(f"{child.spec.name} cannot be restarted ({error}); again in {pause:g} s", warning=True)

    @staticmethod
    def _pause(child: _Child) -> float:
        return BACKOFF[min(child.attempts, len(BACKOFF)) - 1]

    def _drain_wakeups(self) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def _probe(self, child: _Child) -> None:
        assert child.running is not None
        if child.spec.ready(child.running.pid, child.written):
            child.ready, child.written = True, b""
            child.ask_at = time.monotonic() + ASK_EVERY
            if child.was_ready:
                self._output.say(f"{child.spec.name} runs again (pid {child.running.pid})")
            child.was_ready = True
        elif (
            child.was_ready
            and child.spec.answers is not None  # a database may take long to recover, and must not be disturbed
            and child.kill_at is None
            and time.monotonic() - child.started > START_SECONDS
        ):
            self._end_hung(child, f"is not ready after {START_SECONDS:.0f} s")

    def _ask(self, child: _Child) -> None:
        """Whether a child still works; one that hangs is ended, and runs again as one that died does."""
        assert child.spec.answers is not None
        child.misses = 0 if child.spec.answers() else child.misses + 1
        child.ask_at = time.monotonic() + ASK_EVERY
        if child.misses >= MISSES:
            self._end_hung(child, f"has not answered for {ASK_EVERY * MISSES:.0f} s")

    def _end_hung(self, child: _Child, how: str) -> None:
        assert child.running is not None
        self._output.say(f"{child.spec.name} {how}: it is restarted", warning=True)
        child.kill_at = time.monotonic() + child.spec.grace
        _kill(child.running.pid, child.spec.stop)

    def _read(self, child: _Child) -> None:
        try:
            data = os.read(child.pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._close_pipe(child)
            return
        if not child.ready:
            child.written = (child.written + data)[-_LONGEST_LINE:]
        *lines, child.partial = (child.partial + data).split(b"\n")
        if len(child.partial) > _LONGEST_LINE:
            lines.append(child.partial)
            child.partial = b""
        for line in lines:
            self._print(child, line)

    def _print(self, child: _Child, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        if text:
            child.last.append(text)
            if child.spec.hide and child.spec.hide.search(text):
                return
            self._output.line(child.spec.name, text)

    def _close_pipe(self, child: _Child) -> None:
        if child.pipe >= 0:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = -1
            if child.partial:
                self._print(child, child.partial)
                child.partial = b""

    def _reap(self) -> None:
        for child in list(self._children.values()):
            if child.running and (code := child.running.poll()) is not None:
                self._ended(child, code)
        ours = {child.running.pid for child in self._children.values() if child.running}
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None or info.si_pid in ours:  # one of ours has ended just now: its signal is on the way
                return
            os.waitpid(info.si_pid, 0)  # a grandchild that was left to us

    def _ended(self, child: _Child, code: int) -> None:
        assert child.running is not None
        pid, child.running, child.kill_at = child.running.pid, None, None
        # What the child left behind in its session ends with it, else it would hold ports and locks.
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        if child.pipe >= 0:
            self._read(child)
            self._close_pipe(child)
        self._changed()
        if self._stopping or child.spec.once:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        if not child.was_ready and child.attempts >= START_ATTEMPTS:
            raise StartFailed(
                f"{child.spec.name} {how} before it was ready, {child.attempts} times{self._last_words(child)}"
            )
        if time.monotonic() - child.started > HEALTHY:
            child.attempts = 1
        pause = self._pause(child)
        child.ready, child.restart_at = False, time.monotonic() + pause
        self._output.say(f"{child.spec.name} {how}; restarting in {pause:g} s", warning=True)

    # --- stopping

    def stop(self, *groups: tuple[str, ...]) -> None:
        """Stop the children group by group, the members of a group together, and leave nobody behind."""
        self._stopping = True
        for group in groups:
            self._stop_group([self._children[name] for name in group if name in self._children])
        self._sweep()
        self._selector.close()

    def _stop_group(self, group: list[_Child]) -> None:
        already = self._stop_requests
        for child in group:
            child.restart_at = None
            if child.running:
                _kill(child.running.pid, child.spec.stop)
        begin = time.monotonic()
        killed: set[str] = set()
        while alive := [child for child in group if child.running]:
            hurry = self._stop_requests > already  # another Ctrl-C means: at once
            for child in alive:
                if child.spec.name not in killed and (hurry or time.monotonic() - begin > child.spec.grace):
                    killed.add(child.spec.name)
                    assert child.running is not None
                    self._output.say(f"{child.spec.name} does not stop; killing it", warning=True)
                    _kill(child.running.pid, child.spec.kill)
            self._step(0.05)

    def _sweep(self) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (left := launch.children_of(os.getpid())):
            for pid in left:
                _kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            self._reap()


def _is_asked(child: _Child) -> bool:
    return child.running is not None and child.ready and child.spec.answers is not None and child.kill_at is None


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
