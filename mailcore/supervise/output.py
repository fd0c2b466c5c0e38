"""What `manage.py up` prints: the children's lines with time, name and colour, its own messages, the summary box."""

from __future__ import annotations

import os
import sys
import time

# Of the terminal's own palette, so that they can be read on a light and on a dark ground.
_COLOURS = {"postgres": 34, "valkey": 35, "mail": 32, "web": 36, "worker": 33, "beat": 33, "setup": 34, "up": 1}
_WIDTH = 8


class Output:
    """Standard output; once nobody reads it any more, it falls silent and the installation goes on."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._broken = False

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
        if self._broken:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):
            self._broken = True
            # Python flushes again at its end, and would complain.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open as long as we live
