"""Email/changes (RFC 8621 §4.3)."""

from __future__ import annotations

from mailcore import db
from mailcore.errors import MailError
from mailcore.jmap import ids, queries
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.methods.common import cannot_calculate, max_changes, since_state
from mailcore.store import changes


@method("Email/changes", MAIL, "sinceState", "maxChanges")
async def email_changes(context: Context, args: Json) -> Json:
    """Emails that came, changed or went since a state."""
    since = since_state(args)
    async with db.read() as tx:
        try:
            found = await changes.emails(tx, context.account_id, since, max_changes(args))
        except MailError as error:
            raise cannot_calculate(error) from None
        # Marked \Deleted by an IMAP client: for JMAP it has gone, although an entry is there still.
        visible = await queries.presences(tx, context.account_id, [*found.created, *found.updated])
    hidden = [number for number in found.updated if number not in visible]
    return {
        "oldState": str(since),
        "newState": str(found.state),
        "hasMoreChanges": found.has_more,
        "created": [ids.email(n) for n in found.created if n in visible],
        "updated": [ids.email(n) for n in found.updated if n in visible],
        "destroyed": [ids.email(n) for n in [*found.destroyed, *hidden]],
    }
