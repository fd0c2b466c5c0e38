"""Runs a program that wants a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

from tests.waiting import PATIENCE


def run(argv: Sequence[str], environ: Mapping[str, str], seconds: float = PATIENCE) -> tuple[int, bytes]:
    """Run a program on a terminal of its own; returns its exit status and all that it drew, kills it when it stays."""
    process, screen = pty.fork()
    if process == 0:
        os.execve(argv[0], list(argv), {**environ, "TERM": "vt100"})
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn, deadline = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if select.select([screen], [], [], 0.2)[0]:
                try:
                    piece = os.read(screen, 65536)
                except OSError:  # nobody is at the other end any more
                    piece = b""
                if not piece:
                    break
                drawn += piece
        else:
            os.kill(process, signal.SIGKILL)
    finally:
        os.close(screen)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), drawn
