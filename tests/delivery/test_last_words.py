"""What a server says before it hangs up in the middle of something is its answer."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.delivery.world import BOB, World

LONG = b"From: ann@example.test\r\n\r\n" + b"line of text\r\n" * 100_000


class Rude:
    """Takes `octets` of a message, says `words`, and hangs up; with `reset`, so that what we still write fails."""

    def __init__(self, words: bytes, octets: int, reset: bool) -> None:
        self.words, self.octets, self.reset = words, octets, reset
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"220 rude.example\r\n")
        while line := await reader.readline():
            if line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readexactly(self.octets)
                break
            writer.write(b"250 ok\r\n")
        writer.write(self.words)
        await writer.drain()
        if self.reset:
            handle = writer.get_extra_info("socket")
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("words", "state", "code"),
    [
        (b"552 5.3.4 too big for us\r\n", "failed", 552),
        (b"554-5.7.1 we do\r\n554 5.7.1 not want it\r\n", "failed", 554),
        (b"452 4.3.1 no room\r\n", "queued", 452),
        (b"250 2.0.0 thank you\r\n", "queued", None),
        (b"552 5.3.4 half an ans", "queued", None),
        (b"", "queued", None),
    ],
)
async def test_a_refusal_in_the_middle_of_the_message_counts_although_the_connection_died(
    here: World, words: bytes, state: str, code: int | None, reset: bool
) -> None:
    rude = Rude(words, 100_000, reset)
    server = await asyncio.start_server(rude.serve, "127.0.0.1", 0)
    here.names.host("far.example", (10, "mx.far.example", "127.0.0.1"))
    await here.start(smtp_out_port=server.sockets[0].getsockname()[1])
    await here.submit(raw=LONG)
    await here.deliver()
    server.close()
    row = (await here.rows())[BOB]
    assert (row["state"], row["last_code"], rude.connections) == (state, code, 1)
    if state == "failed":
        assert words[4:9].decode() in row["last_reply"]
        assert len(await here.inbox()) == 1
