"""Message literals on their way in: small ones in memory, large ones in a file until they are complete."""

from __future__ import annotations

import tempfile
from typing import IO


class Upload:
    """The streamed literals of one APPEND, by their index in the command."""

    __slots__ = ("_limit", "_octets", "_parts")

    def __init__(self, spool: int) -> None:
        self._limit = spool
        self._octets = 0
        self._parts: list[IO[bytes]] = []

    def begin(self) -> None:
        """A literal starts. Its octets follow with `add`; all literals together have `spool` octets of memory."""
        room = max(1, self._limit - self._octets)  # 0 would be no limit at all
        self._parts.append(tempfile.SpooledTemporaryFile(room))  # noqa: SIM115 - closed by take() or close()

    def add(self, data: bytes) -> None:
        """More octets of the literal that began last. Raises OSError when the disk is full."""
        self._parts[-1].write(data)
        self._octets += len(data)

    def take(self, index: int) -> bytes:
        """The whole literal, once."""
        part = self._parts[index]
        part.seek(0)
        data = part.read()
        part.close()
        return data

    def close(self) -> None:
        """Forget everything."""
        for part in self._parts:
            part.close()
        self._parts.clear()
