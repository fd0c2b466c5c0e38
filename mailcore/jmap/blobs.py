"""What a blob id stands for (RFC 8620 §6): octets of a message, of one of its parts, or of an upload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mailcore import db, mime
from mailcore.db import sql
from mailcore.errors import Code, MailError
from mailcore.jmap import limits, queries
from mailcore.jmap.blob_ids import BlobId, parse_blob_id
from mailcore.jmap.errors import SetError, limit_problem
from mailcore.mime.decode import ENCODINGS, decode_range
from mailcore.store import fetch, uploads
from mailcore.store.uploads import Allowance

# Decoding more than this leaves the event loop.
INLINE_OCTETS = 300_000

KEEP = sql("""
    INSERT INTO blob (hash, size, data) VALUES (%b::bytea, %s::bigint, %b::bytea)
    ON CONFLICT (hash) DO UPDATE SET touched_at = now()""")
SIZE = sql("SELECT size FROM blob WHERE hash = %s::bytea")
SLICE = sql("SELECT substring(data FROM %s::int + 1 FOR %s::int) FROM blob WHERE hash = %s::bytea")


@dataclass(frozen=True, slots=True)
class Located:
    """Where the octets of a blob lie: `length` from `start` of a message or an upload, encoded as a part may be."""

    account_id: int
    id: BlobId
    start: int
    length: int
    encoding: str = ""
    type: str = "application/octet-stream"

    @property
    def is_encoded(self) -> bool:
        return self.encoding in ENCODINGS


async def keep(account_id: int, digest: bytes, octets: bytes) -> None:
    """Store an upload; what no message uses within a day may be swept, and sooner when an account uploads too much.

    Raises Problem `limit` when it uploads too much within an hour.
    """
    allowance = Allowance(limits.MAX_UNUSED_UPLOADS, limits.MAX_UNUSED_OCTETS)
    try:
        async with db.transaction() as tx:
            await uploads.reserve(tx, account_id, digest, len(octets), allowance)
    except MailError as error:
        if error.code is not Code.OVER_QUOTA:
            raise
        raise limit_problem("maxUnusedUploads", error.text, 429) from None
    # On its own, because blobs are locked in order of their hash.
    async with db.transaction() as tx:
        await tx.execute(KEEP, (digest, len(octets), octets))


async def locate(account_id: int, text: str) -> Located:
    """A blob of the account. Raises MailError NOT_FOUND for what is missing and for what is somebody else's."""
    blob = parse_blob_id(account_id, text)
    if blob is None:
        raise _missing()
    async with db.read() as tx:
        if blob.upload is not None:
            row = await tx.one(SIZE, (blob.upload,))
            if row is None:
                raise _missing()
            return Located(account_id, blob, 0, row[0])
        if blob.email_id not in await queries.presences(tx, account_id, [blob.email_id]):
            raise _missing()
        ((size, parts),) = await fetch.messages(tx, account_id, [blob.email_id], ("size", "parts"))
    if blob.part_id is None:
        return Located(account_id, blob, 0, size, type="message/rfc822")
    for part in mime.unpack_parts(bytes(parts)):
        if part.id == blob.part_id and part.type != "multipart":
            length = part.body_end - part.body_start
            return Located(account_id, blob, part.body_start, length, part.encoding, f"{part.type}/{part.subtype}")
    raise _missing()


async def read(blob: Located, start: int, length: int) -> bytes:
    """`length` octets from `start` of where the blob lies, still encoded. Raises MailError NOT_FOUND."""
    if length <= 0:
        return b""
    async with db.read() as tx:
        if blob.id.upload is None:
            return await fetch.raw(tx, blob.account_id, blob.id.email_id, blob.start + start, length)
        row = await tx.one(SLICE, (start, length, blob.id.upload))
    if row is None:
        raise _missing()
    return bytes(row[0])


async def whole(blob: Located) -> bytes:
    """All octets, decoded."""
    octets = await read(blob, 0, blob.length)
    if not blob.is_encoded:
        return octets
    if len(octets) > INLINE_OCTETS:
        return await asyncio.to_thread(decode_range, octets, 0, len(octets), blob.encoding, len(octets))
    return decode_range(octets, 0, len(octets), blob.encoding, len(octets))


async def load_all(account_id: int, blob_ids: Iterable[str]) -> dict[str, bytes]:
    """The octets of blobs by id; those that are not the account's are left out. Raises SetError tooLarge, MailError."""
    found: dict[str, bytes] = {}
    total = 0
    for text in blob_ids:
        try:
            blob = await locate(account_id, text)
            # Encoded it is a third larger than what counts.
            if blob.length > 2 * limits.MAX_ATTACHMENTS:
                raise _too_large()
            found[text] = await whole(blob)
        except MailError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            continue
        total += len(found[text])
        if total > limits.MAX_ATTACHMENTS:
            raise _too_large()
    return found


def _missing() -> MailError:
    return MailError(Code.NOT_FOUND, "there is no such blob")


def _too_large() -> SetError:
    return SetError("tooLarge", f"attachments have {limits.MAX_ATTACHMENTS} octets at most in all")
