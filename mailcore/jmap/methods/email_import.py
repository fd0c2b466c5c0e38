"""Email/import (RFC 8621 §4.8): messages that were uploaded, stored as they are."""

from __future__ import annotations

from mailcore import db
from mailcore.jmap import blobs, values
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import MethodError, SetError, invalid
from mailcore.jmap.limits import MAX_OBJECTS_IN_SET
from mailcore.jmap.methods.common import Outcome, check_state
from mailcore.jmap.methods.email_set import Place, known_mailboxes, place_of, store
from mailcore.store import changes

PROPERTIES = frozenset({"blobId", "mailboxIds", "keywords", "receivedAt"})


@method("Email/import", MAIL, "ifInState", "emails")
async def email_import(context: Context, args: Json) -> Json:
    """Store blobs as emails, octet for octet."""
    given = values.objects(args, "emails")
    if len(given) > MAX_OBJECTS_IN_SET:
        raise MethodError("requestTooLarge", f"at most {MAX_OBJECTS_IN_SET} objects at a time")
    outcome = Outcome()
    async with db.read() as tx:
        old_state = str(await changes.state(tx, context.account_id))
        known = await known_mailboxes(tx, context.account_id)
    check_state(args, old_state)
    for creation_id, item in given.items():
        async with context.services.large:
            # One after the other: they may be large, and all of them need not fit into memory.
            try:
                place, raw = await _message(context, item, known)
            except SetError as error:
                outcome.not_created[creation_id] = error.body
            else:
                await store(context, {creation_id: (place, raw)}, outcome)
    context.wrote()
    async with db.read() as tx:
        new_state = await context.state(tx)
    return {
        "oldState": old_state,
        "newState": new_state,
        "created": outcome.created or None,
        "notCreated": outcome.not_created or None,
    }


async def _message(context: Context, item: Json, known: frozenset[int]) -> tuple[Place, bytes]:
    for name in item:
        if name not in PROPERTIES:
            raise invalid(f"{name[:100]} cannot be set", name[:100])
    place = place_of(context, item, known)
    blob_id = item.get("blobId")
    if not isinstance(blob_id, str):
        raise invalid("blobId is missing", "blobId")
    raw = (await blobs.load_all(context.account_id, [blob_id])).get(blob_id)
    if raw is None:
        raise SetError("blobNotFound", "the blob is not there any more", notFound=[blob_id[:255]])
    if not raw.strip():
        raise SetError("invalidEmail", "there is nothing in it")
    if len(raw) > context.services.message_size:
        raise SetError("tooLarge", f"a message has {context.services.message_size} octets at most")
    return place, raw
