"""What `manage.py up` prints: the children's lines with time, name and colour, its own messages, the summary box."""

from __future__ import annotations

import os
import select
import sys
import time

# Of the terminal's own palette, so that they can be read on a light and on a dark ground.
_COLOURS = {"postgres": 34, "valkey": 35, "mail": 32, "web": 36, "worker": 33, "beat": 33, "setup": 34, "up": 1}
_WIDTH = 8
_PATIENCE = 1.0  # seconds for a slow terminal
_PIECE = 4096  # what a pipe or terminal takes without blocking once it says that it is ready (PIPE_BUF)


class Output:
    """Standard output. A terminal that is halted, or a reader that sleeps, costs lines, never the service."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._patience = _PATIENCE
        self._lost = 0

    def line(self, name: str, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        if self.terminal:
            colour = _COLOURS.get(name.partition("-")[0], 0)
            self.raw(f"\x1b[2m{stamp}\x1b[0m \x1b[{colour}m{name:<{_WIDTH}}\x1b[0m \x1b[2m|\x1b[0m {text}\n")
        else:
            self.raw(f"{stamp} {name:<{_WIDTH}} | {text}\n")

    def say(self, text: str, *, warning: bool = False) -> None:
        self.line("up", f"\x1b[33m{text}\x1b[0m" if warning and self.terminal else text)

    def raw(self, text: str) -> None:
        if self._lost:
            text = f"… {self._lost} lines were not printed\n{text}"
        data = text.encode(errors="replace")
        for start in range(0, len(data), _PIECE):
            if not select.select([], [1], [], self._patience)[1]:
                self._patience = 0.0  # until it is read again
                self._lost += 1
                return
            try:
                os.write(1, data[start : start + _PIECE])
            except OSError:  # nobody will ever read it
                return
        self._patience, self._lost = _PATIENCE, 0
