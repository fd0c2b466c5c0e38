"""A message while it arrives: in memory while it is small, then in a file that has no name and vanishes with us."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import IO

# Octets of one message in memory: until it needs a file, and from then on.
MEMORY = 512 * 1024
ON_DISK = 64 * 1024
# Octets of all messages in memory together, of one process; beyond that also the small ones go into files.
TOTAL = 64 * 1024 * 1024


class Room:
    """What the messages that arrive at a process take of its memory together."""

    __slots__ = ("total", "used")

    def __init__(self, total: int = TOTAL) -> None:
        self.total = total
        self.used = 0

    @property
    def scarce(self) -> bool:
        """There is no more of it to have."""
        return self.used > self.total


class Spool:
    """Collects a message. What goes beyond `limit` is counted and dropped, so that the session stays in sync.

    A full disk shows in `failed`; the octets are dropped then as well.
    """

    __slots__ = ("_directory", "_file", "_limit", "_parts", "_pending", "_room", "failed", "size")

    def __init__(self, directory: Path, limit: int, room: Room | None = None) -> None:
        self._directory = directory
        self._limit = limit
        self._room = room or Room()
        self._parts: list[bytes] = []
        self._pending = 0
        self._file: IO[bytes] | None = None
        self.size = 0
        self.failed: OSError | None = None

    @property
    def too_big(self) -> bool:
        """More octets came than the limit allows."""
        return self.size > self._limit

    @property
    def on_disk(self) -> bool:
        """It is too large for memory."""
        return self._file is not None

    def write(self, data: bytes) -> None:
        """Add octets."""
        if not data:
            return
        self.size += len(data)
        if self.too_big or self.failed is not None:
            self.close()
            return
        self._parts.append(data)
        self._pending += len(data)
        self._room.used += len(data)
        if self._pending > (ON_DISK if self._file is not None or self._room.scarce else MEMORY):
            try:
                if self._file is None:
                    self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  closed by close()
                self._flush(self._file)
            except OSError as error:
                self.failed = error
                self.close()

    async def content(self) -> bytes:
        """All of it; raises OSError."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return await asyncio.to_thread(self._read, self._file)

    def _flush(self, file: IO[bytes]) -> None:
        for part in self._parts:
            file.write(part)
        self._forget()

    def _forget(self) -> None:
        self._parts.clear()
        self._room.used -= self._pending
        self._pending = 0

    def _read(self, file: IO[bytes]) -> bytes:
        self._flush(file)
        file.seek(0)
        content = file.read()
        if len(content) != self.size:
            raise OSError("the spool file is not as long as what was written to it")
        return content

    def close(self) -> None:
        """Forget the octets; the file goes with them."""
        self._forget()
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # what it still wanted to write is not wanted
                file.close()
