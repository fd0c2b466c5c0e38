"""Message literals on their way in: small ones in memory, large ones in a file until they are complete."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from typing import IO

from mailcore.errors import Code, MailError


class Budget:
    """Octets of complete messages that the process may hold at a time; whoever wants more waits in line."""

    def __init__(self, octets: int, *, patience: float = 30.0) -> None:
        self._free = octets
        self._total = octets
        self._patience = patience
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, octets: int) -> int:
        """Wait for `octets`; returns what to give back. Raises MailError(UNAVAILABLE) when the wait is too long."""
        octets = min(octets, self._total)
        if not self._line and octets <= self._free:
            self._free -= octets
            return octets
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((octets, turn))
        try:
            await asyncio.wait_for(turn, self._patience)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(octets)
            else:
                self._line.remove((octets, turn))
                self._serve()
            if isinstance(error, TimeoutError):
                raise MailError(Code.UNAVAILABLE, "too many large messages are coming in, try again later") from None
            raise
        return octets

    def release(self, octets: int) -> None:
        """Give back what `acquire` returned."""
        self._free += octets
        self._serve()

    def _serve(self) -> None:
        while self._line and self._line[0][0] <= self._free:
            octets, turn = self._line.popleft()
            if not turn.done():
                self._free -= octets
                turn.set_result(None)


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
