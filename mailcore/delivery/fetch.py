"""The one guard for whatever is fetched or posted over HTTPS on a mail's behalf.

Names and addresses in mail are a stranger's: the host is resolved once, by our resolver; addresses that are not public
are refused (guard.py); the connection goes to the address that was checked, the certificate must be the name's. Octets
and seconds are limited, and redirects are not followed: whoever wants that asks again, and the next address is checked
as the first one was.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from mailcore import tls
from mailcore.conf import Conf
from mailcore.delivery import guard
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Undeliverable
from mailcore.errors import ConfigError

PORT = 443
SECONDS = 60.0
MAX_OCTETS = 64 * 1024
MAX_HEADER = 16 * 1024
MAX_ADDRESSES = 4
CHUNK = 16 * 1024
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer; `media_type` in lower case, without parameters."""

    status: int
    media_type: str
    body: bytes


class FetchError(Exception):
    """It cannot be had. `tls`: because of the certificate or the handshake."""

    def __init__(self, text: str, *, tls: bool = False) -> None:
        super().__init__(text)
        self.tls = tls


async def fetch(
    url: str,
    conf: Conf,
    resolver: Resolver,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (),
    max_octets: int = MAX_OCTETS,
    seconds: float = SECONDS,
) -> Fetched:
    """One HTTPS request and its answer, whatever its status. Raises FetchError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = PORT if parts.port is None else parts.port
    except ValueError:
        host, port = "", 0
    if not host or not port or parts.scheme != "https" or parts.username or not _VISIBLE.fullmatch(url):
        raise FetchError("not an address of the form https://host/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = h11.Request(
        method=method,
        target=target,
        headers=[
            ("Host", host if port == 443 else f"{host}:{port}"),
            ("User-Agent", "Mailstead"),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            *headers,
        ],
    )
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(host, port, conf, resolver)
            try:
                return await _exchange(reader, writer, request, body, max_octets)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise FetchError(f"{host} did not answer in time") from None
    except ConfigError as error:
        raise FetchError(str(error)) from error
    except ssl.SSLError as error:
        raise FetchError(f"{host}: {_tls_reason(error)}", tls=True) from error
    except (OSError, EOFError) as error:
        raise FetchError(f"{host}: {getattr(error, 'strerror', None) or 'the connection was closed'}") from error
    except h11.ProtocolError as error:
        raise FetchError(f"{host} does not speak HTTP: {error}") from error


async def _connect(
    host: str, port: int, conf: Conf, resolver: Resolver
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        addresses = await resolver.addresses(host)
    except Undeliverable as error:
        raise FetchError(error.outcome.text) from None
    if not addresses:
        raise FetchError(f"{host} has no address")
    public = [each for each in addresses if guard.may_reach(each, conf.out_allow)][:MAX_ADDRESSES]
    if not public:
        raise FetchError(f"{host} has no public address, only a private or reserved one")
    trouble: OSError | None = None
    for address in public:
        try:
            return await asyncio.open_connection(
                address, port, ssl=tls.trusting(conf.tls_ca), server_hostname=host, limit=CHUNK
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            trouble = error
    assert trouble is not None
    raise trouble


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, body: bytes, max_octets: int
) -> Fetched:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER)
    writer.write(http.send(request) or b"")
    if body:
        writer.write(http.send(h11.Data(data=body)) or b"")
    http.send(h11.EndOfMessage())
    with suppress(ConnectionError):  # it may answer before it has read all
        await writer.drain()
    response: h11.Response | None = None
    received = bytearray()
    left = 2 * max_octets + 4 * MAX_HEADER  # of everything, however it is cut into chunks and interim answers
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK)
            left -= len(data)
            if left < 0:
                raise FetchError(f"the answer is longer than {max_octets} octets")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > max_octets:
                raise FetchError(f"the answer is longer than {max_octets} octets")
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.ConnectionClosed):
            raise EOFError
    assert response is not None
    kinds = [value for name, value in response.headers if name == b"content-type"]
    media_type = kinds[0].decode("latin-1").partition(";")[0].strip().lower() if kinds else ""
    return Fetched(response.status_code, media_type, bytes(received))


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate cannot be trusted: {error.verify_message}"
    return f"TLS failed: {error.reason or error}"
