"""COMPRESS: everything after it is deflated, both ways (RFC 4978)."""

from __future__ import annotations

from typing import cast

from mailcore.imap.errors import no
from mailcore.imap.registry import LOGGED_IN, command
from mailcore.imap.session import Session
from mailcore.wire.imap import response
from mailcore.wire.imap.commands import Command, WordArgs


@command("COMPRESS", state=LOGGED_IN)
async def compress(session: Session, command: Command) -> None:
    """Start DEFLATE right after the tagged OK; once. TLS never compresses here, so no other layer does."""
    if session.connection.compression is not None:
        raise no("DEFLATE is active already", "COMPRESSIONACTIVE")
    if cast(WordArgs, command.args).word != "DEFLATE":
        raise no("Only DEFLATE is known here", "CANNOT")
    session.connection.start_compression(response.status_line(command.tag, "OK", "DEFLATE active"))
    return None
