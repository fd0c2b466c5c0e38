"""Memory that all sessions of a process share out among themselves."""

from __future__ import annotations

import asyncio
from collections import deque

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
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(octets)
            elif (octets, turn) in self._line:  # or it has been passed over
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
